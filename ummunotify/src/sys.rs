//! The kernel interface: `ummunotify-kmod/include/uapi/linux/ummunotify.h` in Rust. All of this
//! crate's unsafe code is here.

use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// `struct ummunotify_register_ioctl`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RegisterIoctl {
    pub start: u64,
    pub end: u64,
    pub user_cookie: u64,
    pub flags: u32,
    pub reserved: u32,
}

/// `struct ummunotify_event`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawEvent {
    pub kind: u32,
    pub flags: u32,
    pub hint_start: u64,
    pub hint_end: u64,
    pub user_cookie_counter: u64,
}

/// `UMMUNOTIFY_EVENT_TYPE_INVAL`
pub(crate) const EVENT_INVAL: u32 = 0;
/// `UMMUNOTIFY_EVENT_TYPE_LAST`
pub(crate) const EVENT_LAST: u32 = 1;
/// `UMMUNOTIFY_EVENT_FLAG_HINT`
pub(crate) const EVENT_FLAG_HINT: u32 = 1;

/// The size of an event as `read(2)` returns it, in bytes.
pub(crate) const EVENT_SIZE: usize = size_of::<RawEvent>();

const _: () = assert!(size_of::<RegisterIoctl>() == 32 && EVENT_SIZE == 32);

/// `struct ummunotify_negotiate`
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct NegotiateIoctl {
    pub size: u32,
    pub features: u32,
    pub slots: u32,
    pub kinds: u32,
    pub max_regions: u32,
    pub max_batch: u32,
}

/// `UMMUNOTIFY_REGISTER_SLOT`
pub(crate) const REGISTER_SLOT: u32 = 1 << 10;
/// `UMMUNOTIFY_EVENT_KINDS_SHIFT`
pub(crate) const EVENT_KINDS_SHIFT: u32 = 8;

nix::ioctl_readwrite_bad!(ioctl_negotiate, nix::request_code_none!(b'U', 4), NegotiateIoctl);
nix::ioctl_write_ptr!(ioctl_note, b'U', 8, u64);
nix::ioctl_write_ptr!(ioctl_verify, b'U', 9, u64);
nix::ioctl_write_ptr!(ioctl_register, b'U', 2, RegisterIoctl);
nix::ioctl_write_ptr!(ioctl_unregister, b'U', 3, u64);

/// `UMMUNOTIFY_REGISTER_REGION`
pub(crate) fn register(file: &File, region: &RegisterIoctl) -> Result<(), Errno> {
    // SAFETY: the kernel reads 32 bytes from `region`, a live reference to exactly that many, and
    // keeps no pointer to them.
    unsafe { ioctl_register(file.as_raw_fd(), region) }.map(drop)
}

/// `UMMUNOTIFY_UNREGISTER_REGION`
pub(crate) fn unregister(file: &File, cookie: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads 8 bytes from a live local, and keeps no pointer to it.
    unsafe { ioctl_unregister(file.as_raw_fd(), &cookie) }.map(drop)
}

/// `UMMUNOTIFY_NEGOTIATE`
pub(crate) fn negotiate(file: &File, wanted: &mut NegotiateIoctl) -> Result<(), Errno> {
    wanted.size = size_of::<NegotiateIoctl>() as u32;
    // SAFETY: the kernel reads and writes as many bytes as `size` says, which the live reference
    // has, and keeps no pointer to them.
    unsafe { ioctl_negotiate(file.as_raw_fd(), wanted) }.map(drop)
}

/// `UMMUNOTIFY_NOTE`
pub(crate) fn note(file: &File, cookie: u64) -> Result<(), Errno> {
    // SAFETY: the kernel reads 8 bytes from a live local, and keeps no pointer to it.
    unsafe { ioctl_note(file.as_raw_fd(), &cookie) }.map(drop)
}

/// `UMMUNOTIFY_VERIFY`
pub(crate) fn verify(file: &File, cookie: u64) -> Result<bool, Errno> {
    // SAFETY: the kernel reads 8 bytes from a live local, and keeps no pointer to it.
    unsafe { ioctl_verify(file.as_raw_fd(), &cookie) }.map(|same| same != 0)
}

/// Generations that the kernel counts up, mapped read-only: the counter, or the slots.
#[derive(Debug)]
pub(crate) struct Generations {
    first: NonNull<AtomicU64>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping is owned by this value, belongs to the process and not to a thread, and is
// only ever read, by atomic loads.
unsafe impl Send for Generations {}
// SAFETY: as above.
unsafe impl Sync for Generations {}

impl Generations {
    /// Maps `bytes`, whole pages, at `offset` of the file.
    pub(crate) fn map(
        file: impl AsFd,
        bytes: NonZeroUsize,
        offset: usize,
    ) -> Result<Generations, Errno> {
        let (prot, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing in use.
        let first = unsafe { mmap(None, bytes, prot, flags, file, offset as i64) }?;
        Ok(Generations { first: first.cast(), bytes })
    }

    /// The first number.
    pub(crate) fn as_ptr(&self) -> *const AtomicU64 {
        self.first.as_ptr()
    }

    /// Loads number `index`.
    ///
    /// An atomic load from read-only memory is only sure to be a plain load when it is relaxed
    /// (`std::sync::atomic`, "Atomic accesses to read-only memory"), so the order comes from the
    /// fence. It pairs with the kernel's increment, which the kernel makes before it changes a page
    /// table entry: reads after this call see a world no older than the generation.
    ///
    /// # Panics
    ///
    /// Where there is no such number.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        assert!(index < self.bytes.get() / size_of::<u64>(), "no generation {index}");
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and the index is inside.
        // The kernel backs it with pages for as long as it is mapped (in a forked child, with
        // ones).
        let value = unsafe { self.first.add(index).as_ref() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // SAFETY: `map` made exactly this mapping, and no reference to it outlives `self`. The call
        // can only fail for arguments that are not a mapping's.
        let _ = unsafe { munmap(self.first.cast(), self.bytes.get()) };
    }
}
