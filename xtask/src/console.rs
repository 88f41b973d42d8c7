//! What the kernel's console says about the kernel's health.

/// How a line of a kernel in trouble begins, after its time stamp.
const STARTS: &[&str] = &[
    "BUG: ",
    "WARNING: ",
    "Oops: ",
    "Kernel panic",
    "kernel BUG at",
    "general protection fault",
    "stack segment",
    "double fault",
    "UBSAN: ",
    "KASAN: ",
    "BUG kmalloc",
    "INFO: task ",
    "INFO: possible ",
    "INFO: trying to register non-static key",
    "INFO: rcu_",
    "Unable to handle",
    "unregister_netdevice: waiting for",
];

/// What only a kernel in trouble says, anywhere in a line.
const CONTAINS: &[&str] = &[
    "soft lockup",
    "hard LOCKUP",
    "detected stalls on CPUs",
    "self-detected stall on CPU",
    "possible recursive locking",
    "possible circular locking",
    "suspicious RCU usage",
    "Invalid wait context",
    "turning off the locking correctness validator",
    "kmemleak: Kernel memory leak detector disabled",
    "unreferenced object",
    "inconsistent lock state",
    "scheduling while atomic",
    "sleeping function called from invalid context",
    "suspected memory leaks",
    "blocked for more than",
    "refcount_t: ",
    "list_add corruption",
    "list_del corruption",
    "Objects remaining in",
    "invoked oom-killer: gfp_mask",
];

/// The first line that tells of a fault in the kernel, and what follows it.
pub fn report(log: &str) -> Option<String> {
    const LINES: usize = 40;
    let first = complaint(log)?;
    let lines = log.lines().map(str::trim_end).skip_while(|line| *line != first);
    Some(lines.take(LINES).collect::<Vec<_>>().join("\n"))
}

/// The first line that tells of a fault in the kernel.
fn complaint(log: &str) -> Option<&str> {
    log.lines().map(str::trim_end).find(|line| {
        let text = message(line);
        STARTS.iter().any(|start| text.starts_with(start))
            || CONTAINS.iter().any(|part| text.contains(part))
    })
}

/// What was logged before one of the guest's scripts failed, if nothing worse
/// happened: the kernel's panic about it does not say why.
pub fn init_failed(log: &str) -> Option<&str> {
    let before = &log[..log.find("Kernel panic - not syncing: Attempted to kill init")?];
    // The panic's line has begun.
    let before = before.rfind('\n').map_or("", |end| &before[..end]);
    complaint(before).is_none().then_some(before)
}

/// The line without its time stamp, `[    1.234567] `, and without the `rcu: `
/// that some messages begin with.
fn message(line: &str) -> &str {
    let text = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((stamp, text)) if stamp.trim().parse::<f64>().is_ok() => text,
        _ => line,
    };
    text.strip_prefix("rcu: ").unwrap_or(text)
}

/// The log's last lines, for an error message.
pub fn tail(log: &str, lines: usize) -> String {
    let all: Vec<_> = log.lines().map(str::trim_end).collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_found() {
        for line in [
            "[    3.141592] BUG: kernel NULL pointer dereference, address: 0000000000000000",
            "[   12.000000] WARNING: CPU: 1 PID: 77 at mm/gup.c:1 f+0x1/0x2 [ummunotify]",
            "[   12.000000] WARNING: possible circular locking dependency detected",
            "[   60.500000] INFO: task sh:1 blocked for more than 60 seconds.",
            "[   99.000000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [sh:1]",
            "[   99.000000] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:",
            "[    5.000000] Kernel panic - not syncing: sysrq triggered crash\r",
            "[    5.000000] UBSAN: array-index-out-of-bounds in a.c:1:2",
            "[    5.000000] [ BUG: Invalid wait context ]",
            "[    5.000000] kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
        ] {
            let log = format!("[    0.000000] Linux version 6.1\n{line}\n");
            assert_eq!(complaint(&log), Some(line.trim_end()), "{line}");
        }
    }

    #[test]
    fn a_report_is_more_than_its_first_line() {
        let log = "[    1.0] fine\r\n[    2.0] BUG: KASAN: use-after-free in f\r\n[    2.0] g\r\n";
        let report = "[    2.0] BUG: KASAN: use-after-free in f\n[    2.0] g";
        assert_eq!(super::report(log).as_deref(), Some(report));
        assert_eq!(super::report("[    1.0] fine\n"), None);
    }

    #[test]
    fn harmless_lines_are_not_faults() {
        let log = "\
[    0.000000] Linux version 6.1.0 (debug: gcc-12)
[    0.100000] RETBleed: WARNING: Spectre v2 mitigation leaves CPU vulnerable to RETBleed attacks
[    1.000000] ummunotify: loading out-of-tree module taints kernel.
[    1.000000] ummunotify: module verification failed: signature and/or required key missing
[    2.000000] sysrq: Resetting
[    2.000000] watchdog: Delayed init of the lockup detector failed
";
        assert_eq!(complaint(log), None);
    }

    #[test]
    fn a_failure_of_a_script_is_told_from_a_fault() {
        let panic =
            "[    2.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x100\n";
        assert_eq!(
            init_failed(&format!("mount: no such device\n{panic}")),
            Some("mount: no such device")
        );
        assert_eq!(init_failed(&format!("[    1.5] BUG: bad page state\n{panic}")), None);
        assert_eq!(init_failed("all is well\n"), None);
    }

    #[test]
    fn the_tail_is_the_end() {
        assert_eq!(tail("a\nb\r\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 2), "a");
    }
}
