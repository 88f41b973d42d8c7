//! `cargo xtask test`: every check and every test, here and in a guest of each
//! kernel, and one line at the end that says how many passed.

use std::fs;
use std::mem;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::architecture::Architecture;
use crate::builds::Builds;
use crate::command::{self, Run};
use crate::guest::{self, Guest, Job, Options};
use crate::host::{Need, resources};
use crate::kernel::Kernel;
use crate::series::Series;
use crate::suite::{self, Program};
use crate::tally::Tally;
use crate::workspace::{Workspace, cargo};
use crate::{bindings, host, module, plugins, support};

/// What `cargo xtask test` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Only what needs no device: format, lints, tests of this machine
    #[arg(long, conflicts_with = "guest_only")]
    host_only: bool,
    /// Only what is about the device: the module's build, the guest's tests
    #[arg(long)]
    guest_only: bool,
    /// Write what guests find to the support table, docs/kernels.md
    #[arg(long, conflicts_with = "filter")]
    record: bool,
    /// Only tests whose name contains this; no format and no lints
    filter: Option<String>,
}

/// What everything that is built and downloaded takes, in MiB.
pub const DISK: u64 = 10_000;

/// The guest's longest time.
const GUEST_SECONDS: u64 = 1800;

/// Runs the task; the exit status is 0 if nothing failed.
pub fn main(args: Args) -> Result<u8> {
    let here = !args.guest_only;
    let stays_here = !args.host_only && args.options.stays_here();
    let all = match args.options.kernel {
        _ if args.host_only => Vec::new(),
        Some(series) => vec![series],
        // The one kernel that runs already.
        None if stays_here => vec![Series::default()],
        None => Series::TESTED.to_vec(),
    };
    let workspace = Workspace::find()?;
    resources::require_disk(&workspace.target, if all.is_empty() { DISK / 2 } else { DISK })?;
    if !all.is_empty() && !stays_here {
        guest::require(args.options.memory(guest::MEMORY))?;
    }
    host::provide(&needs(&all))?;
    let mut tests = Tests { workspace, args, stays_here, tally: Tally::default() };
    if here {
        tests.here();
    }
    tests.guests(&all);
    let tally = tests.tally;
    println!();
    for failure in tally.failures() {
        println!("FAILED: {failure}");
    }
    println!("{tally}");
    Ok(if tally.is_good() { 0 } else { 1 })
}

/// What this machine must have, to run the tests here and in guests of `all` kernels.
pub fn needs(all: &[Series]) -> Vec<&'static [Need]> {
    let mut needs = vec![host::WORKSPACE, host::PEERS, host::C_INTERFACE, host::PLUGINS];
    if !all.is_empty() {
        needs.extend([host::GUEST, host::SELFTESTS, host::FILE_SYSTEMS, host::SPARSE]);
    }
    needs.extend(all.iter().map(|series| series.properties().release.needs()));
    // Those of another toolchain do not fit to rustup's.
    if Path::new(&cargo()).starts_with("/usr/bin") {
        needs.push(host::RUST_CHECKS);
    }
    needs
}

struct Tests {
    workspace: Workspace,
    args: Args,
    /// The tests of a guest run on this machine.
    stays_here: bool,
    tally: Tally,
}

impl Tests {
    fn cargo(&self, words: &[&str]) -> Command {
        let mut cargo = Command::new(cargo());
        cargo.args(words).current_dir(&self.workspace.root);
        cargo
    }

    /// One step that is one check.
    fn step<T>(&mut self, name: &str, run: impl FnOnce(&Self) -> Result<T>) -> Option<T> {
        println!("\n== {name}");
        let start = Instant::now();
        let result = run(self);
        self.tally.check(name, result.is_ok());
        let seconds = start.elapsed().as_secs();
        match result {
            Ok(value) => {
                println!("== {name}: passed ({seconds} s)");
                Some(value)
            }
            Err(error) => {
                println!("{error:#}\n== {name}: FAILED ({seconds} s)");
                None
            }
        }
    }

    /// A check by a part of the Rust toolchain that not every toolchain has.
    fn rust_check(&mut self, name: &str, component: &str, words: &[&str]) {
        let version = self.cargo(&[words[0], "--version"]).read();
        if version.is_ok() {
            self.step(name, |tests| tests.cargo(words).run());
        } else {
            let reason = format!("this toolchain has none: `rustup component add {component}`");
            self.tally.skip(name, &reason);
        }
    }

    fn here(&mut self) {
        let filter = self.args.filter.clone();
        if filter.is_none() {
            self.rust_check("format", "rustfmt", &["fmt", "--all", "--check"]);
            let clippy = ["clippy", "--workspace", "--all-targets", "--all-features"];
            self.rust_check("lints", "clippy", &[&clippy[..], &["--", "-D", "warnings"]].concat());
            self.step("models of the lock-free parts", |tests| {
                let words = ["test", "--release", "-p", "regcache", "--lib"];
                let mut cargo = tests.cargo(&words);
                cargo.args(["--no-default-features", "models"]).env("RUSTFLAGS", "--cfg loom");
                cargo.env("CARGO_TARGET_DIR", tests.workspace.target.join("loom")).run()
            });
            self.step("the barrier on this processor", |tests| {
                let words = ["test", "--release", "-p", "regcache", "--lib", "litmus"];
                tests.cargo(&words).run()
            });
        }
        println!("\n== tests of this machine");
        let mut command = self.cargo(&["test", "--workspace", "--no-fail-fast"]);
        command.args(filter);
        self.tally.begin("cargo test");
        match command.tee(&mut |piece| self.tally.feed(piece)) {
            Ok(status) => self.tally.end(command::code(status)),
            Err(error) => {
                eprintln!("xtask: {error:#}");
                self.tally.interrupt();
            }
        }
    }

    fn guests(&mut self, all: &[Series]) {
        for architecture in Architecture::ALL {
            let is_of = |series: &Series| series.properties().architecture == architecture;
            let of: Vec<_> = all.iter().copied().filter(is_of).collect();
            if of.is_empty() {
                continue;
            }
            match Builds::provide(&self.workspace, architecture) {
                Ok(builds) => self.guests_of(&builds, &of),
                Err(error) => {
                    println!("{error:#}");
                    self.tally.check("what builds the guest's tests", false);
                }
            }
        }
    }

    fn guests_of(&mut self, builds: &Builds, all: &[Series]) {
        let rust = self.step("guest tests' build", |tests| {
            let mut cargo = builds.cargo("test")?;
            cargo.arg("--no-run");
            suite::rust_programs(cargo, tests.args.filter.as_deref())
        });
        let mut everywhere = rust.unwrap_or_default();
        let c = self.step("C interface's build", |tests| {
            suite::c_interface_programs(builds, tests.args.filter.as_deref())
        });
        everywhere.extend(c.unwrap_or_default());
        let mut plugins = if builds.is_here() { self.plugins() } else { self.only_build(builds) };
        for series in all {
            let linux = format!("Linux {}", series.properties().name);
            let before = mem::take(&mut self.tally);
            let mut programs = everywhere.clone();
            // What middleware is told does not depend on the kernel: once is enough.
            programs.append(&mut plugins);
            if let Err(error) = self.guest(*series, &linux, &programs) {
                println!("{error:#}");
                self.tally.check(&format!("{linux}: {error}"), false);
            }
            println!("\n== {linux}: {}", self.tally);
            let tally = mem::replace(&mut self.tally, before);
            self.tally.append(tally);
        }
    }

    /// What is built for another architecture and not run there.
    fn only_build(&mut self, builds: &Builds) -> Vec<Program> {
        if let Some(left) = self.step("plug-ins' build", |_| plugins::build_only(builds)) {
            for plugin in left {
                self.tally.skip(&format!("plug-in {plugin}"), "there are no headers for it");
            }
        }
        self.tally.skip("the plug-ins' tests", "they are run on this machine's architecture");
        Vec::new()
    }

    /// The tests of the plug-ins and of other crates' protection domains.
    fn plugins(&mut self) -> Vec<Program> {
        let plugins = self.step("plug-ins' build", |tests| {
            suite::plugin_programs(&tests.workspace, tests.args.filter.as_deref())
        });
        let mut plugins = plugins.unwrap_or_default();
        for plugin in plugins::ALL {
            if let Ok(Some(reason)) = plugins::unserved(&self.workspace, plugin) {
                self.tally.skip(&format!("plug-in {plugin}"), &reason);
            }
        }
        match bindings::unavailable() {
            Some(reason) => self.tally.skip("protection domains of other crates", &reason),
            None => {
                let built = self.step("tests of other crates' protection domains", |tests| {
                    bindings::programs(&tests.workspace, tests.args.filter.as_deref())
                });
                plugins.extend(built.unwrap_or_default());
            }
        }
        plugins
    }

    fn guest(&mut self, series: Series, linux: &str, everywhere: &[Program]) -> Result<()> {
        let kernel = Kernel::provide(&self.workspace, series)?;
        let modules = self.step(&format!("{linux}: kernel module"), |tests| {
            module::build(&tests.workspace, &kernel)
        });
        if modules.is_some() && self.args.filter.is_none() {
            self.step(&format!("{linux}: sparse"), |_| module::sparse(&kernel));
        }
        let programs = self.step(&format!("{linux}: C tests' build"), |tests| {
            let filter = tests.args.filter.as_deref().unwrap_or_default();
            suite::c_programs(&tests.workspace, &kernel, filter)
        });
        let mut programs = programs.unwrap_or_default();
        // That is what `cargo xtask debug` is for.
        programs.retain(|program| program.name != suite::STRESS);
        let of_module = programs.len();
        programs.extend_from_slice(everywhere);
        for program in &mut programs {
            program.name = format!("{linux}: {}", program.name);
        }
        let Some(modules) = modules.filter(|_| !programs.is_empty()) else {
            return Ok(());
        };

        println!("\n== {linux}: tests in a guest");
        let script = kernel.directory.join("tests.sh");
        fs::write(&script, suite::script(&programs)?)
            .with_context(|| format!("cannot write {}", script.display()))?;
        let script = script.to_str().context("the target directory is not UTF-8")?;
        let job = Job {
            words: vec!["sh".to_owned(), script.to_owned()],
            directory: self.workspace.root.clone(),
        };
        let names = programs[..of_module].iter().map(|program| program.name.clone());
        let names: Vec<_> = names.collect();
        let release = kernel.release.clone();
        let tally = &mut self.tally;
        let mut output = |piece: &[u8]| tally.feed(piece);
        let outcome = if self.stays_here {
            job.run_here(&mut output)?
        } else {
            let guest = Guest {
                workspace: Workspace::find()?,
                kernel,
                insert: [modules.main].into_iter().chain(modules.helpers).collect(),
                rdma: true,
                memory: self.args.options.memory(guest::MEMORY),
                timeout: Duration::from_secs(GUEST_SECONDS),
            };
            guest.run(&job, &mut output)?
        };
        self.tally.interrupt();
        for program in &programs {
            self.tally.must_have_begun(&program.name);
        }
        let good = outcome.fault.is_none();
        if !self.stays_here {
            self.step(&format!("{linux}: kernel log"), |_| match outcome.fault {
                Some(fault) => bail!("{fault}"),
                None => Ok(()),
            });
        }
        if self.args.record {
            let is_module = |name: &str| names.iter().any(|one| one == name);
            let mut module = self.tally.of_programs(is_module);
            module.check("kernel log", good);
            let cache = self.tally.of_programs(|name| !is_module(name));
            support::write_tests(&self.workspace, series, &release, &module, &cache)?;
        }
        Ok(())
    }
}
