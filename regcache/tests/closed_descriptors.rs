//! Other code of the process closes descriptors that are not its own, and its next file has the
//! number: what is stale is never used, nothing hangs or spins, and that file is left alone.
//!
//! One test, since it looks at all descriptors of its process.
#![cfg(all(feature = "io-uring", feature = "userfaultfd"))]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{dup2_raw, pipe, read};
use regcache::monitor::Userfaultfd;
use regcache::registrar::{IoUring, Registrar};
use regcache::{Access, AddressRange, Cache, Error, Reaper, page_size};

const BYTES: [u8; 64] = [7; 64];

/// What comes to have the number.
#[derive(Debug, Clone, Copy)]
enum Other {
    /// Nothing.
    Closed,
    /// Its read says "nothing", as a monitor's does.
    Quiet,
    /// Always readable, with bytes that are the program's.
    Pipe,
}

const OTHERS: [Other; 3] = [Other::Closed, Other::Quiet, Other::Pipe];

fn descriptors() -> BTreeSet<RawFd> {
    let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
    let numbers: Vec<RawFd> = names.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    // Without that of the directory.
    numbers.into_iter().filter(|fd| is_open(*fd)).collect()
}

fn is_open(fd: RawFd) -> bool {
    // SAFETY: fcntl(2) with F_GETFD takes nothing else.
    unsafe { libc::fcntl(fd, libc::F_GETFD) >= 0 }
}

/// What `make` makes, and the descriptors that it opened.
fn opened_by<T>(make: impl FnOnce() -> T) -> (T, Vec<RawFd>) {
    let before = descriptors();
    let made = make();
    (made, descriptors().difference(&before).copied().collect())
}

/// What has taken over numbers.
struct Taken {
    other: Other,
    numbers: Vec<RawFd>,
    _writers: Vec<OwnedFd>,
}

impl Other {
    fn takes(self, numbers: Vec<RawFd>) -> Taken {
        let mut writers = Vec::new();
        for number in &numbers {
            let file: OwnedFd = match self {
                Other::Closed => {
                    // SAFETY: this is what the test is about: nobody here uses the number again.
                    unsafe { libc::close(*number) };
                    continue;
                }
                Other::Quiet => {
                    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
                    socket.set_nonblocking(true).unwrap();
                    socket.into()
                }
                Other::Pipe => {
                    let (reader, writer) = pipe().unwrap();
                    File::from(writer.try_clone().unwrap()).write_all(&BYTES).unwrap();
                    writers.push(writer);
                    reader
                }
            };
            // SAFETY: as above; the new file is left to the number.
            let fd = unsafe { dup2_raw(&file, *number) }.unwrap();
            std::mem::forget(fd);
        }
        Taken { other: self, numbers, _writers: writers }
    }
}

impl Taken {
    /// The files are as they were made. Closes them.
    fn assert_untouched(self) {
        for number in self.numbers {
            if let Other::Closed = self.other {
                continue;
            }
            assert!(is_open(number), "{:?}: {number} was closed", self.other);
            let mut bytes = [0; 2 * BYTES.len()];
            // SAFETY: it is open, and the test's own.
            let file = unsafe { BorrowedFd::borrow_raw(number) };
            let found = read(file, &mut bytes);
            match self.other {
                Other::Pipe => assert_eq!(&bytes[..found.unwrap()], BYTES),
                _ => assert_eq!(found, Err(Errno::EAGAIN)),
            }
            // SAFETY: the test made it.
            unsafe { libc::close(number) };
        }
    }
}

/// A page of memory that the test changes.
struct Page(AddressRange);

impl Page {
    fn new() -> Page {
        let page = Page(AddressRange::new(64 << 30, page_size()).unwrap());
        page.map(1);
        page
    }

    /// Maps another page of `byte` at the same place.
    fn map(&self, byte: u8) {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let (start, len) = (self.0.start() as *mut libc::c_void, self.0.len());
        // SAFETY: the page is the test's own, and no reference points into it.
        unsafe {
            libc::syscall(libc::SYS_munmap, start, len);
            let page = libc::mmap(start, len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            assert_eq!(page, start);
            std::ptr::write_bytes(start.cast::<u8>(), byte, len);
        }
    }

    /// The first byte that a device finds there.
    fn read_by_device(&self, cache: &Cache<IoUring, Userfaultfd>) -> u8 {
        let guard = self.get(cache).unwrap();
        let file = File::from(memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap());
        let ring = cache.registrar();
        ring.write_fixed(guard.region(), self.0.start(), 1, &file, 0).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, 0).unwrap();
        byte[0]
    }

    fn get<'c>(
        &self,
        cache: &'c Cache<IoUring, Userfaultfd>,
    ) -> Result<regcache::Guard<'c, IoUring, Userfaultfd>, Error> {
        cache.get_or_register(self.0.start(), self.0.len(), Access::empty())
    }
}

fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure is live and of the type that the call writes.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn the_monitors(page: &Page, other: Other) {
    let ring = IoUring::new(8).unwrap();
    let (monitor, numbers) = opened_by(|| Userfaultfd::open().unwrap());
    assert!(!numbers.is_empty());
    let cache = Cache::builder(ring, monitor).build().unwrap();
    page.map(1);
    assert_eq!(page.read_by_device(&cache), 1);
    let taken = other.takes(numbers);
    for byte in 2..6 {
        page.map(byte);
        assert_eq!(page.read_by_device(&cache), byte, "{other:?}: stale");
        assert_eq!(page.read_by_device(&cache), byte);
    }
    assert_eq!(cache.stats().uncached(), 0, "{other:?}: nothing of the monitor was lost");
    cache.drain().unwrap();
    drop(cache);
    taken.assert_untouched();
}

fn the_reapers(other: Other) {
    let monitor = Userfaultfd::open().unwrap();
    let cache = Arc::new(Cache::builder(IoUring::new(8).unwrap(), monitor).build().unwrap());
    let (reaper, numbers) = opened_by(|| Reaper::start(&cache).unwrap());
    assert!(numbers.len() >= 2);
    let taken = other.takes(numbers);
    let before = cpu_time();
    thread::sleep(Duration::from_millis(500));
    let spent = cpu_time() - before;
    assert!(spent < Duration::from_millis(250), "{other:?}: it spins: {spent:?}");
    drop(reaper);
    taken.assert_untouched();
}

fn the_rings(page: &Page, other: Other) {
    let (ring, numbers) = opened_by(|| IoUring::new(8).unwrap());
    assert_eq!(numbers.len(), 1);
    let cache = Cache::builder(ring, Userfaultfd::open().unwrap()).build().unwrap();
    page.map(1);
    drop(page.get(&cache).unwrap());
    let taken = other.takes(numbers);
    page.map(2);
    let error = page.get(&cache).unwrap_err();
    assert!(error.to_string().contains("descriptor"), "{error}");
    drop(cache);
    taken.assert_untouched();
}

/// The number of the ring is another ring's: its table stays as it is.
fn the_ring_is_another_ring(page: &Page) {
    page.map(9);
    let (ring, numbers) = opened_by(|| IoUring::new(8).unwrap());
    let (programs, theirs) = opened_by(|| IoUring::new(8).unwrap());
    // SAFETY: access is not remote.
    let region = unsafe { programs.register(page.0, Access::empty()) }.unwrap();
    // SAFETY: this is what the test is about: the number is used only through the one that is wrong.
    let program = unsafe { BorrowedFd::borrow_raw(theirs[0]) };
    // SAFETY: as above.
    std::mem::forget(unsafe { dup2_raw(program, numbers[0]) }.unwrap());
    // SAFETY: access is not remote.
    let refused = unsafe { ring.register(page.0, Access::empty()) };
    assert_eq!(refused.unwrap_err(), Errno::EBADF);
    drop(ring);
    assert!(is_open(numbers[0]));
    let file = File::from(memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap());
    let written = programs.write_fixed(&region, page.0.start(), 1, file.as_fd(), 0);
    assert_eq!(written, Ok(1));
    assert_eq!(program.as_raw_fd(), theirs[0]);
}

#[test]
fn the_next_file_with_the_number_is_left_alone() {
    // What hangs ends by SIGALRM.
    nix::unistd::alarm::set(120);
    let missing = Userfaultfd::open()
        .map(drop)
        .map_err(|error| error.to_string())
        .and_then(|()| IoUring::new(8).map(drop).map_err(|error| error.to_string()));
    if let Err(reason) = missing {
        assert!(std::env::var_os("REGCACHE_NO_SKIP").is_none(), "{reason}");
        let _ = writeln!(io::stderr(), "SKIPPED closed_descriptors: {reason}");
        return;
    }
    let page = Page::new();
    for other in OTHERS {
        the_monitors(&page, other);
        the_reapers(other);
        the_rings(&page, other);
    }
    the_ring_is_another_ring(&page);
}
