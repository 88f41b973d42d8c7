//! Against the kernel's own pins.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::ptr;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;
use crate::Cache;
use crate::monitor::Manual;
use crate::range::page_size;

const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// Anonymous memory of this test.
struct Memory {
    addr: usize,
    len: usize,
}

impl Memory {
    fn new(len: usize) -> Memory {
        let addr = lonely_address(len);
        map(addr, len, READ_WRITE);
        Memory { addr, len }
    }

    fn range(&self) -> AddressRange {
        AddressRange::new(self.addr, self.len).unwrap()
    }

    /// Unmaps it and maps new pages at the same address.
    fn replace(&mut self) {
        unmap(self.addr, self.len);
        map(self.addr, self.len, READ_WRITE);
    }

    fn fill(&mut self, byte: u8) {
        // SAFETY: the memory is mapped, writable and only this test's.
        unsafe { std::ptr::write_bytes(self.addr as *mut u8, byte, self.len) };
    }

    fn bytes(&self) -> Vec<u8> {
        // SAFETY: the memory is mapped and no transfer is under way.
        unsafe { std::slice::from_raw_parts(self.addr as *const u8, self.len) }.to_vec()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        unmap(self.addr, self.len);
    }
}

/// An address where the kernel places nothing unasked, so that what a test unmaps stays unmapped
/// whatever other threads do.
fn lonely_address(len: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(64 << 30);
    NEXT.fetch_add(len.next_multiple_of(2 << 20), Ordering::Relaxed)
}

fn map(addr: usize, len: usize, protection: i32) {
    let flags =
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing.
    let at = unsafe { libc::mmap(addr as *mut _, len, protection, flags, -1, 0) };
    assert_eq!(at as usize, addr, "{}", Errno::last());
}

fn unmap(addr: usize, len: usize) {
    // SAFETY: the range is a mapping of the calling test, which holds no reference into it.
    assert_eq!(unsafe { libc::munmap(addr as *mut _, len) }, 0);
}

fn file(content: &[u8]) -> File {
    // SAFETY: the name is a C string, and the result is a new descriptor that nobody else owns.
    let file = unsafe {
        let fd = libc::memfd_create(c"io_uring-test".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "{}", Errno::last());
        <File as std::os::fd::FromRawFd>::from_raw_fd(fd)
    };
    file.write_all_at(content, 0).unwrap();
    file
}

fn content(file: &File, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// The memory that the kernel counts as pinned for this process, in bytes.
fn pinned() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPin:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
}

impl IoUring {
    fn pin(&self, range: AddressRange, access: Access) -> Result<IoUringRegion, Errno> {
        // SAFETY: an io_uring has no peer.
        unsafe { self.register(range, access) }
    }
}

#[test]
fn a_registration_of_replaced_memory_shows_the_old_bytes() {
    let ring = IoUring::new(4).unwrap();
    let mut memory = Memory::new(4 * page_size());
    memory.fill(b'o');
    let old = memory.bytes();
    let region = ring.pin(memory.range(), Access::LOCAL_WRITE).unwrap();

    memory.replace();
    memory.fill(b'n');
    let new = memory.bytes();
    let file = file(&[]);
    let write = |region| ring.write_fixed(region, memory.addr, memory.len, &file, 0);
    assert_eq!(write(&region), Ok(memory.len));
    assert_eq!(content(&file, memory.len), old);

    let fresh = ring.pin(memory.range(), Access::LOCAL_WRITE).unwrap();
    assert_eq!(write(&fresh), Ok(memory.len));
    assert_eq!(content(&file, memory.len), new);
    ring.deregister(&region).unwrap();
    ring.deregister(&fresh).unwrap();
}

#[test]
fn the_device_writes_the_pages_that_were_pinned() {
    let ring = IoUring::new(4).unwrap();
    let mut memory = Memory::new(2 * page_size());
    memory.fill(1);
    let file = file(&vec![7; memory.len]);
    let read = |region, addr, len| {
        // SAFETY: only this test knows the memory, and it does not touch it meanwhile.
        unsafe { ring.read_fixed(region, addr, len, &file, 0) }
    };
    let region = ring.pin(memory.range(), Access::LOCAL_WRITE).unwrap();
    assert_eq!(read(&region, memory.addr + 8, 16), Ok(16));
    let mut expected = vec![1; memory.len];
    expected[8..24].fill(7);
    assert_eq!(memory.bytes(), expected);

    memory.replace();
    memory.fill(2);
    assert_eq!(read(&region, memory.addr, memory.len), Ok(memory.len));
    assert_eq!(memory.bytes(), vec![2; memory.len], "stale: the new pages are untouched");
    ring.deregister(&region).unwrap();
}

#[test]
fn deregistration_unpins() {
    // Large against what other tests of this process pin meanwhile.
    let ring = IoUring::new(1).unwrap();
    let memory = Memory::new(4 << 20);
    let before = pinned();
    let region = ring.pin(memory.range(), Access::LOCAL_WRITE).unwrap();
    assert!(pinned() > before + memory.len / 2, "{} of {before}", pinned());
    ring.deregister(&region).unwrap();

    let deadline = Instant::now() + Duration::from_secs(20);
    while pinned() >= before + memory.len / 2 {
        assert!(Instant::now() < deadline, "{} of {before} still pinned", pinned());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn unmapped_and_read_only_memory_are_refused_and_nothing_leaks() {
    let ring = IoUring::new(1).unwrap();
    let memory = Memory::new(page_size());
    let half_mapped = AddressRange::new(memory.addr, 2 * page_size()).unwrap();
    let read_only = AddressRange::new(lonely_address(1), page_size()).unwrap();
    map(read_only.start(), read_only.len(), libc::PROT_READ);
    // More often than there are slots.
    for _ in 0..3 {
        for access in [Access::empty(), Access::LOCAL_WRITE] {
            assert_eq!(ring.pin(half_mapped, access).err(), Some(Errno::EFAULT));
            assert_eq!(ring.pin(read_only, access).err(), Some(Errno::EFAULT));
        }
    }
    unmap(read_only.start(), read_only.len());
    ring.pin(memory.range(), Access::empty()).unwrap();
}

#[test]
fn a_full_table_is_enospc_and_a_freed_slot_serves_again() {
    let ring = IoUring::new(2).unwrap();
    let memory = Memory::new(page_size());
    let register = || ring.pin(memory.range(), Access::empty());
    for _ in 0..3 {
        let regions = [register().unwrap(), register().unwrap()];
        assert_eq!(register().err(), Some(Errno::ENOSPC));
        assert_ne!(regions[0].index(), regions[1].index());
        assert_eq!(ring.keys(&regions[1]).local, u32::from(regions[1].index()));
        for region in &regions {
            assert_eq!(ring.deregister(region), Ok(()));
            assert_eq!(ring.deregister(region), Err(Errno::EINVAL));
            let gone = ring.write_fixed(region, memory.addr, 1, file(&[]), 0);
            assert_eq!(gone, Err(Errno::EFAULT));
        }
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let ring = IoUring::new(1).unwrap();
    let memory = Memory::new(page_size());
    for access in [
        Access::LOCAL_WRITE | Access::REMOTE_WRITE,
        Access::REMOTE_READ,
        Access::MW_BIND,
        Access::ON_DEMAND,
        Access::ZERO_BASED,
    ] {
        assert_eq!(ring.pin(memory.range(), access).err(), Some(Errno::EINVAL));
    }
    let region = ring.pin(memory.range(), Access::RELAXED_ORDERING).unwrap();
    let outside = ring.write_fixed(&region, memory.addr + 1, memory.len, file(&[]), 0);
    assert_eq!(outside, Err(Errno::EFAULT));

    let other = IoUring::new(1).unwrap();
    assert_eq!(other.deregister(&region), Err(Errno::EINVAL));
    assert_eq!(other.write_fixed(&region, memory.addr, 1, file(&[]), 0), Err(Errno::EINVAL));
    assert!(matches!(IoUring::new(0), Err(IoUringError::Table { slots: 0, .. })));
    assert!(matches!(IoUring::new(1 << 20), Err(IoUringError::Table { .. })));
}

#[test]
fn more_than_a_gibibyte_is_refused() {
    let ring = IoUring::new(1).unwrap();
    let len = (1 << 30) + page_size();
    let memory = Memory::new(len);
    assert_eq!(ring.pin(memory.range(), Access::empty()).err(), Some(Errno::EFBIG));
}

#[test]
fn threads_share_a_ring() {
    let ring = IoUring::new(4).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let ring = &ring;
            scope.spawn(move || {
                let mut memory = Memory::new(page_size());
                let file = file(&[]);
                for turn in 0..100u8 {
                    memory.replace();
                    memory.fill((thread * 50) ^ turn);
                    let region = ring.pin(memory.range(), Access::empty()).unwrap();
                    let written = ring.write_fixed(&region, memory.addr, memory.len, &file, 0);
                    assert_eq!(written, Ok(memory.len));
                    assert_eq!(content(&file, memory.len), memory.bytes());
                    ring.deregister(&region).unwrap();
                }
            });
        }
    });
}

/// The words that a person reads, for each cause that an errno can have.
#[test]
fn errors_name_their_cause() {
    let words = |addr: usize, len: usize, access, slots| {
        let cache = Cache::builder(IoUring::new(slots).unwrap(), Manual::new());
        let cache = cache.max_bytes(1 << 40).build().unwrap();
        let held = Memory::new(page_size());
        let _guards: Vec<_> = (0..slots)
            .map_while(|_| cache.get_or_register(held.addr, 1, Access::empty()).ok())
            .take(if slots == 1 { 1 } else { 0 })
            .collect();
        cache.get_or_register(addr, len, access).map(drop).unwrap_err().to_string()
    };
    let memory = Memory::new(4 * page_size());
    let full = words(memory.addr, 1, Access::empty(), 1);
    assert!(full.contains("all 1 fixed buffers") && !full.contains("ulimit"), "{full}");
    // SAFETY: no reference points into the memory.
    let read_only = unsafe { libc::mprotect(memory.addr as *mut _, page_size(), libc::PROT_READ) };
    assert_eq!(read_only, 0);
    let read = words(memory.addr, 8, Access::empty(), 4);
    assert!(read.contains("pins for writing whatever the access"), "{read}");
    unmap(memory.addr + page_size(), page_size());
    let hole = words(memory.addr + page_size(), 8, Access::empty(), 4);
    let at = format!("nothing is mapped at {:#x}", memory.addr + page_size());
    assert!(hole.contains(&at), "{hole}");
    let huge = words(memory.addr, (1 << 30) + page_size(), Access::empty(), 4);
    assert!(huge.contains("1073741824 bytes at most"), "{huge}");
    // SAFETY: the call takes a number.
    let secret = unsafe { libc::syscall(libc::SYS_memfd_secret, 0) };
    if secret < 0 {
        return; // off on this machine: secretmem.enable
    }
    // SAFETY: the descriptor is the test's own, and the mapping is new.
    let addr = unsafe {
        libc::ftruncate(secret as i32, page_size() as i64);
        libc::mmap(ptr::null_mut(), page_size(), READ_WRITE, libc::MAP_SHARED, secret as i32, 0)
    };
    assert_ne!(addr, libc::MAP_FAILED);
    let secret = words(addr as usize, 8, Access::empty(), 4);
    assert!(secret.contains("memfd_secret"), "{secret}");
}
