//! How a cache is made.

use std::fmt;

use crate::barrier::Barrier;
use crate::cache::Cache;
use crate::error::Error;
use crate::memory_limits::default_max_bytes;
use crate::monitor::Monitor;
use crate::progress::Progress;
use crate::registrar::Registrar;
use crate::request::Peers;
use crate::shared::Shared;
use crate::table::Limits;

/// Registrations that a cache holds unless told otherwise.
pub(crate) const DEFAULT_MAX_REGIONS: usize = 16_384;

/// The most that a cache can be told to hold.
pub(crate) const MOST_REGIONS: usize = 1 << 24;

const _: () = {
    let most = Limits { regions: MOST_REGIONS as u32, bytes: 0 };
    assert!(most.slots() < crate::hints::MOST_SLOTS);
};

/// Threads that register at a time for one call of `get_or_register_many`.
const DEFAULT_MAX_PARALLEL: usize = 8;

/// How a cache is set up.
pub(crate) struct Settings {
    pub limits: Limits,
    pub peers: Peers,
    pub barrier: Barrier,
    pub verify: bool,
    pub max_parallel: usize,
    pub progress: Option<Box<ProgressFn>>,
}

type ProgressFn = dyn Fn(Progress) + Send + Sync;

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("max_regions", &self.limits.regions)
            .field("max_bytes", &self.limits.bytes)
            .field("peers", &self.peers)
            .field("barrier", &self.barrier)
            .field("verify", &self.verify)
            .field("max_parallel", &self.max_parallel)
            .finish_non_exhaustive()
    }
}

/// Makes a [`Cache`]; from [`Cache::builder`].
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder<R, M> {
    registrar: R,
    monitor: M,
    max_regions: Option<usize>,
    max_bytes: Option<u64>,
    peers: Peers,
    barrier: Option<Barrier>,
    verify: Option<bool>,
    max_parallel: usize,
    progress: Option<Box<ProgressFn>>,
}

impl<R: Registrar, M: Monitor> Builder<R, M> {
    pub(crate) fn new(registrar: R, monitor: M) -> Self {
        Builder {
            registrar,
            monitor,
            max_regions: None,
            max_bytes: None,
            peers: Peers::default(),
            barrier: None,
            verify: None,
            max_parallel: DEFAULT_MAX_PARALLEL,
            progress: None,
        }
    }

    /// How many registrations the cache may hold; 16,384 unless set here or by
    /// `REGCACHE_MAX_REGIONS`, and 16,777,216 at most. With 0 nothing is cached.
    pub fn max_regions(mut self, regions: usize) -> Self {
        self.max_regions = Some(regions);
        self
    }

    /// How many bytes the cache may hold pinned. Unless set here or by `REGCACHE_MAX_BYTES`, half of
    /// the memory that this process may have (the machine's, or what its control group or one around
    /// it is limited to), and at most three quarters of its `RLIMIT_MEMLOCK`, where that counts: it
    /// does not for a process with `CAP_IPC_LOCK`.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Whether peers may reach more than they were given: [`Peers::Confined`] unless set.
    pub fn peers(mut self, peers: Peers) -> Self {
        self.peers = peers;
        self
    }

    /// How hits are made safe; [`Barrier::best`] unless set here or by `REGCACHE_BARRIER`.
    /// [`Barrier::Membarrier`] where the kernel has none is an error.
    pub fn barrier(mut self, barrier: Barrier) -> Self {
        self.barrier = Some(barrier);
        self
    }

    /// Whether a monitor that can is asked if an event changed anything, before a registration is
    /// given up; it is, unless set here or by `REGCACHE_VERIFY`. It costs a walk over the pages at
    /// each registration.
    pub fn verify(mut self, verify: bool) -> Self {
        self.verify = Some(verify);
        self
    }

    /// How many threads pin at a time for one [`Cache::get_or_register_many`]; 8 unless set.
    pub fn max_parallel(mut self, threads: usize) -> Self {
        self.max_parallel = threads;
        self
    }

    /// Called while registrations of more than 64 MiB are made, with how far they are. It may use
    /// the cache, but not for the memory that is being registered.
    pub fn on_progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Box::new(callback));
        self
    }

    /// Makes the cache. What was not set is taken from the environment: see [`crate::environment`].
    ///
    /// It has no thread: memory that the program has freed stays pinned until the next lookup that
    /// misses. Start a [`Reaper`](crate::Reaper) where nothing may look up for long, as the C interface
    /// does by itself.
    pub fn build(self) -> Result<Cache<R, M>, Error> {
        let environment = crate::environment::read()?;
        let regions = self.max_regions.or(environment.max_regions).unwrap_or(DEFAULT_MAX_REGIONS);
        if regions > MOST_REGIONS {
            return Err(Error::TooManyRegions { regions, most: MOST_REGIONS });
        }
        let barrier = self.barrier.or(environment.barrier).unwrap_or_else(Barrier::best);
        if barrier == Barrier::Membarrier && Barrier::best() != Barrier::Membarrier {
            return Err(Error::NoMembarrier);
        }
        let bytes = self.max_bytes.or(environment.max_bytes).unwrap_or_else(default_max_bytes);
        let settings = Settings {
            limits: Limits { regions: regions as u32, bytes },
            peers: self.peers,
            barrier,
            verify: self.verify.or(environment.verify).unwrap_or(true),
            max_parallel: self.max_parallel,
            progress: self.progress,
        };
        Ok(Cache::new(Shared::new(self.registrar, self.monitor, settings)?))
    }
}

impl<R, M> fmt::Debug for Builder<R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_regions", &self.max_regions)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}
