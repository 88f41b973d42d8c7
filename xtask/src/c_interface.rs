//! Builds C programs that test the C interface, or what is made with it, and need a device. Those
//! that need none are run by `cargo test`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::builds::Builds;
use crate::command::Run;

/// Builds the C interface's own below the target directory and returns the programs.
pub fn build(builds: &Builds) -> Result<Vec<PathBuf>> {
    library(builds)?;
    programs(builds, "regcache-ffi", "ffi-tests", "list-device")
}

/// Builds the library that all of them are linked with.
pub fn library(builds: &Builds) -> Result<()> {
    builds.cargo("build")?.args(["-p", "regcache-ffi"]).run()
}

/// `make` for the makefile in `directory`, which builds into `out`, below the target directory. The
/// [`library`] is there.
pub fn make(builds: &Builds, directory: &str, out: &str) -> Result<Command> {
    let out = builds.target().join(out);
    std::fs::create_dir_all(&out)?;
    let mut make = builds.make()?;
    make.arg("-s").arg("-C").arg(builds.workspace.root.join(directory));
    make.arg(format!("OUT={}", out.display()));
    make.arg(format!("STATIC={}", builds.profile("debug").join("libregcache_ffi.a").display()));
    Ok(make)
}

/// Has the makefile in `directory` build into `out`, below the target directory, and returns the
/// programs that it lists by `list`. The [`library`] is there.
pub fn programs(builds: &Builds, directory: &str, out: &str, list: &str) -> Result<Vec<PathBuf>> {
    let mut make = make(builds, directory, out)?;
    let list = make.arg(list).read()?;
    let programs: Vec<_> = list.split_whitespace().map(PathBuf::from).collect();
    if programs.is_empty() {
        bail!("`{}` lists no program", make.line());
    }
    Ok(programs)
}
