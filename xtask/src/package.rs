//! `cargo xtask package`: the kernel module as a Debian package that builds it
//! with DKMS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::command::Run;
use crate::guest::{Guest, Job};
use crate::host;
use crate::kernel::Kernel;
use crate::series::Series;
use crate::workspace::Workspace;

/// What `cargo xtask package` is told.
#[derive(clap::Args)]
pub struct Args {
    /// Also install, load, unload and remove it in a guest
    #[arg(long)]
    check: bool,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The module's sources that are in the package; the rest is for tests.
const SOURCES: &[&str] = &["c", "h"];

/// Templates and where they go.
const FILES: &[(&str, &str, u32)] = &[
    ("packaging/control", "DEBIAN/control", 0o644),
    ("packaging/postinst", "DEBIAN/postinst", 0o755),
    ("packaging/prerm", "DEBIAN/prerm", 0o755),
    ("packaging/copyright", "usr/share/doc/ummunotify-dkms/copyright", 0o644),
    ("packaging/changelog", CHANGELOG, 0o644),
    ("packaging/README.md", "usr/share/doc/ummunotify-dkms/README.md", 0o644),
    ("packaging/modules-load.conf", "usr/lib/modules-load.d/ummunotify.conf", 0o644),
    ("70-ummunotify.rules", "usr/lib/udev/rules.d/70-ummunotify.rules", 0o644),
    (HEADER, "usr/include/ummunotify/linux/ummunotify.h", 0o644),
];

const CHANGELOG: &str = "usr/share/doc/ummunotify-dkms/changelog";
const HEADER: &str = "include/uapi/linux/ummunotify.h";

/// Runs the task.
pub fn main(args: Args) -> Result<u8> {
    let workspace = Workspace::find()?;
    let package = build(&workspace)?;
    println!("package: {}", package.display());
    if args.check { check(workspace, &package) } else { Ok(0) }
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let module = workspace.root.join("ummunotify-kmod");
    let directory = workspace.target.join("package");
    let root = directory.join("root");
    if root.exists() {
        fs::remove_dir_all(&root)?;
    }
    for (from, to, mode) in FILES {
        copy(&module.join(from), &root.join(to), *mode)?;
    }
    let sources = root.join(format!("usr/src/ummunotify-{VERSION}"));
    for entry in fs::read_dir(&module)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| SOURCES.iter().any(|source| end == *source)) {
            copy(&path, &sources.join(path.file_name().unwrap_or_default()), 0o644)?;
        }
    }
    for name in ["Kbuild", "Makefile", HEADER] {
        copy(&module.join(name), &sources.join(name), 0o644)?;
    }
    copy(&module.join("packaging/dkms.conf"), &sources.join("dkms.conf"), 0o644)?;
    Command::new("gzip").args(["-9n"]).arg(root.join(CHANGELOG)).run()?;
    let package = directory.join(format!("ummunotify-dkms_{VERSION}_all.deb"));
    Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(&root)
        .arg(&package)
        .read()?;
    Ok(package)
}

/// Copies a file and fills in the version.
fn copy(from: &Path, to: &Path, mode: u32) -> Result<()> {
    let text =
        fs::read_to_string(from).with_context(|| format!("cannot read {}", from.display()))?;
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(to, text.replace("@VERSION@", VERSION))
        .with_context(|| format!("cannot write {}", to.display()))?;
    fs::set_permissions(to, Permissions::from_mode(mode))?;
    Ok(())
}

/// Installs it where nothing can be spoilt. The guest has no network, so what
/// it needs comes along.
fn check(workspace: Workspace, package: &Path) -> Result<u8> {
    let series = Series::default();
    let properties = series.properties();
    host::provide(&[host::GUEST, properties.needs, host::DKMS])?;
    let kernel = Kernel::provide(&workspace, series)?;
    let directory = workspace.target.join("package/depends");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let apt = Apt::update(workspace.target.join("package/apt"), properties.suites)?;
    apt.download(&["dkms".to_owned()], &directory)?;
    let script = workspace.root.join("ummunotify-kmod/packaging/check.sh");
    let mut words = vec!["sh".to_owned(), path(&script)?, path(&kernel.headers())?];
    for entry in fs::read_dir(&directory)? {
        words.push(path(&entry?.path())?);
    }
    words.push(path(package)?);
    let guest = Guest {
        workspace,
        kernel,
        insert: Vec::new(),
        rdma: false,
        memory: 2048,
        timeout: Duration::from_secs(600),
    };
    let status = guest.run(&Job::here(words)?, &mut |_| ())?.status()?;
    println!("package check: {}", if status == 0 { "passed" } else { "FAILED" });
    Ok(status)
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
