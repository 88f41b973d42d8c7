//! The monitor for kernels without the module.

mod cover;
mod gate;
mod mappings;
mod news;
mod ring;
mod service;
mod sys;
mod thread;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;

use self::news::News;
use self::service::{Client, Service};
use super::{Cookie, Invalid, Monitor, MonitorError};
use crate::range::AddressRange;

/// Why there is no [`Userfaultfd`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UserfaultfdError {
    /// userfaultfd(2) failed.
    #[error(
        "userfaultfd: {errno} ({})",
        match errno {
            Errno::ENOSYS => "the kernel was built without CONFIG_USERFAULTFD",
            Errno::EPERM => "a seccomp filter is in the way, as those of container runtimes are: \
                             allow userfaultfd in it",
            Errno::EINVAL => "it needs Linux 5.11 or newer",
            _ => "it needs no privilege; see userfaultfd(2)",
        }
    )]
    Call {
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel does not tell of unmapped, removed and moved memory.
    #[error("UFFDIO_API: {errno} (the kernel has no events of unmapped, removed and moved memory)")]
    NoEvents {
        /// What the kernel said.
        errno: Errno,
    },
    /// The kernel cannot watch memory without making it fault.
    #[error("this kernel's userfaultfd has no write-protect mode on this processor")]
    NoWriteProtect,
    /// The thread that reads the events cannot have files of its own.
    #[error("close_range: {errno} (it needs Linux 5.9, and a seccomp filter that allows it)")]
    NoOwnFiles {
        /// What the kernel said.
        errno: Errno,
    },
    /// `/proc/self/maps` tells which memory can be watched.
    #[error("open /proc/self/maps: {0}")]
    Mappings(#[source] io::Error),
    /// There are too few threads, files or memory.
    #[error("start the thread that reads the events: {0}")]
    Resources(#[source] io::Error),
}

/// Linux's own userfaultfd(2): no kernel module, no privilege, and a weaker promise.
///
/// # What it promises
///
/// It is *weakly coherent*. A lookup never returns a registration of other pages than the program
/// sees, provided that whatever changed the mapping
///
/// 1. was one of munmap, mmap over it, mremap, brk, or madvise with `MADV_DONTNEED`,
///    `MADV_DONTNEED_LOCKED` or `MADV_FREE`, however they were called: a raw system call is as good;
/// 2. *had returned before the lookup began*. The kernel tells of these after it has made the memory
///    free (and of madvise before), when other threads may already have mapped it anew: a lookup
///    during the call can return the old registration. This is where a kernel module is stronger.
///
/// # What it does not see
///
/// - `shmat` with `SHM_REMAP` over watched memory, and `MADV_GUARD_INSTALL` on it: the kernel has no
///   event for them.
/// - Another userfaultfd of the same process that unregisters this one's memory (Linux before 6.16
///   lets it).
///
/// Fork takes no pinned page away from the parent, so it needs no event.
///
/// # What it refuses to watch
///
/// Everything but private anonymous memory: files, shared memory of every kind, a library's data,
/// and huge pages from the pool. Others can change them (ftruncate, a hole punched in a file), and
/// the kernel has no event for it. Also memory that another userfaultfd looks after. Such memory is
/// handed out uncached: slower, and never stale.
///
/// # While pages are being dropped
///
/// madvise drops the pages some time *after* its event was read. A lookup in between would pin, and
/// cache, the old pages. So a range of which the event was read less than a second ago (and a
/// microsecond for each of its pages) is handed out uncached. That is much longer than it takes, and
/// yet no proof: where the thread that called madvise is kept from running for longer than that,
/// *and* another thread meanwhile looks up the very pages that are being dropped, what that lookup
/// cached is stale after madvise returns.
///
/// # What it costs
///
/// A hit is one load, as ever. A miss and the end of a registration take a system call of another
/// thread. Who unmaps watched memory waits until that thread has run: tens of microseconds. Each
/// watched range can split a mapping in three, so no more than a quarter of `vm.max_map_count` ranges
/// are watched, by all monitors of the process together; an mremap of a mapping of which a part is watched fails, as mremap does for several
/// mappings (`EFAULT`; `realloc` then copies); huge pages are not made of watched memory afterwards.
/// Before Linux 6.11 each miss reads all of `/proc/self/maps`.
///
/// # It does not hang
///
/// No page is ever protected or missing, so no access to memory ever waits. Who unmaps waits for one
/// thread, which waits for nobody: it takes no lock and allocates nothing. The file is open in a table
/// of files that only this thread and a second one have, so that forked children have no part in it,
/// no code of the process can close it by its number, and the kernel lets everybody go should the
/// threads end. A debugger that stops that thread and lets others run stops whoever unmaps.
#[derive(Debug)]
pub struct Userfaultfd {
    client: Client,
    news: News,
    service: Arc<Service>,
}

impl Userfaultfd {
    /// Starts to monitor this process.
    pub fn open() -> Result<Userfaultfd, UserfaultfdError> {
        let service = Service::of_this_process()?;
        let resources = |errno: Errno| UserfaultfdError::Resources(errno.into());
        let news = News::of(service.news()).map_err(resources)?;
        Ok(Userfaultfd { client: service.join(), news, service })
    }
}

impl Monitor for Userfaultfd {
    #[inline]
    fn generation(&self) -> u64 {
        self.service.generation()
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.service.watch(&self.client, cookie, range)
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.service.unwatch(&self.client, cookie)
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        self.service.refuse_foreign()?;
        // First: what comes to be known after it makes the file readable again.
        self.news.clear();
        let (changed, generation) = self.service.drain(&self.client)?;
        changed.into_iter().map(Invalid::Range).for_each(invalid);
        Ok(generation)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// Readable when [`Cache::drain`](crate::Cache::drain) may have something to do.
impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }
}

impl Drop for Userfaultfd {
    /// Ends all its watches.
    fn drop(&mut self) {
        self.service.leave(&self.client);
    }
}
