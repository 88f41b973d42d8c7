//! `cargo xtask package`: the kernel module as a Debian package that builds it
//! with DKMS.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::apt::{Apt, Suite};
use crate::command::Run;
use crate::guest::{Guest, Job};
use crate::host;
use crate::kernel::Kernel;
use crate::series::Series;
use crate::workspace::Workspace;

/// What `cargo xtask package` is told.
#[derive(clap::Args)]
pub struct Args {
    /// Also install, load, unload and remove it in guests
    #[arg(long)]
    check: bool,
    /// Check it on this kernel only
    #[arg(long, value_enum, requires = "check")]
    kernel: Option<Series>,
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The module's sources that are in the package; the rest is for tests.
const SOURCES: &[&str] = &["c", "h", "sh"];
const SOURCE_DIRECTORIES: &[&str] = &["", "probes", "probes/required"];

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
    if !args.check {
        return Ok(0);
    }
    let mut result = 0;
    for series in args.kernel.map_or(Series::TESTED.to_vec(), |one| vec![one]) {
        result = result.max(check(&package, series)?);
    }
    Ok(result)
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
    for part in SOURCE_DIRECTORIES {
        for entry in fs::read_dir(module.join(part))? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| SOURCES.iter().any(|source| end == *source)) {
                let name = path.file_name().unwrap_or_default();
                copy(&path, &sources.join(part).join(name), 0o644)?;
            }
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

/// Installs it where nothing can be spoilt: in a guest, on this machine's files,
/// or on those of the newer Debian that the kernel's headers are for. The guest
/// has no network, so what it needs comes along.
fn check(package: &Path, series: Series) -> Result<u8> {
    let workspace = Workspace::find()?;
    let properties = series.properties();
    host::provide(&[host::GUEST, properties.release.needs(), host::DKMS])?;
    let kernel = Kernel::provide(&workspace, series)?;
    let directory = workspace.target.join("package");
    let depends = directory.join("depends");
    if depends.exists() {
        fs::remove_dir_all(&depends)?;
    }
    fs::create_dir_all(&depends)?;

    let source = workspace.root.join("ummunotify-kmod/packaging");
    let script = directory.join("check.sh");
    copy(&source.join("check.sh"), &script, 0o755)?;
    let mut words = vec!["sh".to_owned()];
    let release = properties.release;
    let suite = Suite { archive: "debian", name: release.codename };
    let packages = match kernel.tree() {
        Some(tree) => {
            words.push(path(&source.join("in-tree.sh"))?);
            words.extend([path(tree.root())?, path(&workspace.target)?, "sh".to_owned()]);
            let apt = Apt::update(directory.join(release.name), &[suite])?;
            let status = tree.root().join("var/lib/dpkg/status");
            apt.download_missing(&["dkms"], &status, &depends)?
        }
        None => {
            let apt = Apt::update(directory.join("apt"), &[suite])?;
            apt.download(&["dkms".to_owned()], &depends)?;
            Apt::packages_in(&depends)?
        }
    };
    words.extend([path(&script)?, path(&kernel.headers())?]);
    for file in packages.iter().map(PathBuf::as_path).chain([package]) {
        words.push(path(file)?);
    }
    let guest = Guest {
        workspace,
        kernel,
        insert: Vec::new(),
        rdma: false,
        memory: 2048,
        timeout: Duration::from_secs(900),
    };
    let status = guest.run(&Job::here(words)?, &mut |_| ())?.status()?;
    let result = if status == 0 { "passed" } else { "FAILED" };
    println!("package check on Linux {}: {result}", properties.name);
    Ok(status)
}

fn path(path: &Path) -> Result<String> {
    Ok(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?.to_owned())
}
