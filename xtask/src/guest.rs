//! `cargo xtask guest`: runs a command in a virtual machine that has the
//! kernel module and a soft-RoCE device, and shares this machine's files.

use std::env::{self, consts::ARCH};
use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::{self, Run, Sink};
use crate::debug_kernel::DebugKernel;
use crate::foreign::Foreign;
use crate::host::resources;
use crate::kernel::Kernel;
use crate::link::End;
use crate::machine::Machine;
use crate::series::Series;
use crate::workspace::Workspace;
use crate::{console, debug_kernel, host, initramfs, module, native};

/// What `cargo xtask guest` is told.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    options: Options,
    /// Boot a kernel that checks itself, with KASAN, lockdep, kmemleak and
    /// fault injection; the first time, it is built
    #[arg(long, conflicts_with = "kernel")]
    debug_kernel: bool,
    /// Give up after this many seconds; if not given, 900, and ten times that
    /// on a debug kernel
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Create no RDMA device
    #[arg(long)]
    no_rdma: bool,
    /// Do not build and load the kernel module
    #[arg(long)]
    no_module: bool,
    /// Load the kernel module's test helpers too
    #[arg(long)]
    test_modules: bool,
    /// The command and its arguments, run as root in this directory
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// What every task that needs a guest is told.
#[derive(Clone, clap::Args)]
pub struct Options {
    /// The guest's kernel; if not given, 6.1, and for tests every one
    #[arg(long, value_enum)]
    pub kernel: Option<Series>,
    /// The guest's memory; if not given, 3072, and 1024 for the demonstration
    #[arg(long, value_name = "MIB")]
    pub memory: Option<u32>,
    /// Boot a guest even if this machine has the module and an RDMA device
    #[arg(long)]
    pub force_guest: bool,
}

/// The guest's memory if nothing else is said, in MiB: the tests have huge pages and page out.
pub const MEMORY: u32 = 3072;

/// An error if guests cannot be had here, whatever is installed.
pub fn require(memory: u32) -> Result<()> {
    if ARCH != "x86_64" {
        bail!(
            "guests run on x86-64 machines so far, and this one is {ARCH}; the libraries build and \
             test here: `cargo test -p regcache`"
        );
    }
    resources::require_memory(memory)
}

/// A command's longest time, in seconds.
const TIMEOUT: u64 = 900;

/// Runs the task and returns the command's exit status.
pub fn main(args: Args) -> Result<u8> {
    let job = Job::here(args.command)?;
    let options = &args.options;
    if !args.debug_kernel && options.stays_here() {
        return job.run_here(&mut |_| ())?.status();
    }
    let workspace = Workspace::find()?;
    let kernel = if args.debug_kernel {
        host::provide(debug_kernel::NEEDS)?;
        debug_kernel::provide(&workspace, DebugKernel::Plain)?
    } else {
        let series = options.kernel.unwrap_or_default();
        host::provide(&[host::GUEST, series.properties().release.needs()])?;
        Kernel::provide(&workspace, series)?
    };
    let memory = if args.debug_kernel {
        options.memory(debug_kernel::MEMORY).max(debug_kernel::MEMORY)
    } else {
        options.memory(MEMORY)
    };
    let timeout = args.timeout.unwrap_or(TIMEOUT * u64::from(kernel.slowdown));
    let mut insert = Vec::new();
    if !args.no_module {
        let modules = module::build(&workspace, &kernel)?;
        insert.push(modules.main);
        if args.test_modules {
            insert.extend(modules.helpers);
        }
    }
    let guest = Guest {
        workspace,
        kernel,
        insert,
        rdma: !args.no_rdma,
        memory,
        timeout: Duration::from_secs(timeout),
    };
    guest.run(&job, &mut |_| ())?.status()
}

impl Options {
    /// What was said, or `default`, in MiB.
    pub fn memory(&self, default: u32) -> u32 {
        self.memory.unwrap_or(default)
    }

    /// True, and said so, if this machine is as good as a guest.
    pub fn stays_here(&self) -> bool {
        let here = native::is_ready() && !self.force_guest;
        if here {
            eprintln!("xtask: this machine has the module and an RDMA device; running here");
        }
        here
    }
}

/// A command with its directory and environment.
pub struct Job {
    /// The program and its arguments.
    pub words: Vec<String>,
    /// Where it runs.
    pub directory: PathBuf,
}

impl Job {
    /// `words` to be run in the current directory.
    pub fn here(words: Vec<String>) -> Result<Self> {
        Ok(Self { words, directory: env::current_dir().context("there is no current directory")? })
    }

    /// Runs it without a guest. What it prints goes to `output` too.
    pub fn run_here(&self, output: Sink) -> Result<Outcome> {
        let [program, arguments @ ..] = self.words.as_slice() else {
            bail!("there is no command to run");
        };
        let mut command = Command::new(program);
        let status = command.args(arguments).current_dir(&self.directory).tee(output)?;
        Ok(Outcome { exit: Some(command::code(status)), fault: None })
    }

    /// A shell script that becomes the command.
    fn script(&self) -> Result<String> {
        let mut script = String::from("ulimit -l unlimited\n");
        for (name, value) in env::vars().filter(|(name, _)| is_passed_on(name)) {
            script += &format!("export {name}={}\n", quote(&value)?);
        }
        // Not all users have root's programs in their PATH.
        script += "export PATH=\"$PATH:/usr/local/sbin:/usr/sbin:/sbin\"\n";
        let directory = self.directory.to_str().context("the current directory is not UTF-8")?;
        script += &format!("cd {} || exit 126\nexec", quote(directory)?);
        for word in &self.words {
            script += &format!(" {}", quote(word)?);
        }
        Ok(script + "\n")
    }
}

/// The word as a shell reads it back.
pub fn quote(word: &str) -> Result<String> {
    Ok(shlex::try_quote(word).with_context(|| format!("{word:?} holds a NUL byte"))?.into_owned())
}

/// Which variables a command in the guest sees: what steers it, and nothing
/// that is secret or means something only on the host.
fn is_passed_on(name: &str) -> bool {
    const NAMES: &[&str] = &["PATH", "HOME", "LANG", "TERM", "LD_LIBRARY_PATH"];
    const STARTS: &[&str] =
        &["REGCACHE_", "RUST_", "PROPTEST_", "CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_TARGET_"];
    NAMES.contains(&name) || STARTS.iter().any(|start| name.starts_with(start))
}

/// A virtual machine to be.
pub struct Guest {
    /// Whose target directory it may write to.
    pub workspace: Workspace,
    /// Its kernel.
    pub kernel: Kernel,
    /// The project's modules to load, in this order.
    pub insert: Vec<PathBuf>,
    /// Whether it gets a soft-RoCE device.
    pub rdma: bool,
    /// Its memory, in MiB.
    pub memory: u32,
    /// When to give up.
    pub timeout: Duration,
}

/// How a guest ended.
pub struct Outcome {
    /// The command's exit status, unless the guest ended before the command.
    pub exit: Option<u8>,
    /// What is wrong with the kernel or the machine, whatever the command said.
    pub fault: Option<String>,
}

impl Outcome {
    /// The command's exit status, if the guest was well.
    pub fn status(self) -> Result<u8> {
        match self {
            Self { fault: Some(fault), .. } => bail!("{fault}"),
            Self { exit: Some(exit), .. } => Ok(exit),
            Self { exit: None, fault: None } => bail!("the guest ended without a reason"),
        }
    }
}

impl Guest {
    /// Boots, runs the command, and judges. The command's output goes to this
    /// process's as it comes, standard output also to `output`.
    ///
    /// From start to the command on two cores without KVM, with other work on
    /// one of them: 6 to 7 seconds, of which the kernel takes 3; virtme-ng took
    /// 20.
    pub fn run(&self, job: &Job, output: Sink) -> Result<Outcome> {
        self.run_linked(None, job, output)
    }

    /// The same for a guest with another one at the other end of a link. Its soft-RoCE device is on
    /// that link, and its name is the end's.
    pub fn run_linked(&self, link: Option<End>, job: &Job, output: Sink) -> Result<Outcome> {
        require(self.memory)?;
        let name = link.as_ref().map_or_else(|| "guest".to_owned(), End::name);
        let scratch = Scratch::create(&self.kernel.directory, &name)?;
        let run = &scratch.0;
        let settings = self.settings(run, &name)?;
        write(&run.join("settings"), &settings)?;
        write(&run.join("command.sh"), &job.script()?)?;
        write(&run.join("run.sh"), include_str!("../guest/run.sh"))?;
        let initramfs = run.join("initramfs");
        initramfs::write(&initramfs, &self.kernel, &settings)?;
        let log = new_log(&self.kernel.directory.join("log"))?;
        let foreign = self.kernel.foreign();
        let root = foreign.map_or_else(|| PathBuf::from("/"), Foreign::root);
        let machine = Machine {
            memory: self.memory,
            architecture: self.kernel.architecture,
            root: &root,
            sources: foreign.map(|_| self.workspace.root.as_path()),
            image: &self.kernel.image(),
            initramfs: &initramfs,
            console: &log,
            writable: &self.workspace.target,
            link,
        };
        let ended = machine.run(self.timeout, output)?;
        let text = fs::read(&log).with_context(|| format!("cannot read {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let exit = fs::read_to_string(run.join("status")).ok();
        let exit = exit.and_then(|status| status.trim().parse().ok());
        let log = log.display();
        let fault = if let Some(before) = console::init_failed(&text) {
            Some(format!(
                "the guest did not come up:\n{}\nits log: {log}",
                console::tail(before, 5)
            ))
        } else if let Some(report) = console::report(&text) {
            Some(format!("the guest's kernel complains: {report}\nits log: {log}"))
        } else if !ended {
            let seconds = self.timeout.as_secs();
            Some(format!(
                "the guest did not end within {seconds} s and was killed; --timeout gives it \
                 longer\nits log: {log}"
            ))
        } else if exit.is_none() {
            let tail = console::tail(&text, 12);
            Some(format!("the guest ended before the command did:\n{tail}\nits log: {log}"))
        } else {
            None
        };
        Ok(Outcome { exit, fault })
    }

    /// What the guest's scripts need to know, as a shell script.
    fn settings(&self, run: &Path, name: &str) -> Result<String> {
        let insert: Vec<_> = self.insert.iter().map(|path| path.to_string_lossy()).collect();
        let path = |path: &Path| -> Result<String> {
            quote(path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?)
        };
        Ok(format!(
            "NAME={name}\nSOURCES={}\nTARGET={}\nRUN={}\nRELEASE={}\nMODULES={}\nRDMA={}\nINSERT={}\nSLOWDOWN={}\n",
            // On a root of its own it lacks them.
            self.kernel.foreign().map_or(Ok(String::new()), |_| path(&self.workspace.root))?,
            path(&self.workspace.target)?,
            path(run)?,
            self.kernel.release,
            path(&self.kernel.modules())?,
            u8::from(self.rdma),
            quote(&insert.join(" "))?,
            self.kernel.slowdown,
        ))
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// A directory for one run, removed afterwards.
struct Scratch(PathBuf);

impl Scratch {
    fn create(parent: &Path, name: &str) -> Result<Self> {
        let path = parent.join(format!("run-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left behind takes space below target/, nothing more.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The first free `console-<n>.log`, created, so that runs at the same time
/// have different ones.
fn new_log(directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    for number in 1.. {
        let path = directory.join(format!("console-{number}.log"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(_) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot create {}", path.display()));
            }
        }
    }
    bail!("no number is free for a log in {}", directory.display())
}
