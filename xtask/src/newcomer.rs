//! `cargo xtask newcomer`: runs the README's commands, word for word, on
//! machines that have never seen the project.
//!
//! Such a machine is a fresh root by debootstrap: what Debian's minimal
//! installation has, git, a C compiler and a Rust toolchain. Packages that were
//! once installed on this machine cannot help there.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use nix::fcntl::Flock;

use crate::apt::{self, KEYRING};
use crate::command::{self, Run};
use crate::debian::{BOOKWORM, Release, TRIXIE};
use crate::host;
use crate::host::root::as_root;
use crate::kernel::lock;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What `cargo xtask newcomer` is told.
#[derive(clap::Args)]
pub struct Args {
    /// The machines; if not given, debian-12 and debian-13
    #[arg(long = "machine", value_enum, value_name = "MACHINE")]
    machines: Vec<Machine>,
    /// Machines on which the tests run too, after the demonstration
    #[arg(long = "tests-on", value_enum, value_name = "MACHINE")]
    tests_on: Vec<Machine>,
    /// Machines on which the libraries are built and tested first, by a user
    /// who cannot become root
    #[arg(long = "libraries-on", value_enum, value_name = "MACHINE")]
    libraries_on: Vec<Machine>,
    /// Who types the commands; if not given, an ordinary user with sudo on
    /// debian-12, and root on the others
    #[arg(long, value_enum)]
    user: Option<User>,
    /// The commit that is cloned
    #[arg(long, default_value = "HEAD", value_name = "COMMIT")]
    commit: String,
    /// A package that the machine has from before
    #[arg(long = "install", value_name = "PACKAGE")]
    packages: Vec<String>,
    /// Leave the machines there when they have passed
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Machine {
    /// Debian 12 with this machine's Rust toolchain
    #[value(name = "debian-12")]
    Debian12,
    /// Debian 13 with its own rustc and cargo
    #[value(name = "debian-13")]
    Debian13,
    /// Debian 13 with this machine's Rust toolchain
    #[value(name = "debian-13-rustup")]
    Debian13Rustup,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum User {
    /// The user root
    Root,
    /// One who may ask sudo
    Sudo,
}

impl Machine {
    fn name(self) -> &'static str {
        match self {
            Self::Debian12 => "debian-12",
            Self::Debian13 => "debian-13",
            Self::Debian13Rustup => "debian-13-rustup",
        }
    }

    fn release(self) -> &'static Release {
        match self {
            Self::Debian12 => &BOOKWORM,
            Self::Debian13 | Self::Debian13Rustup => &TRIXIE,
        }
    }

    fn has_own_rust(self) -> bool {
        self == Self::Debian13
    }

    fn user(self) -> User {
        if self == Self::Debian12 { User::Sudo } else { User::Root }
    }
}

/// Where this machine's toolchain is on the new one.
const TOOLCHAIN: &str = "/opt/rust";

/// The ordinary user.
const NAME: &str = "newcomer";

/// What needs neither xtask, nor apt, nor root.
const LIBRARIES: &str = "cargo build && cargo test -p regcache && cargo doc --no-deps";

/// Runs the task; the exit status is 0 if every command did what the README says.
pub fn main(args: Args) -> Result<u8> {
    host::provide(&[host::TREE])?;
    let workspace = Workspace::find()?;
    let readme = fs::read_to_string(workspace.root.join("README.md"))
        .context("cannot read the README, which has the commands")?;
    let [demo, test] = commands(&readme)?;
    let machines = if args.machines.is_empty() {
        vec![Machine::Debian12, Machine::Debian13]
    } else {
        args.machines.clone()
    };
    let mut tally = Tally::default();
    let mut failures = Vec::new();
    for machine in machines {
        let mut lines = Vec::new();
        if args.libraries_on.contains(&machine) {
            lines.push(LIBRARIES);
        }
        lines.push(&demo);
        if args.tests_on.contains(&machine) {
            lines.push(&test);
        }
        let root = Root::make(&workspace, machine, &args);
        let root = root.with_context(|| format!("{}: cannot be made", machine.name()))?;
        for line in lines {
            let what = format!("{}: {line}", machine.name());
            println!("\n== {what}");
            let start = Instant::now();
            let result = root.run(line);
            let seconds = start.elapsed().as_secs();
            tally.check(&what, result.is_ok());
            match result {
                Ok(()) => println!("== {what}: passed ({seconds} s)"),
                Err(error) => {
                    println!("== {what}: FAILED ({seconds} s)\n{error:#}");
                    failures.push(format!("{what}: {error:#}"));
                }
            }
        }
        println!("== {}: {} MiB of files now", machine.name(), root.size());
        if failures.is_empty() && !args.keep {
            root.remove()?;
        } else {
            println!("== {}: left in {}", machine.name(), root.directory.display());
        }
    }
    println!();
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    println!("newcomer: {tally}");
    Ok(u8::from(!failures.is_empty()))
}

/// The README's two commands: the lines of its first block of shell.
fn commands(readme: &str) -> Result<[String; 2]> {
    let block = readme.split("```sh\n").nth(1).and_then(|rest| rest.split("```").next());
    let lines = block.unwrap_or_default().lines();
    let lines = lines.map(|line| line.split(" #").next().unwrap_or(line).trim().to_owned());
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    <[String; 2]>::try_from(lines).map_err(|lines| {
        anyhow::anyhow!("the README's first block of shell should have two commands, not {lines:?}")
    })
}

/// A machine that has never seen the project, and a clone of it there.
struct Root {
    directory: PathBuf,
    machine: Machine,
    user: User,
    /// This machine's toolchain, if it is used.
    toolchain: Option<PathBuf>,
    logs: PathBuf,
    _lock: Flock<File>,
}

/// Runs a command in the root with mounts and processes of its own, so that nothing of either
/// stays, however it ends. The root is a mount of its own, as a machine's is: unshare(1) asks for
/// that. The toolchain can only be read.
const ENTER: &str = r#"
set -e
root="$1" toolchain="$2" user="$3"
shift 3
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mount -t proc proc "$root/proc"
if [ -n "$toolchain" ]; then
	mkdir -p "$root/opt/rust"
	mount --bind -o ro "$toolchain" "$root/opt/rust"
fi
exec chroot --userspec="$user" "$root" /usr/bin/env -i "$@"
"#;

impl Root {
    fn make(workspace: &Workspace, machine: Machine, args: &Args) -> Result<Self> {
        let parent = workspace.target.join("newcomer").join(machine.name());
        fs::create_dir_all(&parent)
            .with_context(|| format!("cannot create {}", parent.display()))?;
        let toolchain = if machine.has_own_rust() { None } else { Some(toolchain()?) };
        let root = Self {
            directory: parent.join("root"),
            machine,
            user: args.user.unwrap_or(machine.user()),
            toolchain,
            _lock: lock(&parent)?,
            logs: parent.clone(),
        };
        root.remove()?;
        let clone = parent.join("clone");
        if clone.exists() {
            fs::remove_dir_all(&clone)?;
        }
        root.bootstrap()?;
        root.connect()?;
        if !args.packages.is_empty() {
            let packages = args.packages.join(" ");
            root.shell(&format!("apt-get update -q && apt-get install -q -y {packages}"))
                .with_context(|| format!("cannot install {packages}"))?;
        }
        root.clone_to_home(workspace, &clone, &args.commit)?;
        Ok(root)
    }

    /// Makes it as Debian's installer would.
    fn bootstrap(&self) -> Result<()> {
        let release = self.machine.release();
        let mut packages = String::from("git,gcc,libc6-dev,ca-certificates,sudo");
        if self.machine.has_own_rust() {
            packages += ",rustc,cargo";
        }
        println!("\n== {}: a fresh root", self.machine.name());
        as_root("unshare")?
            .args(["--mount", "debootstrap", "--variant=minbase"])
            .arg(format!("--keyring={KEYRING}"))
            .arg(format!("--include={packages}"))
            .arg(release.codename)
            .arg(&self.directory)
            .arg(apt::mirror("debian"))
            .stdout(Stdio::null())
            .run()
            .context("debootstrap could not make a root")?;
        let [debian, security] = ["debian", "debian-security"].map(apt::mirror);
        let name = release.codename;
        self.write(
            "etc/apt/sources.list",
            &format!(
                "deb {debian} {name} main\ndeb {debian} {name}-updates main\n\
                 deb {security} {name}-security main\n"
            ),
        )?;
        self.write(&format!("etc/sudoers.d/{NAME}"), &format!("{NAME} ALL=(ALL) NOPASSWD: ALL\n"))?;
        self.shell(&format!("useradd --create-home --shell /bin/sh {NAME}"))
    }

    /// Gives it this machine's network: the resolver, and what this machine trusts beyond Debian.
    fn connect(&self) -> Result<()> {
        // sudo(8) looks for the machine's own name.
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        self.write("etc/hosts", &format!("127.0.0.1 localhost {name}"))?;
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        self.write("etc/resolv.conf", &resolver)?;
        let trusted = Path::new("/usr/local/share/ca-certificates");
        if trusted.exists() {
            as_root("cp")?
                .arg("-r")
                .arg(trusted)
                .arg(self.directory.join("usr/local/share"))
                .run()?;
            self.shell("update-ca-certificates >/dev/null 2>&1")?;
        }
        Ok(())
    }

    fn clone_to_home(&self, workspace: &Workspace, clone: &Path, commit: &str) -> Result<()> {
        let mut git = Command::new("git");
        git.args(["clone", "--quiet", "--no-local", "--no-checkout"]);
        git.arg(&workspace.root).arg(clone).run()?;
        let mut resolve = Command::new("git");
        let commit = resolve.arg("-C").arg(&workspace.root).args(["rev-parse", commit]).read()?;
        Command::new("git")
            .arg("-C")
            .arg(clone)
            .args(["checkout", "--quiet"])
            .arg(commit.trim())
            .run()?;
        let mut status = Command::new("git");
        let status =
            status.arg("-C").arg(&workspace.root).args(["status", "--porcelain"]).read()?;
        if !status.is_empty() {
            eprintln!("xtask: changes that are not committed take no part");
        }
        let home = self.directory.join(format!("home/{NAME}/regcache"));
        as_root("cp")?.arg("-r").arg(clone).arg(&home).run()?;
        fs::remove_dir_all(clone)?;
        let owner = if self.user == User::Root { "root" } else { NAME };
        self.shell(&format!("chown -R {owner}: /home/{NAME}"))
    }

    /// Runs a line of shell in the clone.
    fn run(&self, line: &str) -> Result<()> {
        let log = self.logs.join(format!("{}.log", line.replace([' ', '&'], "-")));
        if line == LIBRARIES {
            // So that nobody can become root by the way.
            self.shell(&format!(
                "mv /etc/sudoers.d/{NAME} /root && chown -R {NAME}: /home/{NAME}"
            ))?;
            let result = self.run_as(NAME, line, &log);
            let owner = if self.user == User::Root { "root" } else { NAME };
            self.shell(&format!(
                "mv /root/{NAME} /etc/sudoers.d && chown -R {owner}: /home/{NAME}"
            ))?;
            return result;
        }
        self.run_as(if self.user == User::Root { "root" } else { NAME }, line, &log)
    }

    fn run_as(&self, user: &str, line: &str, log: &Path) -> Result<()> {
        let mut file =
            File::create(log).with_context(|| format!("cannot create {}", log.display()))?;
        // Both streams in their order.
        let script = format!("cd /home/{NAME}/regcache && {{ {line}; }} 2>&1");
        let mut text = Vec::new();
        let status = self.command(user, &script)?.tee(&mut |piece| {
            text.extend_from_slice(piece);
            // The text is on the terminal too.
            let _ = file.write_all(piece);
        })?;
        let code = command::code(status);
        if code != 0 {
            let text = String::from_utf8_lossy(&text);
            bail!(
                "exit status {code}; the first thing that went wrong:\n  {}\nall of it: {}",
                first_fault(&text),
                log.display()
            );
        }
        Ok(())
    }

    /// Runs a command as root.
    fn shell(&self, script: &str) -> Result<()> {
        let mut command = self.command("root", script)?;
        command.read().map(|_| ())
    }

    fn command(&self, user: &str, script: &str) -> Result<Command> {
        let mut command = as_root("unshare")?;
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ENTER, "enter"]);
        command.arg(&self.directory);
        command.arg(self.toolchain.as_deref().unwrap_or(Path::new("")));
        command.arg(format!("{user}:{user}"));
        let home = if user == "root" { "/root".to_owned() } else { format!("/home/{user}") };
        command.arg(format!("HOME={home}")).arg(format!("USER={user}")).arg("LANG=C.UTF-8");
        let mut path = String::from("/usr/local/bin:/usr/bin:/bin");
        if user == "root" {
            path = format!("/usr/local/sbin:/usr/sbin:/sbin:{path}");
        }
        if self.toolchain.is_some() {
            path = format!("{TOOLCHAIN}/bin:{path}");
        }
        command.arg(format!("PATH={path}"));
        for name in ["http_proxy", "https_proxy", "no_proxy"] {
            if let Ok(value) = std::env::var(name) {
                command.arg(format!("{name}={value}"));
            }
        }
        command.args(["sh", "-c", script]);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// Writes a file that belongs to root.
    fn write(&self, path: &str, text: &str) -> Result<()> {
        let mut tee = as_root("tee")?;
        tee.arg(self.directory.join(path)).stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = tee.spawn().with_context(|| format!("cannot run `{}`", tee.line()))?;
        child.stdin.take().context("tee has no input")?.write_all(text.as_bytes())?;
        if !child.wait()?.success() {
            bail!("cannot write /{path} of the new machine");
        }
        Ok(())
    }

    /// In MiB; 0 if it cannot be told.
    fn size(&self) -> u64 {
        let text = as_root("du").and_then(|mut du| {
            du.args(["--summarize", "--one-file-system", "--block-size=1M"])
                .arg(&self.directory)
                .read()
        });
        let text = text.unwrap_or_default();
        text.split_whitespace().next().and_then(|size| size.parse().ok()).unwrap_or(0)
    }

    fn remove(&self) -> Result<()> {
        if self.directory.exists() {
            as_root("rm")?.args(["-rf", "--one-file-system"]).arg(&self.directory).run()?;
        }
        Ok(())
    }
}

/// Where this machine's own Rust toolchain is, all of it in one directory.
fn toolchain() -> Result<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).read()?;
    let sysroot = PathBuf::from(sysroot.trim());
    if sysroot == Path::new("/usr") || !sysroot.join("bin/cargo").exists() {
        bail!(
            "the Rust toolchain in {} is not one of rustup's, which another root could use; only \
             `--machine debian-13` needs none",
            sysroot.display()
        );
    }
    Ok(sysroot)
}

/// The first line that tells of a fault, or the last line.
fn first_fault(log: &str) -> &str {
    const STARTS: &[&str] = &["error", "xtask: ", "E: ", "FAILED", "make: ***", "not ok "];
    const CONTAINS: &[&str] = &["panicked at", ": FAILED", "... FAILED"];
    const HARMLESS: &str = " ...";
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| {
            let starts = STARTS.iter().any(|start| line.starts_with(start));
            let contains = CONTAINS.iter().any(|part| line.contains(part));
            let said = line.starts_with("xtask: ")
                && (line.ends_with(HARMLESS) || line.starts_with("xtask: this machine lacks"));
            (starts || contains) && !said
        })
        .or_else(|| lines().next_back())
        .unwrap_or("nothing was printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_those_of_the_readme() {
        let readme = include_str!("../../README.md");
        let [demo, test] = commands(readme).expect("two commands");
        assert_eq!(demo, "cargo xtask demo");
        assert_eq!(test, "cargo xtask test");
        assert!(commands("no block").is_err());
        assert!(commands("```sh\none   # first\n```\n").is_err());
    }

    #[test]
    fn the_first_fault_is_named() {
        let log = "xtask: installing make ...\n   Compiling a\nerror: no libclang\nerror: two\n";
        assert_eq!(first_fault(log), "error: no libclang");
        assert_eq!(
            first_fault("xtask: this machine lacks:\n  a: b\nE: Unable to locate package x\n"),
            "E: Unable to locate package x"
        );
        assert_eq!(first_fault("a\nb\n\n"), "b");
        assert_eq!(first_fault(""), "nothing was printed");
    }
}
