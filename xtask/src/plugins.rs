//! Builds the plug-ins with their tests, which need a device.

use std::path::PathBuf;

use anyhow::Result;

use crate::c_interface;
use crate::workspace::Workspace;

/// Their directories below `plugins`.
pub const ALL: &[&str] = &["libfabric", "openmpi", "ucx"];

/// Builds below the target directory and returns the programs, as the makefiles list them.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    c_interface::library(workspace)?;
    let mut programs = Vec::new();
    for plugin in ALL {
        let directory = format!("plugins/{plugin}");
        let listed = c_interface::programs(workspace, &directory, "plugin-tests", "list-tests")?;
        programs.extend(listed);
    }
    Ok(programs)
}
