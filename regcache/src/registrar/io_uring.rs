//! Registration as fixed buffers of an io_uring: the same long-term pin as an RDMA device's, on any
//! Linux with no device.

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use io_uring::{opcode, squeue, types};
use nix::errno::Errno;
use parking_lot::Mutex;

use super::{Keys, Registrar};
use crate::access::Access;
use crate::cause;
use crate::descriptor::Mark;
use crate::range::AddressRange;

/// Why there is no ring.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IoUringError {
    /// The kernel gave no ring.
    #[error(
        "io_uring_setup: {source}{}",
        match source {
            Errno::EPERM => " (sysctl kernel.io_uring_disabled, or a seccomp filter as those of \
                             container runtimes, is in the way)",
            Errno::ENOSYS => " (the kernel was built without CONFIG_IO_URING, or a seccomp filter is in \
                              the way)",
            Errno::ENOMEM => " (no memory, or none that may be locked: RLIMIT_MEMLOCK, ulimit -l)",
            Errno::EMFILE => " (this process has as many files open as it may: RLIMIT_NOFILE, ulimit -n)",
            Errno::ENFILE => " (this machine has as many files open as it may: sysctl fs.file-max)",
            _ => "",
        }
    )]
    Ring {
        /// What the kernel said.
        source: Errno,
    },
    /// The kernel gave no table of fixed buffers.
    #[error("a table of {slots} fixed buffers: {source} (Linux 5.19 and newer hold 1 to 16384)")]
    Table {
        /// The size that was asked for.
        slots: u32,
        /// What the kernel said.
        source: Errno,
    },
}

/// What the kernel takes as one fixed buffer, in bytes (`io_buffer_validate()`).
const MOST_BYTES: usize = 1 << 30;

/// Registers memory as fixed buffers of an io_uring, and moves bytes between them and files.
///
/// A fixed buffer stays what it was when it was registered: a transfer reaches the pages that were
/// mapped then, whatever is mapped at the address now. So it shows a stale registration as an RDMA
/// device does.
///
/// The kernel unpins some time after [`deregister`](Registrar::deregister) has returned: on Linux 6.1
/// about a second, on 6.18 a few milliseconds. Until then the memory counts against `RLIMIT_MEMLOCK`.
///
/// # A descriptor that somebody else closes
///
/// Where other code of the process has closed the ring's descriptor, every call fails with `EBADF` and
/// touches nothing of the file that has its number now. What was registered stays pinned until the
/// process ends.
pub struct IoUring {
    ring: ManuallyDrop<io_uring::IoUring>,
    /// Tells the ring's descriptor from another file's of the same number.
    mark: Mark,
    /// Tells this ring's regions from those of another.
    id: u64,
    slots: u32,
    free: Mutex<Vec<u16>>,
    transfers: Mutex<Transfers>,
}

/// Guards the submission and the completion queue.
#[derive(Default)]
struct Transfers {
    /// An entry may be left in the submission queue, so no more is ever submitted.
    broken: bool,
}

/// A fixed buffer of an [`IoUring`]. Dropping it does not deregister.
#[derive(Debug)]
pub struct IoUringRegion {
    ring: u64,
    index: u16,
    registered: AtomicBool,
}

impl IoUringRegion {
    /// The index of the buffer in the ring's table.
    pub fn index(&self) -> u16 {
        self.index
    }
}

impl IoUring {
    /// Sets up a ring whose table holds up to `slots` registrations at a time. Needs Linux 5.19.
    pub fn new(slots: u32) -> Result<IoUring, IoUringError> {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        let table_error = |source| IoUringError::Table { slots, source };

        // A submission names a fixed buffer by 16 bits.
        let last = slots.checked_sub(1).and_then(|last| u16::try_from(last).ok());
        let last = last.ok_or_else(|| table_error(Errno::EINVAL))?;
        let ring = io_uring::IoUring::new(1)
            .map_err(|error| IoUringError::Ring { source: errno(error) })?;
        ring.submitter()
            .register_buffers_sparse(slots)
            .map_err(|error| table_error(errno(error)))?;
        let mark = Mark::set(ring.as_raw_fd()).map_err(|source| IoUringError::Ring { source })?;
        Ok(IoUring {
            ring: ManuallyDrop::new(ring),
            mark,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            slots,
            free: Mutex::new((0..=last).rev().collect()),
            transfers: Mutex::default(),
        })
    }

    /// Writes `len` bytes at `addr`, as the pages pinned by `region` hold them, to `file` at
    /// `offset`: the device reads memory. Returns the number of bytes written.
    ///
    /// `EFAULT` where the bytes do not all lie in the registered range.
    pub fn write_fixed(
        &self,
        region: &IoUringRegion,
        addr: usize,
        len: usize,
        file: impl AsFd,
        offset: u64,
    ) -> Result<usize, Errno> {
        let len = self.check(region, len)?;
        let fd = types::Fd(file.as_fd().as_raw_fd());
        let entry = opcode::WriteFixed::new(fd, addr as *const u8, len, region.index)
            .offset(offset)
            .build();
        // SAFETY: the kernel itself checks that the bytes lie in the buffer of this index, or fails
        // the entry; it changes no memory; and `file` is open until the call returns.
        unsafe { self.transfer(&entry) }
    }

    /// Reads `len` bytes at `offset` of `file` to `addr` in the pages pinned by `region`: the device
    /// writes memory. Returns the number of bytes read.
    ///
    /// `EFAULT` where the bytes do not all lie in the registered range.
    ///
    /// # Safety
    ///
    /// The pages that `region` pinned may be written where `addr` was at registration: nobody reads
    /// or writes those bytes during the call, through whichever address the pages are mapped at now,
    /// and no reference says that they do not change.
    pub unsafe fn read_fixed(
        &self,
        region: &IoUringRegion,
        addr: usize,
        len: usize,
        file: impl AsFd,
        offset: u64,
    ) -> Result<usize, Errno> {
        let len = self.check(region, len)?;
        let fd = types::Fd(file.as_fd().as_raw_fd());
        let entry =
            opcode::ReadFixed::new(fd, addr as *mut u8, len, region.index).offset(offset).build();
        // SAFETY: the kernel itself checks that the bytes lie in the buffer of this index, or fails
        // the entry; the caller allows them to be written; and `file` is open until the call
        // returns.
        unsafe { self.transfer(&entry) }
    }

    fn check(&self, region: &IoUringRegion, len: usize) -> Result<u32, Errno> {
        if region.ring != self.id {
            return Err(Errno::EINVAL);
        }
        u32::try_from(len).map_err(|_| Errno::EINVAL)
    }

    /// Submits `entry` and waits for its completion.
    ///
    /// # Safety
    ///
    /// What `entry` names is valid until this returns.
    unsafe fn transfer(&self, entry: &squeue::Entry) -> Result<usize, Errno> {
        let mut transfers = self.transfers.lock();
        if transfers.broken {
            return Err(Errno::EIO);
        }
        self.refuse_lost()?;
        // SAFETY: only this function makes a submission queue, and the lock is held. `entry` is
        // valid until it has completed: below, no return leaves it where the kernel can find it.
        unsafe { self.ring.submission_shared().push(entry) }.map_err(|_| Errno::EBUSY)?;
        loop {
            match self.ring.submitter().submit_and_wait(1).map_err(errno) {
                Ok(_) | Err(Errno::EINTR | Errno::EAGAIN | Errno::EBUSY) => {}
                Err(error) => {
                    transfers.broken = true;
                    return Err(error);
                }
            }
            // SAFETY: only this function makes a completion queue, and the lock is held.
            if let Some(completion) = unsafe { self.ring.completion_shared() }.next() {
                // A negative result is an errno.
                return usize::try_from(completion.result())
                    .map_err(|_| Errno::from_raw(-completion.result()));
            }
        }
    }

    fn refuse_lost(&self) -> Result<(), Errno> {
        if self.mark.is_on(self.ring.as_raw_fd()) { Ok(()) } else { Err(Errno::EBADF) }
    }

    fn update(&self, index: u16, base: usize, len: usize) -> Result<(), Errno> {
        self.refuse_lost()?;
        let iovec = libc::iovec { iov_base: base as *mut libc::c_void, iov_len: len };
        // SAFETY: the kernel pins pages and keeps no address, so the memory may go at any time; a
        // range that is not mapped is EFAULT. Without a transfer nothing reads or writes the pages.
        unsafe { self.ring.submitter().register_buffers_update(index.into(), &[iovec], None) }
            .map_err(errno)
    }
}

impl Drop for IoUring {
    fn drop(&mut self) {
        if self.refuse_lost().is_ok() {
            // SAFETY: it is dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.ring) };
        }
    }
}

impl Registrar for IoUring {
    type Region = IoUringRegion;

    /// Pins for reading and writing, whatever `access` says: read-only memory is `EFAULT`. There is
    /// no peer, so remote access is `EINVAL`, as is any other flag but the hints for huge pages and
    /// relaxed ordering.
    ///
    /// `ENOSPC` where the table is full; `ENOMEM` where `RLIMIT_MEMLOCK` is reached; `EFBIG` for more
    /// than 1 GiB, which the kernel does not take as one buffer; `EFAULT` for memory that is not mapped
    /// or of a kind that cannot be pinned; `EOPNOTSUPP` for a file, on old kernels.
    unsafe fn register(&self, range: AddressRange, access: Access) -> Result<IoUringRegion, Errno> {
        const ALLOWED: Access =
            Access::LOCAL_WRITE.union(Access::HUGETLB).union(Access::RELAXED_ORDERING);
        if !ALLOWED.contains(access) {
            return Err(Errno::EINVAL);
        }
        if range.len() > MOST_BYTES {
            return Err(Errno::EFBIG);
        }
        let index = self.free.lock().pop().ok_or(Errno::ENOSPC)?;
        match self.update(index, range.start(), range.len()) {
            Ok(()) => Ok(IoUringRegion { ring: self.id, index, registered: AtomicBool::new(true) }),
            Err(error) => {
                self.free.lock().push(index);
                Err(error)
            }
        }
    }

    /// Empties the table's entry. `EINVAL` for a region that is deregistered already, or of another
    /// ring.
    fn deregister(&self, region: &IoUringRegion) -> Result<(), Errno> {
        // One of several callers wins the flag; the index goes on by way of the mutex.
        if region.ring != self.id || !region.registered.swap(false, Ordering::Relaxed) {
            return Err(Errno::EINVAL);
        }
        match self.update(region.index, 0, 0) {
            Ok(()) => {
                self.free.lock().push(region.index);
                Ok(())
            }
            Err(error) => {
                region.registered.store(true, Ordering::Relaxed);
                Err(error)
            }
        }
    }

    fn why(&self, range: AddressRange, access: Access, errno: Errno) -> Option<String> {
        match errno {
            Errno::ENOSPC => Some(format!(
                "all {} fixed buffers of this io_uring are in use: ask for more in IoUring::new",
                self.slots
            )),
            Errno::EFBIG => Some(format!(
                "a fixed buffer of an io_uring has {MOST_BYTES} bytes at most: register it in parts"
            )),
            Errno::EFAULT | Errno::EOPNOTSUPP => cause::in_mappings(range, access, true),
            _ => None,
        }
    }

    /// Both keys are the index of the buffer.
    fn keys(&self, region: &IoUringRegion) -> Keys {
        Keys { local: region.index.into(), remote: region.index.into() }
    }
}

fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests;
