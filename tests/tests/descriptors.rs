//! Other code of the process closes the device of a cache, and its next file has the number: the
//! cache finds out before it believes or takes anything, and judges by page frames.
#![cfg(feature = "guest")]

use std::net::UdpSocket;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::thread;

use nix::errno::Errno;
use nix::unistd::{dup2_raw, pipe, read, write};
use regcache::registrar::IoUring;
use regcache::{Access, Reaper};
use regcache_guest_tests::frames::is_stale;
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::rows::{PinCache, told};
use regcache_guest_tests::{attempt, raw};
use ummunotify::{Device, Event, EventBuffer, Options};

type Told = PinCache<regcache::monitor::Ummunotify>;

fn number(cache: &Told) -> RawFd {
    cache.monitor().device().as_fd().as_raw_fd()
}

/// Registers, changes the memory, and looks it up, again and again.
fn assert_never_stale(cache: &Told, memory: &Memory) {
    for round in 0..6 {
        memory.unmap();
        memory.map_again();
        let (start, len) = (memory.range.start(), memory.range.len());
        let guard = cache.get_or_register(start, len, Access::LOCAL_WRITE).unwrap();
        assert!(!is_stale(&guard, memory.range), "round {round}");
    }
}

/// `other` takes the number of the cache's device. Returns the number.
fn taken_over(cache: &Told, other: impl AsFd) -> RawFd {
    let number = number(cache);
    // SAFETY: this is what the tests are about: the number is used only by who must find out.
    std::mem::forget(unsafe { dup2_raw(other, number) }.unwrap());
    number
}

fn is_open(number: RawFd) -> bool {
    attempt!(SYS_fcntl, number, libc::F_GETFD).is_ok()
}

/// The cache knows, says so, and does not close what is not its own.
fn assert_lost(cache: Told, number: RawFd, open: bool) {
    let dump = cache.dump().unwrap();
    assert!(dump.monitor_error().is_some(), "{dump}");
    assert!(dump.to_string().contains(&format!("file descriptor {number}")), "{dump}");
    assert!(cache.stats().uncached_unmonitored > 0, "{}", cache.stats());
    drop(cache);
    assert_eq!(is_open(number), open);
}

fn warm() -> (Told, Memory) {
    let (cache, memory) = (told(), Memory::anonymous(4));
    assert_never_stale(&cache, &memory);
    assert_eq!(cache.stats().uncached(), 0);
    (cache, memory)
}

#[test]
fn a_number_that_is_closed() {
    let (cache, memory) = warm();
    let number = number(&cache);
    raw!(SYS_close, number);
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, false);
}

/// close_range(2), as closefrom(3) calls it.
#[test]
fn numbers_that_are_closed_by_range() {
    let (cache, memory) = warm();
    let number = number(&cache);
    raw!(SYS_close_range, number, number, 0);
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, false);
}

/// A read of it says "nothing", as the device's does.
#[test]
fn a_number_that_is_a_quiet_socket() {
    let (cache, memory) = warm();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let number = taken_over(&cache, &socket);
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, true);
}

#[test]
fn a_number_that_is_a_pipe_with_bytes() {
    let (cache, memory) = warm();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(write(&writer, &[5; 4096]), Ok(4096));
    let number = taken_over(&cache, &reader);
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, true);
    assert_eq!(read(&reader, &mut [0; 8192]), Ok(4096), "the program's bytes");
}

/// Of the program, or of another cache: its events and its ranges stay its own.
#[test]
fn a_number_that_is_another_device() {
    let (cache, memory) = warm();
    let device = Device::open().unwrap();
    let own = Memory::anonymous(2);
    device.register(own.range.start(), own.range.len(), 1).unwrap();
    own.unmap();
    let number = taken_over(&cache, device.as_fd());
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, true);
    let mut buffer = EventBuffer::new();
    let events: Vec<_> = device.read(&mut buffer).unwrap().collect();
    assert!(matches!(events[..], [Event::Invalid(hit), Event::Last { .. }] if hit.cookie == 1));
}

/// What another cache has there, with the features that caches ask for.
#[test]
fn a_number_that_is_another_caches() {
    let (cache, memory) = warm();
    let (other, its_memory) = warm();
    let number = taken_over(&cache, other.monitor().device().as_fd());
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, true);
    assert_never_stale(&other, &its_memory);
    assert_eq!(other.stats().uncached(), 0);
}

/// New memory, and nothing that has changed: it cannot be watched, and so is not cached.
#[test]
fn a_number_that_is_closed_when_new_memory_comes() {
    let (cache, _memory) = warm();
    let number = number(&cache);
    raw!(SYS_close, number);
    let memory = Memory::anonymous(4);
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, false);
}

/// A thread with a table of files of its own, in which the number is another file's.
#[test]
fn a_number_in_a_threads_own_table() {
    let (cache, memory) = warm();
    let number = number(&cache);
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            raw!(SYS_unshare, libc::CLONE_FILES);
            let (reader, _writer) = pipe().unwrap();
            let other = taken_over(&cache, &reader);
            let quiet = reader;
            // The ring's number is as it was.
            assert_never_stale(&cache, &memory);
            drop(quiet);
            raw!(SYS_close, other);
        });
        thread.join().unwrap();
    });
    assert_never_stale(&cache, &memory);
    assert_lost(cache, number, false);
}

/// The reaper has a descriptor of its own, hears of the change, and ends.
#[test]
fn a_number_that_is_anothers_ends_the_reaper() {
    let (cache, memory) = warm();
    let cache = std::sync::Arc::new(cache);
    let reaper = Reaper::start(&cache).unwrap();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let number = taken_over(&cache, &socket);
    assert_never_stale(&cache, &memory);
    drop(reaper);
    assert_lost(std::sync::Arc::into_inner(cache).unwrap(), number, true);
}

/// Every call on the device itself.
#[test]
fn a_number_that_is_another_files_fails_each_call() {
    let device = Options::new().features(ummunotify::Features::VERIFY).open().unwrap();
    let number = device.as_fd().as_raw_fd();
    let memory = Memory::anonymous(1);
    let (start, len) = (memory.range.start(), memory.range.len());
    device.register(start, len, 1).unwrap();
    let (reader, writer) = pipe().unwrap();
    assert_eq!(write(&writer, &[5; 64]), Ok(64));
    // SAFETY: the number is used only by who must find out.
    std::mem::forget(unsafe { dup2_raw(&reader, number) }.unwrap());
    let lost = |result: Result<(), ummunotify::Error>| {
        let error = result.unwrap_err();
        assert_eq!(error, ummunotify::Error::DescriptorLost { fd: number, errno: Errno::ENOTTY });
    };
    lost(device.register(start, len, 2));
    lost(device.unregister(1));
    lost(device.note(1));
    lost(device.verify(1).map(drop));
    lost(device.read(&mut EventBuffer::new()).map(drop));
    lost(device.wait(Some(std::time::Duration::ZERO)).map(drop));
    drop(device);
    // SAFETY: it is open, and the test's own.
    let file = unsafe { BorrowedFd::borrow_raw(number) };
    assert_eq!(read(file, &mut [0; 128]), Ok(64), "the program's bytes");
    let _ring = IoUring::new(1);
}
