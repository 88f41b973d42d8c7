//! The kernel's own account of what a process costs it.

use std::fs;
use std::thread;
use std::time::Duration;

use super::Result;

const GROUP: &str = "/sys/fs/cgroup/regcache-bench";

/// A memory cgroup, removed when the last of its processes has ended.
#[derive(Clone)]
pub struct Cgroup;

impl Cgroup {
    /// A new one; `None`, and said so, where there are no memory cgroups.
    pub fn create() -> Result<Option<Cgroup>> {
        if fs::create_dir(GROUP).is_err() && !fs::exists(GROUP)? {
            eprintln!("no memory cgroup here: the kernel's memory is not measured");
            return Ok(None);
        }
        let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory");
        Ok(Some(Cgroup))
    }

    /// What this process needs from now on is on its account.
    pub fn join(&self) {
        fs::write(format!("{GROUP}/cgroup.procs"), std::process::id().to_string())
            .expect("join the cgroup");
    }

    /// The kernel's memory for its processes. The account is brought up to date every two seconds.
    pub fn kernel_bytes(&self) -> Result<f64> {
        thread::sleep(Duration::from_secs(3));
        let stat = fs::read_to_string(format!("{GROUP}/memory.stat"))?;
        let line = stat.lines().find_map(|line| line.strip_prefix("kernel "));
        Ok(line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0))
    }

    /// Fails, and need not succeed, while a process is in it.
    pub fn remove(&self) {
        let _ = fs::remove_dir(GROUP);
    }
}
