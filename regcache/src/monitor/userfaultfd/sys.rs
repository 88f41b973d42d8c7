//! The system calls of this monitor: userfaultfd(2), its ioctls, and a thread's own table of files.
//!
//! Everything unsafe of the monitor is here and in [`super::mappings`]. Nothing here allocates.

use std::ffi::{c_int, c_ulong};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use nix::errno::Errno;
use rustix::mm::UserfaultfdFlags;

use crate::range::{AddressRange, page_size};

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFD_USER_MODE_ONLY`: what any user may have. The kernel itself never waits for this file.
const USER_MODE_ONLY: u32 = 1;

const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const FEATURE_EVENT_REMAP: u64 = 1 << 2;
const FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const FEATURE_EVENT_UNMAP: u64 = 1 << 6;

const REGISTER_MODE_WP: u64 = 1 << 1;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;

/// `CLOSE_RANGE_UNSHARE`.
const CLOSE_RANGE_UNSHARE: u32 = 1 << 1;

/// `struct uffdio_api`.
#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct UffdioRange {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct UffdioRegister {
    range: UffdioRange,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct UffdioWriteprotect {
    range: UffdioRange,
    mode: u64,
}

/// `struct uffd_msg`: the kind of event in the first byte, its arguments in the last three words.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Message([u64; 4]);

/// What a [`Message`] says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// The range has been unmapped.
    Unmapped(AddressRange),
    /// The pages of the range are about to be dropped.
    Removing(AddressRange),
    /// The pages have been moved, and what looks after them with them.
    Moved { from: AddressRange, to: AddressRange },
    /// A thread waits to write to a page that is protected: there should be none.
    Fault { page: usize },
    /// Nothing that was asked for.
    Unknown,
}

impl Message {
    pub(super) fn event(self) -> Event {
        let Message([kind, a, b, c]) = self;
        let (a, b, c) = (a as usize, b as usize, c as usize);
        let event = match kind.to_ne_bytes()[0] {
            EVENT_UNMAP => AddressRange::new(a, b.wrapping_sub(a)).map(Event::Unmapped),
            EVENT_REMOVE => AddressRange::new(a, b.wrapping_sub(a)).map(Event::Removing),
            EVENT_REMAP => AddressRange::new(a, c)
                .zip(AddressRange::new(b, c))
                .map(|(from, to)| Event::Moved { from, to }),
            EVENT_PAGEFAULT => Some(Event::Fault { page: b & !(page_size() - 1) }),
            _ => None,
        };
        event.unwrap_or(Event::Unknown)
    }
}

/// Why there is no [`Uffd`].
#[derive(Debug, Clone, Copy)]
pub(super) enum OpenError {
    /// userfaultfd(2) failed.
    Call(Errno),
    /// `UFFDIO_API` failed: events are missing.
    Api(Errno),
    /// The processor's port has no write protection.
    NoWriteProtect,
}

/// A userfaultfd that tells of unmapped, removed and moved memory, and protects nothing.
#[derive(Debug)]
pub(super) struct Uffd(OwnedFd);

impl Uffd {
    pub(super) fn open() -> Result<Uffd, OpenError> {
        let flags = UserfaultfdFlags::CLOEXEC
            | UserfaultfdFlags::NONBLOCK
            | UserfaultfdFlags::from_bits_retain(USER_MODE_ONLY);
        // SAFETY: no page is ever protected or filled through this file: it changes the contents of
        // no memory, and only tells of what the program does itself.
        let fd = unsafe { rustix::mm::userfaultfd(flags) }
            .map_err(|error| OpenError::Call(Errno::from_raw(error.raw_os_error())))?;
        let uffd = Uffd(fd);
        let features = FEATURE_EVENT_UNMAP | FEATURE_EVENT_REMOVE | FEATURE_EVENT_REMAP;
        let mut api = UffdioApi { api: API, features, ioctls: 0 };
        uffd.ioctl(iowr::<UffdioApi>(0x3f), &mut api).map_err(OpenError::Api)?;
        // The reply has every feature of the kernel.
        if api.features & FEATURE_PAGEFAULT_FLAG_WP == 0 {
            return Err(OpenError::NoWriteProtect);
        }
        Ok(uffd)
    }

    /// Asks for events of every mapping in `range`; of at least one there is. What is registered
    /// already stays so.
    pub(super) fn register(&self, range: AddressRange) -> Result<(), Errno> {
        let range = range.into();
        let mut register = UffdioRegister { range, mode: REGISTER_MODE_WP, ioctls: 0 };
        self.ioctl(iowr::<UffdioRegister>(0), &mut register)
    }

    /// Ends that. Changes nothing where a mapping belongs to another userfaultfd.
    pub(super) fn unregister(&self, range: AddressRange) -> Result<(), Errno> {
        // Linux before 6.16 lets one userfaultfd disarm the mappings of another, but not take them.
        self.register(range)?;
        self.ioctl(ior::<UffdioRange>(1), &mut UffdioRange::from(range))
    }

    /// Lets a thread go on that waits to write to `page`.
    pub(super) fn unprotect(&self, page: usize) {
        let Some(range) = AddressRange::new(page, page_size()) else { return };
        let mut unprotect = UffdioWriteprotect { range: range.into(), mode: 0 };
        if self.ioctl(iowr::<UffdioWriteprotect>(6), &mut unprotect).is_err() {
            // EAGAIN while an event is unread. The thread faults again, and comes back here.
            let _ = self.ioctl(ior::<UffdioRange>(2), &mut UffdioRange::from(range));
        }
    }

    /// Reads what there is, and so lets go the threads that made it. Never blocks.
    pub(super) fn read<'m>(&self, messages: &'m mut [Message]) -> Result<&'m [Message], Errno> {
        let len = mem::size_of_val(messages);
        // SAFETY: the kernel writes at most `len` bytes to the messages, which any bytes are valid
        // for.
        let read = unsafe { libc::read(self.0.as_raw_fd(), messages.as_mut_ptr().cast(), len) };
        let bytes = Errno::result(read)? as usize;
        Ok(messages.get(..bytes / size_of::<Message>()).unwrap_or_default())
    }

    fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> Result<(), Errno> {
        let argument: *mut T = argument;
        // SAFETY: each caller gives the structure that its request reads and writes, whose size is
        // part of the request's number. None of the requests changes the contents of memory: they
        // say of which mappings the kernel tells.
        let result = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument) };
        Errno::result(result).map(drop)
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<AddressRange> for UffdioRange {
    fn from(range: AddressRange) -> UffdioRange {
        UffdioRange { start: range.start() as u64, len: range.len() as u64 }
    }
}

/// Gives the calling thread a table of files of its own, in which only `kept` is open.
pub(super) fn keep_only(kept: RawFd) -> Result<(), Errno> {
    let kept = kept as u32;
    // The first call makes the table, so it comes first whatever it closes, and cannot be left out:
    // its range may be of files that there are none of.
    close_range(kept.wrapping_add(1), u32::MAX, CLOSE_RANGE_UNSHARE)?;
    if kept > 0 {
        close_range(0, kept - 1, 0)?;
    }
    Ok(())
}

fn close_range(first: u32, last: u32, flags: u32) -> Result<(), Errno> {
    // SAFETY: the calling thread is the monitor's own. With the first call, which unshares, it has a
    // table of its own, and owns no other file in it than those that are kept.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) };
    Errno::result(result as c_int).map(drop)
}

const fn ioc<T>(direction: c_ulong, number: c_ulong) -> c_ulong {
    direction << 30 | (size_of::<T>() as c_ulong) << 16 | (API as c_ulong) << 8 | number
}

const fn iowr<T>(number: c_ulong) -> c_ulong {
    ioc::<T>(3, number)
}

/// The kernel's header calls these requests reads, though they are writes.
const fn ior<T>(number: c_ulong) -> c_ulong {
    ioc::<T>(2, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, arguments: [u64; 3]) -> Event {
        let [a, b, c] = arguments;
        let first = u64::from_ne_bytes([kind, 0, 0, 0, 0, 0, 0, 0]);
        Message([first, a, b, c]).event()
    }

    fn range(start: usize, len: usize) -> AddressRange {
        AddressRange::new(start, len).unwrap()
    }

    #[test]
    fn events_are_told_apart() {
        assert_eq!(message(EVENT_UNMAP, [4096, 8192, 0]), Event::Unmapped(range(4096, 4096)));
        assert_eq!(message(EVENT_REMOVE, [4096, 8192, 0]), Event::Removing(range(4096, 4096)));
        let (from, to) = (range(4096, 12288), range(65536, 12288));
        assert_eq!(message(EVENT_REMAP, [4096, 65536, 12288]), Event::Moved { from, to });
        let page = page_size();
        assert_eq!(message(EVENT_PAGEFAULT, [0, page as u64 + 5, 0]), Event::Fault { page });
    }

    #[test]
    fn nonsense_is_unknown() {
        assert_eq!(message(0, [1, 2, 3]), Event::Unknown);
        assert_eq!(message(EVENT_UNMAP, [4096, 4096, 0]), Event::Unknown);
        assert_eq!(message(EVENT_UNMAP, [8192, 4096, 0]), Event::Unknown);
        assert_eq!(message(EVENT_REMAP, [4096, u64::MAX, 4096]), Event::Unknown);
    }

    #[test]
    fn requests_have_the_numbers_of_the_header() {
        assert_eq!(iowr::<UffdioApi>(0x3f), 0xc018_aa3f);
        assert_eq!(iowr::<UffdioRegister>(0), 0xc020_aa00);
        assert_eq!(ior::<UffdioRange>(1), 0x8010_aa01);
        assert_eq!(ior::<UffdioRange>(2), 0x8010_aa02);
        assert_eq!(iowr::<UffdioWriteprotect>(6), 0xc018_aa06);
    }
}
