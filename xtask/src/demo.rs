//! `cargo xtask demo`: corrupts transfers on purpose, with and without
//! regcache, and draws what came of it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::guest::Options;
use crate::host::{self, Need, resources};
use crate::kernel::Kernel;
use crate::program::Program;
use crate::series::Series;
use crate::workspace::Workspace;
use crate::{mpi, picture, support};

/// What `cargo xtask demo` is told.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    options: Options,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    timeout: u64,
    /// Also put the picture where the README shows it
    #[arg(long)]
    save_picture: bool,
    /// Write how it ended to the support table, docs/kernels.md
    #[arg(long, conflicts_with = "redraw")]
    record: bool,
    /// Only draw again what the last run found
    #[arg(long)]
    redraw: bool,
}

/// The guest's memory, in MiB: machines of 2 GiB can run it.
pub const MEMORY: u32 = 1024;

/// What everything that is built and downloaded takes, in MiB.
pub const DISK: u64 = 2000;

#[derive(clap::Subcommand)]
enum Part {
    /// Corrupt MPI's messages on purpose, stock and with the plug-ins, and draw the result
    Mpi(mpi::Args),
}

/// Runs the task and returns the demonstration's exit status: 0 if regcache
/// delivered every byte and the unaided cache did not.
pub fn main(args: Args) -> Result<u8> {
    if let Some(Part::Mpi(args)) = args.part {
        return mpi::main(args);
    }
    let workspace = Workspace::find()?;
    let root = workspace.root.clone();
    let directory = workspace.target.join("demo");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let summary = directory.join("summary.json");
    let save = args.save_picture;
    let status = if args.redraw { 0 } else { run(workspace, args, &summary)? };
    if !summary.exists() {
        eprintln!("xtask: no picture, since the demonstration wrote no {}", summary.display());
        return Ok(status.max(1));
    }
    let picture = directory.join("demo.svg");
    let text = fs::read_to_string(&summary)
        .with_context(|| format!("cannot read {}", summary.display()))?;
    let drawn = picture::draw(&text).with_context(|| format!("in {}", summary.display()))?;
    fs::write(&picture, drawn).with_context(|| format!("cannot write {}", picture.display()))?;
    println!("\npicture: {}\nnumbers: {}", picture.display(), summary.display());
    if save {
        let saved = root.join("docs/demo.svg");
        fs::create_dir_all(root.join("docs"))?;
        fs::copy(&picture, &saved).with_context(|| format!("cannot write {}", saved.display()))?;
        println!("saved:   {}", saved.display());
    }
    Ok(status)
}

/// What this machine must have.
pub fn needs() -> Vec<&'static [Need]> {
    vec![host::WORKSPACE, host::GUEST, Series::default().properties().release.needs()]
}

/// Builds the demonstration and runs it where there is a device.
fn run(workspace: Workspace, args: Args, summary: &Path) -> Result<u8> {
    if summary.exists() {
        // What an earlier run found must not pass for this one's.
        fs::remove_file(summary).with_context(|| format!("cannot remove {}", summary.display()))?;
    }
    resources::require_disk(&workspace.target, DISK)?;
    let program = Program {
        package: "examples",
        features: "rdma",
        name: "demo",
        arguments: vec!["--out".to_owned(), summary.to_string_lossy().into_owned()],
        rdma: true,
        memory: MEMORY,
        needs: &[],
    };
    let timeout = Duration::from_secs(args.timeout);
    let status = program.run(workspace.clone(), &args.options, timeout)?;
    if args.record {
        let series = args.options.kernel.unwrap_or_default();
        let release = Kernel::provide(&workspace, series)?.release;
        support::write_demonstration(&workspace, series, &release, status == 0)?;
    }
    Ok(status)
}
