//! How a cache is made.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::cache::Cache;
use crate::error::Error;
use crate::monitor::Monitor;
use crate::registrar::Registrar;
use crate::table::Limits;

/// Registrations that a cache holds unless told otherwise.
const DEFAULT_MAX_REGIONS: usize = 16_384;

/// Makes a [`Cache`]; from [`Cache::builder`].
#[derive(Debug)]
#[must_use = "a builder does nothing until build() is called"]
pub struct Builder<R, M> {
    registrar: R,
    monitor: M,
    max_regions: usize,
    max_bytes: Option<u64>,
}

impl<R: Registrar, M: Monitor> Builder<R, M> {
    pub(crate) fn new(registrar: R, monitor: M) -> Self {
        Builder { registrar, monitor, max_regions: DEFAULT_MAX_REGIONS, max_bytes: None }
    }

    /// How many registrations the cache may hold; 16,384 unless set. With 0 nothing is cached.
    pub fn max_regions(mut self, regions: usize) -> Self {
        self.max_regions = regions;
        self
    }

    /// How many bytes the cache may hold pinned. Unless set, three quarters of this process's
    /// `RLIMIT_MEMLOCK`, or half of the machine's memory where there is no limit.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// Makes the cache.
    pub fn build(self) -> Result<Cache<R, M>, Error> {
        let limits = Limits {
            regions: self.max_regions,
            bytes: self.max_bytes.unwrap_or_else(default_max_bytes),
        };
        Cache::new(self.registrar, self.monitor, limits)
    }
}

/// The limit on locked memory in bytes, or `None` where there is none (getrlimit(2)).
pub(crate) fn memlock_limit() -> Option<u64> {
    let (soft, _hard) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    (soft != RLIM_INFINITY).then_some(soft)
}

fn default_max_bytes() -> u64 {
    match memlock_limit() {
        Some(limit) => limit / 4 * 3,
        None => physical_memory() / 2,
    }
}

/// The machine's memory in bytes.
fn physical_memory() -> u64 {
    // SAFETY: sysconf(3) takes no pointer and has no precondition.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    u64::try_from(pages).unwrap_or(0) * crate::range::page_size() as u64
}
