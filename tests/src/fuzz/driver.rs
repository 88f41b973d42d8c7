//! Runs programs, each in a process of its own, until enough operations were done or one fails.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fs, panic};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, pipe};

use super::generate::{Abilities, Random, generate};
use super::program::Program;
use super::run::Prepared;
pub use super::run::Teller;
use super::shrink::shrink;
pub use super::totals::Totals;
use super::watchdog::{Progress, watch};

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The first program is made from this, and the others from numbers that follow from it.
    pub seed: u64,
    /// How many operations all programs together have.
    pub operations: u64,
    /// How many one of them has.
    pub program: usize,
    /// How many programs run at a time.
    pub workers: usize,
    /// Who tells the caches.
    pub teller: Teller,
    /// Whether an RDMA device pins, too.
    pub verbs: bool,
    /// Where to write a program that failed.
    pub failed: Option<PathBuf>,
    /// How long a program that fails is shrunk.
    pub shrink_for: Duration,
}

/// How all programs went.
#[derive(Debug)]
pub struct Outcome {
    /// What they did.
    pub totals: Totals,
    /// How many there were.
    pub programs: u64,
    /// How long it took.
    pub elapsed: Duration,
    /// What was wrong with the last one.
    pub failure: Option<Failure>,
}

/// A program that failed.
#[derive(Debug)]
pub struct Failure {
    /// What was wrong, in the smallest program.
    pub message: String,
    /// The smallest program that was found to fail.
    pub program: Program,
}

/// Nothing happens in a program for as long as this: it hangs.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same for a program that is made smaller and is known to hang.
const SHORT_PATIENCE: Duration = Duration::from_secs(8);

/// Lets this process pin and lock as much as it may be allowed to.
pub fn lift_limits() {
    // As root to the full, or else to the hard limit.
    let hard = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(RLIM_INFINITY, |(_, hard)| hard);
    if setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY).is_err() {
        let _ = setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard);
    }
}

/// Runs programs until the plan is fulfilled, or one has failed. This process must have one thread.
pub fn run(plan: &Plan) -> Outcome {
    let start = Instant::now();
    let mut outcome =
        Outcome { totals: Totals::default(), programs: 0, elapsed: Duration::ZERO, failure: None };
    let (mut seeds, mut seed) = (Random(plan.seed), plan.seed);
    let (mut begun, mut running) = (0, Vec::new());
    loop {
        while begun < plan.operations && running.len() < plan.workers {
            let left = usize::try_from(plan.operations - begun).unwrap_or(usize::MAX);
            // A program has at least one operation for each of its threads.
            let operations = plan.program.min(left).max(10);
            let program = generate(seed, operations, Abilities { verbs: plan.verbs });
            begun += program.operations() as u64;
            running.push(Running::start(program, plan.teller, PATIENCE));
            seed = seeds.number();
        }
        let Some((program, result)) = next(&mut running) else {
            return outcome;
        };
        match result {
            Ok(done) => outcome.totals.add(&done),
            Err(bad) => {
                println!("the program of seed {} failed: {}", program.seed, bad.message);
                // The others were given up: what fails may depend on nothing else.
                drop(running);
                outcome.failure = Some(shrunk(program, bad, plan));
                return outcome;
            }
        }
        outcome.programs += 1;
        outcome.elapsed = start.elapsed();
        let totals = &outcome.totals;
        println!(
            "{} operations, {:.0}/s; {} lookups judged, {} hits, {} stale caught, 0 stale hits \
             (program {}, seed {})",
            totals.operations,
            totals.operations as f64 / outcome.elapsed.as_secs_f64(),
            totals.judged,
            totals.hits,
            totals.stale_caught,
            outcome.programs,
            program.seed,
        );
    }
}

/// Runs one program, a few times if it has several threads, and says how it failed if it did.
pub fn replay(program: &Program, teller: Teller) -> Result<Totals, String> {
    let mut last = Ok(Totals::default());
    for _ in 0..tries(program) {
        last = run_once(program, teller, PATIENCE).map_err(|bad| bad.message);
        if last.is_err() {
            break;
        }
    }
    last
}

/// Threads do not meet in the same way each time.
fn tries(program: &Program) -> usize {
    if program.lanes.len() > 1 { 3 } else { 1 }
}

/// The program, repeated in proportion to what it has lost: threads that do less meet less often.
fn in_rounds(program: &Program) -> Program {
    const OPERATIONS: usize = 4000;
    let rounds = match program.lanes.len() {
        0 | 1 => 1,
        _ => (OPERATIONS / program.operations().max(1)).clamp(1, 400),
    };
    Program { rounds, ..program.clone() }
}

/// A program's end, if it was bad.
#[derive(Debug)]
struct Bad {
    message: String,
    /// The operation that each lane was at.
    positions: Vec<usize>,
}

/// Makes the program smaller as long as it fails, and keeps its text.
fn shrunk(program: Program, bad: Bad, plan: &Plan) -> Failure {
    let keep = |program: &Program, message: &str| {
        if let Some(path) = &plan.failed {
            let text = format!("# {}\n{program}", message.replace('\n', " "));
            if let Err(error) = fs::write(path, text) {
                println!("cannot write {}: {error}", path.display());
            }
        }
    };
    keep(&program, &bad.message);
    let start = Instant::now();
    let hangs = bad.message.starts_with("HANG");
    let patience = if hangs { SHORT_PATIENCE } else { PATIENCE };
    let (mut message, mut runs) = (bad.message, 0);
    let mut fails = |candidate: &Program| {
        let candidate = &in_rounds(candidate);
        (0..tries(candidate)).any(|_| {
            if start.elapsed() > plan.shrink_for {
                return false;
            }
            runs += 1;
            match run_once(candidate, plan.teller, patience) {
                Ok(_) => false,
                Err(bad) => {
                    keep(candidate, &bad.message);
                    message = bad.message;
                    true
                }
            }
        })
    };
    // What comes after the failure had no part in it.
    let mut program = program;
    let mut short = program.clone();
    for (lane, position) in short.lanes.iter_mut().zip(&bad.positions) {
        lane.truncate(position + 1);
    }
    if fails(&short) {
        program = short;
    }
    let program = in_rounds(&shrink(program, &mut fails));
    println!("shrunk to {} operations by {runs} runs", program.operations());
    Failure { message, program }
}

/// Runs one program.
fn run_once(program: &Program, teller: Teller, patience: Duration) -> Result<Totals, Bad> {
    let mut running = vec![Running::start(program.clone(), teller, patience)];
    next(&mut running).expect("one runs").1
}

/// A program that runs in a forked child, which is killed when this is dropped.
struct Running {
    program: Program,
    child: Pid,
    reaped: bool,
    report: BufReader<File>,
    /// When it last reported.
    heard: Instant,
}

impl Running {
    fn start(program: Program, teller: Teller, patience: Duration) -> Running {
        let (read, write) = pipe().expect("pipe");
        // SAFETY: this process has one thread, as `run` says, so the child may do anything.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                drop(read);
                let report = File::from(write);
                let body = panic::AssertUnwindSafe(|| child(&program, teller, patience, &report));
                let good = panic::catch_unwind(body).is_ok();
                // SAFETY: _exit(2) runs no code of this process any more.
                unsafe { libc::_exit(if good { 0 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                let report = BufReader::new(File::from(read));
                Running { program, child, reaped: false, report, heard: Instant::now() }
            }
        }
    }

    /// Reads a line of its report; returns how it ended, if it did.
    fn hear(&mut self) -> Option<Result<Totals, Bad>> {
        let bad = |message: String| Some(Err(Bad { message, positions: Vec::new() }));
        self.heard = Instant::now();
        let mut line = String::new();
        if !matches!(self.report.read_line(&mut line), Ok(1..)) {
            let status = waitpid(self.child, None);
            self.reaped = true;
            return bad(format!("its process ended: {status:?}"));
        }
        match line.trim().split_once(' ') {
            None => None,
            Some(("done", totals)) => match Totals::from_line(totals) {
                Some(totals) => Some(Ok(totals)),
                None => bad(format!("{line:?} is not understood")),
            },
            Some((_, rest)) => {
                let (positions, message) = rest.split_once(' ').unwrap_or(("", rest));
                let positions = positions.split(',').filter_map(|n| n.parse().ok()).collect();
                Some(Err(Bad { message: message.to_owned(), positions }))
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.reaped {
            return;
        }
        // It may have ended long ago, or never will.
        let _ = kill(self.child, Signal::SIGKILL);
        let _ = waitpid(self.child, None);
    }
}

/// Waits until one of them ends; nothing if there is none.
fn next(running: &mut Vec<Running>) -> Option<(Program, Result<Totals, Bad>)> {
    loop {
        if running.is_empty() {
            return None;
        }
        let ready: Vec<bool> = {
            let fds = running.iter().map(|one| one.report.get_ref().as_fd());
            let mut waits: Vec<_> = fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
            // EINTR is no matter: then none is ready.
            let _ = poll(&mut waits, 1000_u16);
            waits.iter().map(|wait| wait.any() == Some(true)).collect()
        };
        for (number, ready) in ready.into_iter().enumerate() {
            let one = &mut running[number];
            let end = if ready || !one.report.buffer().is_empty() {
                one.hear()
            } else if one.heard.elapsed() > 2 * PATIENCE {
                let message = "HANG: not even its watchdog says anything".to_owned();
                Some(Err(Bad { message, positions: Vec::new() }))
            } else {
                None
            };
            if let Some(result) = end {
                let one = running.remove(number);
                return Some((one.program.clone(), result));
            }
        }
    }
}

/// The life of the child: it reports, line by line.
fn child(program: &Program, teller: Teller, patience: Duration, report: &File) {
    static SAID: Mutex<Option<String>> = Mutex::new(None);
    panic::set_hook(Box::new(|info| {
        let mut said = SAID.lock().unwrap();
        said.get_or_insert(info.to_string().replace('\n', " "));
    }));
    // One write(2) each: the lines of several threads do not mix.
    let say = |mut report: &File, line: String| {
        let _ = report.write_all((line.replace('\n', " ") + "\n").as_bytes());
    };
    let prepared = Prepared::new(program, teller);
    let progress = Progress::new(program.lanes.len());
    let (alive, hung) = (report.try_clone().expect("dup"), report.try_clone().expect("dup"));
    let watched = progress.clone();
    watch(
        progress.clone(),
        patience,
        move || say(&alive, "alive".to_owned()),
        move |what| {
            say(&hung, failed(&format!("HANG: {what}"), &watched));
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(3) }
        },
    );
    let run = panic::AssertUnwindSafe(|| prepared.run(&progress));
    let result = panic::catch_unwind(run).unwrap_or_else(|panic| Err(super::run::message(&*panic)));
    progress.end();
    match result {
        Ok(totals) => say(report, format!("done {}", totals.line())),
        Err(mut error) => {
            if let Some(said) = SAID.lock().unwrap().take() {
                error = format!("{error}; {said}");
            }
            say(report, failed(&error, &progress));
        }
    }
}

fn failed(message: &str, progress: &Progress) -> String {
    let positions: Vec<_> = progress.positions().iter().map(usize::to_string).collect();
    format!("failed {} {message}", positions.join(","))
}
