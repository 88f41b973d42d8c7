//! `cargo xtask bindings`: gives the cache protection domains that other crates have made.
//!
//! rdma-sys and ibverbs-sys generate their bindings with libclang, and rdma-sys works with versions
//! 11 to 15 only. So these tests are no part of the workspace, and nothing else needs libclang.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::Run;
use crate::debian::BOOKWORM;
use crate::guest::{self, Guest, Job, Options};
use crate::kernel::Kernel;
use crate::suite::{self, Program};
use crate::tally::Tally;
use crate::workspace::{Workspace, cargo};
use crate::{host, module};

/// The directory of the tests.
const TESTS: &str = "tests/bindings";

/// Runs the task; the exit status is 0 if nothing failed.
pub fn main(options: Options) -> Result<u8> {
    let workspace = Workspace::find()?;
    let mut tally = Tally::default();
    if BOOKWORM.is_here() {
        host::provide(&[host::WORKSPACE, host::BINDINGS])?;
    }
    match unavailable() {
        Some(reason) => tally.skip("bindings", &reason),
        None => run(workspace, &options, &mut tally)?,
    }
    println!();
    for failure in tally.failures() {
        println!("FAILED: {failure}");
    }
    println!("bindings: {tally}");
    Ok(u8::from(!tally.is_good()))
}

fn run(workspace: Workspace, options: &Options, tally: &mut Tally) -> Result<()> {
    let programs = programs(&workspace, None)?;
    let script = workspace.target.join("bindings/tests.sh");
    fs::write(&script, suite::script(&programs)?)
        .with_context(|| format!("cannot write {}", script.display()))?;
    let script = script.to_str().context("the target directory is not UTF-8")?.to_owned();
    let job = Job { words: vec!["sh".to_owned(), script], directory: workspace.root.clone() };
    let mut output = |piece: &[u8]| tally.feed(piece);
    let outcome = if options.stays_here() {
        job.run_here(&mut output)?
    } else {
        let series = options.kernel.unwrap_or_default();
        host::provide(&[host::GUEST, series.properties().release.needs()])?;
        let kernel = Kernel::provide(&workspace, series)?;
        let modules = module::build(&workspace, &kernel)?;
        let guest = Guest {
            workspace,
            kernel,
            insert: vec![modules.main],
            rdma: true,
            memory: options.memory(guest::MEMORY),
            timeout: Duration::from_secs(600),
        };
        guest.run(&job, &mut output)?
    };
    tally.interrupt();
    for program in &programs {
        tally.must_have_begun(&program.name);
    }
    outcome.status().map(|_| ())
}

/// Why the tests cannot be built on this machine.
pub fn unavailable() -> Option<String> {
    let missing = host::missing(&[host::BINDINGS]);
    let missing: Vec<_> = missing.iter().map(|need| need.name()).collect();
    if missing.is_empty() {
        return None;
    }
    Some(format!(
        "rdma-sys and ibverbs-sys cannot be built without {}{}",
        missing.join(", "),
        if BOOKWORM.is_here() { "; `cargo xtask bindings` installs what they need" } else { "" }
    ))
}

/// Builds the tests whose names contain `filter`.
pub fn programs(workspace: &Workspace, filter: Option<&str>) -> Result<Vec<Program>> {
    let mut cargo = Command::new(cargo());
    cargo.args(["test", "--no-run"]);
    cargo.arg("--target-dir").arg(workspace.target.join("bindings"));
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    cargo.current_dir(workspace.root.join(TESTS));
    if let Some(library) = libclang() {
        cargo.env("LIBCLANG_PATH", library.parent().unwrap_or(Path::new("/")));
    }
    suite::test_programs(&cargo.read()?, filter)
}

/// A libclang that rdma-sys can be built with, the newest first.
pub fn libclang() -> Option<PathBuf> {
    let directories = (11..=15).rev().map(|version| format!("/usr/lib/llvm-{version}/lib"));
    directories.map(PathBuf::from).find_map(|directory| libclang_in(&directory))
}

/// The library in `directory`. `libclang-cpp.so.14` is another one.
fn libclang_in(directory: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
    names.sort();
    names.into_iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let rest = name.strip_prefix("libclang").unwrap_or_default();
        let version = rest.strip_prefix('-').unwrap_or(rest);
        let of_a_version =
            rest.starts_with('-') && version.starts_with(|c: char| c.is_ascii_digit());
        rest == ".so"
            || rest.starts_with(".so.")
            || of_a_version && (version.ends_with(".so") || version.contains(".so."))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_is_not_taken_for_its_neighbours() {
        let parent = std::env::temp_dir().join(format!("xtask-libclang-{}", std::process::id()));
        for (name, is_one) in [
            ("libclang-cpp.so.14", false),
            ("libclang-cpp.so", false),
            ("libclang.a", false),
            ("libclang.so", true),
            ("libclang.so.1", true),
            ("libclang-14.so.1", true),
            ("libclang-14.so", true),
        ] {
            let directory = parent.join(name);
            fs::create_dir_all(&directory).expect("create a directory");
            fs::write(directory.join(name), "").expect("create a file");
            assert_eq!(libclang_in(&directory).is_some(), is_one, "{name}");
        }
        fs::remove_dir_all(parent).expect("remove the directory");
    }
}
