//! Why memory could not be registered, found out on the way to the error: `EFAULT` and the like say
//! little. From `/proc/self/maps` (proc_pid_maps(5)).

use std::fs;

use crate::access::Access;
use crate::range::AddressRange;

/// What is in the way of registering `range` for `access`, if it shows in the mappings. `writes`: the
/// registrar pins for writing whatever the access.
pub(crate) fn in_mappings(range: AddressRange, access: Access, writes: bool) -> Option<String> {
    in_text(&fs::read_to_string("/proc/self/maps").ok()?, range, access, writes)
}

fn in_text(maps: &str, range: AddressRange, access: Access, writes: bool) -> Option<String> {
    let mut at = range.start();
    for line in maps.lines() {
        let Some(mapping) = Mapping::of(line).filter(|mapping| mapping.range.overlaps(range))
        else {
            continue;
        };
        if mapping.range.start() > at {
            break;
        }
        if let Some(reason) = mapping.refuses(access, writes) {
            return Some(format!("{} is {reason}", mapping.range));
        }
        at = mapping.range.end();
        if at >= range.end() {
            return None;
        }
    }
    Some(format!("nothing is mapped at {at:#x}"))
}

/// A line as `7f00-8f00 rw-p 00000000 00:00 0    /a path`.
struct Mapping<'l> {
    range: AddressRange,
    rights: &'l str,
    path: &'l str,
}

impl Mapping<'_> {
    fn of(line: &str) -> Option<Mapping<'_>> {
        let (addresses, rest) = line.split_once(' ')?;
        let (start, end) = addresses.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        let range = AddressRange::new(start, end.checked_sub(start)?)?;
        let path = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim();
        Some(Mapping { range, rights: rest.get(..4)?, path })
    }

    fn refuses(&self, access: Access, writes: bool) -> Option<String> {
        let Mapping { rights, path, .. } = *self;
        if !rights.starts_with('r') {
            return Some(format!("not readable ({rights})"));
        }
        if access.writes() && !rights[1..].starts_with('w') {
            return Some(format!("read-only ({rights}), and the device would write to it"));
        }
        if writes && !rights[1..].starts_with('w') {
            return Some(format!(
                "read-only ({rights}), and this registrar pins for writing whatever the access"
            ));
        }
        if path.contains("secretmem") {
            return Some("of memfd_secret(2), which is never pinned".into());
        }
        if ["[vvar", "[vsyscall]"].iter().any(|name| path.starts_with(name)) {
            return Some(format!("the kernel's own ({path})"));
        }
        if path.starts_with("/dev/") && !path.starts_with("/dev/shm/") && path != "/dev/zero" {
            return Some(format!("a device's memory ({path}), which may have no pages to pin"));
        }
        // A shared mapping of a file that is written: the kernel refuses to pin it for long where the
        // file system keeps track of what is dirty (Linux 6.5).
        if path.starts_with('/') && !path.starts_with("/memfd:") && rights.ends_with('s') {
            return Some(format!(
                "a file ({path}), whose file system may not allow long-term pins; tmpfs, hugetlbfs \
                 and DAX do"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
10000-12000 rw-p 00000000 00:00 0
12000-13000 r--p 00000000 00:00 0    [heap]
13000-14000 rw-s 00000000 00:01 5    /secretmem (deleted)
14000-15000 rw-s 00000000 08:01 7    /home/a file
15000-16000 ---p 00000000 00:00 0
18000-19000 rw-p 00000000 00:00 0
";

    fn cause(start: usize, end: usize, access: Access, writes: bool) -> Option<String> {
        in_text(MAPS, AddressRange::between(start, end), access, writes)
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let (read, write) = (Access::empty(), Access::LOCAL_WRITE);
        assert_eq!(cause(0x10000, 0x12000, write, true), None);
        assert_eq!(cause(0x10000, 0x13000, read, false), None);
        for (start, end, access, writes, words) in [
            (
                0x10000,
                0x13000,
                write,
                false,
                "0x12000..0x13000 is read-only (r--p), and the device",
            ),
            (
                0x10000,
                0x13000,
                read,
                true,
                "0x12000..0x13000 is read-only (r--p), and this registrar",
            ),
            (0x13000, 0x13800, read, false, "memfd_secret"),
            (0x14000, 0x15000, write, false, "a file (/home/a file)"),
            (0x15000, 0x16000, read, false, "not readable (---p)"),
            (0x17000, 0x19000, read, false, "nothing is mapped at 0x17000"),
            (0x18000, 0x1a000, read, false, "nothing is mapped at 0x19000"),
            (0x9000, 0x11000, read, false, "nothing is mapped at 0x9000"),
            (0xa0000, 0xa1000, read, false, "nothing is mapped at 0xa0000"),
        ] {
            let cause = cause(start, end, access, writes).unwrap_or_default();
            assert!(cause.contains(words), "{cause:?}: {words:?}");
        }
    }
}
