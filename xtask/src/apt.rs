//! Debian's archives, whichever releases this machine itself uses: apt with a
//! configuration of its own, so that the machine's is neither asked nor changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::Run;
use crate::host;
use crate::host::distribution::debian_architecture;

/// Signs all of them.
pub const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A part of an archive: `bookworm-backports` in `debian`.
#[derive(PartialEq, Eq)]
pub struct Suite {
    /// The last part of the mirror's address.
    pub archive: &'static str,
    /// The directory below `dists`.
    pub name: &'static str,
}

/// Some suites, and apt's lists of what they hold.
pub struct Apt {
    directory: PathBuf,
    architecture: String,
}

impl Apt {
    /// Downloads the lists of packages to `directory`.
    pub fn update(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::update_lists("deb", directory, suites, debian_architecture())
    }

    /// Downloads the lists of packages' sources to `directory`.
    pub fn update_sources(directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::update_lists("deb-src", directory, suites, debian_architecture())
    }

    /// The same as [`update`](Self::update), for machines of another architecture.
    pub fn update_for(architecture: &str, directory: PathBuf, suites: &[Suite]) -> Result<Self> {
        Self::update_lists("deb", directory, suites, architecture)
    }

    fn update_lists(
        kind: &str,
        directory: PathBuf,
        suites: &[Suite],
        architecture: &str,
    ) -> Result<Self> {
        if host::find::program("apt-get").is_none() {
            bail!("what is wanted are Debian's packages, and apt is not on this machine");
        }
        for part in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(part);
            fs::create_dir_all(&path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        let mut sources = String::new();
        for Suite { archive, name } in suites {
            let mirror = mirror(archive);
            let options = format!("arch={architecture} signed-by={KEYRING}");
            sources += &format!("{kind} [{options}] {mirror} {name} main\n");
        }
        fs::write(directory.join("sources.list"), sources)
            .with_context(|| format!("cannot write to {}", directory.display()))?;
        let apt = Self { directory, architecture: architecture.to_owned() };
        let mut update = apt.command("apt-get");
        update.args(["update", "-q", "--error-on=any"]).read().with_context(|| {
            let archives: Vec<_> = suites.iter().map(|suite| mirror(suite.archive)).collect();
            format!(
                "Debian's archive is not reached at {} (another mirror is taken from this \
                 machine's own /etc/apt/sources.list)",
                archives.join(", ")
            )
        })?;
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (option, path) in
            [("State::lists", "lists"), ("Cache", "cache"), ("Etc::sourcelist", "sources.list")]
        {
            let path = self.directory.join(path);
            command.arg("-o").arg(format!("Dir::{option}={}", path.display()));
        }
        for nothing in ["Etc::sourceparts", "Etc::preferences", "Etc::preferencesparts"] {
            command.arg("-o").arg(format!("Dir::{nothing}=/dev/null"));
        }
        // What is installed here is no matter.
        command.args(["-o", "Dir::State::status=/dev/null"]);
        command.arg("-o").arg(format!("APT::Architecture={}", self.architecture));
        if nix::unistd::geteuid().is_root() {
            // The user that apt would download as may not enter this directory.
            command.args(["-o", "APT::Sandbox::User=root"]);
        }
        command.env("LC_ALL", "C");
        command
    }

    /// The names of the packages that the newest version of a package depends
    /// on; of alternatives, the first.
    pub fn depends(&self, package: &str) -> Result<Vec<String>> {
        let text = self.command("apt-cache").args(["show", "--no-all-versions", package]).read()?;
        let depends = text.lines().find_map(|line| line.strip_prefix("Depends: "));
        let names = depends.unwrap_or_default().split(',').filter_map(|one| {
            // "name (= version) | another"
            one.split_whitespace().next().map(str::to_owned)
        });
        Ok(names.collect())
    }

    /// The newest version of a package.
    pub fn version(&self, package: &str) -> Result<String> {
        let text = self.command("apt-cache").args(["show", "--no-all-versions", package]).read()?;
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        Ok(version.with_context(|| format!("{package} has no version"))?.to_owned())
    }

    /// Downloads packages into `directory`.
    pub fn download(&self, packages: &[String], directory: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        download.args(["download", "-q"]).args(packages).current_dir(directory).read()?;
        Ok(())
    }

    /// Downloads packages into `scratch`, which is made for it and removed, and unpacks them to `root`.
    pub fn unpack(&self, packages: &[String], scratch: &Path, root: &Path) -> Result<()> {
        if scratch.exists() {
            fs::remove_dir_all(scratch)?;
        }
        fs::create_dir_all(scratch)?;
        self.download(packages, scratch)?;
        for package in Self::packages_in(scratch)? {
            Command::new("dpkg-deb").arg("-x").arg(package).arg(root).run()?;
        }
        fs::remove_dir_all(scratch)?;
        Ok(())
    }

    /// Downloads the sources of a version of a package, and unpacks them in
    /// `directory`.
    pub fn source(&self, package: &str, version: &str, directory: &Path) -> Result<()> {
        let mut source = self.command("apt-get");
        source.args(["source", "-q", &format!("{package}={version}")]).current_dir(directory);
        source.read()?;
        Ok(())
    }

    /// Downloads into `directory` what a system lacks that is to have packages
    /// and has those that its dpkg lists in `status`; returns the files.
    pub fn download_missing(
        &self,
        packages: &[&str],
        status: &Path,
        directory: &Path,
    ) -> Result<Vec<PathBuf>> {
        fs::create_dir_all(directory.join("partial"))?;
        let mut install = self.command("apt-get");
        install.arg("-o").arg(format!("Dir::State::status={}", status.display()));
        install.arg("-o").arg(format!("Dir::Cache::archives={}", directory.display()));
        install.args(["install", "-q", "-y", "--download-only", "--no-install-recommends"]);
        install.args(packages).read()?;
        Self::packages_in(directory)
    }

    /// What was downloaded there.
    pub fn packages_in(directory: &Path) -> Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "deb") {
                files.push(path);
            }
        }
        Ok(files)
    }
}

/// Where this machine itself gets an archive from, or Debian's own address for
/// it.
pub fn mirror(archive: &str) -> String {
    let targets = Command::new("apt-get").args(["indextargets", "--format=$(REPO_URI)"]).read();
    let end = format!("/{archive}");
    let configured = targets.as_deref().unwrap_or_default().lines();
    let mut configured = configured.map(|uri| uri.trim_end_matches('/'));
    configured
        .find(|uri| uri.ends_with(&end))
        .map_or_else(|| format!("http://deb.debian.org/{archive}"), str::to_owned)
}
