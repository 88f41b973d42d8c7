//! The cache: lookup, miss, drain, release.
//!
//! # Why a hit is never stale
//!
//! `seen` is a generation of the monitor up to which every event has been *marked* in the table. A
//! lookup first compares it with the present generation, and drains if they differ; then it looks
//! into the table. The monitor's generation moves before a mapping changes, so a lookup that starts
//! after the change finds a new generation, or a `seen` that was stored after the marking. The
//! `Acquire` load of `seen` orders the look into the table after it.
//!
//! A miss goes *generation, watch, pin, check*: an event between the first and the last makes it
//! start again. The generation is read before the watch, since a watch may itself raise an event.
//!
//! # Locks
//!
//! `drainer` serialises drains, marking included; `table` is taken inside it or alone. Neither is
//! held while memory is pinned, unpinned, watched or unwatched, and no one waits for another
//! thread's registration while holding one.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::errno::Errno;
use parking_lot::Mutex;

use crate::access::Access;
use crate::builder::{Builder, memlock_limit};
use crate::error::Error;
use crate::flight::Flight;
use crate::fork::Owner;
use crate::guard::Guard;
use crate::monitor::{Cookie, Invalid, Monitor, MonitorError};
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::request::Request;
use crate::stats::{Counter, Counters, Stats};
use crate::table::{Dead, Entry, Hit, Limits, Published, SlotId, Table};

/// How often memory is pinned before it is handed out uncached. Pinning may itself change the
/// mapping (it breaks copy-on-write) and so raise an event; with the first pin held the second finds
/// nothing left to break.
const PIN_ATTEMPTS: usize = 3;

/// Registrations of memory, made on demand and kept until the memory's mapping changes or room is
/// needed.
///
/// Shared by reference among any number of threads. A forked child must not use it (every call
/// fails with [`Error::Forked`]) and deregisters nothing when it exits.
pub struct Cache<R: Registrar, M: Monitor> {
    registrar: R,
    monitor: M,
    owner: Owner,
    limits: Limits,
    seen: AtomicU64,
    /// The monitor has lost events: nothing is cached any more.
    blind: AtomicBool,
    drainer: Mutex<Vec<Invalid>>,
    table: Mutex<Table<R::Region>>,
    /// Registrations that the registrar would not let go of yet.
    undead: Mutex<Vec<Arc<Entry<R::Region>>>>,
    counters: Counters,
}

impl<R: Registrar, M: Monitor> Cache<R, M> {
    /// Begins a cache of `registrar`'s registrations that `monitor` keeps truthful. The monitor must
    /// not be shared with another cache.
    pub fn builder(registrar: R, monitor: M) -> Builder<R, M> {
        Builder::new(registrar, monitor)
    }

    pub(crate) fn new(registrar: R, monitor: M, limits: Limits) -> Result<Self, Error> {
        let owner = Owner::current().map_err(|errno| Error::ForkDetection { errno })?;
        // Nothing is watched yet, so no event up to now concerns this cache.
        let seen = AtomicU64::new(monitor.generation());
        Ok(Cache {
            registrar,
            monitor,
            owner,
            limits,
            seen,
            blind: AtomicBool::new(false),
            drainer: Mutex::new(Vec::new()),
            table: Mutex::new(Table::new()),
            undead: Mutex::new(Vec::new()),
            counters: Counters::default(),
        })
    }

    /// The registrar, to reach the device behind it.
    pub fn registrar(&self) -> &R {
        &self.registrar
    }

    /// The monitor, to feed a [`Manual`](crate::monitor::Manual) one or to poll a device.
    pub fn monitor(&self) -> &M {
        &self.monitor
    }

    /// A registration of the `len` bytes at `addr` for this process's own work requests: one that
    /// the cache holds, or a new one. Whole pages are registered.
    pub fn get_or_register(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'_, R, M>, Error> {
        if access.is_remote() {
            return Err(Error::RemoteAccessIsUnsafe { access });
        }
        self.lookup(Request::new(addr, len, access)?)
    }

    /// A registration of exactly the `len` bytes at `addr` that a peer may use.
    ///
    /// # Safety
    ///
    /// From now until the registration is gone, which may be long after the guard is dropped, a peer
    /// that learns the `rkey` reads and writes the memory as `access` allows. The caller makes sure
    /// that this never breaks a promise that Rust relies on: no reference to memory that a peer may
    /// write, no secret in memory that it may read, and the memory put to no other use before the
    /// key is dead.
    pub unsafe fn get_or_register_remote(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'_, R, M>, Error> {
        self.lookup(Request::new(addr, len, access)?)
    }

    /// Deregisters what has become stale. Every lookup that finds news does this too; call it to get
    /// memory back without a lookup, for instance when the monitor's device becomes readable.
    pub fn drain(&self) -> Result<(), Error> {
        self.refuse_foreign()?;
        self.mark_stale();
        self.retry_undead();
        Ok(())
    }

    /// Deregisters everything that is not in use; what is in use is deregistered at its last
    /// release, and no later lookup finds it.
    pub fn flush(&self) -> Result<(), Error> {
        self.refuse_foreign()?;
        let (_, dead) = self.table.lock().invalidate_all();
        self.bury(dead);
        self.retry_undead();
        Ok(())
    }

    /// What the cache has done, and what it holds.
    pub fn stats(&self) -> Stats {
        if self.owner.is_foreign() {
            // Another thread may have held the lock at the time of the fork.
            return self.counters.snapshot(0, 0);
        }
        let (regions, bytes) = {
            let table = self.table.lock();
            (table.regions(), table.bytes())
        };
        self.counters.snapshot(regions as u64, bytes)
    }

    fn refuse_foreign(&self) -> Result<(), Error> {
        if self.owner.is_foreign() { Err(Error::Forked) } else { Ok(()) }
    }

    fn lookup(&self, request: Request) -> Result<Guard<'_, R, M>, Error> {
        self.refuse_foreign()?;
        loop {
            // Freshness comes before the look into the table.
            self.refresh();
            let (found, evicted) = self.find_or_reserve(request);
            self.counters.evicted.add(evicted.len() as u64);
            self.bury(evicted);
            let reason = match found {
                Found::Valid(entry) => {
                    self.counters.hits.add(1);
                    return Ok(Guard::new(self, entry));
                }
                Found::Pending(flight) => {
                    self.counters.joined.add(1);
                    flight.wait()?;
                    continue;
                }
                Found::Reserved(reservation) => {
                    self.counters.misses.add(1);
                    return reservation.fill();
                }
                Found::Uncachable(reason) => reason,
            };
            self.counters.misses.add(1);
            let pinned = self.pin(request, &mut None)?;
            return Ok(self.lend_uncached(pinned, reason));
        }
    }

    /// Looks into the table, in one hold of its lock.
    fn find_or_reserve(&self, request: Request) -> (Found<'_, R, M>, Vec<Dead<R::Region>>) {
        let uncachable = |reason| (Found::Uncachable(reason), Vec::new());
        let bytes = request.range.len() as u64;
        let mut table = self.table.lock();
        if self.blind.load(Ordering::Relaxed) {
            return uncachable(&self.counters.uncached_unmonitored);
        }
        if let Some(entry) = table.find(&request) {
            return (Found::Valid(entry), Vec::new());
        }
        if let Some(flight) = table.find_pending(&request) {
            if flight.is_own() {
                return uncachable(&self.counters.uncached_reentered);
            }
            return (Found::Pending(flight), Vec::new());
        }
        if bytes > self.limits.bytes {
            return uncachable(&self.counters.uncached_too_large);
        }
        let (evicted, fits) = table.make_room(self.limits, bytes);
        if !fits {
            return (Found::Uncachable(&self.counters.uncached_full), evicted);
        }
        let (slot, flight) = table.reserve(request);
        let reservation = Reservation { cache: self, request, slot, flight: Some(flight) };
        (Found::Reserved(reservation), evicted)
    }

    /// Marks what is stale, if there is news.
    fn refresh(&self) {
        // Acquire pairs with the Release in `mark_stale`: who sees its value sees its marks. It is
        // loaded before the generation, so that a drain in between shows as a difference.
        let seen = self.seen.load(Ordering::Acquire);
        if seen != self.monitor.generation() && !self.blind.load(Ordering::Relaxed) {
            self.mark_stale();
        }
    }

    /// Drains the monitor: one thread at a time, marking included.
    fn mark_stale(&self) {
        let mut hits = self.drainer.lock();
        if self.blind.load(Ordering::Relaxed) {
            return;
        }
        let drained = self.monitor.drain(&mut |invalid| hits.push(invalid));
        let (mut stale, mut dead) = (0, Vec::new());
        {
            let mut table = self.table.lock();
            for invalid in hits.drain(..) {
                match invalid {
                    Invalid::Watch(cookie) => {
                        if let Hit::Stale(d) = table.invalidate(cookie) {
                            stale += 1;
                            dead.extend(d);
                        }
                    }
                    Invalid::Range(range) => {
                        let (n, d) = table.invalidate_range(range);
                        stale += n;
                        dead.extend(d);
                    }
                }
            }
            if drained.is_err() {
                // Under the lock, so that who finds the table untouched finds this as well.
                self.blind.store(true, Ordering::Relaxed);
                let (valid, all) = table.invalidate_all();
                stale += valid;
                dead.extend(all);
            }
        }
        if let Ok(generation) = drained {
            // Release pairs with the Acquire in `refresh`: the marks are visible before this is.
            self.seen.store(generation, Ordering::Release);
        }
        drop(hits);
        self.counters.stale.add(stale);
        self.bury(dead);
    }

    /// Watches, and evicts once if the monitor has reached a limit.
    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), Error> {
        match self.monitor.watch(cookie, range) {
            Err(error) if error.is_limit() && self.evict(range.len() as u64) => {
                self.monitor.watch(cookie, range)
            }
            result => result,
        }
        .map_err(|source| Error::Watch { range, source })
    }

    fn unwatch(&self, cookie: Cookie) {
        // It fails only where the monitor has gone; its events are not listened to any more, and
        // the cookie is never used again.
        let _ = self.monitor.unwatch(cookie);
    }

    /// Pins, and evicts as long as that may help; `held` goes first.
    fn pin(
        &self,
        Request { range, access, .. }: Request,
        held: &mut Option<Entry<R::Region>>,
    ) -> Result<Entry<R::Region>, Error> {
        loop {
            // SAFETY: remote access only comes from `get_or_register_remote`, whose caller made this
            // very promise.
            match unsafe { self.registrar.register(range, access) } {
                Ok(region) => {
                    self.counters.registrations.add(1);
                    let keys = self.registrar.keys(&region);
                    return Ok(Entry { region, keys, range, access, slot: None });
                }
                Err(Errno::ENOMEM) if held.is_some() => self.let_go(held.take()),
                Err(Errno::ENOMEM) if self.evict(range.len() as u64) => {}
                Err(errno) => {
                    self.counters.register_failures.add(1);
                    return Err(self.explain(errno, range, access));
                }
            }
        }
    }

    fn explain(&self, errno: Errno, range: AddressRange, access: Access) -> Error {
        match errno {
            Errno::ENOMEM => Error::CannotPin {
                range,
                pinned_bytes: self.table.lock().bytes(),
                memlock_limit: memlock_limit(),
            },
            Errno::EFAULT | Errno::EACCES => Error::NotAccessible { range, access, errno },
            errno => Error::Register { range, access, errno },
        }
    }

    /// Evicts `bytes` or what there is, and says whether that was anything.
    fn evict(&self, bytes: u64) -> bool {
        let dead = self.table.lock().evict_bytes(bytes);
        self.counters.evicted.add(dead.len() as u64);
        let any = !dead.is_empty();
        self.bury(dead);
        any
    }

    /// Lends out a registration that is not in the table, and says why not.
    fn lend_uncached(&self, pinned: Entry<R::Region>, reason: &Counter) -> Guard<'_, R, M> {
        reason.add(1);
        Guard::new(self, Arc::new(pinned))
    }

    /// A guard was dropped.
    pub(crate) fn release(&self, entry: &Arc<Entry<R::Region>>) {
        if self.owner.is_foreign() {
            return;
        }
        match entry.slot {
            Some(slot) => {
                let dead = self.table.lock().release(slot);
                self.bury(dead);
            }
            None => self.let_go([entry.clone()]),
        }
    }

    /// Ends registrations that no one can reach.
    fn bury(&self, dead: impl IntoIterator<Item = Dead<R::Region>>) {
        for Dead { cookie, slot, entry } in dead {
            self.unwatch(cookie);
            self.let_go([entry]);
            self.table.lock().free(slot);
        }
    }

    fn let_go(&self, entries: impl IntoIterator<Item = impl Into<Arc<Entry<R::Region>>>>) {
        for entry in entries {
            let entry = entry.into();
            match self.registrar.deregister(&entry.region) {
                Ok(()) => self.counters.deregistrations.add(1),
                Err(_) => {
                    self.counters.deregister_failures.add(1);
                    self.undead.lock().push(entry);
                }
            }
        }
    }

    fn retry_undead(&self) {
        let undead = mem::take(&mut *self.undead.lock());
        self.let_go(undead);
    }
}

impl<R: Registrar, M: Monitor> Drop for Cache<R, M> {
    fn drop(&mut self) {
        if self.owner.is_foreign() {
            return;
        }
        let (_, dead) = self.table.lock().invalidate_all();
        self.bury(dead);
        self.retry_undead();
    }
}

impl<R: Registrar, M: Monitor> fmt::Debug for Cache<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("max_regions", &self.limits.regions)
            .field("max_bytes", &self.limits.bytes)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a look into the table found.
enum Found<'c, R: Registrar, M: Monitor> {
    Valid(Arc<Entry<R::Region>>),
    Pending(Arc<Flight>),
    Reserved(Reservation<'c, R, M>),
    /// Counts the reason.
    Uncachable(&'c Counter),
}

/// A slot that this thread fills while others wait for it. If it panics, they are let go with an
/// error.
struct Reservation<'c, R: Registrar, M: Monitor> {
    cache: &'c Cache<R, M>,
    request: Request,
    slot: SlotId,
    /// Taken when the others have been told.
    flight: Option<Arc<Flight>>,
}

impl<'c, R: Registrar, M: Monitor> Reservation<'c, R, M> {
    fn fill(mut self) -> Result<Guard<'c, R, M>, Error> {
        let outcome = self.register();
        if let Some(flight) = self.flight.take() {
            self.cache.table.lock().cancel(self.slot);
            flight.land(outcome.as_ref().map(drop).map_err(Clone::clone));
        }
        outcome
    }

    /// Generation, watch, pin, check, publish.
    fn register(&mut self) -> Result<Guard<'c, R, M>, Error> {
        let Reservation { cache, request, slot, .. } = *self;
        let mut cookie = cache.table.lock().cookie(slot);
        let mut held = None;
        for attempt in 0..PIN_ATTEMPTS {
            let before = cache.monitor.generation();
            let watched = cache.watch(cookie, request.pages);
            if let Err(Error::Watch { source: MonitorError::Unwatchable { .. }, .. }) = watched {
                let pinned = cache.pin(request, &mut held);
                cache.let_go(held.take());
                return Ok(cache.lend_uncached(pinned?, &cache.counters.uncached_unwatchable));
            }
            let pinned = watched.and_then(|()| {
                cache.pin(request, &mut held).inspect_err(|_| cache.unwatch(cookie))
            });
            // The first pin was held during the second, so that the second had nothing to change.
            cache.let_go(held.take());
            let pinned = pinned?;
            if attempt > 0 {
                cache.counters.repinned.add(1);
            }
            if cache.monitor.generation() != before {
                cache.mark_stale();
            }

            let mut table = cache.table.lock();
            if cache.blind.load(Ordering::Relaxed) {
                // What the lost events said of this registration is not known.
                drop(table);
                cache.unwatch(cookie);
                return Ok(cache.lend_uncached(pinned, &cache.counters.uncached_unmonitored));
            }
            match table.publish(slot, pinned) {
                Ok(Published { entry, replaced }) => {
                    drop(table);
                    if let Some(flight) = self.flight.take() {
                        flight.land(Ok(()));
                    }
                    cache.bury(replaced);
                    return Ok(Guard::new(cache, entry));
                }
                Err(dirty) => {
                    held = Some(dirty);
                    let old = mem::replace(&mut cookie, table.rename(slot));
                    drop(table);
                    cache.unwatch(old);
                }
            }
        }
        let contested = &cache.counters.uncached_contested;
        match held {
            Some(pinned) => Ok(cache.lend_uncached(pinned, contested)),
            None => unreachable!("the last attempt left its registration"),
        }
    }
}

impl<R: Registrar, M: Monitor> Drop for Reservation<'_, R, M> {
    fn drop(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.cache.table.lock().cancel(self.slot);
            flight.land(Err(Error::Abandoned { range: self.request.range }));
        }
    }
}
