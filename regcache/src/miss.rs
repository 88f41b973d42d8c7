//! The path of a miss: *generation, watch, pin, check, publish*.
//!
//! An event between the first and the last makes it start again. The generation is read before the
//! watch, since a watch may itself raise an event. Threads that miss on one range pin it once.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::access::Access;
use crate::cause;
use crate::cells::{HoldCell, Owned, PageHash};
use crate::error::Error;
use crate::flight::Flight;
use crate::guard::Guard;
use crate::memory_limits::memlock_limit;
use crate::monitor::{Cookie, Monitor, MonitorError};
use crate::outside::Refused;
use crate::progress;
use crate::range::AddressRange;
use crate::registrar::{Keys, Registrar};
use crate::request::Request;
use crate::shared::{BodyOf, Shared};
use crate::siblings;
use crate::slot::{Phase, SlotId};
use crate::stats::Counter;
use crate::table::{Failure, InFlight, Published};
use crate::unwinding::FirstPanic;
use crate::waiting::Waiting;

/// How often memory is pinned before it is handed out uncached. Pinning may itself change the
/// mapping (it breaks copy-on-write) and so raise an event; with the first pin held the second finds
/// nothing left to break.
const PIN_ATTEMPTS: usize = 3;

/// What a lookup has not tried yet of what the registrar refused to deregister.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Retries {
    /// Some of it, and then all.
    Some,
    /// All.
    All,
    Done,
}

/// What a look into the table found.
enum Found<'c, R: Registrar, M: Monitor> {
    Valid(Guard<'c, R, M>),
    /// A drain is asking the monitor about it.
    Suspect,
    /// Another thread is registering it: whether that is of the same range, and which thread.
    InFlight(Arc<Flight>, Failure, usize),
    Reserved(Reservation<'c, R, M>),
    /// Room may be had by ending these.
    Evicted(Vec<SlotId>),
    /// There is no room beside what the registrar would not deregister.
    Refused(Refused),
    /// Counts the reason.
    Uncachable(&'c Counter),
}

/// Of a registration whose registrar panicked before it told them: nobody ever sees it.
const NO_KEYS: Keys = Keys { local: 0, remote: 0 };

/// How many registrations that the registrar would not deregister a lookup tries again, to make
/// room, before it evicts others.
const RETRIES: usize = 16;

impl<R: Registrar, M: Monitor> Shared<R, M> {
    /// A registration for `request`, found or made.
    pub(crate) fn find_or_register<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        request: Request,
    ) -> Result<Guard<'c, R, M>, Error> {
        let (mut wider, mut since, mut retries) = (true, None, Retries::Some);
        // Relaxed: a hint.
        if self.unsettled.load(Ordering::Relaxed) {
            self.retry_postponed();
        }
        loop {
            self.learn_of_counting(block);
            // Freshness comes before the look into the table.
            self.refresh();
            let reason = match self.find_or_reserve(block, request, wider, &mut since, retries) {
                Found::Valid(guard) => {
                    self.counters.locked_hits.add(1);
                    return Ok(guard);
                }
                Found::Suspect => {
                    drop(self.drainer.lock());
                    continue;
                }
                Found::InFlight(flight, failure, by) => match Waiting::here(by) {
                    Some(_waiting) => {
                        self.counters.joined.add(1);
                        match (flight.wait(), failure) {
                            (Ok(()), _) | (Err(_), Failure::Earlier) => {}
                            (Err(error), Failure::Shared) => return Err(error),
                            (Err(_), Failure::Wider) => wider = false,
                        }
                        continue;
                    }
                    // That thread waits for this one.
                    None => &self.counters.uncached_reentered,
                },
                Found::Evicted(stale) => {
                    self.counters.evicted.add(stale.len() as u64);
                    self.reclaim(stale);
                    continue;
                }
                Found::Reserved(reservation) => {
                    self.counters.misses.add(1);
                    return reservation.fill();
                }
                Found::Refused(refused) => {
                    let (most, then) = match retries {
                        Retries::Some => (RETRIES, Retries::All),
                        Retries::All => (usize::MAX, Retries::Done),
                        Retries::Done => {
                            let Refused { bytes, errno, .. } = refused;
                            self.counters.register_failures.add(1);
                            return Err(Error::NotDeregistered {
                                range: request.range,
                                bytes,
                                errno,
                            });
                        }
                    };
                    retries = then;
                    self.retry_postponed();
                    self.retry_refused(most);
                    continue;
                }
                Found::Uncachable(reason) => reason,
            };
            self.counters.misses.add(1);
            // From before the pin, so that a revocation counts it.
            let _counted = Counted::new(self, request.range);
            let pinned = self.pin(request.range, request.access, &mut None)?;
            return Ok(self.lend_uncached(pinned, reason));
        }
    }

    /// Looks into the table, in one hold of its lock. `since` is what tells failures of before the
    /// lookup from later ones: set at its first look.
    fn find_or_reserve<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        request: Request,
        wider: bool,
        since: &mut Option<u64>,
        retries: Retries,
    ) -> Found<'c, R, M> {
        let mut table = self.table.lock();
        let since = *since.get_or_insert(table.reservations());
        if self.blind.load(Ordering::Relaxed) {
            return Found::Uncachable(&self.counters.uncached_unmonitored);
        }
        let look = match table.find(&request) {
            Ok((id, Phase::Valid)) => {
                // The slot is made stale only under the lock, which is held.
                let cell = self.hold(block, id);
                self.slots[id].visit();
                return Found::Valid(self.lend(block, id, cell, request));
            }
            Ok(_) => return Found::Suspect,
            Err(look) => look,
        };
        match table.find_pending(&request, wider, since) {
            Some(InFlight::Wait(flight, failure, by)) => {
                return Found::InFlight(flight, failure, by);
            }
            Some(InFlight::Own) => return Found::Uncachable(&self.counters.uncached_reentered),
            None => {}
        }
        let wide = table.merge(request, look);
        let bytes = wide.range.len() as u64;
        if bytes > self.settings.limits.bytes {
            return Found::Uncachable(&self.counters.uncached_too_large);
        }
        let refused = self.outside.lock().refused();
        if !table.has_room(bytes, refused) {
            let waits = refused.regions > 0 || table.can_end_postponed(&self.blocks);
            if waits && retries == Retries::Some {
                return Found::Refused(refused);
            }
            let evicted = table.evict_for(bytes, refused, &self.blocks);
            if !evicted.is_empty() {
                return Found::Evicted(evicted);
            }
            let hopeless = refused.bytes.saturating_add(bytes) > self.settings.limits.bytes
                || refused.regions >= self.settings.limits.regions;
            if refused.regions > 0 && (hopeless || retries == Retries::All) {
                return Found::Refused(refused);
            }
            return Found::Uncachable(&self.counters.uncached_full);
        }
        match table.reserve(request, wide) {
            Some(slot) => Found::Reserved(Reservation {
                cache: self,
                block,
                asked: request,
                request: wide,
                slot,
                landed: false,
            }),
            None => Found::Uncachable(&self.counters.uncached_full),
        }
    }

    /// A guard on a slot that is held, and will be found at once the next time.
    fn lend<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        id: SlotId,
        cell: Option<&'c HoldCell>,
        request: Request,
    ) -> Guard<'c, R, M> {
        if let Some(block) = block {
            block.remember(PageHash::of(request.exact.start(), request.access), id);
        }
        // SAFETY: the slot is one of this cache's, holds a registration, and is held.
        unsafe { Guard::new(self, NonNull::from(&self.slots[id]), cell) }
    }

    /// Lends out a registration that is not in the table, and says why not.
    fn lend_uncached(&self, pinned: BodyOf<R>, reason: &Counter) -> Guard<'_, R, M> {
        if reason.add(1) == 0 {
            // Once for each reason: a program that never hits finds it in its log.
            let _stats = self.counters.snapshot(0, 0, 0);
            event!(warn, range = %pinned.range, "the first that is lent out uncached: {_stats}");
        }
        Guard::uncached(self, pinned)
    }

    /// Watches, and evicts once if the monitor has reached a limit.
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), Error> {
        match self.monitor.watch(cookie, range) {
            Err(error)
                if error.is_limit()
                    && (self.evict(range.len() as u64)
                        || siblings::evict_in_others(self.id, range.len() as u64)) =>
            {
                self.monitor.watch(cookie, range)
            }
            result => result,
        }
        .map_err(|source| Error::Watch { range, source })
    }

    /// Pins, and evicts as long as that may help; `held` goes first.
    fn pin(
        &self,
        range: AddressRange,
        access: Access,
        held: &mut Option<BodyOf<R>>,
    ) -> Result<BodyOf<R>, Error> {
        loop {
            // SAFETY: remote access only comes from `get_or_register_remote`, whose caller made this
            // very promise.
            match unsafe { self.registrar.register(range, access) } {
                Ok(region) => {
                    self.counters.registrations.add(1);
                    let mut panic = FirstPanic::default();
                    let keys = panic.catch(|| self.registrar.keys(&region));
                    let body = BodyOf::<R> { range, access, keys: keys.unwrap_or(NO_KEYS), region };
                    if panic.is_some() {
                        self.end(body, &mut panic);
                        panic.resume();
                        unreachable!("it has panicked");
                    }
                    return Ok(body);
                }
                Err(errno) => {
                    let exhausted = self.registrar.is_exhausted(errno);
                    if exhausted && held.is_some() {
                        self.let_go(held.take());
                        continue;
                    }
                    // What was refused before is nobody's, so it goes before what is idle.
                    if exhausted
                        && (self.retry_postponed()
                            || self.retry_refused(usize::MAX)
                            || self.evict(range.len() as u64)
                            || siblings::evict_in_others(self.id, range.len() as u64))
                    {
                        continue;
                    }
                    self.counters.register_failures.add(1);
                    return Err(self.explain(errno, range, access));
                }
            }
        }
    }

    fn explain(&self, errno: Errno, range: AddressRange, access: Access) -> Error {
        let unended = self.table.lock().postponed_bytes();
        match errno {
            Errno::ENOMEM if unended > 0 => Error::BarrierRefused { range, bytes: unended },
            Errno::ENOMEM => Error::CannotPin {
                range,
                pinned_bytes: self.pinned_bytes(),
                pinned_by_others: siblings::pinned_by_others(self.id),
                memlock_limit: memlock_limit(),
            },
            Errno::EFAULT | Errno::EACCES => {
                Error::NotAccessible { range, access, errno, why: self.why(range, access, errno) }
            }
            errno => Error::Register { range, access, errno, why: self.why(range, access, errno) },
        }
    }

    /// What the registrar knows of the cause; else what the mappings show, of an error that they can
    /// be the cause of.
    fn why(&self, range: AddressRange, access: Access, errno: Errno) -> Option<String> {
        use Errno::{EACCES, EFAULT, EOPNOTSUPP, EPERM};
        let of_memory = matches!(errno, EFAULT | EACCES | EOPNOTSUPP | EPERM);
        let in_mappings = || of_memory.then(|| cause::in_mappings(range, access, false)).flatten();
        self.registrar.why(range, access, errno).or_else(in_mappings)
    }

    /// What this cache holds pinned, in bytes, as far as its table knows.
    pub(crate) fn pinned_bytes(&self) -> u64 {
        self.table.lock().pinned_bytes().saturating_add(self.outside.lock().refused().bytes)
    }

    /// As [`evict`](Shared::evict), for another cache of the process, on a thread of its.
    pub(crate) fn evict_for_sibling(&self, bytes: u64) -> bool {
        self.may_lock().is_ok() && (self.retry_refused(usize::MAX) || self.evict(bytes))
    }

    /// Evicts `bytes` or what there is, and says whether that was anything.
    fn evict(&self, bytes: u64) -> bool {
        let stale = self.table.lock().evict_bytes(bytes, &self.blocks);
        self.counters.evicted.add(stale.len() as u64);
        let any = !stale.is_empty();
        self.reclaim(stale);
        any
    }
}

/// A registration in the making that the table does not know.
struct Counted<'c, R: Registrar, M: Monitor> {
    cache: &'c Shared<R, M>,
    range: AddressRange,
}

impl<'c, R: Registrar, M: Monitor> Counted<'c, R, M> {
    fn new(cache: &'c Shared<R, M>, range: AddressRange) -> Self {
        cache.outside.lock().add(range);
        Counted { cache, range }
    }
}

impl<R: Registrar, M: Monitor> Drop for Counted<'_, R, M> {
    fn drop(&mut self) {
        self.cache.outside.lock().remove(self.range);
    }
}

/// A guard on what was published, and what that replaces.
type PublishedGuard<'c, R, M> = (Guard<'c, R, M>, Vec<SlotId>);

/// A watch of a registration in the making. A callback that panics leaves none behind.
struct Watched<'c, R: Registrar, M: Monitor> {
    cache: &'c Shared<R, M>,
    cookie: Cookie,
    keep: bool,
}

impl<R: Registrar, M: Monitor> Drop for Watched<'_, R, M> {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        let mut panic = FirstPanic::default();
        panic.catch(|| self.cache.unwatch(self.cookie));
        if !std::thread::panicking() {
            panic.resume();
        }
    }
}

/// A registration in the making that is not in the table yet. A callback that panics leaves none
/// behind.
struct Held<'c, R: Registrar, M: Monitor> {
    cache: &'c Shared<R, M>,
    body: Option<BodyOf<R>>,
}

impl<R: Registrar, M: Monitor> Drop for Held<'_, R, M> {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let mut panic = FirstPanic::default();
            self.cache.end(body, &mut panic);
            if !std::thread::panicking() {
                panic.resume();
            }
        }
    }
}

/// A slot that this thread fills while others wait for it. If it panics, they are let go with an
/// error.
struct Reservation<'c, R: Registrar, M: Monitor> {
    cache: &'c Shared<R, M>,
    block: Option<Owned<'c>>,
    asked: Request,
    /// What is registered: `asked`, or that and its neighbours.
    request: Request,
    slot: SlotId,
    /// It is published or cancelled.
    landed: bool,
}

impl<'c, R: Registrar, M: Monitor> Reservation<'c, R, M> {
    fn fill(mut self) -> Result<Guard<'c, R, M>, Error> {
        progress::populate(&self.cache.settings, self.request.range, self.request.access);
        let mut outcome = self.register();
        if outcome.is_err() && self.request.range != self.asked.range {
            // What it was merged with may not be there any more.
            self.cache.table.lock().narrow(self.slot, self.asked);
            self.request = self.asked;
            outcome = self.register();
        }
        if !self.landed {
            self.land(outcome.as_ref().map(drop).map_err(Clone::clone));
        }
        outcome
    }

    /// Gives the slot up, and lets the waiters go.
    fn land(&mut self, outcome: Result<(), Error>) {
        self.landed = true;
        let flight = self.cache.table.lock().cancel(self.slot);
        if let Some(flight) = flight {
            flight.land(outcome);
        }
    }

    fn register(&mut self) -> Result<Guard<'c, R, M>, Error> {
        let Reservation { cache, request, slot, .. } = *self;
        let mut held = Held { cache, body: None };
        for attempt in 0..PIN_ATTEMPTS {
            let cookie = cache.slots.cookie(slot);
            let word = cache.monitor.slot_generation(slot);
            let generation = cache.monitor.generation();
            let watched = cache.watch(cookie, request.pages);
            if matches!(&watched, Err(Error::Watch { source, .. }) if source.is_final()) {
                // Its drain says so too, and then no lookup trusts it.
                cache.mark_stale();
                cache.let_go(held.body.take());
                let pinned = cache.pin(self.asked.range, request.access, &mut None)?;
                return Ok(cache.lend_uncached(pinned, &cache.counters.uncached_unmonitored));
            }
            let unwatchable = matches!(
                &watched,
                Err(Error::Watch { source, .. })
                    if source.is_limit() || matches!(source, MonitorError::Unwatchable { .. })
            );
            if unwatchable {
                cache.let_go(held.body.take());
                let pinned = cache.pin(self.asked.range, request.access, &mut None)?;
                return Ok(cache.lend_uncached(pinned, &cache.counters.uncached_unwatchable));
            }
            let watch = watched.map(|()| Watched { cache, cookie, keep: false });
            let pinned = watch.and_then(|watch| {
                Ok((cache.pin(request.range, request.access, &mut held.body)?, watch))
            });
            // The first pin was held during the second, so that the second had nothing to change.
            cache.let_go(held.body.take());
            let (pinned, mut watch) = pinned?;
            held.body = Some(pinned);
            if attempt > 0 {
                cache.counters.repinned.add(1);
            }
            if cache.settings.verify {
                cache.monitor.pinned(cookie);
            }
            let news = match word {
                Some(word) => cache.monitor.slot_generation(slot) != Some(word),
                None => cache.monitor.generation() != generation,
            };
            if news {
                cache.mark_stale();
            }
            // From here to the end of `publish` no callback is called.
            let Some(pinned) = held.body.take() else { unreachable!("it was just put there") };
            match self.publish(pinned, word.unwrap_or(0)) {
                Ok((guard, replaced)) => {
                    watch.keep = true;
                    cache.reclaim(replaced);
                    return Ok(guard);
                }
                Err((pinned, renamed)) => {
                    held.body = Some(pinned);
                    drop(watch);
                    if !renamed {
                        break;
                    }
                }
            }
        }
        let reason = match cache.blind.load(Ordering::Relaxed) {
            // What the lost events said of this registration is not known.
            true => &cache.counters.uncached_unmonitored,
            false => &cache.counters.uncached_contested,
        };
        match held.body.take() {
            Some(pinned) => Ok(cache.lend_uncached(pinned, reason)),
            None => unreachable!("the last attempt left its registration"),
        }
    }

    /// Makes the registration findable, and returns what it replaces, to be reclaimed; or gives it
    /// back, with the news of whether to try again.
    fn publish(
        &mut self,
        pinned: BodyOf<R>,
        word: u64,
    ) -> Result<PublishedGuard<'c, R, M>, (BodyOf<R>, bool)> {
        let Reservation { cache, block, slot, .. } = *self;
        let mut table = cache.table.lock();
        if cache.blind.load(Ordering::Relaxed) {
            return Err((pinned, false));
        }
        // Before it can be made stale.
        let cell = cache.hold(block, slot);
        match table.publish(slot, pinned, word) {
            Ok(Published { flight, replaced }) => {
                drop(table);
                self.landed = true;
                if let Some(flight) = flight {
                    flight.land(Ok(()));
                }
                Ok((cache.lend(block, slot, cell, self.asked), replaced))
            }
            Err(pinned) => {
                let renamed = table.rename(slot).is_some();
                drop(table);
                cache.let_go_of(&cache.slots[slot], cell);
                Err((pinned, renamed))
            }
        }
    }
}

impl<R: Registrar, M: Monitor> Drop for Reservation<'_, R, M> {
    fn drop(&mut self) {
        if !self.landed {
            self.land(Err(Error::Abandoned { range: self.request.range }));
        }
    }
}
