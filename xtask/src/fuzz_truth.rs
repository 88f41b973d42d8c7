//! `cargo xtask fuzz-truth`: random programs of memory operations against the cache, every lookup
//! judged, for as long as it is told.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::{self, Options};
use crate::program::Program;
use crate::series::Series;
use crate::workspace::Workspace;

/// What `cargo xtask fuzz-truth` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// How many operations on each kernel; every kernel has its turn unless one is given
    #[arg(long, default_value_t = 1_000_000, value_name = "N")]
    operations: u64,
    /// What the first program is made from; by the clock, if not given
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Run this program, which failed once, and nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["operations", "seed"])]
    replay: Option<PathBuf>,
    /// Give up after this many seconds on a kernel
    #[arg(long, default_value_t = 7200, value_name = "SECONDS")]
    timeout: u64,
}

/// Runs the task; the exit status is 0 if no kernel's was bad.
pub fn main(args: Args) -> Result<u8> {
    let all = match args.options.kernel {
        Some(series) => vec![series],
        // One that failed on one kernel is run on one kernel.
        None if args.options.stays_here() || args.replay.is_some() => vec![Series::default()],
        None => Series::TESTED.to_vec(),
    };
    let mut worst = 0;
    for series in all {
        worst = worst.max(run(&args, series)?);
    }
    Ok(worst)
}

fn run(args: &Args, series: Series) -> Result<u8> {
    let workspace = Workspace::find()?;
    let directory = workspace.target.join("fuzz-truth");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let name = if args.options.stays_here() { "here" } else { series.properties().name };
    let totals = directory.join(format!("{name}.json"));
    let failed = directory.join(format!("{name}.program"));
    for old in [&totals, &failed] {
        // It may not be there.
        let _ = fs::remove_file(old);
    }

    let mut arguments = Vec::new();
    let mut add = |name: &str, value: &str| {
        arguments.extend([name.to_owned(), value.to_owned()]);
    };
    if let Some(replay) = &args.replay {
        // The guest sees what lies in the target directory, wherever this is.
        let copy = directory.join("replay.program");
        fs::copy(replay, &copy).with_context(|| format!("cannot copy {}", replay.display()))?;
        add("--replay", text(&copy)?);
    } else {
        println!("\n== Linux {name}: {} operations", args.operations);
        add("--operations", &args.operations.to_string());
        add("--json", text(&totals)?);
        add("--failed", text(&failed)?);
    }
    if let Some(seed) = args.seed {
        add("--seed", &seed.to_string());
    }
    let program = Program {
        package: "regcache-guest-tests",
        features: "guest",
        name: "fuzz-truth",
        arguments,
        rdma: true,
        memory: guest::MEMORY,
        needs: &[],
    };
    let options = Options { kernel: Some(series), ..args.options.clone() };
    let status = program.run(workspace, &options, Duration::from_secs(args.timeout))?;
    if args.replay.is_none() {
        println!("totals: {}", totals.display());
    }
    if failed.exists() {
        let failed = failed.display();
        println!("again: cargo xtask fuzz-truth --kernel {name} --replay {failed}");
    }
    Ok(status)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))
}
