//! `cargo xtask debug`: the device's tests on a kernel that checks itself, a
//! long stress, and failures of every allocation.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::debug_kernel::DebugKernel;
use crate::guest::{Guest, Job, quote};
use crate::suite::{self, Program, STRESS};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{debug_kernel, host, module};

/// What `cargo xtask debug` is told.
#[derive(clap::Args)]
pub struct Args {
    /// How long the stress takes, and then a fifth of that with allocations that
    /// fail at random; 0 is none
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The guest's memory
    #[arg(long, default_value_t = debug_kernel::MEMORY, value_name = "MIB")]
    memory: u32,
    /// On a real-time kernel
    #[arg(long)]
    rt: bool,
    /// Only programs whose name contains this
    filter: Option<String>,
}

/// All that the tests may take, without the stress.
const SECONDS: u64 = 3 * 3600;

const LEAKS: &str = include_str!("../guest/leaks.sh");

/// The kernel looks for no leaks by itself: [`LEAKS`] does, and judges them.
const NO_SCANS: &str = "echo scan=off >/sys/kernel/debug/kmemleak\n";

/// Runs the task; the exit status is 0 if nothing failed and the kernel
/// complained of nothing.
pub fn main(args: Args) -> Result<u8> {
    host::provide(&[host::SELFTESTS])?;
    host::provide(debug_kernel::NEEDS)?;
    let workspace = Workspace::find()?;
    let which = if args.rt { DebugKernel::RealTime } else { DebugKernel::Plain };
    let kernel = debug_kernel::provide(&workspace, which)?;
    let modules = module::build(&workspace, &kernel)?;
    let slowdown = u64::from(kernel.slowdown);
    let stress = args.minutes * 60;

    let mut programs = Vec::new();
    for mut program in suite::c_programs(&workspace, &kernel, "")? {
        program.seconds *= slowdown;
        if program.name != STRESS {
            programs.push(program);
        } else if stress > 0 {
            let long = with_settings(&program, &[("CHAOS_SECONDS", stress)])?;
            let failing = [("CHAOS_SECONDS", stress / 5), ("CHAOS_INJECT", 1)];
            let failing = with_settings(&program, &failing)?;
            programs.push(named(long, stress, &format!("{STRESS} for {} minutes", args.minutes)));
            programs.push(named(failing, stress, &format!("{STRESS} with failures")));
        }
    }
    let filter = args.filter.as_deref().unwrap_or_default();
    programs.retain(|program| program.name.contains(filter));
    let leaks = kernel.directory.join("leaks.sh");
    write(&leaks, LEAKS)?;
    let arguments = vec![text(&leaks)?.to_owned()];
    let shell = Program::at("/bin/sh".into());
    let seconds = shell.seconds * slowdown;
    programs.push(Program { name: "leaks".to_owned(), arguments, seconds, ..shell });

    let script = kernel.directory.join("debug.sh");
    let load = format!("export UMMUNOTIFY_KO={}\n", quote(text(&modules.main)?)?);
    write(&script, &(load + NO_SCANS + &suite::script(&programs)?))?;
    let job = Job {
        words: vec!["sh".to_owned(), text(&script)?.to_owned()],
        directory: workspace.root.clone(),
    };
    let guest = Guest {
        workspace,
        kernel,
        insert: [modules.main].into_iter().chain(modules.helpers).collect(),
        rdma: false,
        memory: args.memory,
        timeout: Duration::from_secs(SECONDS + 2 * stress),
    };
    let mut tally = Tally::default();
    let outcome = guest.run(&job, &mut |piece: &[u8]| tally.feed(piece))?;
    tally.interrupt();
    for program in &programs {
        tally.must_have_begun(&program.name);
    }
    tally.check("kernel log", outcome.fault.is_none());
    println!();
    if let Some(fault) = outcome.fault {
        println!("{fault}\n");
    }
    for failure in tally.failures() {
        println!("FAILED: {failure}");
    }
    println!("{tally}");
    Ok(if tally.is_good() { 0 } else { 1 })
}

/// The program with variables set for it.
fn with_settings(program: &Program, settings: &[(&str, u64)]) -> Result<Program> {
    let mut arguments: Vec<_> =
        settings.iter().map(|(name, value)| format!("{name}={value}")).collect();
    arguments.push(text(&program.path)?.to_owned());
    Ok(Program { path: "/usr/bin/env".into(), arguments, ..program.clone() })
}

/// The program under another name, and with more time.
fn named(program: Program, seconds: u64, name: &str) -> Program {
    Program { name: name.to_owned(), seconds: program.seconds + seconds, ..program }
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
