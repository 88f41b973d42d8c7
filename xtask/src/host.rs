//! What this machine must have, and how it gets what is missing.
//!
//! On Debian and what derives from it, missing packages are installed, after a list of them has
//! been printed. Elsewhere nothing is touched, and the error says what to install.

pub mod distribution;
pub mod find;
mod needs;
pub mod resources;
pub mod root;

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::command::Run;
use distribution::{Distribution, Family};
pub use needs::*;
use root::as_root;

/// One thing that must be there.
pub struct Need {
    what: What,
    purpose: &'static str,
    /// As Debian calls it.
    package: &'static str,
}

enum What {
    Program(&'static str),
    Library(&'static str),
    File(&'static str),
    /// A name for people, and a search for what has no fixed place.
    Probe(&'static str, fn() -> Option<PathBuf>),
}

impl Need {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self.what {
            What::Program(name) | What::Library(name) | What::File(name) | What::Probe(name, _) => {
                name
            }
        }
    }

    /// Where it is.
    pub fn found(&self) -> Option<PathBuf> {
        match self.what {
            What::Program(name) => find::program(name),
            What::Library(name) => find::library(name),
            What::File(path) => find::file(path),
            What::Probe(_, search) => search(),
        }
    }

    /// What it is for, and which package of this machine's system has it.
    pub fn remedy(&self) -> String {
        match Distribution::here().family().package(self.package) {
            Some(package) => format!("{} (package {package})", self.purpose),
            None => format!("{} (this system has no package of it)", self.purpose),
        }
    }
}

/// Makes sure that everything in `needs` is there.
pub fn provide(needs: &[&[Need]]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    if !distribution::has_apt() {
        bail!("{}", describe(&missing));
    }
    let packages = packages(&missing);
    // Before anything is asked for or installed.
    eprintln!("xtask: {}", list(&missing));
    let mut install = as_root("apt-get").with_context(|| advice(&missing))?;
    update()?;
    eprintln!("xtask: installing by apt-get: {} ...", packages.join(" "));
    install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&packages)
        .stdout(Stdio::null())
        .run()
        .with_context(|| advice(&missing))?;
    let missing = self::missing(needs);
    if !missing.is_empty() {
        bail!("still not there after apt-get install:\n{}", describe(&missing));
    }
    Ok(())
}

/// Every need, each thing once.
pub fn each<'a>(needs: &[&'a [Need]]) -> Vec<&'a Need> {
    let mut all: Vec<&Need> = Vec::new();
    for need in needs.iter().flat_map(|group| group.iter()) {
        if !all.iter().any(|other| other.name() == need.name()) {
            all.push(need);
        }
    }
    all
}

/// What is not there.
pub fn missing<'a>(needs: &[&'a [Need]]) -> Vec<&'a Need> {
    each(needs).into_iter().filter(|need| need.found().is_none()).collect()
}

fn packages(missing: &[&Need]) -> Vec<&'static str> {
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn list(missing: &[&Need]) -> String {
    let mut text = String::from("this machine lacks:\n");
    for need in missing {
        text += &format!("  {}: {}\n", need.name(), need.remedy());
    }
    text.trim_end().to_owned()
}

fn describe(missing: &[&Need]) -> String {
    format!("{}\n{}", list(missing), advice(missing))
}

/// The command that installs it, and what else one must know.
pub fn advice(missing: &[&Need]) -> String {
    let system = Distribution::here();
    let family = system.family();
    let mut text = match family.install(&packages(missing)) {
        Some(command) => format!("install that with\n  {command}\nand start again"),
        None => format!(
            "{} has a package manager that is not known here: install that and start again",
            system.name
        ),
    };
    if !matches!(family, Family::Debian) {
        text += "\n(Guests boot kernels from Debian's archive on this machine's own files; the \
                 libraries need none of this, only a C compiler: `cargo build -p regcache`, \
                 `make -C regcache-ffi`.)";
    }
    text
}

/// Refreshes apt's package lists, once in the life of this process.
fn update() -> Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !*done {
        eprintln!("xtask: refreshing the package lists ...");
        let mut update = as_root("apt-get")?;
        if let Err(error) = update.args(["update", "-q"]).stdout(Stdio::null()).run() {
            // One source of many may be away; the next step tells whether it
            // was needed.
            eprintln!("xtask: {error:#}; going on with the lists as they are");
        }
        *done = true;
    }
    Ok(())
}
