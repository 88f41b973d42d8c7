//! Kernels that check themselves: Debian's sources, built here with KASAN,
//! lockdep, kmemleak and fault injection; Linux 6.1, and a real-time 6.12.
//!
//! Configured for the guest and nothing else, it takes two cores some ten
//! minutes; the result is kept until the configuration changes.

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::Hasher;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::apt::{Apt, Suite};
use crate::command::Run;
use crate::debian::{BOOKWORM_SUITES, TRIXIE_SUITES};
use crate::host::Need;
use crate::kernel::{Kernel, lock};
use crate::workspace::Workspace;
use crate::{console, host};

/// What they have beyond the smallest configuration there is.
const FRAGMENT: &str = include_str!("../debug-kernel.config");

/// What is other than that in the real-time one; `=n` is for what it cannot have.
const REAL_TIME: &str = include_str!("../debug-kernel-rt.config");

/// Which of them.
#[derive(Clone, Copy)]
pub enum DebugKernel {
    /// Linux 6.1.
    Plain,
    /// Linux 6.12, the first that is real-time without patches.
    RealTime,
}

/// What this machine must have to build and boot it.
pub const NEEDS: &[&[Need]] = &[host::GUEST, host::KERNEL];

/// In MiB. KASAN takes an eighth for itself, and keeps what is freed for a while.
pub const MEMORY: u32 = 3072;

/// It takes several times as long for everything.
const SLOWDOWN: u32 = 10;

impl DebugKernel {
    /// Its directory.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "debug",
            Self::RealTime => "debug-rt",
        }
    }

    /// Debian's package of sources, which is also the archive in it, and where it is.
    fn package(self) -> (&'static str, &'static [Suite]) {
        match self {
            Self::Plain => ("linux-source-6.1", BOOKWORM_SUITES),
            Self::RealTime => ("linux-source-6.12", TRIXIE_SUITES),
        }
    }

    /// What is configured beyond the smallest configuration.
    fn options(self) -> Vec<(&'static str, &'static str)> {
        let more = match self {
            Self::Plain => "",
            Self::RealTime => REAL_TIME,
        };
        let other: Vec<_> = lines(more).collect();
        let base = lines(FRAGMENT).filter(|(name, _)| !other.iter().any(|(one, _)| one == name));
        base.chain(other.iter().copied()).collect()
    }
}

/// The options of a fragment and their values.
fn lines(fragment: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    fragment.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='))
}

/// Builds the kernel unless that was done before.
pub fn provide(workspace: &Workspace, which: DebugKernel) -> Result<Kernel> {
    let directory = workspace.target.join("guest").join(which.name());
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let _lock = lock(&directory)?;
    // Written last, so it also says that the rest is complete.
    let marker = directory.join("release");
    let fingerprint = format!("{:016x}", fingerprint(which));
    let text = fs::read_to_string(&marker).unwrap_or_default();
    match text.split_whitespace().collect::<Vec<_>>()[..] {
        [release, built, ..] if built == fingerprint => {
            return Ok(Kernel::built(release, directory, SLOWDOWN));
        }
        _ => (),
    }
    if marker.exists() {
        fs::remove_file(&marker)?;
    }
    let (source, version) = unpack(&directory, which)?;
    mend(&source)?;
    configure(&source, which)?;
    build(&source, &directory.join("build.log"))?;
    let release = fs::read_to_string(source.join("include/config/kernel.release"))
        .context("the kernel's build left no release")?;
    let kernel = Kernel::built(release.trim(), directory, SLOWDOWN);
    install(&kernel, &source)?;
    fs::write(&marker, format!("{} {fingerprint} {version}\n", kernel.release))
        .with_context(|| format!("cannot write {}", marker.display()))?;
    Ok(kernel)
}

/// Of the configuration and of what is mended; another compiler's other hash only builds once more.
fn fingerprint(which: DebugKernel) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(format!("{:?}", which.options()).as_bytes());
    hasher.write(TOO_EARLY.as_bytes());
    hasher.finish()
}

/// Downloads and unpacks the sources, unless they are those of the newest
/// version already, and returns where they are and which version.
fn unpack(directory: &Path, which: DebugKernel) -> Result<(PathBuf, String)> {
    let (package, suites) = which.package();
    let source = directory.join(package);
    let marker = directory.join("source");
    let apt = Apt::update(directory.join("apt"), suites)?;
    let version = apt.version(package)?;
    if fs::read_to_string(&marker).is_ok_and(|unpacked| unpacked == version) {
        return Ok((source, version));
    }
    eprintln!("xtask: downloading and unpacking the sources of Linux {version} ...");
    let downloads = directory.join("packages");
    for stale in [&downloads, &source] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    fs::create_dir_all(&downloads)?;
    apt.download(&[package.to_owned()], &downloads)?;
    for entry in fs::read_dir(&downloads)? {
        Command::new("dpkg-deb").arg("-x").arg(entry?.path()).arg(&downloads).run()?;
    }
    let archive = downloads.join(format!("usr/src/{package}.tar.xz"));
    Command::new("tar").arg("-xJf").arg(archive).arg("-C").arg(directory).run()?;
    fs::remove_dir_all(&downloads)?;
    fs::write(&marker, &version).with_context(|| format!("cannot write {}", marker.display()))?;
    Ok((source, version))
}

/// A check that Linux 6.1.192 fails by itself, whoever cuts a mapping of hugetlbfs: `__vma_adjust()`
/// calls `hugetlb_split()`, which looks for a lock, before it takes that. Its reports would hide
/// others, and come from two processors at a time, mixed.
const TOO_EARLY: &str =
    "\ti_mmap_assert_write_locked(vma->vm_file->f_mapping);\n\n\tif (addr & ~PUD_MASK) {";

/// Takes the check out that says nothing. Sources without it are left as they are.
fn mend(source: &Path) -> Result<()> {
    let path = source.join("mm/hugetlb.c");
    let text = fs::read_to_string(&path).with_context(|| format!("no {}", path.display()))?;
    let mended = text.replace(TOO_EARLY, "\n\tif (addr & ~PUD_MASK) {");
    if mended != text {
        fs::write(&path, mended).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// `make` in the sources, untouched by a make that runs this task.
fn make(source: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(source).env("LC_ALL", "C").env_remove("MAKEFLAGS").stdin(Stdio::null());
    make
}

/// The smallest configuration, the fragment on top, and what these imply.
fn configure(source: &Path, which: DebugKernel) -> Result<()> {
    let options = which.options();
    let config = source.join(".config");
    make(source).args(["-s", "tinyconfig"]).read()?;
    let tiny = fs::read_to_string(&config).with_context(|| format!("no {}", config.display()))?;
    // Of two lines about one option, the last counts, and the configuration
    // says so: only of what the fragment means to change.
    let mut merged = String::new();
    for line in tiny.lines().filter(|line| !options.iter().any(|(name, _)| is_about(line, name))) {
        merged += line;
        merged += "\n";
    }
    for (name, value) in &options {
        merged += &format!("{name}={value}\n");
    }
    fs::write(&config, merged).with_context(|| format!("cannot write {}", config.display()))?;
    make(source).args(["-s", "olddefconfig"]).read()?;
    let result = fs::read_to_string(&config)?;
    let lost: Vec<_> = options
        .iter()
        .filter(|(name, value)| {
            let set = result.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            set.unwrap_or("n") != *value
        })
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    if !lost.is_empty() {
        bail!(
            "the kernel's configuration does not take {} (does it depend on another option?)",
            lost.join(", ")
        );
    }
    Ok(())
}

/// `CONFIG_X=y` and `# CONFIG_X is not set` are about `CONFIG_X`.
fn is_about(line: &str, option: &str) -> bool {
    let line = line.strip_prefix("# ").unwrap_or(line);
    line.strip_prefix(option).is_some_and(|rest| rest.starts_with(['=', ' ']))
}

/// Compiles, shows how far it is, and leaves all that make says in `log`.
fn build(source: &Path, log: &Path) -> Result<()> {
    const SHOW_EVERY: Duration = Duration::from_secs(20);
    let mut file = File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
    eprintln!("xtask: building the debug kernel; this takes a while ...");
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let mut make = make(source);
    make.arg(format!("-j{cores}")).args(["bzImage", "modules"]);
    make.stdout(Stdio::piped()).stderr(file.try_clone()?);
    let mut child = make.spawn().with_context(|| format!("cannot run `{}`", make.line()))?;
    let start = Instant::now();
    let mut shown = start;
    let mut steps = 0;
    for line in BufReader::new(child.stdout.take().context("make has no output")?).lines() {
        let line = line?;
        writeln!(file, "{line}")?;
        steps += 1;
        if shown.elapsed() >= SHOW_EVERY {
            shown = Instant::now();
            let seconds = start.elapsed().as_secs();
            eprintln!("xtask: {steps} steps in {seconds} s, now {}", line.trim());
        }
    }
    let status = child.wait()?;
    if !status.success() {
        let text = fs::read_to_string(log).unwrap_or_default();
        bail!(
            "the debug kernel's build failed: {status}\n{}\nall of it: {}",
            console::tail(&text, 12),
            log.display()
        );
    }
    Ok(())
}

/// Puts everything where an unpacked kernel has it.
fn install(kernel: &Kernel, source: &Path) -> Result<()> {
    // Modules of the project that were built for another configuration.
    for stale in [kernel.directory.join("module"), kernel.directory.join("root")] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    let root = kernel.directory.join("root");
    let depmod = host::find::program("depmod").context("depmod is not in PATH; install kmod")?;
    make(source)
        .args(["-s", "modules_install"])
        .arg(format!("INSTALL_MOD_PATH={}", root.display()))
        .arg(format!("DEPMOD={}", depmod.display()))
        .read()?;
    fs::copy(source.join("arch/x86/boot/bzImage"), kernel.modules().join("vmlinuz"))
        .context("the kernel's build left no bzImage")?;
    let headers = kernel.headers();
    fs::create_dir_all(headers.parent().unwrap_or(&root))?;
    symlink(source, &headers).with_context(|| format!("cannot create {}", headers.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_fragments_is_an_option_or_a_comment() {
        for line in FRAGMENT.lines().chain(REAL_TIME.lines()) {
            let is_option = line.starts_with("CONFIG_") && line.contains('=');
            assert!(line.is_empty() || line.starts_with("# ") || is_option, "{line}");
        }
        for which in [DebugKernel::Plain, DebugKernel::RealTime] {
            let mut names: Vec<_> = which.options().iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "an option is there twice");
        }
    }

    #[test]
    fn a_line_is_about_one_option() {
        assert!(is_about("CONFIG_KASAN=y", "CONFIG_KASAN"));
        assert!(is_about("# CONFIG_KASAN is not set", "CONFIG_KASAN"));
        assert!(!is_about("CONFIG_KASAN_INLINE=y", "CONFIG_KASAN"));
        assert!(!is_about("# what KASAN wants", "CONFIG_KASAN"));
    }
}
