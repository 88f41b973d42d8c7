//! What rows need of the machine.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use regcache_guest_tests::attempt;
use regcache_guest_tests::memory::has_transparent_huge_pages;
use regcache_guest_tests::truth::{Conditions, Knob};

type Result<T = Conditions> = std::result::Result<T, String>;

/// Memory can move between nodes.
pub fn two_nodes() -> Result {
    match Path::new("/sys/devices/system/node/node1").exists() {
        true => Ok(Box::new(())),
        false => Err("there is one memory node".to_owned()),
    }
}

/// There are transparent huge pages; real-time kernels have none.
pub fn huge_pages() -> Result {
    match has_transparent_huge_pages() {
        true => Ok(Box::new(())),
        false => Err("this kernel has no transparent huge pages".to_owned()),
    }
}

/// The kernel scans for memory that is on the wrong node, often.
pub fn numa_balancing() -> Result {
    let two = two_nodes()?;
    // The periods moved from sysctl to debugfs with 5.13.
    let often = ["scan_delay_ms", "scan_period_min_ms"]
        .map(|name| Knob::set(&format!("/sys/kernel/debug/sched/numa_balancing/{name}"), "10"));
    let scan = Knob::set("/proc/sys/kernel/numa_balancing", "1")?;
    Ok(Box::new((two, often, scan)))
}

/// The kernel scans for equal pages.
pub fn ksm() -> Result {
    let often = Knob::set("/sys/kernel/mm/ksm/sleep_millisecs", "1")?;
    let scan = Knob::set("/sys/kernel/mm/ksm/run", "1")?;
    Ok(Box::new((scan, often)))
}

/// There is somewhere to swap to.
pub fn swap() -> Result {
    struct Zram(String);
    impl Drop for Zram {
        fn drop(&mut self) {
            let device = std::ffi::CString::new(format!("/dev/zram{}", self.0)).unwrap();
            let _ = attempt!(SYS_swapoff, device.as_ptr());
            let _ = fs::write("/sys/class/zram-control/hot_remove", &self.0);
        }
    }

    let swaps = fs::read_to_string("/proc/swaps").map_err(|error| error.to_string())?;
    if swaps.lines().count() > 1 {
        return Ok(Box::new(()));
    }
    command("modprobe", &["zram", "num_devices=0"])?;
    let number = fs::read_to_string("/sys/class/zram-control/hot_add")
        .map_err(|error| format!("zram: {error}"))?;
    let zram = Zram(number.trim().to_owned());
    fs::write(format!("/sys/block/zram{}/disksize", zram.0), "64M")
        .map_err(|error| format!("zram: {error}"))?;
    let device = format!("/dev/zram{}", zram.0);
    command("mkswap", &[&device])?;
    command("swapon", &[&device])?;
    Ok(Box::new(zram))
}

/// Programs can be probed.
pub fn uprobes() -> Result {
    struct Probe;
    impl Drop for Probe {
        fn drop(&mut self) {
            let _ = fs::write("/sys/kernel/tracing/events/regcache/nop/enable", "0");
            let _ = probe_events("-:regcache/nop");
        }
    }
    match Path::new(PROBES).exists() {
        true => Ok(Box::new(Probe)),
        false => Err("there are no uprobes".to_owned()),
    }
}

const PROBES: &str = "/sys/kernel/tracing/uprobe_events";

/// Adds a probe, or takes one away, and leaves those of others alone.
pub fn probe_events(line: &str) -> std::io::Result<()> {
    fs::OpenOptions::new().append(true).open(PROBES)?.write_all(line.as_bytes())
}

/// A machine on which a page may be lost for good.
pub fn throwaway() -> Result {
    match fs::read_to_string("/sys/class/dmi/id/sys_vendor") {
        Ok(vendor) if vendor.trim() == "QEMU" => Ok(Box::new(())),
        _ => Err("a page of this machine would be lost until it boots again".to_owned()),
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(format!("{program}: {errors}"));
    }
    Ok(())
}
