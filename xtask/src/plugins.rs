//! Builds the plug-ins with their tests, which need a device.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::Run;
use crate::workspace::{Workspace, cargo};

/// Their directories below `plugins`.
pub const ALL: &[&str] = &["libfabric", "openmpi", "ucx"];

/// Builds below the target directory and returns the programs, as the makefiles list them.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut library = Command::new(cargo());
    library.args(["build", "-p", "regcache-ffi"]).current_dir(&workspace.root).run()?;
    let mut programs = Vec::new();
    for plugin in ALL {
        let mut make = Command::new("make");
        make.arg("-s").arg("-C").arg(workspace.root.join("plugins").join(plugin));
        make.arg(format!("OUT={}", workspace.target.join("plugin-tests").display()));
        make.arg(format!("STATIC={}", workspace.target.join("debug/libregcache_ffi.a").display()));
        let list = make.env_remove("MAKEFLAGS").arg("list-tests").read()?;
        let before = programs.len();
        programs.extend(list.split_whitespace().map(PathBuf::from));
        if programs.len() == before {
            bail!("`{}` lists no program", make.line());
        }
    }
    Ok(programs)
}
