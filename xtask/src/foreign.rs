//! Programs for guests of another architecture than this machine's: Debian 13's cross-compilers,
//! run in a tree, and a root file system of Debian's packages, which has the headers and libraries
//! that programs are compiled with and which is the guest's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::architecture::Architecture;
use crate::command::Run;
use crate::debian::{CROSS_PROGRAMS, TRIXIE_SUITES};
use crate::kernel::lock;
use crate::tree::Tree;
use crate::workspace::{Workspace, cargo};

/// What a guest's root has, with what that depends on: what tests run, and what they are compiled
/// with.
const PACKAGES: &[&str] = &[
    "bash",
    "btrfs-progs",
    "busybox-static",
    "coreutils",
    "dash",
    "debianutils",
    "e2fsprogs",
    "findutils",
    "grep",
    "hostname",
    "ibverbs-providers",
    "iproute2",
    "kmod",
    "libc6-dev",
    "libfabric-dev",
    "libgcc-14-dev",
    "libibverbs-dev",
    "libucx-dev",
    "mount",
    "procps",
    "sed",
    "util-linux",
    "xfsprogs",
];

/// Compilers for another architecture.
pub struct Foreign {
    architecture: &'static Architecture,
    workspace: Workspace,
    tree: Tree,
    /// Holds all that is built.
    directory: PathBuf,
}

impl Foreign {
    /// Makes the tree and the root, unless that was done before.
    pub fn provide(workspace: &Workspace, architecture: &'static Architecture) -> Result<Self> {
        let tree = Tree::provide(workspace, &CROSS_PROGRAMS)?;
        let directory = workspace.target.join("guest").join(architecture.debian);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let _lock = lock(&directory)?;
        let foreign = Self { architecture, workspace: workspace.clone(), tree, directory };
        foreign.unpack()?;
        foreign.add_standard_library()?;
        Ok(foreign)
    }

    fn unpack(&self) -> Result<()> {
        let marker = self.directory.join("packages");
        let packages = PACKAGES.join(",");
        if fs::read_to_string(&marker).ok().as_ref() == Some(&packages) {
            return Ok(());
        }
        let architecture = self.architecture.debian;
        eprintln!("xtask: unpacking a Debian 13 for {architecture} ...");
        let root = self.root();
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        for name in ["bin", "sbin", "lib"] {
            fs::create_dir_all(root.join("usr").join(name))?;
            symlink(Path::new("usr").join(name), root.join(name))?;
        }
        for name in ["dev", "proc", "sys", "run", "tmp", "root"] {
            fs::create_dir_all(root.join(name))?;
        }
        let lists = self.directory.join("apt");
        let apt = Apt::update_for(architecture, lists, TRIXIE_SUITES)?;
        let scratch = self.directory.join("scratch");
        // Nothing is installed there yet.
        for package in apt.download_missing(PACKAGES, Path::new("/dev/null"), &scratch)? {
            Command::new("dpkg-deb").arg("-x").arg(package).arg(&root).run()?;
        }
        fs::remove_dir_all(&scratch)?;
        // What the packages' scripts would have made.
        symlink("dash", root.join("usr/bin/sh")).or_else(exists)?;
        for (file, text) in [
            ("passwd", "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n"),
            ("group", "root:x:0:\nnogroup:x:65534:\n"),
            ("hosts", "127.0.0.1 localhost\n"),
        ] {
            fs::write(root.join("etc").join(file), text)?;
        }
        fs::write(&marker, packages).with_context(|| format!("cannot write {}", marker.display()))
    }

    /// Puts Rust's library for the architecture beside the tree's own, unless it is there.
    fn add_standard_library(&self) -> Result<()> {
        let place = format!("usr/lib/rustlib/{}", self.architecture.cargo);
        if self.tree.root().join(&place).exists() {
            return Ok(());
        }
        let lists = self.directory.join("apt-rust");
        let apt = Apt::update_for(self.architecture.debian, lists, TRIXIE_SUITES)?;
        let library = self.directory.join("rust");
        let package = "libstd-rust-dev".to_owned();
        apt.unpack(&[package], &self.directory.join("scratch"), &library)?;
        self.tree.copy_in(&library.join(&place), Path::new("/").join(&place).as_path())?;
        fs::remove_dir_all(&library)?;
        Ok(())
    }

    /// The guest's root file system.
    pub fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Where cargo and makefiles build.
    pub fn target(&self) -> PathBuf {
        self.directory.join("target")
    }

    /// Where cargo puts what it builds for `debug` or for `release`.
    pub fn profile(&self, name: &str) -> PathBuf {
        self.target().join(self.architecture.cargo).join(name)
    }

    fn compiler(&self) -> String {
        format!("{}-gcc-14", self.architecture.gnu)
    }

    fn sysroot(&self) -> String {
        format!("--sysroot={}", self.root().display())
    }

    /// `make` with the compiler for C programs.
    pub fn make(&self) -> Result<Command> {
        let mut make = self.command("make", &[])?;
        make.arg(format!("CC={} {}", self.compiler(), self.sysroot()));
        Ok(make)
    }

    /// `make`, which is to be told the compilers for kernel modules.
    pub fn make_modules(&self) -> Result<Command> {
        let mut make = self.command("make", &[])?;
        make.arg(format!("CC={}", self.compiler()));
        make.arg(format!("CROSS_COMPILE={}-", self.architecture.gnu));
        Ok(make)
    }

    /// `cargo`, which builds for the architecture.
    pub fn cargo(&self, task: &str) -> Result<Command> {
        let crates = self.workspace.target.join("guest/crates");
        // The tree has no network; its cargo is of another version than this machine's.
        let mut vendor = Command::new(cargo());
        vendor.args(["vendor", "--quiet", "--locked", "--versioned-dirs"]).arg(&crates);
        vendor.current_dir(&self.workspace.root).read()?;
        let target = self.architecture.cargo;
        let variable = target.to_uppercase().replace('-', "_");
        let (compiler, sysroot) = (self.compiler(), self.sysroot());
        let mut cargo = self.command(
            "cargo",
            &[
                format!("CARGO_HOME={}", self.directory.join("cargo").display()),
                format!("CARGO_TARGET_DIR={}", self.target().display()),
                format!("CARGO_TARGET_{variable}_LINKER={compiler}"),
                format!("CARGO_TARGET_{variable}_RUSTFLAGS=-C link-arg={sysroot}"),
                format!("CC_{}={compiler}", target.replace('-', "_")),
                format!("CFLAGS_{}={sysroot}", target.replace('-', "_")),
            ],
        )?;
        cargo.arg(task).args(["--offline", "--target", target]);
        cargo.args(["--config", "source.crates-io.replace-with='vendored'"]);
        cargo.arg("--config").arg(format!("source.vendored.directory='{}'", crates.display()));
        Ok(cargo)
    }

    /// A command in the tree, in the sources' directory.
    fn command(&self, program: &str, variables: &[String]) -> Result<Command> {
        let Workspace { root, target } = &self.workspace;
        let mut command = self.tree.command_with("env", &[root, target])?;
        command.arg("-C").arg(root).args(variables).arg(program);
        Ok(command)
    }
}

/// What is there already is no error.
fn exists(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}
