//! What this machine has to give: memory, room on its disk, processors, KVM.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::sys::statvfs::statvfs;

/// Memory that programs can have without swapping, in MiB: `MemAvailable` of
/// `/proc/meminfo` (proc(5)). Nothing if the kernel does not say.
pub fn available_memory() -> Option<u64> {
    available(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib / 1024)
}

/// Room for files of this user on the disk that holds `directory`, in MiB.
pub fn free_disk(directory: &Path) -> Result<u64> {
    // The directory may not be there yet.
    let existing = directory.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = statvfs(existing)
        .with_context(|| format!("cannot ask how full the disk of {} is", existing.display()))?;
    Ok((found.blocks_available() * found.fragment_size()) >> 20)
}

/// An error unless `directory` has room for `needed` MiB.
pub fn require_disk(directory: &Path, needed: u64) -> Result<()> {
    let free = free_disk(directory)?;
    if free < needed {
        bail!(
            "the disk of {} has {free} MiB free, and this task needs {needed} MiB: make room, or \
             set CARGO_TARGET_DIR to a directory on a larger disk",
            directory.display()
        );
    }
    Ok(())
}

/// An error unless a guest of `wanted` MiB fits beside what runs already.
pub fn require_memory(wanted: u32) -> Result<()> {
    /// What QEMU and this task take beside the guest's memory, in MiB.
    const BESIDE: u64 = 200;
    match available_memory() {
        Some(free) if free < u64::from(wanted) + BESIDE => bail!(
            "this machine has {free} MiB of memory available, and the guest is to have {wanted} \
             MiB: end other programs, or give the guest less by --memory MIB (the demonstration \
             runs with 512)"
        ),
        _ => Ok(()),
    }
}

/// How guests run: by KVM, or why not.
pub fn kvm() -> Result<(), &'static str> {
    let help = fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| {
        text.lines()
            .filter(|line| line.starts_with("flags"))
            .any(|line| line.split_whitespace().any(|flag| flag == "vmx" || flag == "svm"))
    });
    // A paravirtual KVM does without the processor's help and boots no ordinary kernel.
    if !help {
        return Err("the processor offers no virtualisation to this machine");
    }
    if !Path::new("/dev/kvm").exists() {
        return Err("there is no /dev/kvm");
    }
    match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok(()),
        Err(_) => Err("/dev/kvm is not this user's to open (is he in the group kvm?)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_mebibytes() {
        let text = "MemTotal:        2097152 kB\nMemAvailable:    1572864 kB\n";
        assert_eq!(available(text), Some(1536));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
    }

    #[test]
    fn a_full_disk_is_named_with_what_is_free() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(require_disk(here, 0).is_ok());
        let error = require_disk(&here.join("absent/deeper"), u64::MAX).expect_err("too much");
        let text = error.to_string();
        assert!(text.contains("MiB free") && text.contains("CARGO_TARGET_DIR"), "{text}");
    }

    #[test]
    fn a_guest_that_does_not_fit_is_refused_with_the_figures() {
        let error = require_memory(u32::MAX).expect_err("no machine has that").to_string();
        assert!(error.contains("--memory") && error.contains("4294967295"), "{error}");
    }
}
