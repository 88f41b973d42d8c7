//! The processor architectures that guests have.

use std::env::consts::ARCH;

/// All that tells one from another.
#[derive(PartialEq, Eq)]
pub struct Architecture {
    /// As Rust calls it.
    name: &'static str,
    /// As Debian calls it.
    pub debian: &'static str,
    /// The triplet of GNU's tools, and Debian's directory of libraries.
    pub gnu: &'static str,
    /// Cargo's target.
    pub cargo: &'static str,
    /// The emulator.
    pub qemu: &'static str,
    /// The machine that is emulated, and its processor without KVM.
    pub machine: &'static [&'static str],
    /// What the kernel calls the first serial port.
    pub console: &'static str,
    /// More for the kernel.
    pub kernel: &'static str,
}

/// x86-64.
pub const AMD64: Architecture = Architecture {
    name: "x86_64",
    debian: "amd64",
    gnu: "x86_64-linux-gnu",
    cargo: "x86_64-unknown-linux-gnu",
    qemu: "qemu-system-x86_64",
    // Without KVM, five levels of page tables are only slower than four, and string instructions
    // that a processor makes fast go byte by byte: Linux 6.1 took 26 s to clear the pages of one
    // compaction by `rep stosb`, which its watchdog reports. By eights it takes an eighth.
    machine: &["-machine", "q35", "-cpu", "max,la57=off,erms=off,fsrm=off"],
    console: "ttyS0",
    kernel: "no_timer_check",
};

/// 64-bit Arm.
pub const ARM64: Architecture = Architecture {
    name: "aarch64",
    debian: "arm64",
    gnu: "aarch64-linux-gnu",
    cargo: "aarch64-unknown-linux-gnu",
    qemu: "qemu-system-aarch64",
    // It has pages of 16 KiB and atomic instructions, but no pointer authentication, which an
    // emulator computes slowly.
    machine: &["-machine", "virt,gic-version=3", "-cpu", "neoverse-n1"],
    console: "ttyAMA0",
    kernel: "",
};

impl Architecture {
    /// Every one that guests have.
    pub const ALL: [&'static Self; 2] = [&AMD64, &ARM64];

    /// Whether this machine runs its programs.
    pub fn is_here(&self) -> bool {
        self.name == ARCH
    }
}
