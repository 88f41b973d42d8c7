//! Builds the plug-ins with their tests, which need a device.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::builds::Builds;
use crate::c_interface;
use crate::command::Run;
use crate::workspace::Workspace;

/// Their directories below `plugins`.
pub const ALL: &[&str] = &["libfabric", "openmpi", "ucx"];

/// Builds below the target directory and returns the programs, as the makefiles list them. What is
/// for another version of its middleware than this machine has is left out.
pub fn build(builds: &Builds) -> Result<Vec<PathBuf>> {
    c_interface::library(builds)?;
    let mut programs = Vec::new();
    for plugin in ALL {
        if unserved(&builds.workspace, plugin)?.is_some() {
            continue;
        }
        let directory = format!("plugins/{plugin}");
        let listed = c_interface::programs(builds, &directory, "plugin-tests", "list-tests")?;
        programs.extend(listed);
    }
    Ok(programs)
}

/// Builds those plug-ins whose middleware's headers there are, and returns the names of the others.
/// Nothing of them is run.
pub fn build_only(builds: &Builds) -> Result<Vec<&'static str>> {
    c_interface::library(builds)?;
    let mut left = Vec::new();
    for plugin in ALL {
        // Open MPI's component is for another version than Debian 13 has.
        if *plugin == "openmpi" {
            left.push(*plugin);
            continue;
        }
        c_interface::make(builds, &format!("plugins/{plugin}"), "plugins")?.arg("all").run()?;
    }
    Ok(left)
}

/// Why a plug-in cannot serve the middleware that this machine has, as its makefile says.
pub fn unserved(workspace: &Workspace, plugin: &str) -> Result<Option<String>> {
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(workspace.root.join("plugins").join(plugin)).arg("unserved");
    let reason = make.env_remove("MAKEFLAGS").read()?.trim().to_owned();
    Ok(Some(reason).filter(|reason| !reason.is_empty()))
}
