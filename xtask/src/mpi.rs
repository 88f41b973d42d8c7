//! `cargo xtask demo mpi`: runs MPI over RDMA while memory changes, stock and with the plug-ins,
//! and shows what arrived and what the cure costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::command::Run;
use crate::guest::{self, Guest, Job, Options};
use crate::kernel::Kernel;
use crate::link::End;
use crate::mpi_results::Results;
use crate::workspace::Workspace;
use crate::{host, module, mpi_picture, mpi_report, openib, plugins};

/// What `cargo xtask demo mpi` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// On how many machines the two ranks are; for 2, two guests are joined by a network
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=2))]
    hosts: u8,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 1500, value_name = "SECONDS")]
    timeout: u64,
    /// Also put the picture where the README shows it
    #[arg(long)]
    save_picture: bool,
    /// Only show and draw again what the last run found
    #[arg(long)]
    redraw: bool,
}

/// Runs the task. The exit status is 0 if every way of changing memory corrupted stock messages,
/// and none those of the plug-ins.
pub fn main(args: Args) -> Result<u8> {
    let workspace = Workspace::find()?;
    let name = if args.hosts == 1 { "mpi".to_owned() } else { format!("mpi-{}", args.hosts) };
    let directory = workspace.target.join("demo");
    let numbers = directory.join(format!("{name}.json"));
    let outputs = directory.join(&name);
    if !args.redraw {
        for stale in [&numbers, &outputs] {
            // What an earlier run found must not pass for this one's.
            remove(stale).with_context(|| format!("cannot remove {}", stale.display()))?;
        }
        fs::create_dir_all(&outputs)
            .with_context(|| format!("cannot create {}", outputs.display()))?;
        let status = run(&workspace, &args, &outputs)?;
        let mut results = Results::read(&outputs, args.hosts)?;
        if status != 0 {
            results.problems.push("not all runs came to their end".to_owned());
        }
        write(&numbers, &serde_json::to_string_pretty(&results)?)?;
    }
    let text = fs::read_to_string(&numbers)
        .with_context(|| format!("cannot read {}; run without --redraw", numbers.display()))?;
    let results: Results =
        serde_json::from_str(&text).with_context(|| format!("in {}", numbers.display()))?;
    let picture = directory.join(format!("{name}.svg"));
    write(&picture, &mpi_picture::draw(&results))?;
    println!("\n{}", mpi_report::table(&results));
    let verdict = mpi_report::verdict(&results);
    match &verdict {
        Ok(text) => println!("{text}"),
        Err(text) => println!("This run does not show what it should:\n{text}"),
    }
    println!("\npicture: {}\nnumbers: {}", picture.display(), numbers.display());
    println!("outputs: {}", outputs.display());
    if args.save_picture {
        let saved = workspace.root.join(format!("docs/{name}.svg"));
        fs::copy(&picture, &saved).with_context(|| format!("cannot write {}", saved.display()))?;
        println!("saved:   {}", saved.display());
    }
    Ok(u8::from(verdict.is_err()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn remove(path: &Path) -> std::io::Result<()> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    }
}

/// Builds everything and runs it where there is a device. What it found is in `outputs`.
fn run(workspace: &Workspace, args: &Args, outputs: &Path) -> Result<u8> {
    let stays_here = args.hosts == 1 && args.options.stays_here();
    host::provide(&[host::WORKSPACE, host::PLUGINS, host::MPI, host::OPENIB])?;
    for plugin in plugins::ALL {
        if let Some(reason) = plugins::unserved(workspace, plugin)? {
            bail!("this demonstration needs every plug-in, and of plugins/{plugin}, {reason}");
        }
    }
    if let Err(error) = openib::build(workspace) {
        eprintln!("xtask: without btl/openib, which cannot be built here: {error:#}");
    }
    let demonstration = Demonstration {
        scripts: workspace.root.join("examples/mpi"),
        outputs: outputs.to_path_buf(),
        programs: workspace.target.join("mpi"),
        plugins: workspace.target.join("plugins"),
    };
    demonstration.build(workspace)?;
    if stays_here {
        return demonstration.job(&[])?.run_here(&mut |_| ())?.status();
    }
    let series = args.options.kernel.unwrap_or_default();
    host::provide(&[host::GUEST, series.properties().release.needs()])?;
    let kernel = Kernel::provide(workspace, series)?;
    let modules = module::build(workspace, &kernel)?;
    let guest = Guest {
        workspace: workspace.clone(),
        kernel,
        insert: vec![modules.main],
        rdma: true,
        memory: args.options.memory(guest::MEMORY),
        timeout: Duration::from_secs(args.timeout),
    };
    if args.hosts == 2 {
        return demonstration.on_two(&guest);
    }
    eprintln!("xtask: booting a guest ...");
    guest.run(&demonstration.job(&[])?, &mut |_| ())?.status()
}

/// Where its parts are.
struct Demonstration {
    scripts: PathBuf,
    outputs: PathBuf,
    programs: PathBuf,
    plugins: PathBuf,
}

impl Demonstration {
    fn build(&self, workspace: &Workspace) -> Result<()> {
        let make = |directory: &str, out: &Path, more: &[String]| {
            let mut make = Command::new("make");
            make.arg("-s").arg("-C").arg(workspace.root.join(directory));
            make.arg(format!("OUT={}", out.display())).args(more).env_remove("MAKEFLAGS").run()
        };
        make("examples/mpi", &self.programs, &[])?;
        let library = workspace.target.join("ffi");
        make("regcache-ffi", &library, &[])?;
        let library = [format!("STATIC={}", library.join("libregcache.a").display())];
        let mut plugins = plugins::ALL.iter().map(|plugin| format!("plugins/{plugin}"));
        plugins.try_for_each(|plugin| make(&plugin, &self.plugins, &library))
    }

    /// What runs it, and on which hosts if on two.
    fn job(&self, hosts: &[String]) -> Result<Job> {
        let mut words = vec!["sh".to_owned()];
        for path in [&self.scripts.join("run.sh"), &self.outputs, &self.programs, &self.plugins] {
            let word = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
            words.push(word.to_owned());
        }
        words.extend_from_slice(hosts);
        Ok(Job { words, directory: self.scripts.clone() })
    }

    /// Runs all of it on two guests. Returns the worse exit status.
    fn on_two(&self, guest: &Guest) -> Result<u8> {
        let ends = End::both().context("cannot make a network for two guests")?;
        let hosts = [ends[0].name(), ends[1].name()];
        let leader = self.job(&hosts)?;
        let follower = Job {
            words: vec!["sh".to_owned(), "node.sh".to_owned(), hosts[0].clone()],
            directory: self.scripts.clone(),
        };
        let [first, second] = ends.map(Some);
        eprintln!("xtask: booting two guests ...");
        thread::scope(|scope| {
            let other = scope.spawn(|| guest.run_linked(second, &follower, &mut |_| ()));
            let status = guest.run_linked(first, &leader, &mut |_| ())?.status()?;
            let other = other.join().map_err(|_| anyhow!("the second guest's thread panicked"))?;
            other?.status().context("the second guest").map(|other| status.max(other))
        })
    }
}
