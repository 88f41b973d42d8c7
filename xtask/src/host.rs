//! What this machine must have, and how it gets what is missing.
//!
//! On Debian and Ubuntu missing packages are installed; elsewhere nothing is
//! touched and the error lists what to install.

use std::env;
use std::fs;
use std::io::{IsTerminal, stdin};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

use crate::apt::KEYRING;
use crate::command::Run;

/// One thing that must be there.
pub struct Need {
    what: What,
    purpose: &'static str,
    package: &'static str,
}

enum What {
    Program(&'static str),
    Library(&'static str),
    File(&'static str),
    /// A name for people, and a test for what no single file tells.
    Probe(&'static str, fn() -> bool),
}

const fn need(what: What, purpose: &'static str, package: &'static str) -> Need {
    Need { what, purpose, package }
}

use What::{File, Library, Probe, Program};

/// To boot a guest that runs on this machine's own root file system.
pub const GUEST: &[Need] = &[
    need(Program("qemu-system-x86_64"), "boots the guest", "qemu-system-x86"),
    need(Probe("a static busybox", static_busybox), "starts the guest", "busybox-static"),
    need(Program("xz"), "unpacks the guest's kernel", "xz-utils"),
    need(Program("zstd"), "unpacks newer kernels", "zstd"),
    need(File(KEYRING), "tells that a kernel is Debian's", "debian-archive-keyring"),
    need(Program("depmod"), "finds the kernel modules that a guest needs", "kmod"),
    need(Program("ip"), "gives the guest a network device", "iproute2"),
    need(Program("rdma"), "creates the guest's soft-RoCE device", "iproute2"),
    need(Library("libibverbs.so.1"), "lets programs use RDMA", "libibverbs1"),
    need(Library("librdmacm.so.1"), "connects RDMA programs", "librdmacm1"),
    need(File("/etc/libibverbs.d/rxe.driver"), "drives soft-RoCE", "ibverbs-providers"),
    need(Program("ibv_devinfo"), "shows RDMA devices", "ibverbs-utils"),
];

/// To build kernel modules against headers that were unpacked, not installed.
pub const MODULE: &[Need] = &[
    need(Program("make"), "builds the kernel module", "make"),
    need(Program("gcc-12"), "compiled the kernel, so it compiles its modules", "gcc-12"),
    need(Library("libelf.so.1"), "is used by the kernel's objtool", "libelf1"),
    need(Program("sparse"), "checks the kernel module", "sparse"),
];

/// To build kernel modules in a tree of a newer Debian.
pub const TREE: &[Need] = &[
    need(Program("debootstrap"), "makes a Debian to build the kernel module in", "debootstrap"),
    need(Program("unshare"), "keeps that Debian's mounts to itself", "util-linux"),
];

/// To build a kernel.
pub const KERNEL: &[Need] = &[
    need(Program("make"), "builds the debug kernel", "make"),
    need(Program("gcc"), "compiles the debug kernel", "gcc"),
    need(Program("bc"), "is used by the kernel's build", "bc"),
    need(Program("bison"), "is used by the kernel's build", "bison"),
    need(Program("flex"), "is used by the kernel's build", "flex"),
    need(Program("perl"), "is used by the kernel's build", "perl"),
    need(File("/usr/include/libelf.h"), "is used by the kernel's objtool", "libelf-dev"),
    need(File("/usr/include/openssl/ssl.h"), "is used by the kernel's build", "libssl-dev"),
];

/// To install the module's package in a guest.
pub const DKMS: &[Need] = &[
    need(Program("dpkg-deb"), "makes packages", "dpkg"),
    need(Program("patch"), "is wanted by dkms", "patch"),
    need(Program("dpkg-architecture"), "is wanted by dkms", "dpkg-dev"),
    need(Program("pahole"), "is wanted by newer kernels' headers", "pahole"),
];

/// To build the C tests of the device's interface.
pub const SELFTESTS: &[Need] = &[
    need(Program("make"), "builds the C tests", "make"),
    need(Program("gcc"), "compiles the C tests", "gcc"),
    need(File("/usr/include/stdio.h"), "compiles the C tests", "libc6-dev"),
];

/// To test the C interface.
pub const C_INTERFACE: &[Need] = &[
    need(Program("make"), "builds the C library", "make"),
    need(Program("g++"), "reads the C header as C++", "g++"),
    need(Program("valgrind"), "watches programs that use the C library", "valgrind"),
    need(Program("mandoc"), "checks the manual page", "mandoc"),
    need(Probe("libasan, for gcc", has_libasan), "watches programs that use the C library", "gcc"),
];

/// To build the workspace with all features.
pub const WORKSPACE: &[Need] = &[
    need(Program("gcc"), "links Rust programs", "gcc"),
    need(File("/usr/include/stdio.h"), "describes the C library", "libc6-dev"),
    need(Program("pkg-config"), "finds libibverbs for rdma-sys", "pkg-config"),
    need(File("/usr/include/infiniband/verbs.h"), "is bound by rdma-sys", "libibverbs-dev"),
    need(File("/usr/include/rdma/rdma_cma.h"), "is bound by rdma-sys", "librdmacm-dev"),
    need(
        Probe("libclang, version 11 to 15", || libclang().is_some()),
        "lets rdma-sys read C headers (its bindgen crashes with later versions)",
        "libclang-14-dev",
    ),
];

/// To build what compares the cache with its peers.
pub const PEERS: &[Need] = &[
    need(Program("pkg-config"), "tells the peers' versions", "pkg-config"),
    need(File("/usr/include/ucs/memory/rcache.h"), "describes UCX's cache", "libucx-dev"),
    need(File("/usr/include/rdma/fi_domain.h"), "describes libfabric's cache", "libfabric-dev"),
];

/// To build the plug-ins and their tests, and to run those.
pub const PLUGINS: &[Need] = &[
    need(Program("make"), "builds the plug-ins", "make"),
    need(Program("gcc"), "compiles the plug-ins", "gcc"),
    need(File("/usr/include/infiniband/verbs.h"), "describes libibverbs", "libibverbs-dev"),
    need(File("/usr/include/rdma/fi_ext.h"), "describes libfabric's monitors", "libfabric-dev"),
    need(File("/usr/include/ucp/api/ucp.h"), "describes UCX", "libucx-dev"),
    need(
        File("/usr/lib/x86_64-linux-gnu/openmpi/include/openmpi/opal/mca/rcache/rcache.h"),
        "describes Open MPI's caches",
        "libopenmpi-dev",
    ),
    need(Program("unshare"), "hides the device from a test", "util-linux"),
];

/// To build Open MPI's btl/openib.
pub const OPENIB: &[Need] = &[
    need(Program("dpkg-source"), "unpacks sources", "dpkg-dev"),
    need(File(KEYRING), "tells that sources are Debian's", "debian-archive-keyring"),
    need(File("/usr/include/rdma/rdma_cma.h"), "describes librdmacm", "librdmacm-dev"),
    need(File("/usr/include/hwloc.h"), "describes libhwloc", "libhwloc-dev"),
    need(File("/usr/include/event2/event.h"), "describes libevent", "libevent-dev"),
];

/// To run MPI over RDMA.
pub const MPI: &[Need] = &[
    need(Program("mpirun.openmpi"), "runs MPI programs", "openmpi-bin"),
    need(Program("ompi_info"), "tells where Open MPI's components are", "openmpi-bin"),
    need(Program("mpicc.openmpi"), "compiles MPI programs", "libopenmpi-dev"),
    need(Program("taskset"), "gives both ranks one processor", "util-linux"),
];

impl Need {
    fn name(&self) -> &'static str {
        match self.what {
            Program(name) | Library(name) | File(name) | Probe(name, _) => name,
        }
    }

    fn is_met(&self) -> bool {
        match self.what {
            Program(name) => program(name).is_some(),
            Library(name) => library(name).is_some(),
            File(path) => Path::new(path).exists(),
            Probe(_, test) => test(),
        }
    }
}

/// Makes sure that everything in `needs` is there.
pub fn provide(needs: &[&[Need]]) -> Result<()> {
    let missing = missing(needs);
    if missing.is_empty() {
        return Ok(());
    }
    if program("apt-get").is_none() {
        bail!("{}", describe(&missing));
    }
    let mut packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let mut install = as_root("apt-get").with_context(|| describe(&missing))?;
    update()?;
    eprintln!("xtask: installing {} ...", packages.join(" "));
    install
        .args(["install", "-y", "-q", "--no-install-recommends"])
        .args(&packages)
        .stdout(Stdio::null())
        .run()
        .with_context(|| describe(&missing))?;
    let missing = self::missing(needs);
    if !missing.is_empty() {
        bail!("still not there after apt-get install:\n{}", describe(&missing));
    }
    Ok(())
}

fn missing<'a>(needs: &[&'a [Need]]) -> Vec<&'a Need> {
    needs.iter().flat_map(|group| group.iter()).filter(|need| !need.is_met()).collect()
}

fn describe(missing: &[&Need]) -> String {
    let mut text = String::from("this machine lacks:\n");
    for need in missing {
        let Need { purpose, package, .. } = need;
        text += &format!("  {}: {purpose} (Debian package {package})\n", need.name());
    }
    text + "install that and start again"
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

/// `program` run by root: directly, or through sudo.
pub fn as_root(program: &str) -> Result<Command> {
    if nix::unistd::geteuid().is_root() {
        let mut command = Command::new(program);
        command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        return Ok(command);
    }
    let mut sudo = Command::new("sudo");
    let asks_nothing = Command::new("sudo")
        .args(["-n", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if asks_nothing {
        sudo.arg("-n");
    } else if self::program("sudo").is_none() || !stdin().is_terminal() {
        bail!(
            "`{program}` needs root, and sudo is not there or would ask for a password; \
             run it yourself as root"
        );
    }
    sudo.args(["env", "DEBIAN_FRONTEND=noninteractive", program]);
    Ok(sudo)
}

/// Where a program is. The directories of root's programs count too: other
/// users' PATH often lacks them.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

fn library(name: &str) -> Option<PathBuf> {
    ["/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"]
        .map(|directory| Path::new(directory).join(name))
        .into_iter()
        .find(|path| path.exists())
}

/// The busybox of the initramfs, where there is no C library.
pub const BUSYBOX: &str = "/bin/busybox";

fn has_libasan() -> bool {
    // gcc answers with the bare name where it has no such file.
    let path = Command::new("gcc").arg("-print-file-name=libasan.so").output();
    path.is_ok_and(|output| output.stdout.starts_with(b"/"))
}

fn static_busybox() -> bool {
    // ldd fails for a program that has no dynamic section.
    Path::new(BUSYBOX).exists()
        && Command::new("ldd")
            .arg(BUSYBOX)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| !status.success())
}

/// The directory of a libclang that rdma-sys can be built with, newest first.
pub fn libclang() -> Option<PathBuf> {
    (11..=15).rev().map(|version| PathBuf::from(format!("/usr/lib/llvm-{version}/lib"))).find(
        |directory| {
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            entries.into_iter().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name == "libclang.so" || name.starts_with("libclang-") && name.contains(".so")
            })
        },
    )
}
