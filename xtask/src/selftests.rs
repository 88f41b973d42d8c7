//! Builds the C tests of the device's interface.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::Run;
use crate::kernel::Kernel;
use crate::workspace::Workspace;

/// Builds them below the target directory and returns the programs, as their
/// makefile lists them.
pub fn build(workspace: &Workspace, kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let out = kernel.directory.join("selftests");
    std::fs::create_dir_all(&out)?;
    let make = || {
        let mut make = match kernel.foreign() {
            Some(foreign) => foreign.make()?,
            None => Command::new("make"),
        };
        make.arg("-s").arg("-C").arg(workspace.root.join("ummunotify-kmod/selftests"));
        make.arg(format!("OUT={}", out.display())).env_remove("MAKEFLAGS");
        Ok::<_, anyhow::Error>(make)
    };
    make()?.run()?;
    let list = make()?.arg("list").read()?;
    // An absolute path stays what it is.
    let programs: Vec<_> = list.split_whitespace().map(|name| out.join(name)).collect();
    if programs.is_empty() {
        bail!("`{}` lists no program", make()?.arg("list").line());
    }
    Ok(programs)
}
