//! `cargo xtask bench`: measures, and draws what came of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::command::Run;
use crate::guest::{self, Options};
use crate::program::Program;
use crate::workspace::Workspace;
use crate::{comparisons, hit_ratios, host, ratios};

/// What `cargo xtask bench` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// What is measured; if not given, everything
    #[arg(value_enum)]
    what: Option<What>,
    /// Of the cache, only what needs no device
    #[arg(long)]
    host_only: bool,
    /// How many turns of each contestant count, for the cache
    #[arg(long, default_value_t = 21, value_name = "NUMBER")]
    turns: u32,
    /// Only draw again what the last run found
    #[arg(long)]
    redraw: bool,
    /// Give up a guest after this many seconds
    #[arg(long, default_value_t = 1800, value_name = "SECONDS")]
    timeout: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// What the cache costs, side by side with UCX here and with libfabric over an RDMA device
    Cache,
    /// How often the cache's order of eviction hits, against others
    Eviction,
    /// What the kernel module costs
    Kernel,
}

/// Runs the task; the exit status is 0 if all measuring programs came to their end.
pub fn main(args: Args) -> Result<u8> {
    let all = args.what.map_or(What::value_variants().to_vec(), |what| vec![what]);
    let workspace = Workspace::find()?;
    let directory = workspace.target.join("bench");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let bench = Bench { args, workspace, directory };
    let mut worst = 0;
    for what in all {
        let (name, status) = match what {
            What::Cache => ("cache", bench.cache()?),
            What::Eviction => ("eviction", bench.eviction()?),
            What::Kernel => ("kernel", bench.kernel()?),
        };
        worst = worst.max(status);
        if status == 0 {
            bench.draw(what, name)?;
        }
    }
    Ok(worst)
}

struct Bench {
    args: Args,
    workspace: Workspace,
    directory: PathBuf,
}

impl Bench {
    /// Both halves of what the cache costs, in one file.
    fn cache(&self) -> Result<u8> {
        let turns = vec!["--turns".to_owned(), self.args.turns.to_string()];
        let (here, there) = (self.results("cache-host"), self.results("cache-verbs"));
        let mut parts = vec![&here];
        let status = self.run(program("cache", "ucx", turns.clone()), &here)?;
        if status != 0 {
            return Ok(status);
        }
        if !self.args.host_only {
            let verbs = Program { rdma: true, ..program("verbs", "libfabric", turns) };
            let status = self.run_with_device(verbs, &there)?;
            if status != 0 {
                return Ok(status);
            }
            parts.push(&there);
        }
        if !self.args.redraw {
            let parts: Result<Vec<_>> = parts.into_iter().map(|part| read(part)).collect();
            write(&self.results("cache"), &join(parts?)?)?;
        }
        Ok(0)
    }

    fn eviction(&self) -> Result<u8> {
        self.run(program("eviction", "", Vec::new()), &self.results("eviction"))
    }

    /// The module in a guest, and its core alone.
    fn kernel(&self) -> Result<u8> {
        let guest = self.results("kernel-guest");
        let status = self.run_with_device(program("kernel", "", Vec::new()), &guest)?;
        if status == 0 && !self.args.redraw {
            let parts = vec![read(&guest)?, self.lookups()?];
            write(&self.results("kernel"), &join(parts)?)?;
        }
        Ok(status)
    }

    /// Times the module's core outside the kernel, against the algorithm of 2009: what the other
    /// measures leave open, since there is no such driver for today's kernels.
    fn lookups(&self) -> Result<String> {
        host::provide(&[host::SELFTESTS])?;
        let results = self.results("lookup");
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(self.workspace.root.join("ummunotify-kmod/bench"));
        make.arg(format!("OUT={}", self.directory.display())).env_remove("MAKEFLAGS").run()?;
        Command::new(self.directory.join("lookup")).arg(&results).run()?;
        Ok(format!(r#"{{ "rows": {} }}"#, read(&results)?))
    }

    fn results(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn run(&self, program: Program, results: &Path) -> Result<u8> {
        self.measure(program, results, |program| program.run_here(&self.workspace))
    }

    fn run_with_device(&self, program: Program, results: &Path) -> Result<u8> {
        let timeout = Duration::from_secs(self.args.timeout);
        self.measure(program, results, |program| {
            program.run(self.workspace.clone(), &self.args.options, timeout)
        })
    }

    fn measure(
        &self,
        mut program: Program,
        results: &Path,
        run: impl FnOnce(Program) -> Result<u8>,
    ) -> Result<u8> {
        if self.args.redraw {
            return Ok(0);
        }
        if results.exists() {
            // What an earlier run found must not pass for this one's.
            fs::remove_file(results)
                .with_context(|| format!("cannot remove {}", results.display()))?;
        }
        program.arguments.push(results.to_string_lossy().into_owned());
        run(program)
    }

    fn draw(&self, what: What, name: &str) -> Result<()> {
        let results = self.results(name);
        let text = read(&results)?;
        let drawn = match what {
            What::Cache => comparisons::draw("What the cache costs", &text),
            What::Eviction => hit_ratios::draw("Hits, by order of eviction", &text),
            What::Kernel => ratios::draw("What the kernel module costs", &text),
        };
        let picture = self.directory.join(format!("{name}.svg"));
        write(&picture, &drawn.with_context(|| format!("in {}", results.display()))?)?;
        println!("picture: {}\nnumbers: {}\n", picture.display(), results.display());
        Ok(())
    }
}

fn program(name: &'static str, features: &'static str, arguments: Vec<String>) -> Program {
    Program {
        package: "regcache-benches",
        features,
        name,
        arguments,
        rdma: false,
        memory: guest::MEMORY,
        needs: if features.is_empty() { &[] } else { host::PEERS },
    }
}

/// Results with the rows of all, and what else the parts say.
fn join(parts: Vec<String>) -> Result<String> {
    let mut all = json!({ "rows": [] });
    for part in parts {
        let Value::Object(part) = serde_json::from_str(&part)? else {
            bail!("a measuring program wrote no results");
        };
        for (name, value) in part {
            match (all.get_mut(&name), value) {
                (Some(Value::Array(rows)), Value::Array(more)) => rows.extend(more),
                (_, value) => all[name] = value,
            }
        }
    }
    Ok(serde_json::to_string_pretty(&all)?)
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_results_have_all_rows() {
        let parts = [r#"{"rows": [1, 2], "floors": {"a": 1}}"#, r#"{"rows": [3]}"#];
        let joined = join(parts.map(str::to_owned).to_vec()).expect("well formed");
        let joined: Value = serde_json::from_str(&joined).expect("well formed");
        assert_eq!(joined, json!({ "rows": [1, 2, 3], "floors": { "a": 1 } }));
        assert!(join(vec!["[]".to_owned()]).is_err());
    }
}
