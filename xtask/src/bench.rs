//! `cargo xtask bench`: measures, and draws what came of it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::Options;
use crate::program::Program;
use crate::ratios;
use crate::workspace::Workspace;

/// What `cargo xtask bench` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// What is measured
    #[arg(value_enum)]
    what: What,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// What the kernel module costs
    Kernel,
}

/// Runs the task; the exit status is that of the measuring program.
pub fn main(args: Args) -> Result<u8> {
    let What::Kernel = args.what;
    let workspace = Workspace::find()?;
    let directory = workspace.target.join("bench");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let results = directory.join("kernel.json");
    let program = Program {
        package: "regcache-benches",
        features: "",
        name: "kernel",
        arguments: vec![results.to_string_lossy().into_owned()],
        rdma: false,
    };
    let status = program.run(workspace, &args.options, Duration::from_secs(args.timeout))?;
    if status == 0 {
        let text = fs::read_to_string(&results)
            .with_context(|| format!("cannot read {}", results.display()))?;
        let picture = directory.join("kernel.svg");
        let drawn = ratios::draw("What the kernel module costs", &text)?;
        fs::write(&picture, drawn)
            .with_context(|| format!("cannot write {}", picture.display()))?;
        println!("picture: {}\nnumbers: {}", picture.display(), results.display());
    }
    Ok(status)
}
