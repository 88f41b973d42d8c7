//! A registration on loan.

use std::fmt;
use std::sync::Arc;

use crate::access::Access;
use crate::cache::Cache;
use crate::monitor::Monitor;
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::table::Entry;

/// A registration that stays registered at least until this is dropped.
///
/// It is of the memory that was mapped when it was handed out. If the mapping changes while the
/// guard lives, the registration stays what it was, no later lookup returns it, and it is
/// deregistered when the last guard on it is dropped. Two words in size.
#[must_use = "the registration may be gone as soon as the guard is dropped"]
pub struct Guard<'c, R: Registrar, M: Monitor> {
    cache: &'c Cache<R, M>,
    entry: Arc<Entry<R::Region>>,
}

impl<'c, R: Registrar, M: Monitor> Guard<'c, R, M> {
    pub(crate) fn new(cache: &'c Cache<R, M>, entry: Arc<Entry<R::Region>>) -> Self {
        Guard { cache, entry }
    }

    /// The key for this process's own work requests.
    pub fn lkey(&self) -> u32 {
        self.entry.keys.local
    }

    /// The key for a peer's work requests. A key that was given to a peer opens the memory until the
    /// registration is gone, which may be long after the guard is dropped.
    pub fn rkey(&self) -> u32 {
        self.entry.keys.remote
    }

    /// The registration itself.
    pub fn region(&self) -> &R::Region {
        &self.entry.region
    }

    /// What is registered: at least what was asked for.
    pub fn range(&self) -> AddressRange {
        self.entry.range
    }

    /// With what access: at least what was asked for.
    pub fn access(&self) -> Access {
        self.entry.access
    }

    /// Whether the cache holds the registration. If not, it is deregistered when the guard drops;
    /// [`Stats`](crate::Stats) has the reasons.
    pub fn is_cached(&self) -> bool {
        self.entry.slot.is_some()
    }
}

impl<R: Registrar, M: Monitor> Drop for Guard<'_, R, M> {
    fn drop(&mut self) {
        self.cache.release(&self.entry);
    }
}

impl<R: Registrar, M: Monitor> fmt::Debug for Guard<'_, R, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard")
            .field("range", &self.range())
            .field("access", &self.access())
            .field("lkey", &self.lkey())
            .field("rkey", &self.rkey())
            .field("cached", &self.is_cached())
            .finish()
    }
}
