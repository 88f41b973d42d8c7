//! What userfaultfd(2) does, and PAGEMAP_SCAN, which works with it.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};

use regcache::AddressRange;
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::truth::Row;
use regcache_guest_tests::{attempt, raw};
use ummunotify::Kinds;

use super::ANONYMOUS;

/// `_IOWR(letter, number, T)`
const fn iowr<T>(letter: u8, number: u8) -> u32 {
    3 << 30 | (size_of::<T>() as u32) << 16 | (letter as u32) << 8 | number as u32
}

/// `UFFD_FEATURE_WP_UNPOPULATED` and `UFFD_FEATURE_WP_ASYNC`
const WP_ASYNC: u64 = 1 << 13 | 1 << 15;
/// `UFFDIO_REGISTER_MODE_MISSING`
const MISSING: u64 = 1 << 0;
/// `UFFDIO_REGISTER_MODE_WP`
const WRITE_PROTECT: u64 = 1 << 1;

/// A userfaultfd with `features` that looks after `range`.
fn userfaultfd(range: AddressRange, features: u64, mode: u64) -> File {
    const USER_MODE_ONLY: i32 = 1;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK | USER_MODE_ONLY;
    let fd = raw!(SYS_userfaultfd, flags);
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    let file = unsafe { File::from_raw_fd(fd as i32) };
    let mut api = [0xaa_u64, features, 0];
    raw!(SYS_ioctl, fd, iowr::<[u64; 3]>(0xaa, 0x3f), api.as_mut_ptr());
    let mut register = [range.start() as u64, range.len() as u64, mode, 0];
    raw!(SYS_ioctl, fd, iowr::<[u64; 4]>(0xaa, 0), register.as_mut_ptr());
    file
}

rows! {
    uffdio_writeprotect: Row::of(ANONYMOUS)
        .change(|m| {
            let uffd = userfaultfd(m.range, 0, WRITE_PROTECT);
            for mode in [1, 0] {
                let mut protect = [m.range.start() as u64, m.range.len() as u64, mode];
                let call = iowr::<[u64; 3]>(0xaa, 6);
                raw!(SYS_ioctl, uffd.as_raw_fd(), call, protect.as_mut_ptr());
            }
        })
        .spurious(Kinds::PROTECTION_VMA);
    uffdio_move: Row::of(ANONYMOUS).since(6, 8)
        .change(|m| {
            let onto = Memory::untouched(4);
            let uffd = userfaultfd(onto.range, 0, MISSING);
            let mut pages = [onto.range, m.range].map(|range| range.start() as u64).to_vec();
            pages.extend([m.range.len() as u64, 0, 0]);
            let call = iowr::<[u64; 5]>(0xaa, 5);
            let moved = attempt!(SYS_ioctl, uffd.as_raw_fd(), call, pages.as_mut_ptr());
            assert_eq!(moved.unwrap_err().raw_os_error(), Some(libc::EBUSY), "pinned");
        })
        .spurious(Kinds::CLEAR);
    pagemap_scan: Row::of(ANONYMOUS).since(6, 7)
        .change(|m| {
            const WP_MATCHING: u64 = 1 << 0;
            const IS_WRITTEN: u64 = 1 << 1;
            let _uffd = userfaultfd(m.range, WP_ASYNC, WRITE_PROTECT);
            // size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
            // category_mask, category_anyof_mask, return_mask
            let mut scan = [0_u64; 12];
            scan[0] = size_of_val(&scan) as u64;
            scan[1] = WP_MATCHING;
            scan[2] = m.range.start() as u64;
            scan[3] = m.range.end() as u64;
            scan[9] = IS_WRITTEN;
            let pagemap = File::open("/proc/self/pagemap").expect("pagemap");
            let call = iowr::<[u64; 12]>(b'f', 16);
            raw!(SYS_ioctl, pagemap.as_raw_fd(), call, scan.as_mut_ptr());
        })
        .spurious(Kinds::PROTECTION_VMA);
}
