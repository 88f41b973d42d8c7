//! The guest's kernel and the headers to build modules for it.
//!
//! Both come from Debian's packages and are unpacked below the target
//! directory, never installed: an installed kernel would change what this
//! machine boots.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::command::Run;
use crate::host;
use crate::image;
use crate::workspace::Workspace;

/// The kernels that can be had.
#[derive(Clone, Copy, Default, ValueEnum)]
pub enum Series {
    /// Debian 12's
    #[default]
    #[value(name = "6.1")]
    V6_1,
}

impl Series {
    /// The version's beginning, which also names the directory.
    fn version(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
        }
    }

    /// The package that depends on the newest image of the series.
    fn metapackage(self) -> &'static str {
        match self {
            Self::V6_1 => "linux-image-amd64",
        }
    }

    /// The Debian release whose apt offers it.
    fn debian(self) -> &'static str {
        match self {
            Self::V6_1 => "Debian 12",
        }
    }
}

/// The kernel out of its boot image, below the root of the unpacked packages.
const VMLINUX: &str = "boot/vmlinux";

/// An unpacked kernel.
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Holds everything that belongs to this kernel: the unpacked packages,
    /// the modules built for it, logs.
    pub directory: PathBuf,
}

impl Kernel {
    /// Unpacks the kernel unless that was done before.
    pub fn provide(workspace: &Workspace, series: Series) -> Result<Self> {
        let directory = workspace.target.join("guest").join(series.version());
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let _lock = lock(&directory)?;
        // Written last, so it also says that the rest is complete.
        let marker = directory.join("release");
        if let Ok(release) = fs::read_to_string(&marker) {
            return Ok(Self { release: release.trim().to_owned(), directory });
        }
        let release = match release(series) {
            Ok(release) => release,
            Err(_) => {
                host::update()?;
                release(series)?
            }
        };
        let kernel = Self { release, directory };
        if kernel.unpack().is_err() {
            // The lists may name versions that the archive no longer has.
            host::update()?;
            kernel.unpack()?;
        }
        fs::write(&marker, &kernel.release)
            .with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(kernel)
    }

    fn unpack(&self) -> Result<()> {
        let Self { release, directory } = self;
        eprintln!("xtask: downloading and unpacking Linux {release} ...");
        let headers = format!("linux-headers-{release}");
        let mut packages = vec![format!("linux-image-{release}"), headers.clone()];
        packages.extend(depends(&headers)?.into_iter().filter(|name| {
            name.starts_with("linux-headers-") || name.starts_with("linux-kbuild-")
        }));
        let downloads = directory.join("packages");
        let root = self.root();
        for stale in [&downloads, &root] {
            if stale.exists() {
                fs::remove_dir_all(stale)?;
            }
        }
        fs::create_dir_all(&downloads)?;
        let mut download = Command::new("apt-get");
        if nix::unistd::geteuid().is_root() {
            // The user that apt would download as may not enter this directory.
            download.args(["-o", "APT::Sandbox::User=root"]);
        }
        download.args(["download", "-q"]).args(&packages).current_dir(&downloads).read()?;
        for entry in fs::read_dir(&downloads)? {
            Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&root).run()?;
        }
        fs::remove_dir_all(&downloads)?;
        self.relocate_headers()?;
        image::extract(&self.compressed(), &self.root().join(VMLINUX))?;
        let depmod = host::program("depmod").context("depmod is not in PATH; install kmod")?;
        Command::new(depmod).arg("-b").arg(&root).arg(release).run()
    }

    /// The packaged makefile includes another one by its absolute path.
    fn relocate_headers(&self) -> Result<()> {
        let makefile = self.headers().join("Makefile");
        let text = fs::read_to_string(&makefile)
            .with_context(|| format!("cannot read {}", makefile.display()))?;
        let here = "$(dir $(realpath $(lastword $(MAKEFILE_LIST))))../";
        fs::write(&makefile, text.replace("/usr/src/", here))?;
        Ok(())
    }

    /// Where the packages were unpacked.
    fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// What QEMU boots.
    pub fn image(&self) -> PathBuf {
        let extracted = self.root().join(VMLINUX);
        if extracted.exists() { extracted } else { self.compressed() }
    }

    fn compressed(&self) -> PathBuf {
        self.root().join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// What modules are built against.
    pub fn headers(&self) -> PathBuf {
        self.root().join("usr/src").join(format!("linux-headers-{}", self.release))
    }

    /// The kernel's own modules and their index.
    pub fn modules(&self) -> PathBuf {
        self.root().join("lib/modules").join(&self.release)
    }
}

/// Keeps two tasks from building in one directory. Released when the file is
/// closed.
pub fn lock(directory: &Path) -> Result<File> {
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
    Ok(file)
}

/// What `uname -r` will say, from the name of the package that the metapackage
/// stands for.
fn release(series: Series) -> Result<String> {
    let metapackage = series.metapackage();
    let start = format!("linux-image-{}", series.version());
    let packages = depends(metapackage)?;
    let Some(package) = packages.iter().find(|name| name.starts_with(&start)) else {
        bail!(
            "apt's {metapackage} is {packages:?}, not Linux {}; it is offered by {}",
            series.version(),
            series.debian()
        );
    };
    Ok(package.replacen("linux-image-", "", 1))
}

/// The names of the packages that a package depends on.
fn depends(package: &str) -> Result<Vec<String>> {
    if host::program("apt-cache").is_none() {
        bail!("a guest's kernel is taken from Debian's packages, and apt is not on this machine");
    }
    let text = Command::new("apt-cache").args(["show", "--no-all-versions", package]).read()?;
    let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
    let names = depends.unwrap_or_default().split(',').filter_map(|one| {
        // "name (= version) | another"
        one.split_whitespace().next().map(str::to_owned)
    });
    Ok(names.collect())
}
