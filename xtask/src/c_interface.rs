//! Builds C programs that test the C interface, or what is made with it, and need a device. Those
//! that need none are run by `cargo test`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::Run;
use crate::workspace::{Workspace, cargo};

/// Builds the C interface's own below the target directory and returns the programs.
pub fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    library(workspace)?;
    programs(workspace, "regcache-ffi", "ffi-tests", "list-device")
}

/// Builds the library that all of them are linked with.
pub fn library(workspace: &Workspace) -> Result<()> {
    Command::new(cargo()).args(["build", "-p", "regcache-ffi"]).current_dir(&workspace.root).run()
}

/// Has the makefile in `directory` build into `out`, below the target directory, and returns the
/// programs that it lists by `list`. The [`library`] is there.
pub fn programs(
    workspace: &Workspace,
    directory: &str,
    out: &str,
    list: &str,
) -> Result<Vec<PathBuf>> {
    let out = workspace.target.join(out);
    std::fs::create_dir_all(&out)?;
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(workspace.root.join(directory)).env_remove("MAKEFLAGS");
    make.arg(format!("OUT={}", out.display()));
    make.arg(format!("STATIC={}", workspace.target.join("debug/libregcache_ffi.a").display()));
    let list = make.arg(list).read()?;
    let programs: Vec<_> = list.split_whitespace().map(PathBuf::from).collect();
    if programs.is_empty() {
        bail!("`{}` lists no program", make.line());
    }
    Ok(programs)
}
