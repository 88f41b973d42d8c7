//! The cache, as its users see it.

use std::fmt;
use std::sync::Arc;

use crate::access::Access;
use crate::builder::Builder;
use crate::cells::Owned;
use crate::dump::Dump;
use crate::error::Error;
use crate::guard::Guard;
use crate::local::Local;
use crate::monitor::Monitor;
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::request::{Request, refuse_remote};
use crate::shared::Shared;
use crate::siblings;
use crate::stats::Stats;
use crate::tls;

/// Registrations of memory, made on demand and kept until the memory's mapping changes or room is
/// needed.
///
/// Shared by reference among any number of threads; a hit takes no lock and costs a few nanoseconds
/// on each of them. A forked child must not use it (every call fails with [`Error::Forked`]) and
/// deregisters nothing when it exits. Not to be called from a signal handler.
pub struct Cache<R: Registrar, M: Monitor> {
    shared: Arc<Shared<R, M>>,
}

impl<R: Registrar, M: Monitor> Cache<R, M> {
    /// Begins a cache of `registrar`'s registrations that `monitor` keeps truthful. The monitor must
    /// not be shared with another cache.
    pub fn builder(registrar: R, monitor: M) -> Builder<R, M> {
        Builder::new(registrar, monitor)
    }

    pub(crate) fn new(shared: Shared<R, M>) -> Self {
        let shared = Arc::new(shared);
        siblings::join(&shared);
        Cache { shared }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared<R, M>> {
        &self.shared
    }

    /// The registrar, to reach the device behind it.
    pub fn registrar(&self) -> &R {
        &self.shared.registrar
    }

    /// The monitor, to feed a [`Manual`](crate::monitor::Manual) one or to poll a device.
    pub fn monitor(&self) -> &M {
        &self.shared.monitor
    }

    /// A registration of the `len` bytes at `addr` for this process's own work requests: one that
    /// the cache holds, or a new one. Whole pages are registered.
    #[inline(always)]
    pub fn get_or_register(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'_, R, M>, Error> {
        refuse_remote(access)?;
        // SAFETY: no peer can reach memory that is registered for local access.
        unsafe { self.get_or_register_remote(addr, len, access) }
    }

    /// A registration of exactly the `len` bytes at `addr` that a peer may use.
    ///
    /// # Safety
    ///
    /// From now until the registration is gone, which may be long after the guard is dropped, a peer
    /// that learns the `rkey` reads and writes the memory as `access` allows. The caller makes sure
    /// that this never breaks a promise that Rust relies on: no reference to memory that a peer may
    /// write, no secret in memory that it may read, and the memory put to no other use before the
    /// key is dead ([`revoke`](Cache::revoke)). With [`Peers::Trusted`](crate::Peers) that goes for
    /// the rest of the pages too.
    #[inline(always)]
    pub unsafe fn get_or_register_remote(
        &self,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'_, R, M>, Error> {
        let shared = &*self.shared;
        self.look_up(tls::near(shared.id, &shared.blocks), addr, len, access)
    }

    /// `block` is the caller's own or the thread's.
    #[inline(always)]
    pub(crate) fn look_up<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'c, R, M>, Error> {
        if let Some(block) = block {
            if let Some(guard) = self.shared.hit(block, addr, len, access) {
                return Ok(guard);
            }
        }
        self.miss(block, addr, len, access)
    }

    /// The long way.
    #[inline(never)]
    fn miss<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Result<Guard<'c, R, M>, Error> {
        let shared = &*self.shared;
        shared.may_lock()?;
        let block = block.or_else(|| tls::own(shared.id, &shared.blocks));
        if let Some(guard) = shared.hit_by_hints(block, addr, len, access) {
            return Ok(guard);
        }
        let request = Request::new(addr, len, access, shared.settings.peers)?;
        shared.find_or_register(block, request)
    }

    /// Registrations of several ranges, in their order, as for a scatter list. Those that are missing
    /// are pinned in parallel, [`Builder::max_parallel`] at a time; if one fails, so does all.
    pub fn get_or_register_many(
        &self,
        ranges: &[(usize, usize)],
        access: Access,
    ) -> Result<Vec<Guard<'_, R, M>>, Error> {
        refuse_remote(access)?;
        crate::many::get_or_register_many(self, ranges, access)
    }

    /// A handle for one thread, whose lookups skip the search for what belongs to the thread.
    pub fn local(&self) -> Local<'_, R, M> {
        Local::new(self)
    }

    /// Deregisters what has become stale. Every lookup that finds news does this too; call it to get
    /// memory back without a lookup, for instance when the monitor's device becomes readable, or let
    /// a [`Reaper`](crate::Reaper) call it.
    pub fn drain(&self) -> Result<(), Error> {
        self.shared.may_lock()?;
        self.shared.mark_stale();
        self.shared.retry();
        Ok(())
    }

    /// Deregisters everything that is not in use; what is in use is deregistered at its last
    /// release, and no later lookup finds it.
    pub fn flush(&self) -> Result<(), Error> {
        self.shared.may_lock()?;
        let stale = self.shared.table.lock().make_all_stale();
        self.shared.reclaim(stale);
        self.shared.retry();
        Ok(())
    }

    /// Ends all registrations that touch `range`, so that keys which peers were given are dead.
    ///
    /// What is not in use is deregistered at once, and no later lookup finds the rest, which is
    /// deregistered at its last release. Returns how many are still in use or being made: with 0, no
    /// peer can reach the memory any more, until somebody asks for it again.
    pub fn revoke(&self, range: AddressRange) -> Result<usize, Error> {
        self.shared.may_lock()?;
        self.shared.revoke(range);
        self.shared.retry();
        Ok(self.shared.alive(range))
    }

    /// What the cache has done, and what it holds.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        if shared.may_lock().is_err() {
            return shared.counters.snapshot(0, 0, 0);
        }
        let (regions, bytes) = {
            let table = shared.table.lock();
            (table.regions(), table.bytes())
        };
        shared.counters.snapshot(shared.blocks.hits(), regions.into(), bytes)
    }

    /// Every registration that the cache holds, for a person to read.
    pub fn dump(&self) -> Result<Dump, Error> {
        self.shared.may_lock()?;
        Ok(Dump::of(&self.shared))
    }
}

impl<R: Registrar, M: Monitor> Drop for Cache<R, M> {
    fn drop(&mut self) {
        // No guard is left, since guards borrow the cache. (One that was forgotten is nobody's.)
        if !self.shared.owner.is_foreign() {
            siblings::leave(self.shared.id);
            self.shared.close();
        }
    }
}

impl<R: Registrar, M: Monitor> fmt::Debug for Cache<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("settings", &self.shared.settings)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}
