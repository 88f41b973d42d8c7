//! The truth machine as a program; `cargo xtask fuzz-truth` runs it in a guest.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use regcache_guest_tests::fuzz::driver::{self, Outcome, Plan, Teller};
use regcache_guest_tests::truth::Knob;

const USAGE: &str = "\
usage: fuzz-truth [OPTION VALUE]...
  --operations N    how many operations (100000)
  --program N       how many of them make one program (10000)
  --workers N       how many programs run at a time (2)
  --seed N          of the first program (by the clock)
  --teller WHO      kernel, program or nobody (the kernel, if it has the module)
  --replay FILE     run this program and nothing else
  --json FILE       where the totals go
  --failed FILE     where a program that failed goes
  --shrink SECONDS  how long it is made smaller (600)";

fn main() -> ExitCode {
    match run() {
        Ok(good) => ExitCode::from(u8::from(!good)),
        Err(error) => {
            eprintln!("{error}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

struct Options {
    plan: Plan,
    replay: Option<PathBuf>,
    json: Option<PathBuf>,
}

fn options() -> Result<Options, String> {
    let has_module = Path::new("/dev/ummunotify").exists();
    let has_rdma = fs::read_dir("/sys/class/infiniband").is_ok_and(|mut all| all.next().is_some());
    let mut options = Options {
        plan: Plan {
            seed: clock(),
            operations: 100_000,
            program: 10_000,
            workers: 2,
            teller: if has_module { Teller::Kernel } else { Teller::Program },
            verbs: has_rdma && cfg!(feature = "guest"),
            failed: None,
            shrink_for: Duration::from_secs(600),
        },
        replay: None,
        json: None,
    };
    let mut arguments = env::args().skip(1);
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--operations" => options.plan.operations = number()?,
            "--program" => options.plan.program = number()? as usize,
            "--workers" => options.plan.workers = number()?.max(1) as usize,
            "--seed" => options.plan.seed = number()?,
            "--teller" => options.plan.teller = value.parse()?,
            "--replay" => options.replay = Some(value.into()),
            "--json" => options.json = Some(value.into()),
            "--failed" => options.plan.failed = Some(value.into()),
            "--shrink" => options.plan.shrink_for = Duration::from_secs(number()?),
            _ => return Err(format!("{name} is no option")),
        }
    }
    Ok(options)
}

fn clock() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0, |now| now.as_nanos() as u64)
}

/// Whether all was good.
fn run() -> Result<bool, String> {
    let Options { plan, replay, json } = options()?;
    driver::lift_limits();
    // Huge pages stay away from their pool while they are pinned; equal pages are looked for.
    let _knobs = [
        Knob::set("/proc/sys/vm/nr_overcommit_hugepages", "64"),
        Knob::set("/sys/kernel/mm/ksm/sleep_millisecs", "50"),
        Knob::set("/sys/kernel/mm/ksm/run", "1"),
    ];
    if let Some(path) = replay {
        let explain = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = fs::read_to_string(&path).map_err(|error| explain(&error))?;
        let program = text.parse().map_err(|error: String| explain(&error))?;
        return Ok(match driver::replay(&program, plan.teller) {
            Ok(totals) => {
                print!("it did not fail\n{}", totals.json());
                true
            }
            Err(message) => {
                println!("it failed: {message}");
                false
            }
        });
    }
    println!("seed {}", plan.seed);
    let outcome = driver::run(&plan);
    if let Some(path) = json {
        let text = to_json(&outcome, plan.seed);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print!("{}", outcome.totals.json());
    match &outcome.failure {
        None => {
            let operations = outcome.totals.operations;
            println!("{operations} operations: 0 stale hits, 0 leaks, 0 hangs");
        }
        Some(failure) => {
            println!("FAILED: {}", failure.message);
            println!("the program, for --replay:\n\n{}", failure.program);
        }
    }
    Ok(outcome.failure.is_none())
}

fn to_json(outcome: &Outcome, seed: u64) -> String {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let failure =
        outcome.failure.as_ref().map_or("null".to_owned(), |f| format!("{:?}", f.message));
    format!(
        "{{\n  \"kernel\": {:?},\n  \"seed\": {seed},\n  \"programs\": {},\n  \"seconds\": {:.1},\n\
         {}  \"failure\": {failure}\n}}\n",
        kernel.trim(),
        outcome.programs,
        outcome.elapsed.as_secs_f64(),
        outcome.totals.json(),
    )
}
