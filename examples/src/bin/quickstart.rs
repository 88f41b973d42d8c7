//! A registration cache on any Linux: no kernel module, no NIC, no privilege.
//!
//! An io_uring pins memory as an RDMA device does, and `Userfaultfd` tells of changes. For RDMA,
//! put `Verbs` in the place of `IoUring`; for the full promise, `Ummunotify` in that of
//! `Userfaultfd`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::ptr;

use examples::Result;
use nix::sys::memfd::{MFdFlags, memfd_create};
use regcache::monitor::{Manual, Monitor, Userfaultfd};
use regcache::registrar::IoUring;
use regcache::{Access, Cache};

const SIZE: usize = 64 << 10;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("quickstart: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    // The cache that you want, and beside it the same one that is told of nothing.
    let cache = Cache::builder(IoUring::new(64)?, Userfaultfd::open()?).build()?;
    let untold = Cache::builder(IoUring::new(64)?, Manual::new()).build()?;

    let buffer = Buffer::new()?;
    println!("A buffer of {} KiB, sent from registered memory by two caches:\n", SIZE >> 10);
    println!("{:<44}{:<18}with Userfaultfd", "", "told of nothing");

    buffer.write("one");
    show("\"one\" is written and sent: it is registered", &untold, &cache, &buffer)?;
    show("sent again: a hit, nothing is registered", &untold, &cache, &buffer)?;

    buffer.replace()?;
    buffer.write("two");
    show("munmap, mmap; \"two\" is written and sent", &untold, &cache, &buffer)?;

    buffer.drop_pages()?;
    buffer.write("three");
    show("madvise(DONTNEED); \"three\" is written, sent", &untold, &cache, &buffer)?;

    println!("\ntold of nothing:  {}", untold.stats());
    println!("with Userfaultfd: {}", cache.stats());
    if received(&cache, &buffer)? != "three" {
        return Err("the cache with Userfaultfd sent stale bytes".into());
    }
    println!(
        "
Both changes were raw system calls, which no hook in the C library sees. What the
first cache sends after them are pages that the program no longer has.

Userfaultfd is weakly coherent: it holds for changes whose system call has returned
before the lookup begins, and only of private anonymous memory; the rest is handed
out uncached. The kernel module /dev/ummunotify holds from the moment of the change,
for all memory, whoever changes it, and nobody who unmaps waits for a thread."
    );
    Ok(())
}

/// Sends the buffer by both caches, and says what arrives.
fn show(
    what: &str,
    untold: &Cache<IoUring, Manual>,
    cache: &Cache<IoUring, Userfaultfd>,
    buffer: &Buffer,
) -> Result<()> {
    let text = buffer.read();
    let arrives = |sent: String| match sent == text {
        true => format!("\"{sent}\""),
        false => format!("\"{sent}\" - STALE"),
    };
    let (first, second) = (received(untold, buffer)?, received(cache, buffer)?);
    println!("{what:<44}{:<18}{}", arrives(first), arrives(second));
    Ok(())
}

/// Sends the buffer, from the pages that its registration has pinned, and returns what arrives.
fn received<M: Monitor>(cache: &Cache<IoUring, M>, buffer: &Buffer) -> Result<String> {
    // This is all there is to do for each message.
    let registration = cache.get_or_register(buffer.addr, SIZE, Access::empty())?;

    let receiver = File::from(memfd_create("receiver", MFdFlags::MFD_CLOEXEC)?);
    let ring = cache.registrar();
    ring.write_fixed(registration.region(), buffer.addr, SIZE, &receiver, 0)?;
    let mut bytes = [0; 16];
    receiver.read_exact_at(&mut bytes, 0)?;
    Ok(text(&bytes))
}

/// Memory that is changed by raw system calls.
struct Buffer {
    addr: usize,
}

impl Buffer {
    fn new() -> Result<Buffer> {
        Ok(Buffer { addr: map(0, 0)? })
    }

    /// Other memory at the same address.
    fn replace(&self) -> Result<()> {
        system_call(libc::SYS_munmap, [self.addr, SIZE, 0, 0, 0, 0])?;
        map(self.addr, libc::MAP_FIXED_NOREPLACE)?;
        Ok(())
    }

    /// Other pages in the same memory.
    fn drop_pages(&self) -> Result<()> {
        let advice = libc::MADV_DONTNEED as usize;
        system_call(libc::SYS_madvise, [self.addr, SIZE, advice, 0, 0, 0])?;
        Ok(())
    }

    fn write(&self, text: &str) {
        // SAFETY: the buffer is mapped writable, longer than the text, and nothing refers to it.
        unsafe { ptr::copy_nonoverlapping(text.as_ptr(), self.addr as *mut u8, text.len()) };
    }

    fn read(&self) -> String {
        // SAFETY: the buffer is mapped readable and longer than this, and nothing writes to it now.
        text(&unsafe { ptr::read(self.addr as *const [u8; 16]) })
    }
}

/// The text in `bytes`, which ends at the first zero.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn map(addr: usize, flags: i32) -> io::Result<usize> {
    let prot = (libc::PROT_READ | libc::PROT_WRITE) as usize;
    let flags = (flags | libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    system_call(libc::SYS_mmap, [addr, SIZE, prot, flags, usize::MAX, 0])
}

/// Makes a system call past the C library, and past whatever hooks that.
fn system_call(number: i64, [a, b, c, d, e, f]: [usize; 6]) -> io::Result<usize> {
    // SAFETY: every caller changes mappings of its own buffer, which no reference points into.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}
