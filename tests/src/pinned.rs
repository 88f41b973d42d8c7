//! How much memory this process has pinned, by the kernel's own count.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// `VmPin` of `/proc/self/status`, in KiB (proc(5)).
pub fn pinned_kib() -> u64 {
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
