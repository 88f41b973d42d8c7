//! The one userfaultfd of a process, and the monitors that it serves: a mapping can be watched by one
//! userfaultfd, and each of several caches may hold a registration of it.

use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::{fs, io};

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow};

use super::UserfaultfdError;
use super::cover::Cover;
use super::mappings::Mappings;
use super::ring::Change;
use super::thread::{self, Request, Shared, State};
use crate::fork::{Owner, PerProcess};
use crate::lock::Lock;
use crate::monitor::{Announcements, Cookie, MonitorError};
use crate::range::{AddressRange, page_size};

/// A range that madvise(2) is about to empty is not watched for this long, and this much longer for
/// each page, but no longer than the last, in nanoseconds. See
/// [`Userfaultfd`](super::Userfaultfd), "While pages are being dropped".
const UNSETTLED: u64 = 1_000_000_000;
const UNSETTLED_PAGE: u64 = 1_000;
const UNSETTLED_MAX: u64 = 10_000_000_000;

const ONLY_PRIVATE_ANONYMOUS: &str = "only private anonymous memory can be";

/// See the module.
#[derive(Debug)]
pub(super) struct Service {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    owner: Owner,
    mappings: Mappings,
    state: Lock<Watched>,
}

/// What is watched and for whom, and what the events so far leave to be done.
#[derive(Debug)]
struct Watched {
    monitors: HashMap<u64, Watches>,
    /// Monitors ever.
    joined: u64,
    /// Of all monitors.
    cover: Cover,
    ranges: usize,
    /// Each watch may split a mapping in three.
    max_ranges: usize,
    /// Ranges whose pages may not have been dropped yet, and until when.
    removing: Vec<(AddressRange, u64)>,
    /// Where watched memory was moved to, which nobody asked to be told of.
    strays: Vec<AddressRange>,
}

/// Of one monitor.
#[derive(Debug)]
struct Watches {
    ranges: HashMap<u64, AddressRange>,
    cover: Cover,
    changed: Arc<Announcements>,
}

/// A monitor, as the service knows it.
#[derive(Debug)]
pub(super) struct Client {
    id: u64,
    /// Changes of what it watches that were taken from the ring.
    changed: Arc<Announcements>,
}

impl Service {
    /// The service that runs in this process, started if there is none.
    pub(super) fn of_this_process() -> Result<Arc<Service>, UserfaultfdError> {
        static SERVICE: PerProcess<Lock<Weak<Service>>> = PerProcess::new();
        let no_memory = || UserfaultfdError::Resources(io::ErrorKind::OutOfMemory.into());
        let mut present = SERVICE.get().ok_or_else(no_memory)?.lock();
        let running = present.upgrade().filter(|service| service.shared.is_usable());
        match running {
            Some(service) => Ok(service),
            None => {
                let service = Arc::new(Service::start()?);
                *present = Arc::downgrade(&service);
                Ok(service)
            }
        }
    }

    fn start() -> Result<Service, UserfaultfdError> {
        let resources = UserfaultfdError::Resources;
        let owner = Owner::current().map_err(|errno| resources(errno.into()))?;
        let mappings = Mappings::open().map_err(UserfaultfdError::Mappings)?;
        let shared = Arc::new(Shared::new().map_err(|errno| resources(errno.into()))?);
        let thread = spawn(shared.clone()).map_err(resources)?;
        let state = Lock::new(Watched {
            monitors: HashMap::new(),
            joined: 0,
            cover: Cover::default(),
            ranges: 0,
            max_ranges: max_map_count() / 4,
            removing: Vec::new(),
            strays: Vec::new(),
        });
        let service = Service { shared, thread: Some(thread), owner, mappings, state };
        match service.shared.wait_for_start() {
            State::Running => Ok(service),
            State::NoUserfaultfd(errno) => Err(UserfaultfdError::Call { errno }),
            State::NoEvents(errno) => Err(UserfaultfdError::NoEvents { errno }),
            State::NoFiles(errno) => Err(UserfaultfdError::NoOwnFiles { errno }),
            State::NoWriteProtect => Err(UserfaultfdError::NoWriteProtect),
            State::NoServer(errno) => Err(resources(errno.into())),
            State::Starting | State::Ended => Err(resources(io::ErrorKind::Other.into())),
        }
    }

    pub(super) fn refuse_foreign(&self) -> Result<(), MonitorError> {
        if self.owner.is_foreign() {
            let reason = "this monitor belongs to the parent process";
            return Err(MonitorError::Other(reason.into()));
        }
        Ok(())
    }

    /// Moves before any watched mapping changes, whoever watches it.
    #[inline]
    pub(super) fn generation(&self) -> u64 {
        self.shared.generation()
    }

    /// What is written to when something changed.
    pub(super) fn news(&self) -> BorrowedFd<'_> {
        self.shared.news()
    }

    /// A new monitor.
    pub(super) fn join(&self) -> Client {
        let changed = Arc::new(Announcements::new());
        let mut state = self.state.lock();
        state.joined += 1;
        let id = state.joined;
        let watches =
            Watches { ranges: HashMap::new(), cover: Cover::default(), changed: changed.clone() };
        state.monitors.insert(id, watches);
        Client { id, changed }
    }

    /// The monitor and its watches end.
    pub(super) fn leave(&self, client: &Client) {
        if self.owner.is_foreign() {
            return;
        }
        let mut state = self.state.lock();
        let Some(watches) = state.monitors.remove(&client.id) else { return };
        state.ranges -= watches.ranges.len();
        if state.monitors.is_empty() {
            // The userfaultfd is about to be closed, which ends all.
            return;
        }
        for range in watches.ranges.into_values() {
            let bare = state.cover.remove(range);
            self.end_events(&bare);
        }
    }

    pub(super) fn watch(
        &self,
        client: &Client,
        cookie: Cookie,
        range: AddressRange,
    ) -> Result<(), MonitorError> {
        self.refuse_foreign()?;
        let unwatchable =
            |reason: &str| Err(MonitorError::Unwatchable { range, reason: reason.into() });
        let Some(pages) = range.round_to_pages() else {
            return unwatchable("it ends where addresses do");
        };
        let mut state = self.state.lock();
        if state.is_removing(pages, self.shared.now()) {
            return unwatchable("its pages are being dropped");
        }
        for stray in std::mem::take(&mut state.strays) {
            self.end_events(&state.cover.bare(stray));
        }
        if state.ranges >= state.max_ranges {
            return Err(MonitorError::TooManyWatches(state.ranges));
        }
        state.cover.add(pages);
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
                // Under the lock since before it was registered: no event of it has been told yet.
                if let Some(watches) = state.monitors.get_mut(&client.id) {
                    watches.cover.add(pages);
                    watches.ranges.insert(cookie.0, pages);
                    state.ranges += 1;
                }
                Ok(())
            }
            Some(reason) => {
                let bare = state.cover.remove(pages);
                self.end_events(&bare);
                unwatchable(&reason)
            }
        }
    }

    pub(super) fn unwatch(&self, client: &Client, cookie: Cookie) -> Result<(), MonitorError> {
        self.refuse_foreign()?;
        let mut state = self.state.lock();
        let Some(watches) = state.monitors.get_mut(&client.id) else { return Ok(()) };
        let Some(range) = watches.ranges.remove(&cookie.0) else { return Ok(()) };
        watches.cover.remove(range);
        state.ranges -= 1;
        let bare = state.cover.remove(range);
        self.end_events(&bare);
        Ok(())
    }

    /// What changed of that which the monitor watches, and the generation up to which this is all.
    pub(super) fn drain(&self, client: &Client) -> Result<(Vec<AddressRange>, u64), MonitorError> {
        let generation = self.shared.generation();
        self.shared.clear_news();
        // What was marked is about to be recorded: the event thread waits for nobody.
        if !self.shared.wait_for_records(generation) {
            return Err(MonitorError::Other("the thread that reads the events has ended".into()));
        }
        let mut state = self.state.lock();
        if let Some(at) = self.shared.ring.take_lost() {
            state.remove(AddressRange::EVERYTHING, at);
            state.tell(AddressRange::EVERYTHING);
        }
        while let Some(change) = self.shared.ring.pop() {
            match change {
                Change::Unmapped(range) => state.tell(range),
                Change::Removing { range, at } => {
                    state.remove(range, at);
                    state.tell(range);
                }
                Change::Moved { from, to } => {
                    state.strays.push(to);
                    state.tell(from);
                }
            }
        }
        drop(state);
        let (changed, ()) = client.changed.take(|| ());
        Ok((changed, generation))
    }

    /// Ends events of `ranges`, as far as they are still this service's. The caller holds the lock.
    fn end_events(&self, ranges: &[AddressRange]) {
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

impl Drop for Service {
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

impl Watched {
    /// `range` has changed: whoever watches a part of it finds it at the next drain.
    fn tell(&self, range: AddressRange) {
        for watches in self.monitors.values().filter(|watches| watches.cover.touches(range)) {
            watches.changed.lock().push(range);
        }
    }

    /// The pages of `range` were about to be dropped `at` that time.
    fn remove(&mut self, range: AddressRange, at: u64) {
        let pages = (range.len() / page_size()) as u64;
        let time = UNSETTLED_PAGE.saturating_mul(pages).saturating_add(UNSETTLED);
        self.removing.push((range, at.saturating_add(time.min(UNSETTLED_MAX))));
    }

    /// Whether memory of `range` may be about to change.
    fn is_removing(&mut self, range: AddressRange, now: u64) -> bool {
        self.removing.retain(|(_, until)| now < *until);
        self.removing.iter().any(|(removing, _)| removing.overlaps(range))
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
    use crate::monitor::{Cookie, Monitor, Userfaultfd};
    use crate::range::{AddressRange, page_size};

    #[test]
    fn there_is_a_limit_of_watches() {
        // A machine without userfaultfd: the tests of the whole monitor say so.
        let Ok(monitor) = Userfaultfd::open() else { return };
        // Other monitors of the process count as well.
        let other = Userfaultfd::open().unwrap();
        monitor.service.state.lock().max_ranges = 3;
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
