//! Ways in which memory changes under a registration, and a hook on `free`, `munmap` and `madvise`
//! does not see it.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::ptr;

use io_uring::{IoUring, opcode};
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};

use examples::Result;

/// `MADV_DONTNEED_LOCKED` of `<linux/mman.h>`, since Linux 5.18.
const MADV_DONTNEED_LOCKED: i32 = 24;
const READ_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// A way in which memory changes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// It does not: the control.
    Untouched,
    RawRemap,
    DontneedLocked,
    PunchHole,
    Truncate,
    Reload,
    UringMadvise,
}

impl Way {
    pub const ALL: [Way; 7] = [
        Way::Untouched,
        Way::RawRemap,
        Way::DontneedLocked,
        Way::PunchHole,
        Way::Truncate,
        Way::Reload,
        Way::UringMadvise,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Way::Untouched => "none (memory untouched)",
            Way::RawRemap => "raw munmap + mmap",
            Way::DontneedLocked => "MADV_DONTNEED_LOCKED",
            Way::PunchHole => "memfd PUNCH_HOLE",
            Way::Truncate => "ftruncate shrink and grow",
            Way::Reload => "dlclose + dlopen",
            Way::UringMadvise => "io_uring MADVISE",
        }
    }

    /// A buffer of `len` bytes that changes in this way.
    pub fn buffer(self, len: usize) -> Result<Box<dyn Buffer>> {
        Ok(match self {
            Way::Untouched => Box::new(Anonymous::new(len, |_| Ok(()))?),
            Way::RawRemap => Box::new(Anonymous::new(len, raw_remap)?),
            Way::DontneedLocked => Box::new(Anonymous::new(len, |place| {
                // SAFETY: the memory is this buffer's, and nobody holds a reference into it.
                let result =
                    unsafe { libc::madvise(place.pointer(), place.len, MADV_DONTNEED_LOCKED) };
                os(result).map(drop)
            })?),
            Way::PunchHole => Box::new(Shared::new(len, |file, len| {
                let flags =
                    FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
                Ok(fallocate(file, flags, 0, len as i64)?)
            })?),
            Way::Truncate => Box::new(Shared::new(len, |file, len| {
                file.set_len(0)?;
                file.set_len(len as u64)
            })?),
            Way::Reload => Box::new(Static::new(len)?),
            Way::UringMadvise => {
                let mut ring = IoUring::new(1)?;
                Box::new(Anonymous::new(len, move |place| uring_madvise(&mut ring, place))?)
            }
        })
    }
}

/// Memory that can change under whoever has registered it.
pub trait Buffer {
    /// Where it is now. Readable, writable, and nobody else's.
    fn addr(&self) -> usize;

    /// Changes it: its pages are others now, full of zeros, most often at the same address.
    fn churn(&mut self) -> Result<()>;
}

/// An inaccessible stretch of addresses around a buffer. What is unmapped in it is not given to
/// another mapping meanwhile, and no other memory shares the 2 MiB blocks of the buffer (the kernel
/// reports some changes by the block).
struct Place {
    reserved: usize,
    reserved_len: usize,
    addr: usize,
    len: usize,
}

impl Place {
    fn new(len: usize) -> io::Result<Place> {
        const BLOCK: usize = 2 << 20;
        let reserved_len = len.next_multiple_of(BLOCK) + BLOCK;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let reserved = mapped(unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            libc::mmap(ptr::null_mut(), reserved_len, libc::PROT_NONE, flags, -1, 0)
        })?;
        Ok(Place { reserved, reserved_len, addr: reserved.next_multiple_of(BLOCK), len })
    }

    fn pointer(&self) -> *mut c_void {
        self.addr as *mut c_void
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // SAFETY: the addresses are this value's, and nobody holds a reference into them.
        unsafe { libc::munmap(self.reserved as *mut c_void, self.reserved_len) };
    }
}

/// Anonymous private memory.
struct Anonymous<F> {
    place: Place,
    change: F,
}

impl<F: FnMut(&Place) -> io::Result<()>> Anonymous<F> {
    fn new(len: usize, change: F) -> io::Result<Anonymous<F>> {
        let place = Place::new(len)?;
        // SAFETY: this replaces a part of the place, which nobody uses yet.
        mapped(unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
            libc::mmap(place.pointer(), len, READ_WRITE, flags, -1, 0)
        })?;
        Ok(Anonymous { place, change })
    }
}

impl<F: FnMut(&Place) -> io::Result<()>> Buffer for Anonymous<F> {
    fn addr(&self) -> usize {
        self.place.addr
    }

    fn churn(&mut self) -> Result<()> {
        Ok((self.change)(&self.place)?)
    }
}

/// System calls that pass by libc's functions, and so by whoever has patched them.
fn raw_remap(place: &Place) -> io::Result<()> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the memory is this buffer's, nobody holds a reference into it, and the new mapping
    // replaces nothing.
    unsafe {
        os(libc::syscall(libc::SYS_munmap, place.addr, place.len))?;
        os(libc::syscall(libc::SYS_mmap, place.addr, place.len, READ_WRITE, flags, -1, 0_usize))?;
    }
    Ok(())
}

/// MADV_DONTNEED, done for the ring: there is no call of madvise(2) that a hook could see.
fn uring_madvise(ring: &mut IoUring, place: &Place) -> io::Result<()> {
    let len = libc::off_t::try_from(place.len).map_err(io::Error::other)?;
    let entry = opcode::Madvise::new(place.pointer(), len, libc::MADV_DONTNEED).build();
    // SAFETY: the memory is this buffer's, nobody holds a reference into it, and it stays mapped
    // until the entry has completed, below.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if let Some(completion) = ring.completion().next() {
            return match completion.result() {
                0.. => Ok(()),
                error => Err(io::Error::from_raw_os_error(-error)),
            };
        }
    }
}

/// A shared mapping of a memory file.
struct Shared<F> {
    place: Place,
    file: File,
    change: F,
}

impl<F: FnMut(&File, usize) -> io::Result<()>> Shared<F> {
    fn new(len: usize, change: F) -> io::Result<Shared<F>> {
        let place = Place::new(len)?;
        let file = File::from(memory_file()?);
        file.set_len(len as u64)?;
        // SAFETY: this replaces a part of the place, which nobody uses yet.
        mapped(unsafe {
            let flags = libc::MAP_SHARED | libc::MAP_FIXED;
            libc::mmap(place.pointer(), len, READ_WRITE, flags, file.as_raw_fd(), 0)
        })?;
        Ok(Shared { place, file, change })
    }
}

impl<F: FnMut(&File, usize) -> io::Result<()>> Buffer for Shared<F> {
    fn addr(&self) -> usize {
        self.place.addr
    }

    fn churn(&mut self) -> Result<()> {
        Ok((self.change)(&self.file, self.place.len)?)
    }
}

/// A static buffer of a shared library.
struct Static {
    path: PathBuf,
    /// `None` only while the library is unloaded.
    library: Option<Library>,
    addr: usize,
    /// Each buffer has a file of its own, since the loader loads a file once.
    _file: OwnedFd,
}

impl Static {
    fn new(len: usize) -> Result<Static> {
        const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libstatic_buffer.so"));
        let file = memory_file()?;
        io::Write::write_all(&mut &File::from(file.try_clone()?), LIBRARY)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd()).into();
        let mut buffer = Static { path, library: None, addr: 0, _file: file };
        let size = buffer.load()?;
        if len > size {
            return Err(format!("the library's buffer has {size} bytes, not {len}").into());
        }
        Ok(buffer)
    }

    /// Loads the library and returns the size of its buffer.
    fn load(&mut self) -> Result<usize> {
        // SAFETY: the library is static_buffer.c: it has no code at all, and its symbols are a
        // buffer and its size.
        unsafe {
            let library = Library::open(Some(&self.path), RTLD_NOW | RTLD_LOCAL)?;
            self.addr = *library.get::<*mut u8>(b"static_buffer")? as usize;
            let size = **library.get::<*const libc::c_ulong>(b"static_buffer_size")?;
            self.library = Some(library);
            Ok(size as usize)
        }
    }
}

impl Buffer for Static {
    fn addr(&self) -> usize {
        self.addr
    }

    fn churn(&mut self) -> Result<()> {
        if let Some(library) = self.library.take() {
            library.close()?;
        }
        self.load().map(drop)
    }
}

fn memory_file() -> io::Result<OwnedFd> {
    Ok(memfd_create("demo", MFdFlags::MFD_CLOEXEC)?)
}

/// The result of mmap(2).
fn mapped(pointer: *mut c_void) -> io::Result<usize> {
    match pointer {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        pointer => Ok(pointer as usize),
    }
}

/// The result of a system call, which is -1 for an error.
fn os<T: PartialEq + From<i8>>(result: T) -> io::Result<T> {
    if result == T::from(-1) { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 10_007;

    fn fill(buffer: &dyn Buffer) {
        // SAFETY: a buffer is writable and only this test's.
        unsafe { ptr::write_bytes(buffer.addr() as *mut u8, 7, LEN) };
    }

    fn holds(buffer: &dyn Buffer, byte: u8) -> bool {
        // SAFETY: a buffer is readable and only this test's.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.addr() as *const u8, LEN) };
        bytes.iter().all(|held| *held == byte)
    }

    #[test]
    fn every_way_but_the_control_changes_one_buffer_and_no_other() {
        for way in Way::ALL {
            let mut buffer = way.buffer(LEN).unwrap();
            let other = way.buffer(LEN).unwrap();
            fill(&*other);
            for _ in 0..3 {
                fill(&*buffer);
                buffer.churn().unwrap();
                let expected = if way == Way::Untouched { 7 } else { 0 };
                assert!(holds(&*buffer, expected), "{}", way.name());
                assert!(holds(&*other, 7), "{}", way.name());
            }
        }
    }

    #[test]
    fn a_buffer_that_does_not_fit_the_library_is_refused() {
        assert!(Way::Reload.buffer(64 << 20).is_err());
    }
}
