//! How much memory this process can pin: what the defaults are derived from.
//!
//! | limit | applies | read from |
//! |---|---|---|
//! | `RLIMIT_MEMLOCK` | unless the process has `CAP_IPC_LOCK` in the first user namespace, where drivers ask for it (`capable()`) | getrlimit(2), `/proc/self/status`, `/proc/self/uid_map` |
//! | the control group's, and those of all groups around it | always | `/proc/self/cgroup`, `/sys/fs/cgroup` (cgroups(7), versions 1 and 2) |
//! | the machine's memory | always | sysconf(3) |

use std::fs;
use std::path::Path;

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

/// Bit number of `CAP_IPC_LOCK`, `<linux/capability.h>`.
const CAP_IPC_LOCK: u32 = 14;

/// The limit on locked memory in bytes, or `None` where none applies.
pub(crate) fn memlock_limit() -> Option<u64> {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY && !is_exempt(Path::new("/"))).then_some(soft)
}

/// What a cache may hold pinned unless it is told, in bytes: three quarters of the limit on locked
/// memory where one applies, and half of the memory that this process's control group may have.
pub(crate) fn default_max_bytes() -> u64 {
    let memory = cgroup_limit(Path::new("/")).unwrap_or(u64::MAX).min(physical_memory());
    let locked = memlock_limit().map_or(u64::MAX, |limit| limit / 4 * 3);
    locked.min(memory / 2)
}

/// The machine's memory in bytes.
fn physical_memory() -> u64 {
    // SAFETY: sysconf(3) takes no pointer and has no precondition.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).unwrap_or(0) * crate::range::page_size() as u64
}

/// Whether `RLIMIT_MEMLOCK` does not count for this process. `root` holds `/proc`.
fn is_exempt(root: &Path) -> bool {
    let read = |name| fs::read_to_string(root.join("proc/self").join(name)).unwrap_or_default();
    let status = read("status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    // A namespace of its own maps fewer users, or others.
    let map = read("uid_map");
    let first_namespace = map.split_whitespace().eq(["0", "0", "4294967295"]);
    first_namespace && effective.unwrap_or(0) >> CAP_IPC_LOCK & 1 == 1
}

/// The least limit on memory of this process's control group and those around it, in bytes. `root`
/// holds `/proc` and `/sys`.
fn cgroup_limit(root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mut least = None;
    for line in groups.lines() {
        // hierarchy:controllers:path
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let (mount, file) = if hierarchy == "0" && controllers.is_empty() {
            ("sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        for group in Path::new(path.trim_start_matches('/')).ancestors() {
            let limit = fs::read_to_string(root.join(mount).join(group).join(file));
            // "max" is none; version 1 says a number that no machine reaches.
            let limit = limit.ok().and_then(|limit| limit.trim().parse::<u64>().ok());
            least = least.into_iter().chain(limit).min();
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// Files below a directory of its own.
    struct Root(PathBuf);

    impl Root {
        fn with(name: &str, files: &[(&str, &str)]) -> Root {
            let path =
                std::env::temp_dir().join(format!("regcache-limits-{}-{name}", std::process::id()));
            for (file, text) in files {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, text).unwrap();
            }
            Root(path)
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_least_of_all_groups_around_counts() {
        let root = Root::with(
            "v2",
            &[
                ("proc/self/cgroup", "0::/job/step\n"),
                ("sys/fs/cgroup/job/memory.max", "314572800\n"),
                ("sys/fs/cgroup/job/step/memory.max", "max\n"),
            ],
        );
        assert_eq!(cgroup_limit(&root.0), Some(300 << 20));
        // In a container, which sees its own group as the root.
        let root = Root::with(
            "container",
            &[("proc/self/cgroup", "0::/\n"), ("sys/fs/cgroup/memory.max", "1048576\n")],
        );
        assert_eq!(cgroup_limit(&root.0), Some(1 << 20));
    }

    #[test]
    fn version_1_is_understood_beside_version_2() {
        let none = "9223372036854771712\n";
        let root = Root::with(
            "v1",
            &[
                ("proc/self/cgroup", "5:cpu,cpuacct:/a\n4:memory:/slurm/job\n0::/x\n"),
                ("sys/fs/cgroup/memory/slurm/job/memory.limit_in_bytes", none),
                ("sys/fs/cgroup/memory/slurm/memory.limit_in_bytes", "2097152\n"),
                ("sys/fs/cgroup/memory/memory.limit_in_bytes", none),
            ],
        );
        assert_eq!(cgroup_limit(&root.0), Some(2 << 20));
    }

    #[test]
    fn no_group_has_no_limit() {
        assert_eq!(cgroup_limit(Path::new("/nonexistent")), None);
        let root = Root::with("none", &[("proc/self/cgroup", "0::/\nnonsense\n")]);
        assert_eq!(cgroup_limit(&root.0), None);
    }

    #[test]
    fn the_limit_on_locked_memory_counts_for_whom_it_counts() {
        let first = "         0          0 4294967295\n";
        for (name, capabilities, map, exempt) in [
            ("root", "000001ffffffffff", first, true),
            ("one", "0000000000004000", first, true),
            ("user", "0000000000000000", first, false),
            ("others", "000001ffffffbfff", first, false),
            ("namespace", "000001ffffffffff", "         0     100000      65536\n", false),
        ] {
            let status = format!("Name:\tx\nCapPrm:\t0\nCapEff:\t{capabilities}\nCapBnd:\t0\n");
            let root =
                Root::with(name, &[("proc/self/status", &status), ("proc/self/uid_map", map)]);
            assert_eq!(is_exempt(&root.0), exempt, "{name}");
        }
        assert!(!is_exempt(Path::new("/nonexistent")));
    }

    #[test]
    fn the_default_is_what_can_be_had() {
        let default = default_max_bytes();
        assert!(default > 0 && default <= physical_memory() / 2);
        if let Some(limit) = memlock_limit() {
            assert!(default <= limit);
        }
    }
}
