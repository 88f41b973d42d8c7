//! Memory from mmap(2) and madvise(2), for what needs more than the allocator gives.

use std::num::NonZeroUsize;
use std::ops::Deref;
use std::ptr::NonNull;

use nix::errno::Errno;
use nix::sys::mman::MmapAdvise;
#[cfg(not(miri))]
use nix::sys::mman::{MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::range::page_size;

/// Size and alignment of a huge page that is worth asking for.
const HUGE: usize = 2 << 20;

/// A private anonymous mapping: zeros.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: NonZeroUsize,
}

// SAFETY: it owns the mapping, as a `Box<[u8]>` does.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

#[cfg(not(miri))]
impl Mapping {
    fn new(bytes: usize) -> Result<Mapping, Errno> {
        let bytes = bytes.max(1).checked_next_multiple_of(page_size()).ok_or(Errno::ENOMEM)?;
        let bytes = NonZeroUsize::new(bytes).ok_or(Errno::ENOMEM)?;
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing in use.
        let start = unsafe { mmap_anonymous(None, bytes, prot, flags) }?.cast();
        Ok(Mapping { start, bytes })
    }

    fn advise(&self, advice: MmapAdvise) -> Result<(), Errno> {
        // SAFETY: the advice is for exactly this mapping. Those that are given here change nothing
        // that this process can see of its contents.
        unsafe { madvise(self.start.cast(), self.bytes.get(), advice) }
    }
}

#[cfg(not(miri))]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: it is the mapping of `new`, and nobody borrows from it any more.
        let _ = unsafe { munmap(self.start.cast(), self.bytes.get()) };
    }
}

/// Miri has neither madvise(2) nor every flag of mmap(2): the allocator's memory instead.
#[cfg(miri)]
impl Mapping {
    fn new(bytes: usize) -> Result<Mapping, Errno> {
        let bytes = NonZeroUsize::new(bytes).unwrap_or(NonZeroUsize::MIN);
        // SAFETY: the size is not zero.
        let start = unsafe { std::alloc::alloc_zeroed(Mapping::layout(bytes)) };
        Ok(Mapping { start: NonNull::new(start).ok_or(Errno::ENOMEM)?, bytes })
    }

    fn layout(bytes: NonZeroUsize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(bytes.get(), page_size()).expect("less than isize::MAX")
    }

    fn advise(&self, _advice: MmapAdvise) -> Result<(), Errno> {
        Ok(())
    }
}

#[cfg(miri)]
impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `new` allocated it by this layout, and nobody borrows from it any more.
        unsafe { std::alloc::dealloc(self.start.as_ptr(), Mapping::layout(self.bytes)) };
    }
}

/// A value in pages of its own, of which a forked child sees zeros (`MADV_WIPEONFORK`, Linux 4.14).
#[derive(Debug)]
pub(crate) struct WipedAtFork<T> {
    mapping: Mapping,
    value: NonNull<T>,
}

// SAFETY: it owns the value, as a `Box` does.
unsafe impl<T: Send> Send for WipedAtFork<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for WipedAtFork<T> {}

impl<T> WipedAtFork<T> {
    /// A value of zeros.
    ///
    /// # Safety
    ///
    /// Zeros are a valid `T`, its alignment is at most a page, and it needs no drop.
    pub(crate) unsafe fn new() -> Result<WipedAtFork<T>, Errno> {
        let mapping = Mapping::new(size_of::<T>())?;
        mapping.advise(MmapAdvise::MADV_WIPEONFORK)?;
        let value = mapping.start.cast();
        Ok(WipedAtFork { mapping, value })
    }
}

impl<T> Deref for WipedAtFork<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        debug_assert!(self.mapping.bytes.get() >= size_of::<T>());
        // SAFETY: the mapping is as large as a `T`, aligned, zeroed, and lives as long as this.
        unsafe { self.value.as_ref() }
    }
}

/// A large array that takes no room where it has not been used, and few entries of the TLB where it
/// has.
#[derive(Debug)]
pub(crate) struct ZeroedSlice<T> {
    /// Keeps the memory.
    _mapping: Mapping,
    values: NonNull<[T]>,
}

// SAFETY: it owns the values, as a `Box` does.
unsafe impl<T: Send> Send for ZeroedSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for ZeroedSlice<T> {}

impl<T> ZeroedSlice<T> {
    /// `len` values of zeros.
    ///
    /// # Safety
    ///
    /// Zeros are a valid `T`, its alignment is at most a page, and it needs no drop.
    pub(crate) unsafe fn new(len: usize) -> Result<ZeroedSlice<T>, Errno> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(Errno::ENOMEM)?;
        let huge = bytes >= HUGE;
        let mapping = Mapping::new(if huge { bytes.saturating_add(HUGE) } else { bytes })?;
        let mut start = mapping.start;
        if huge {
            // Without huge pages it is slower, and as good otherwise.
            let _ = mapping.advise(MmapAdvise::MADV_HUGEPAGE);
            // SAFETY: the mapping is larger than the values by what this adds at most.
            start = unsafe { start.add(start.align_offset(HUGE)) };
        }
        Ok(ZeroedSlice {
            _mapping: mapping,
            values: NonNull::slice_from_raw_parts(start.cast(), len),
        })
    }
}

impl<T> Deref for ZeroedSlice<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is as large as that, aligned, zeroed, and lives as long as this.
        unsafe { self.values.as_ref() }
    }
}
