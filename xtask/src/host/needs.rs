//! What each task needs of this machine, and the Debian package that brings it.

use super::Need;
use super::What::{File, Library, Probe, Program};
use super::find;
use crate::apt::KEYRING;

const fn need(what: super::What, purpose: &'static str, package: &'static str) -> Need {
    Need { what, purpose, package }
}

/// To boot a guest that runs on this machine's own root file system.
pub const GUEST: &[Need] = &[
    need(Program("apt-get"), "downloads Debian's kernels for guests", "apt"),
    need(Program("dpkg-deb"), "unpacks them", "dpkg"),
    need(File(KEYRING), "tells that a kernel is Debian's", "debian-archive-keyring"),
    need(Program("qemu-system-x86_64"), "boots the guest", "qemu-system-x86"),
    need(Probe("a static busybox", find::static_busybox), "starts the guest", "busybox-static"),
    need(Program("xz"), "unpacks the guest's kernel", "xz-utils"),
    need(Program("depmod"), "finds the kernel modules that a guest needs", "kmod"),
    need(Program("ip"), "gives the guest a network device", "iproute2"),
    need(Program("rdma"), "creates the guest's soft-RoCE device", "iproute2"),
    need(Library("libibverbs.so.1"), "lets programs use RDMA", "libibverbs1"),
    need(File("/etc/libibverbs.d/rxe.driver"), "drives soft-RoCE", "ibverbs-providers"),
];

/// To build kernel modules with Debian 12's tools, for kernels that were built with them.
pub const MODULE_12: &[Need] = &[
    need(Program("make"), "builds the kernel module", "make"),
    need(Program("gcc-12"), "compiled the kernel, so it compiles its modules", "gcc-12"),
    need(Library("libelf.so.1"), "is used by the kernel's objtool", "libelf1"),
];

/// The same with Debian 13's tools.
pub const MODULE_13: &[Need] = &[
    need(Program("make"), "builds the kernel module", "make"),
    need(Program("gcc-14"), "compiled the kernel, so it compiles its modules", "gcc-14"),
    need(Library("libelf.so.1"), "is used by the kernel's objtool", "libelf1t64"),
    need(Library("libssl.so.3"), "is used by the kernel's build tools", "libssl3t64"),
    need(Program("pahole"), "is wanted by newer kernels' headers", "pahole"),
    need(Program("zstd"), "unpacks newer kernels", "zstd"),
];

/// To build kernel modules in a tree of another Debian.
pub const TREE: &[Need] = &[
    need(Program("debootstrap"), "makes a Debian to build the kernel module in", "debootstrap"),
    need(Program("unshare"), "keeps that Debian's mounts to itself", "util-linux"),
    need(Program("zstd"), "unpacks newer kernels", "zstd"),
];

/// To boot guests of arm64, and to build for them.
pub const ARM64: &[Need] = &[
    need(Program("qemu-system-aarch64"), "boots the guest", "qemu-system-arm"),
    need(Program("debootstrap"), "makes a Debian with cross-compilers", "debootstrap"),
    need(Program("unshare"), "keeps that Debian's mounts to itself", "util-linux"),
    need(Program("zstd"), "unpacks newer kernels", "zstd"),
];

/// To change files beneath registrations, on the file systems that people have.
pub const FILE_SYSTEMS: &[Need] = &[
    need(Program("mkfs.ext4"), "makes a file system for the tests of files", "e2fsprogs"),
    need(Program("mkfs.xfs"), "makes a file system for the tests of files", "xfsprogs"),
    need(Program("mkfs.btrfs"), "makes a file system for the tests of files", "btrfs-progs"),
    need(Program("mount"), "mounts them", "mount"),
];

/// To check the kernel module's sources.
pub const SPARSE: &[Need] = &[need(Program("sparse"), "checks the kernel module", "sparse")];

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
    need(
        Probe("libasan, for gcc", find::address_sanitizer),
        "watches programs that use the C library",
        "gcc",
    ),
];

/// To check sources, where the Rust toolchain is the system's own.
pub const RUST_CHECKS: &[Need] = &[
    need(Program("cargo-fmt"), "checks the format of Rust sources", "rustfmt"),
    need(Program("cargo-clippy"), "checks Rust sources", "rust-clippy"),
];

/// To build programs that use RDMA.
pub const WORKSPACE: &[Need] = &[
    need(Program("gcc"), "links Rust programs", "gcc"),
    need(File("/usr/include/stdio.h"), "describes the C library", "libc6-dev"),
    need(File("/usr/include/infiniband/verbs.h"), "describes libibverbs", "libibverbs-dev"),
];

/// To build rdma-sys and ibverbs-sys, which generate their bindings.
pub const BINDINGS: &[Need] = &[
    need(
        Probe("libclang, version 11 to 15", crate::bindings::libclang),
        "lets rdma-sys read C headers",
        "libclang-14-dev",
    ),
    need(Program("cmake"), "configures the rdma-core that ibverbs-sys contains", "cmake"),
    need(Program("python3"), "is used by rdma-core's build", "python3"),
    need(Program("pkg-config"), "finds libibverbs", "pkg-config"),
    need(File("/usr/include/rdma/rdma_cma.h"), "is bound by rdma-sys", "librdmacm-dev"),
    need(File("/usr/include/libnl3/netlink/netlink.h"), "is used by rdma-core", "libnl-3-dev"),
    need(
        File("/usr/include/libnl3/netlink/route/link.h"),
        "is used by rdma-core",
        "libnl-route-3-dev",
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
        Probe("Open MPI's headers", find::openmpi_headers),
        "describe Open MPI's caches",
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
