//! What the cache has done.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! statistics {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the cache was made, and what it holds now.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Stats {
            /// Lookups that found a registration.
            pub hits: u64,
            /// Hits that took a lock: the first on a thread or after an event, and rare others.
            pub locked_hits: u64,
            $($(#[$doc])* pub $name: u64,)*
            /// Registrations held now: cached, in the making, and stale but in use.
            pub regions: u64,
            /// Bytes of those.
            pub bytes: u64,
        }

        /// The counts as they grow.
        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            /// Hits that took a lock.
            pub locked_hits: Counter,
            /// Hits of threads that have no block of cells.
            pub other_hits: Counter,
            $(pub $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self, hits: u64, regions: u64, bytes: u64) -> Stats {
                let locked_hits = self.locked_hits.get();
                let hits = hits + locked_hits + self.other_hits.get();
                Stats { hits, locked_hits, $($name: self.$name.get(),)* regions, bytes }
            }
        }
    };
}

statistics! {
    /// Lookups that found none.
    misses,
    /// Lookups that waited for another thread to register the same memory.
    joined,
    /// Registrations made.
    registrations,
    /// Registrations undone.
    deregistrations,
    /// Registrations that were refused.
    register_failures,
    /// Deregistrations that were refused, to be tried again.
    deregister_failures,
    /// Cached registrations that became stale because a mapping changed.
    stale,
    /// Cached registrations that an event hit, and that the monitor found to be as good as ever.
    verified,
    /// Cached registrations that were ended by [`Cache::revoke`](crate::Cache::revoke).
    revoked,
    /// Times that membarrier(2) was refused, so that nothing could be deregistered for the while.
    barrier_failures,
    /// Cached registrations that were evicted to make room.
    evicted,
    /// Registrations that were made again because of an event while they were pinned.
    repinned,
    /// Handed out uncached: larger than the cache may be.
    uncached_too_large,
    /// Handed out uncached: the cache is full, and all of it in use.
    uncached_full,
    /// Handed out uncached: events went on coming while the memory was pinned.
    uncached_contested,
    /// Handed out uncached: the registrar asked for memory that it was just registering, or that
    /// another was which had asked for this.
    uncached_reentered,
    /// Handed out uncached: the monitor cannot watch that memory.
    uncached_unwatchable,
    /// Handed out uncached: the monitor has failed, and is not trusted any more.
    uncached_unmonitored,
}

/// One count.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Returns what it was.
    pub(crate) fn add(&self, n: u64) -> u64 {
        // Relaxed: a count says nothing about other memory.
        self.0.fetch_add(n, Ordering::Relaxed)
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Stats {
    /// The share of lookups that found a registration, 0 to 1; 0 before the first lookup.
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            lookups => self.hits as f64 / lookups as f64,
        }
    }

    /// Registrations that were handed out without being cached.
    pub fn uncached(&self) -> u64 {
        self.uncached_too_large
            + self.uncached_full
            + self.uncached_contested
            + self.uncached_reentered
            + self.uncached_unwatchable
            + self.uncached_unmonitored
    }
}

impl Stats {
    /// Why registrations were handed out without being cached: those of the reasons that there were.
    pub fn uncached_reasons(&self) -> impl Iterator<Item = (u64, &'static str)> {
        [
            (self.uncached_too_large, "larger than max_bytes (REGCACHE_MAX_BYTES), by itself"),
            (self.uncached_full, "the cache is full (REGCACHE_MAX_REGIONS, _BYTES) and all in use"),
            (self.uncached_contested, "the mapping went on changing"),
            (self.uncached_reentered, "asked for by the registrar that was registering it"),
            (self.uncached_unwatchable, "memory that the monitor cannot watch"),
            (self.uncached_unmonitored, "the monitor has failed (Cache::dump says how)"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
    }
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} hits, {} misses ({:.1} % hit); {} registered, {} stale, {} evicted, {} uncached; \
             {} regions of {} bytes held",
            self.hits,
            self.misses,
            100.0 * self.hit_rate(),
            self.registrations,
            self.stale,
            self.evicted,
            self.uncached(),
            self.regions,
            self.bytes
        )?;
        for (count, reason) in self.uncached_reasons() {
            write!(f, "; {count} uncached: {reason}")?;
        }
        Ok(())
    }
}
