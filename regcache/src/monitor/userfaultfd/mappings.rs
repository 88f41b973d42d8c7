//! What is mapped in a range: proc_pid_maps(5), by one ioctl for each mapping since Linux 6.11, and
//! by reading all of the file before.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use crate::range::AddressRange;

const PATH: &str = "/proc/self/maps";

/// `PROCMAP_QUERY`: `_IOWR('f', 17, struct procmap_query)`.
const PROCMAP_QUERY: u64 = 3 << 30 | (size_of::<Query>() as u64) << 16 | (b'f' as u64) << 8 | 17;
const COVERING_OR_NEXT_VMA: u64 = 0x10;
const VMA_SHARED: u64 = 0x08;

/// `struct procmap_query`.
#[repr(C)]
#[derive(Default)]
struct Query {
    size: u64,
    query_flags: u64,
    query_addr: u64,
    vma_start: u64,
    vma_end: u64,
    vma_flags: u64,
    vma_page_size: u64,
    vma_offset: u64,
    inode: u64,
    dev_major: u32,
    dev_minor: u32,
    vma_name_size: u32,
    build_id_size: u32,
    vma_name_addr: u64,
    build_id_addr: u64,
}

/// A mapping, or the part of it that lies in the range that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mapping {
    pub range: AddressRange,
    /// No file behind it, not even a nameless one, and no other process to share it with.
    pub private_anonymous: bool,
}

/// The process's list of mappings. The file is opened anew each time: other code of the process may
/// close a descriptor that stays open, and its number be another file's.
#[derive(Debug)]
pub(super) struct Mappings {
    has_query: bool,
}

impl Mappings {
    pub(super) fn open() -> io::Result<Mappings> {
        Ok(Mappings { has_query: query(&File::open(PATH)?, 0).is_ok() })
    }

    /// The mappings in `range`, in order.
    pub(super) fn within(&self, range: AddressRange) -> io::Result<Vec<Mapping>> {
        let mut found = Vec::new();
        let file = File::open(PATH)?;
        if self.has_query {
            let mut addr = range.start();
            while addr < range.end() {
                let Some(mapping) = query(&file, addr)? else { break };
                addr = mapping.range.end();
                found.extend(clipped(mapping, range));
            }
        } else {
            for line in BufReader::new(file).lines() {
                let mapping = parse(&line?).ok_or(io::ErrorKind::InvalidData)?;
                if mapping.range.start() >= range.end() {
                    break;
                }
                found.extend(clipped(mapping, range));
            }
        }
        Ok(found)
    }
}

/// The mapping at `addr`, or else the next.
fn query(file: &File, addr: usize) -> Result<Option<Mapping>, Errno> {
    let mut query = Query {
        size: size_of::<Query>() as u64,
        query_flags: COVERING_OR_NEXT_VMA,
        query_addr: addr as u64,
        ..Query::default()
    };
    // SAFETY: the kernel reads and writes the structure, whose size it is given, and nothing
    // else: no buffer for a name is in it.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), PROCMAP_QUERY as _, &raw mut query) };
    match Errno::result(result) {
        Ok(_) => {}
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    let (start, end) = (query.vma_start as usize, query.vma_end as usize);
    let range = AddressRange::new(start, end.wrapping_sub(start)).ok_or(Errno::EINVAL)?;
    let private_anonymous = query.vma_flags & VMA_SHARED == 0
        && (query.inode, query.dev_major, query.dev_minor) == (0, 0, 0);
    Ok(Some(Mapping { range, private_anonymous }))
}

fn clipped(mapping: Mapping, to: AddressRange) -> Option<Mapping> {
    let start = mapping.range.start().max(to.start());
    let end = mapping.range.end().min(to.end());
    let range = AddressRange::new(start, end.checked_sub(start)?)?;
    Some(Mapping { range, ..mapping })
}

/// A line as `7f00-8f00 rw-p 00000000 00:00 0    [name]`.
fn parse(line: &str) -> Option<Mapping> {
    let mut words = line.split_ascii_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let start = usize::from_str_radix(start, 16).ok()?;
    let end = usize::from_str_radix(end, 16).ok()?;
    let range = AddressRange::new(start, end.checked_sub(start)?)?;
    let private = words.next()?.ends_with('p');
    let (device, inode) = (words.nth(1)?, words.next()?);
    Some(Mapping { range, private_anonymous: private && device == "00:00" && inode == "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood() {
        let anonymous = |line| parse(line).unwrap().private_anonymous;
        assert!(anonymous("7f0000001000-7f0000003000 rw-p 00000000 00:00 0 "));
        assert!(anonymous("55d0-55e0 rw-p 00000000 00:00 0    [heap]"));
        assert!(!anonymous("1000-2000 rw-s 00000000 00:01 1024    /dev/zero (deleted)"));
        assert!(!anonymous("1000-2000 rw-s 00000000 00:01 5    /SYSV00000000 (deleted)"));
        assert!(!anonymous("1000-2000 rw-p 00000000 08:01 77   /usr/lib/x y.so"));
        assert!(!anonymous("1000-2000 rw-p 00000000 00:0f 8    /anon_hugepage (deleted)"));
        let mapping = parse("1000-3000 r--p 00000000 00:00 0").unwrap();
        assert_eq!(mapping.range, AddressRange::new(0x1000, 0x2000).unwrap());
        assert_eq!(parse("1000 r--p"), None);
        assert_eq!(parse("3000-1000 r--p 00000000 00:00 0"), None);
    }

    #[test]
    fn both_ways_find_the_same() {
        let local = 1;
        for addr in [&raw const local as usize, PATH.as_ptr() as usize, parse as *const () as usize]
        {
            let range = AddressRange::new(addr, 1).unwrap().round_to_pages().unwrap();
            let by_default = Mappings::open().unwrap();
            let by_text = Mappings { has_query: false };
            let found = by_text.within(range).unwrap();
            assert_eq!(found.len(), 1);
            assert_eq!(by_default.within(range).unwrap(), found);
        }
    }
}
