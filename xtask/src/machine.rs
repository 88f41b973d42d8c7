//! One run of QEMU: its command line, its output, its end.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::Signal;

use crate::architecture::Architecture;
use crate::command::{Run, Sink, copy};
use crate::host::resources;
use crate::link::End;

/// What a machine is made of.
pub struct Machine<'a> {
    /// Its memory, in MiB.
    pub memory: u32,
    /// What it is.
    pub architecture: &'a Architecture,
    /// The kernel to boot.
    pub image: &'a Path,
    /// The first file system.
    pub initramfs: &'a Path,
    /// Where the kernel's console goes.
    pub console: &'a Path,
    /// What it sees as its root file system.
    pub root: &'a Path,
    /// The project's sources, if they are elsewhere.
    pub sources: Option<&'a Path>,
    /// The directory that the guest may write to.
    pub writable: &'a Path,
    /// What its network device is connected to, if it has one.
    pub link: Option<End>,
}

impl Machine<'_> {
    /// Runs the machine until it ends by itself or for `timeout`, and returns
    /// whether it ended by itself. The guest's standard output goes to this
    /// process's as it comes, and to `output`; its standard error likewise.
    pub fn run(self, timeout: Duration, output: Sink) -> Result<bool> {
        let mut command = self.command();
        let mut child =
            Killed(command.spawn().with_context(|| format!("cannot run `{}`", command.line()))?);
        // The link's other end should hear when this machine goes.
        drop(self.link);
        let stdout = child.0.stdout.take().context("QEMU has no standard output")?;
        let stderr = child.0.stderr.take().context("QEMU has no standard error")?;
        let end = Instant::now() + timeout;
        thread::scope(|scope| {
            scope.spawn(move || copy(stdout, &mut io::stdout(), output));
            scope.spawn(move || copy(stderr, &mut io::stderr(), &mut |_| ()));
            let ended = loop {
                match child.0.try_wait() {
                    Ok(Some(_)) => break Ok(true),
                    Ok(None) if Instant::now() >= end => break Ok(false),
                    Ok(None) => thread::sleep(Duration::from_millis(20)),
                    Err(error) => break Err(error).context("cannot wait for QEMU"),
                }
            };
            // The copies end when the machine is gone.
            drop(child);
            ended
        })
    }

    fn command(&self) -> Command {
        let mut qemu = Command::new(self.architecture.qemu);
        qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        if self.architecture.is_here() && resources::kvm().is_ok() {
            // If it cannot be started after all, QEMU goes on to the next.
            qemu.args(["-accel", "kvm"]);
        }
        qemu.args(["-accel", "tcg,thread=multi", "-smp", "2,sockets=2"]);
        qemu.args(self.architecture.machine);
        // Two nodes of one CPU each, so that there is somewhere to migrate to.
        let node = self.memory.div_ceil(2);
        qemu.arg("-m").arg(format!("{}M", 2 * node));
        for number in 0..2 {
            qemu.arg("-object").arg(format!("memory-backend-ram,id=node{number},size={node}M"));
            qemu.arg("-numa").arg(format!("node,memdev=node{number},cpus={number}"));
        }
        qemu.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        let Architecture { console, kernel, .. } = self.architecture;
        qemu.arg("-append").arg(format!("console={console} {CMDLINE} {kernel}"));
        qemu.arg("-serial").arg(format!("file:{}", escape(self.console)));
        qemu.args(["-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]);
        for port in ["stdout", "stderr"] {
            // A port, not a terminal: nothing changes the bytes. QEMU writes
            // to its own output by name, so that its -chardev stdio does not
            // make this process's terminal non-blocking.
            qemu.arg("-chardev").arg(format!("file,id={port},path=/dev/{port}"));
            qemu.arg("-device").arg(format!("virtserialport,chardev={port},name={port}"));
        }
        let mut shares =
            vec![("root", self.root, "readonly=on"), ("target", self.writable, "readonly=off")];
        shares.extend(self.sources.map(|sources| ("sources", sources, "readonly=on")));
        for (tag, path, mode) in shares {
            let path = escape(path);
            qemu.arg("-fsdev").arg(format!(
                "local,id={tag},path={path},security_model=none,multidevs=remap,{mode}"
            ));
            qemu.arg("-device").arg(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
        }
        if let Some(link) = &self.link {
            qemu.args(link.options());
        }
        qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let link = self.link.as_ref().map(End::descriptor);
        // SAFETY: prctl(2) and fcntl(2) are one system call each; they take no lock and no memory.
        // The descriptor is open in the child, which was forked while `link` was.
        unsafe {
            qemu.pre_exec(move || {
                if let Some(link) = link {
                    fcntl(BorrowedFd::borrow_raw(link), FcntlArg::F_SETFD(FdFlag::empty()))?;
                }
                // Even a killed task must not leave its guest behind.
                Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)
            });
        }
        qemu
    }
}

/// `panic=-1` with QEMU's `-no-reboot` ends the machine at a panic. Warnings
/// are printed from the start, the rest once the command runs: a serial
/// console without KVM takes time.
const CMDLINE: &str = "loglevel=5 panic=-1 oops=panic";

/// In an option of QEMU's, a comma is written twice.
fn escape(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// A child that does not outlive its owner.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
