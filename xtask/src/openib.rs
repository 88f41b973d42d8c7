//! `cargo xtask openib`: Open MPI's btl/openib for RDMA over Ethernet.
//!
//! Debian's connects over InfiniBand only. The rest of Open MPI stays Debian's:
//! this one plug-in is built from the same sources, and lies in a directory of
//! its own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{Apt, Suite};
use crate::command::Run;
use crate::host;
use crate::kernel::lock;
use crate::workspace::Workspace;

const PACKAGE: &str = "openmpi";

/// The last release that has a btl/openib is a 4.1.
const SUITES: &[Suite] = &[Suite { archive: "debian", name: "bookworm" }];

/// Runs the task.
pub fn main() -> Result<u8> {
    host::provide(&[host::PLUGINS, host::OPENIB])?;
    let directory = build(&Workspace::find()?)?;
    println!("put this before Open MPI's own directory: {}", directory.display());
    Ok(0)
}

/// Builds it unless that was done before, and returns the directory that it is
/// in, for `mca_base_component_path`.
pub fn build(workspace: &Workspace) -> Result<PathBuf> {
    let out = workspace.target.join("plugins");
    let directory = out.join("openmpi/openib");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let _lock = lock(&directory)?;
    let version = installed()?;
    // Written last, so it also says that the rest is complete.
    let marker = directory.join("version");
    if fs::read_to_string(&marker).is_ok_and(|built| built == version) {
        return Ok(directory);
    }
    eprintln!("xtask: downloading and unpacking the sources of Open MPI {version} ...");
    let sources = workspace.target.join("openmpi");
    // Unpacked files have their own times, which say nothing to make.
    for stale in [&sources, &directory.join("objects")] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    let apt = Apt::update_sources(sources.join("apt"), SUITES)?;
    apt.source(PACKAGE, &version, &sources)?;
    let upstream = version.rsplit_once('-').map_or(version.as_str(), |(upstream, _)| upstream);
    let source = sources.join(format!("{PACKAGE}-{upstream}"));
    let mut make = Command::new("make");
    make.arg("-s").arg("-C").arg(workspace.root.join("plugins/openmpi")).args(["-f", "openib.mk"]);
    make.arg(format!("SOURCE={}", source.display())).arg(format!("OUT={}", out.display()));
    make.env_remove("MAKEFLAGS").run()?;
    fs::write(&marker, &version).with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(directory)
}

/// The version of the sources that this machine's Open MPI was built from.
fn installed() -> Result<String> {
    let mut query = Command::new("dpkg-query");
    let version = query.args(["-W", "-f", "${source:Version}", "libopenmpi-dev"]).read()?;
    if !version.starts_with("4.1.") {
        bail!("this machine has Open MPI {version}; btl/openib needs 4.1, which Debian 12 has");
    }
    Ok(version)
}
