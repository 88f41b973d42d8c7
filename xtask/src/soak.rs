//! `cargo xtask soak`: the module's tests by random operations, for long, on each kernel.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::guest::{self, Guest, Job, Options, Outcome};
use crate::kernel::Kernel;
use crate::series::Series;
use crate::workspace::Workspace;
use crate::{host, module, selftests};

/// What `cargo xtask soak` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// How many operations on each kernel
    #[arg(long, default_value_t = 1_000_000, value_name = "NUMBER")]
    operations: u64,
    /// Make the choices of an earlier run, which printed this
    #[arg(long, value_name = "NUMBER")]
    seed: Option<u64>,
    /// Give up on a program after this many seconds
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
}

/// The programs, and how many of the operations each does: a chase takes longer.
const PROGRAMS: [(&str, u64); 2] = [("million", 1), ("chase", 20)];

/// Runs the task; the exit status is 0 if nothing failed.
pub fn main(args: Args) -> Result<u8> {
    let stays_here = args.options.stays_here();
    let all = match args.options.kernel {
        Some(series) => vec![series],
        None if stays_here => vec![Series::default()],
        None => Series::TESTED.to_vec(),
    };
    let mut needs = vec![host::GUEST, host::SELFTESTS];
    needs.extend(all.iter().map(|series| series.properties().release.needs()));
    host::provide(&needs)?;
    let mut summary = Vec::new();
    let mut failed = false;
    for series in all {
        let kernel = Kernel::provide(&Workspace::find()?, series)?;
        let programs = selftests::build(&Workspace::find()?, &kernel)?;
        for (name, share) in PROGRAMS {
            let linux = format!("Linux {}: {name}", series.properties().name);
            println!("\n== {linux}");
            let path = programs.iter().find(|path| path.ends_with(name));
            let mut words: Vec<_> = path.iter().map(|path| path.display().to_string()).collect();
            words.extend(["--operations".to_owned(), (args.operations / share).to_string()]);
            if let Some(seed) = args.seed {
                words.extend(["--seed".to_owned(), seed.to_string()]);
            }
            let job = Job { words, directory: Workspace::find()?.target };
            let start = Instant::now();
            let mut text = Vec::new();
            let outcome = run(&args, series, stays_here, &job, &mut text)?;
            let text = String::from_utf8_lossy(&text);
            // What it says of itself; without that, it did not come to its end.
            let said = text.lines().rfind(|line| line.starts_with("# ")).unwrap_or("# nothing");
            let well = match outcome.status() {
                Ok(0) => "passed".to_owned(),
                Ok(status) => format!("FAILED, exit status {status}"),
                Err(error) => format!("FAILED: {error:#}"),
            };
            failed |= well != "passed";
            let seconds = start.elapsed().as_secs();
            summary.push(format!("{linux}: {well} ({seconds} s): {}", &said[2..]));
        }
    }
    println!();
    for line in summary {
        println!("{line}");
    }
    Ok(u8::from(failed))
}

fn run(
    args: &Args,
    series: Series,
    stays_here: bool,
    job: &Job,
    text: &mut Vec<u8>,
) -> Result<Outcome> {
    let mut output = |piece: &[u8]| text.extend_from_slice(piece);
    if stays_here {
        return job.run_here(&mut output);
    }
    let workspace = Workspace::find()?;
    let kernel = Kernel::provide(&workspace, series)?;
    let insert = vec![module::build(&workspace, &kernel)?.main];
    let guest = Guest {
        workspace,
        kernel,
        insert,
        rdma: false,
        memory: args.options.memory(guest::MEMORY),
        timeout: Duration::from_secs(args.timeout),
    };
    guest.run(job, &mut output)
}
