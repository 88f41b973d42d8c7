//! How much memory this process has pinned, by the kernel's own count.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// `VmPin` of `/proc/self/status`, in KiB (proc(5)).
///
/// Gives up `CAP_IPC_LOCK` first: Linux 7 counts what an io_uring pins only
/// for threads that `RLIMIT_MEMLOCK` binds when they create the ring.
pub fn pinned_kib() -> u64 {
    give_up_ipc_lock();
    let status = fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmPin:")).expect("a line VmPin");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB")
}

/// Waits until `VmPin` is `kib` again: an io_uring unpins some time after it was told to.
pub fn assert_pinned_returns_to(kib: u64) {
    let start = Instant::now();
    while pinned_kib() != kib {
        assert!(
            start.elapsed() < Duration::from_secs(10),
            "{} KiB pinned, not {kib}",
            pinned_kib()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Takes `CAP_IPC_LOCK` from what this thread may do (capget(2)).
fn give_up_ipc_lock() {
    const VERSION_3: u32 = 0x2008_0522;
    const IPC_LOCK: u32 = 1 << 14;
    let header = [VERSION_3, 0];
    // Effective, permitted, inheritable: of the lower 32, then of the others.
    let mut sets = [0_u32; 6];
    // SAFETY: the kernel fills `sets`, which is as long as this version says.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0, "capget");
    if sets[0] & IPC_LOCK != 0 {
        sets[0] &= !IPC_LOCK;
        // SAFETY: the kernel only reads both.
        let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
        assert_eq!(set, 0, "capset");
    }
}
