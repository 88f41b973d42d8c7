//! The monitor for kernels without the module.

mod cover;
mod gate;
mod mappings;
mod ring;
mod sys;
mod thread;

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use self::cover::Cover;
use self::mappings::Mappings;
use self::ring::Change;
use self::thread::{Request, Shared, State};
use super::{Cookie, Invalid, Monitor, MonitorError};
use crate::fork::Owner;
use crate::lock::Lock;
use crate::range::{AddressRange, page_size};

/// A range that madvise(2) is about to empty is not watched for this long, and this much longer for
/// each page, but no longer than the last, in nanoseconds. See [`Userfaultfd`], "While pages are
/// being dropped".
const UNSETTLED: u64 = 1_000_000_000;
const UNSETTLED_PAGE: u64 = 1_000;
const UNSETTLED_MAX: u64 = 10_000_000_000;

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
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    owner: Owner,
    mappings: Mappings,
    /// Of all monitors of the process: each watch may split a mapping in three.
    max_watches: usize,
    watches: Lock<Watches>,
    /// Taken alone, or inside `watches`.
    unsettled: Lock<Unsettled>,
    /// Whoever takes changes from the ring.
    reader: Lock<()>,
}

#[derive(Debug, Default)]
struct Watches {
    ranges: HashMap<u64, (AddressRange, Budget)>,
    cover: Cover,
}

/// Watches of all monitors of the process.
static WATCHES: AtomicUsize = AtomicUsize::new(0);

/// One watch more, of those that the process may have.
#[derive(Debug)]
struct Budget(());

impl Budget {
    fn take(most: usize) -> Option<Budget> {
        // Relaxed, here and below: a number says nothing about other memory.
        let more = |watches: usize| (watches < most).then_some(watches + 1);
        WATCHES.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Budget(()))
    }
}

impl Drop for Budget {
    fn drop(&mut self) {
        WATCHES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the events so far leave to be done.
#[derive(Debug, Default)]
struct Unsettled {
    /// Ranges whose pages may not have been dropped yet, and until when.
    removing: Vec<(AddressRange, u64)>,
    /// Where watched memory was moved to, which nobody asked to be told of.
    strays: Vec<AddressRange>,
}

impl Unsettled {
    /// The pages of `range` were about to be dropped `at` that time.
    fn remove(&mut self, range: AddressRange, at: u64) {
        let pages = (range.len() / page_size()) as u64;
        let time = UNSETTLED_PAGE.saturating_mul(pages).saturating_add(UNSETTLED);
        self.removing.push((range, at.saturating_add(time.min(UNSETTLED_MAX))));
    }
}

impl Userfaultfd {
    /// Starts to monitor this process.
    pub fn open() -> Result<Userfaultfd, UserfaultfdError> {
        let resources = UserfaultfdError::Resources;
        let owner = Owner::current().map_err(|errno| resources(errno.into()))?;
        let mappings = Mappings::open().map_err(UserfaultfdError::Mappings)?;
        let shared = Arc::new(Shared::new().map_err(|errno| resources(errno.into()))?);
        let thread = spawn(shared.clone()).map_err(resources)?;
        let monitor = Userfaultfd {
            thread: Some(thread),
            owner,
            mappings,
            max_watches: max_map_count() / 4,
            watches: Lock::default(),
            unsettled: Lock::default(),
            reader: Lock::default(),
            shared,
        };
        match monitor.shared.wait_for_start() {
            State::Running => Ok(monitor),
            State::NoUserfaultfd(errno) => Err(UserfaultfdError::Call { errno }),
            State::NoEvents(errno) => Err(UserfaultfdError::NoEvents { errno }),
            State::NoFiles(errno) => Err(UserfaultfdError::NoOwnFiles { errno }),
            State::NoWriteProtect => Err(UserfaultfdError::NoWriteProtect),
            State::NoServer(errno) => Err(resources(errno.into())),
            State::Starting | State::Ended => Err(resources(io::ErrorKind::Other.into())),
        }
    }

    fn refuse_foreign(&self) -> Result<(), MonitorError> {
        if self.owner.is_foreign() {
            let reason = "this monitor belongs to the parent process";
            return Err(MonitorError::Other(reason.into()));
        }
        Ok(())
    }

    /// Why memory of `range` may be about to change, if so.
    fn is_removing(&self, range: AddressRange) -> bool {
        let now = self.shared.now();
        let mut unsettled = self.unsettled.lock();
        unsettled.removing.retain(|(_, until)| now < *until);
        unsettled.removing.iter().any(|(removing, _)| removing.overlaps(range))
    }

    /// Ends events of memory that was moved away from where it was watched.
    fn leave_strays(&self, watches: &Watches) {
        let strays = std::mem::take(&mut self.unsettled.lock().strays);
        for stray in strays {
            self.leave(&watches.cover.bare(stray));
        }
    }

    /// Ends events of `ranges`, as far as they are still this monitor's. The caller holds `watches`.
    fn leave(&self, ranges: &[AddressRange]) {
        for range in ranges {
            if self.shared.ask(Request::Unregister, *range).is_ok() {
                continue;
            }
            // Something else is mapped in a part of it now. What remains is watched for nobody: no
            // harm, but who unmaps it waits for no reason.
            let Ok(mappings) = self.mappings.within(*range) else { continue };
            for mapping in mappings.iter().filter(|mapping| mapping.private_anonymous) {
                let _ = self.shared.ask(Request::Unregister, mapping.range);
            }
        }
    }

    /// Why events would not tell all that happens to `range`, if so.
    fn why_unwatchable(&self, range: AddressRange) -> Option<String> {
        let mappings = match self.mappings.within(range) {
            Ok(mappings) => mappings,
            Err(error) => return Some(format!("/proc/self/maps: {error}")),
        };
        let mut at = range.start();
        for mapping in mappings {
            if mapping.range.start() != at {
                break;
            }
            if !mapping.private_anonymous {
                return Some(ONLY_PRIVATE_ANONYMOUS.into());
            }
            at = mapping.range.end();
        }
        (at != range.end()).then(|| format!("nothing is mapped at {at:#x}"))
    }
}

const ONLY_PRIVATE_ANONYMOUS: &str = "only private anonymous memory can be";

impl Monitor for Userfaultfd {
    #[inline]
    fn generation(&self) -> u64 {
        self.shared.generation()
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        self.refuse_foreign()?;
        let unwatchable =
            |reason: &str| Err(MonitorError::Unwatchable { range, reason: reason.into() });
        let Some(pages) = range.round_to_pages() else {
            return unwatchable("it ends where addresses do");
        };
        if self.is_removing(pages) {
            return unwatchable("its pages are being dropped");
        }
        let mut watches = self.watches.lock();
        self.leave_strays(&watches);
        let Some(budget) = Budget::take(self.max_watches) else {
            return Err(MonitorError::TooManyWatches(watches.ranges.len()));
        };
        watches.cover.add(pages);
        // Registered first, then looked at: a later change of what is looked at is an event.
        let reason = match self.shared.ask(Request::Register, pages) {
            Ok(()) => self.why_unwatchable(pages),
            Err(Errno::EBUSY) => Some("another userfaultfd looks after it".into()),
            Err(Errno::EINVAL) => Some(ONLY_PRIVATE_ANONYMOUS.into()),
            Err(Errno::ENOMEM) => Some("there are too many mappings (vm.max_map_count)".into()),
            Err(errno) => Some(format!("UFFDIO_REGISTER: {errno}")),
        };
        match reason {
            None => {
                watches.ranges.insert(cookie.0, (pages, budget));
                Ok(())
            }
            Some(reason) => {
                let bare = watches.cover.remove(pages);
                self.leave(&bare);
                unwatchable(&reason)
            }
        }
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        self.refuse_foreign()?;
        let mut watches = self.watches.lock();
        if let Some((range, _budget)) = watches.ranges.remove(&cookie.0) {
            let bare = watches.cover.remove(range);
            self.leave(&bare);
        }
        Ok(())
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        self.refuse_foreign()?;
        let _reader = self.reader.lock();
        let generation = self.shared.generation();
        self.shared.clear_news();
        // What was marked is about to be recorded: the event thread waits for nobody.
        if !self.shared.wait_for_records(generation) {
            return Err(MonitorError::Other("the thread that reads the events has ended".into()));
        }
        let mut news = Unsettled::default();
        let everything = AddressRange::new(0, usize::MAX);
        if let (Some(at), Some(everything)) = (self.shared.ring.take_lost(), everything) {
            news.remove(everything, at);
            invalid(Invalid::Range(everything));
        }
        while let Some(change) = self.shared.ring.pop() {
            let range = match change {
                Change::Unmapped(range) => range,
                Change::Removing { range, at } => {
                    news.remove(range, at);
                    range
                }
                Change::Moved { from, to } => {
                    news.strays.push(to);
                    from
                }
            };
            invalid(Invalid::Range(range));
        }
        let mut unsettled = self.unsettled.lock();
        unsettled.removing.extend(news.removing);
        unsettled.strays.extend(news.strays);
        Ok(generation)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.as_fd())
    }
}

/// Readable when [`Cache::drain`](crate::Cache::drain) has something to do.
impl AsFd for Userfaultfd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.news()
    }
}

impl Drop for Userfaultfd {
    /// Ends all watches. Who is blocked in a system call for them goes on.
    fn drop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        if self.owner.is_foreign() {
            // The thread is the parent's, and none of this process waits for it.
            std::mem::forget(thread);
            return;
        }
        self.shared.stop();
        // It cannot have panicked, and if it had, it would have ended all the same.
        let _ = thread.join();
    }
}

/// Starts the event thread, which handles no signals: a handler may unmap memory.
fn spawn(shared: Arc<Shared>) -> io::Result<JoinHandle<()>> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let thread =
        std::thread::Builder::new().name("regcache-uffd".into()).spawn(move || thread::run(shared));
    before.thread_set_mask()?;
    thread
}

/// `vm.max_map_count`, or what it is unless it was set.
fn max_map_count() -> usize {
    let set = fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    set.and_then(|text| text.trim().parse().ok()).unwrap_or(65_530)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_limit_of_watches() {
        // A machine without userfaultfd: the tests of the whole monitor say so.
        let Ok(mut monitor) = Userfaultfd::open() else { return };
        // Other monitors of the process count as well.
        let other = Userfaultfd::open().unwrap();
        monitor.max_watches = 3;
        let memory = vec![0_u8; 4 * page_size()];
        let range = |n| AddressRange::new(memory.as_ptr() as usize + n * page_size(), 1).unwrap();
        monitor.watch(Cookie(0), range(0)).unwrap();
        monitor.watch(Cookie(1), range(1)).unwrap();
        other.watch(Cookie(0), range(3)).unwrap();
        let error = monitor.watch(Cookie(2), range(2)).unwrap_err();
        assert!(error.is_limit(), "{error}");
        monitor.unwatch(Cookie(0)).unwrap();
        monitor.watch(Cookie(3), range(2)).unwrap();
        assert!(monitor.watch(Cookie(4), range(0)).unwrap_err().is_limit());
        drop(other);
        monitor.watch(Cookie(4), range(0)).unwrap();
    }
}
