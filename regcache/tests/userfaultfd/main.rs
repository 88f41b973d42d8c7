//! The monitor for kernels without the module, on real pins: an io_uring pins, and the bytes that
//! it moves are compared with what the processor wrote.
//!
//! A test whose machine has no io_uring or no userfaultfd says `SKIPPED` on the standard error
//! output, past the capture of tests; with `REGCACHE_NO_SKIP` set, it fails.
#![cfg(all(feature = "io-uring", feature = "userfaultfd"))]

mod hangs;
mod memory;
mod refused;
mod seen;
mod storm;
mod watches;

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use nix::sys::memfd::{MFdFlags, memfd_create};
use regcache::monitor::{Manual, Monitor, Userfaultfd};
use regcache::registrar::IoUring;
use regcache::{Access, AddressRange, Cache};

type Watched = Cache<IoUring, Userfaultfd>;

/// A monitor, or `None` where the machine has none, and a line that says so.
fn monitor() -> Option<Userfaultfd> {
    // A hang ends the whole test program, by SIGALRM.
    nix::unistd::alarm::set(300);
    Userfaultfd::open().map_err(|error| skip(&error)).ok()
}

/// A cache with it.
fn cache() -> Option<Watched> {
    let monitor = monitor()?;
    let registrar = IoUring::new(256).map_err(|error| skip(&error)).ok()?;
    Some(Cache::builder(registrar, monitor).max_bytes(1 << 30).build().unwrap())
}

/// The same cache, told of nothing.
fn untold() -> Option<Cache<IoUring, Manual>> {
    let registrar = IoUring::new(256).map_err(|error| skip(&error)).ok()?;
    Some(Cache::builder(registrar, Manual::new()).max_bytes(1 << 30).build().unwrap())
}

fn skip(reason: &dyn std::fmt::Display) {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("a test");
    assert!(std::env::var_os("REGCACHE_NO_SKIP").is_none(), "{name}: {reason}");
    // Not eprintln!, which is captured.
    let _ = writeln!(io::stderr(), "SKIPPED {name}: {reason}");
}

/// What the device reads of `range` by the registration that the cache gives.
fn device_reads<M: Monitor>(cache: &Cache<IoUring, M>, range: AddressRange) -> Vec<u8> {
    let lookup = || cache.get_or_register(range.start(), range.len(), Access::empty());
    // It shares the failure of another thread that began to register it before it was mapped.
    let guard = lookup().or_else(|_| lookup()).or_else(|_| lookup()).unwrap();
    let file = File::from(memfd_create("device", MFdFlags::MFD_CLOEXEC).unwrap());
    let ring = cache.registrar();
    let written = ring.write_fixed(guard.region(), range.start(), range.len(), &file, 0);
    assert_eq!(written, Ok(range.len()));
    let mut bytes = vec![0; range.len()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Whether the registration that the cache gives for `range` is of the pages that the program sees.
fn is_right<M: Monitor>(cache: &Cache<IoUring, M>, memory: &memory::Memory) -> bool {
    device_reads(cache, memory.range) == memory.bytes()
}
