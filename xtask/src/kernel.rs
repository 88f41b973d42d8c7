//! The guest's kernel and the headers to build modules for it.
//!
//! Both come from Debian's packages and are unpacked below the target
//! directory, never installed: an installed kernel would change what this
//! machine boots.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::apt::Apt;
use crate::architecture::{AMD64, Architecture};
use crate::command::Run;
use crate::foreign::Foreign;
use crate::series::{Properties, Series};
use crate::tree::Tree;
use crate::workspace::Workspace;
use crate::{host, image};

/// The kernel out of its boot image, below the root of the unpacked packages.
const VMLINUX: &str = "boot/vmlinux";

/// An unpacked kernel.
pub struct Kernel {
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Holds everything that belongs to this kernel: the unpacked packages,
    /// the modules built for it, logs.
    pub directory: PathBuf,
    /// How many times as long everything may take on it.
    pub slowdown: u32,
    /// What it runs on.
    pub architecture: &'static Architecture,
    /// Where its modules are built.
    builder: Builder,
}

/// Where a kernel's modules are built.
enum Builder {
    /// On this machine.
    Here,
    /// In a tree, by the release's own compiler.
    Tree(Tree),
    /// In a tree, by a compiler for another architecture.
    Foreign(Foreign),
}

impl Kernel {
    /// Unpacks the kernel unless that was done before, and makes sure that
    /// modules can be built for it.
    pub fn provide(workspace: &Workspace, series: Series) -> Result<Self> {
        let properties = series.properties();
        let directory = workspace.target.join("guest").join(properties.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let _lock = lock(&directory)?;
        let architecture = properties.architecture;
        let builder = if !architecture.is_here() {
            Builder::Foreign(Foreign::provide(workspace, architecture)?)
        } else if properties.release.is_here() {
            Builder::Here
        } else {
            Builder::Tree(Tree::provide(workspace, properties.release)?)
        };
        let release = String::new();
        let mut kernel = Self { release, directory, slowdown: 1, architecture, builder };
        // Written last, so it also says that the rest is complete.
        let marker = kernel.directory.join("release");
        if let Ok(release) = fs::read_to_string(&marker) {
            release.trim().clone_into(&mut kernel.release);
            return Ok(kernel);
        }
        eprintln!("xtask: downloading and unpacking Linux {} ...", properties.name);
        let apt =
            Apt::update_for(architecture.debian, kernel.directory.join("apt"), properties.suites)?;
        kernel.release = newest(&apt, &properties)?;
        kernel.unpack(&apt, &properties)?;
        fs::write(&marker, &kernel.release)
            .with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(kernel)
    }

    /// One that was built on this machine, and put where an unpacked one is.
    pub fn built(release: &str, directory: PathBuf, slowdown: u32) -> Self {
        let (release, builder) = (release.to_owned(), Builder::Here);
        Self { release, directory, slowdown, architecture: &AMD64, builder }
    }

    fn unpack(&self, apt: &Apt, properties: &Properties) -> Result<()> {
        let release = &self.release;
        let root = self.root();
        if root.exists() {
            fs::remove_dir_all(&root)?;
        }
        let (tools, packages): (Vec<_>, Vec<_>) = packages(apt, properties, release)?
            .into_iter()
            .partition(|name| name.starts_with("linux-kbuild-"));
        let downloads = self.directory.join("packages");
        apt.unpack(&packages, &downloads, &root)?;
        // Programs that run on this machine.
        if self.architecture.is_here() {
            apt.unpack(&tools, &downloads, &root)?;
        } else {
            Apt::update(self.directory.join("apt-here"), properties.suites)?
                .unpack(&tools, &downloads, &root)?;
        }
        let lib = root.join("lib");
        if !lib.exists() {
            // Newer packages leave this to the system that they are installed to.
            symlink("usr/lib", &lib).with_context(|| format!("cannot create {}", lib.display()))?;
        }
        relocate(&self.headers())?;
        fs::create_dir_all(root.join("boot"))?;
        image::extract(&self.compressed(), &root.join(VMLINUX))?;
        let depmod =
            host::find::program("depmod").context("depmod is not in PATH; install kmod")?;
        Command::new(depmod).arg("-b").arg(&root).arg(release).run()
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
        let beside_modules = self.modules().join("vmlinuz");
        if beside_modules.exists() {
            return beside_modules;
        }
        self.root().join("boot").join(format!("vmlinuz-{}", self.release))
    }

    /// `make`, where modules can be built for this kernel.
    pub fn make(&self) -> Result<Command> {
        match &self.builder {
            Builder::Here => Ok(Command::new("make")),
            Builder::Tree(tree) => tree.command("make", &self.directory),
            Builder::Foreign(foreign) => foreign.make_modules(),
        }
    }

    /// Where its modules are built, if that is a tree of its release.
    pub fn tree(&self) -> Option<&Tree> {
        match &self.builder {
            Builder::Tree(tree) => Some(tree),
            Builder::Here | Builder::Foreign(_) => None,
        }
    }

    /// What builds its programs, if this machine cannot run them.
    pub fn foreign(&self) -> Option<&Foreign> {
        match &self.builder {
            Builder::Foreign(foreign) => Some(foreign),
            Builder::Here | Builder::Tree(_) => None,
        }
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

/// The packaged makefile names other files by their absolute paths.
pub fn relocate(headers: &Path) -> Result<()> {
    let makefile = headers.join("Makefile");
    let text = fs::read_to_string(&makefile)
        .with_context(|| format!("cannot read {}", makefile.display()))?;
    let here = "unpacked := $(dir $(realpath $(lastword $(MAKEFILE_LIST))))../\n";
    fs::write(&makefile, here.to_owned() + &text.replace("/usr/src/", "$(unpacked)"))?;
    Ok(())
}

/// Keeps two tasks from building in one directory. Released when the file is
/// closed.
pub fn lock(directory: &Path) -> Result<Flock<File>> {
    let path = directory.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .with_context(|| format!("cannot lock {}", path.display()))
}

/// What `uname -r` will say, from the name of the package that the metapackage
/// stands for.
fn newest(apt: &Apt, properties: &Properties) -> Result<String> {
    let start = format!("linux-image-{}.", properties.version);
    let metapackage = format!("linux-image-{}", properties.kind);
    let packages = apt.depends(&metapackage)?;
    let Some(package) = packages.iter().find(|name| name.starts_with(&start)) else {
        bail!("Debian's {metapackage} is {packages:?}, not Linux {}", properties.version);
    };
    Ok(package.replacen("linux-image-", "", 1))
}

/// The image, the headers, and the packages of this version that they are made
/// of.
fn packages(apt: &Apt, properties: &Properties, release: &str) -> Result<Vec<String>> {
    let version = format!("-{}", properties.version);
    let mut packages = vec![format!("linux-image-{release}"), format!("linux-headers-{release}")];
    let mut next = 0;
    while let Some(package) = packages.get(next) {
        for name in apt.depends(package)? {
            let wanted = name.starts_with("linux-") && name.contains(&version);
            if wanted && !packages.contains(&name) {
                packages.push(name);
            }
        }
        next += 1;
    }
    Ok(packages)
}
