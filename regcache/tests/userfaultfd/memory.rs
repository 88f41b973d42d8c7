//! Memory that the tests change by raw system calls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use regcache::{AddressRange, page_size};

pub const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
pub const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// Makes a system call past the C library.
pub fn try_raw(number: i64, args: &[usize]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the tests make system calls on memory that they mapped themselves and that no
    // reference points into.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// Makes one that must not fail.
pub fn raw(number: i64, args: &[usize]) -> usize {
    try_raw(number, args).unwrap_or_else(|error| panic!("system call {number}: {error}"))
}

/// A mapping of whole pages. It stays until the test program ends.
#[derive(Debug)]
pub struct Memory {
    pub range: AddressRange,
    pub file: Option<File>,
}

impl Memory {
    /// Private anonymous memory, written to.
    pub fn new(pages: usize) -> Memory {
        let memory = Memory::map(pages * page_size(), ANONYMOUS, None);
        memory.fill();
        memory
    }

    /// A memfd, mapped with `flags`.
    pub fn of_memfd(pages: usize, flags: i32) -> Memory {
        let file = File::from(memfd_create("memory", MFdFlags::MFD_CLOEXEC).unwrap());
        file.set_len((pages * page_size()) as u64).unwrap();
        let memory = Memory::map(pages * page_size(), flags, Some(file));
        memory.fill();
        memory
    }

    pub fn map(bytes: usize, flags: i32, file: Option<File>) -> Memory {
        let memory = Memory { range: lonely_range(bytes), file };
        memory.map_at(flags | libc::MAP_FIXED_NOREPLACE);
        memory
    }

    pub fn map_at(&self, flags: i32) {
        let fd = self.file.as_ref().map_or(-1, File::as_raw_fd);
        let (start, len) = (self.range.start(), self.range.len());
        let args = [start, len, RW as usize, flags as usize, fd as usize, 0];
        assert_eq!(raw(libc::SYS_mmap, &args), start);
    }

    pub fn unmap(&self) {
        raw(libc::SYS_munmap, &[self.range.start(), self.range.len()]);
    }

    /// New private memory where it was unmapped.
    pub fn map_again(&self) {
        self.map_at(ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
    }

    /// mremap(2) of all of it.
    pub fn remap(&self, new_len: usize, flags: i32, to: usize) -> io::Result<usize> {
        let (start, len) = (self.range.start(), self.range.len());
        try_raw(libc::SYS_mremap, &[start, len, new_len, flags as usize, to])
    }

    /// madvise(2) of all of it.
    pub fn advise(&self, advice: i32) {
        self.try_advise(advice).unwrap();
    }

    pub fn try_advise(&self, advice: i32) -> io::Result<usize> {
        try_raw(libc::SYS_madvise, &[self.range.start(), self.range.len(), advice as usize])
    }

    /// Page `n` and the `count - 1` after it.
    pub fn pages(&self, n: usize, count: usize) -> Memory {
        let start = self.range.start() + n * page_size();
        Memory { range: AddressRange::new(start, count * page_size()).unwrap(), file: None }
    }

    /// Writes what was never written anywhere before.
    pub fn fill(&self) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        for word in (self.range.start()..self.range.end()).step_by(8) {
            let value = NEXT.fetch_add(1, Ordering::Relaxed);
            // SAFETY: the memory is mapped writable, and no reference points into it.
            unsafe { ptr::write_volatile(word as *mut u64, value) };
        }
    }

    /// What the processor sees.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.range.len()];
        // SAFETY: the memory is mapped readable, and nobody writes to it at this time.
        unsafe {
            ptr::copy_nonoverlapping(
                self.range.start() as *const u8,
                bytes.as_mut_ptr(),
                self.range.len(),
            );
        }
        bytes
    }
}

/// Addresses where the kernel places nothing unasked, so that nobody else takes what a test frees.
pub fn lonely_range(bytes: usize) -> AddressRange {
    static NEXT: AtomicUsize = AtomicUsize::new(64 << 30);
    let start = NEXT.fetch_add(
        (bytes + 1).next_multiple_of(page_size() * page_size() / size_of::<u64>()),
        Ordering::Relaxed,
    );
    AddressRange::new(start, bytes).unwrap()
}
