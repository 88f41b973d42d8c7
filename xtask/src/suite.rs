//! Test programs, and the script that runs them in a guest, one by one.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::builds::Builds;
use crate::c_interface;
use crate::command::Run;
use crate::guest::quote;
use crate::kernel::Kernel;
use crate::plugins;
use crate::selftests;
use crate::tally::{BEGIN, END};
use crate::workspace::Workspace;

/// A test program to be run in a guest.
#[derive(Clone)]
pub struct Program {
    /// What it is called in reports.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// Where it runs.
    pub directory: PathBuf,
    /// What it is told.
    pub arguments: Vec<String>,
    /// Its longest time.
    pub seconds: u64,
}

/// The program that is run for long on the debug kernel.
pub const STRESS: &str = "chaos";

/// One test program's longest time: some run dozens of jobs, on an emulated processor.
const SECONDS: u64 = 600;

impl Program {
    /// What is at `path`, run where it is.
    pub fn at(path: PathBuf) -> Self {
        Self {
            name: path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
            directory: path.parent().unwrap_or(Path::new("/")).to_path_buf(),
            arguments: Vec::new(),
            path,
            seconds: SECONDS,
        }
    }
}

/// The C tests of the device's interface whose names contain `filter`.
pub fn c_programs(workspace: &Workspace, kernel: &Kernel, filter: &str) -> Result<Vec<Program>> {
    let programs = selftests::build(workspace, kernel)?.into_iter().map(Program::at);
    Ok(programs.filter(|program| program.name.contains(filter)).collect())
}

/// The C tests of the cache's C interface that need a device and whose names contain `filter`.
pub fn c_interface_programs(builds: &Builds, filter: Option<&str>) -> Result<Vec<Program>> {
    let programs = c_interface::build(builds)?.into_iter().map(Program::at);
    Ok(programs.filter(|program| program.name.contains(filter.unwrap_or_default())).collect())
}

/// The tests of the plug-ins whose names contain `filter`.
pub fn plugin_programs(workspace: &Workspace, filter: Option<&str>) -> Result<Vec<Program>> {
    let programs = plugins::build(&Builds::here(workspace))?.into_iter().map(Program::at);
    Ok(programs.filter(|program| program.name.contains(filter.unwrap_or_default())).collect())
}

/// The tests of the packages that need a device, found as cargo's own runner
/// finds them; `cargo` runs `cargo test --no-run`.
pub fn rust_programs(mut cargo: Command, filter: Option<&str>) -> Result<Vec<Program>> {
    cargo.args(["-p", "regcache-guest-tests", "-p", "examples"]);
    cargo.args(["--features", "regcache-guest-tests/guest,examples/rdma"]);
    cargo.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    test_programs(&cargo.read()?, filter)
}

/// The test programs that cargo says it has built.
pub fn test_programs(messages: &str, filter: Option<&str>) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for message in messages.lines() {
        let Ok(message) = serde_json::from_str::<Value>(message) else {
            continue;
        };
        let is_test = message["profile"]["test"] == Value::Bool(true);
        let Some(path) = message["executable"].as_str().filter(|_| is_test) else {
            continue;
        };
        let manifest = message["manifest_path"].as_str().unwrap_or_default();
        // One at a time: they count events of the whole process. What they
        // print is shown at once, or nobody would see why one hung. Those that
        // are ignored elsewhere want a device.
        let arguments = ["--test-threads=1", "--nocapture", "--include-ignored"];
        let mut arguments: Vec<_> = arguments.map(str::to_owned).into();
        arguments.extend(filter.map(str::to_owned));
        programs.push(Program {
            name: message["target"]["name"].as_str().unwrap_or(path).to_owned(),
            directory: Path::new(manifest).parent().unwrap_or(Path::new("/")).to_path_buf(),
            path: PathBuf::from(path),
            arguments,
            seconds: SECONDS,
        });
    }
    Ok(programs)
}

/// Runs all programs, whatever becomes of each.
pub fn script(programs: &[Program]) -> Result<String> {
    let mut script = String::from("exec 2>&1\nexport RUST_BACKTRACE=1\n");
    for program in programs {
        let path = |path: &Path| {
            quote(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?)
        };
        let directory = path(&program.directory)?;
        let mut line = path(&program.path)?;
        for argument in &program.arguments {
            line += &format!(" {}", quote(argument)?);
        }
        script += &format!(
            "printf '\\n{BEGIN}%s\\n' {}\n\
             (cd {directory} && export CARGO_MANIFEST_DIR={directory} && \
             exec timeout -k 10 {} {line})\n\
             printf '\\n{END}%s\\n' $?\n",
            quote(&program.name)?,
            program.seconds,
        );
    }
    Ok(script)
}
