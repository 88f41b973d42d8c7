//! What programs did, counted.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

use regcache::Stats;

macro_rules! totals {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// Counts of one program, or of many.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Totals { $($(#[$doc])* pub $name: u64,)+ }

        /// The counts as they grow.
        #[derive(Debug, Default)]
        pub struct Counts { $($(#[$doc])* pub $name: AtomicU64,)+ }

        impl Counts {
            /// What they are now.
            pub fn totals(&self) -> Totals {
                Totals { $($name: self.$name.load(Ordering::Relaxed),)+ }
            }
        }

        impl Totals {
            /// Names and values.
            pub fn all(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),+]
            }

            /// Adds what another program did.
            pub fn add(&mut self, other: &Totals) {
                $(self.$name += other.$name;)+
            }

            /// Reads what [`line`](Totals::line) wrote.
            pub fn from_line(line: &str) -> Option<Totals> {
                let mut values = line.split_whitespace().map_while(|word| word.parse().ok());
                Some(Totals { $($name: { stringify!($name); values.next()? },)+ })
            }
        }
    };
}

totals! {
    /// Operations.
    operations,
    /// Lookups.
    lookups,
    /// Registrations that were compared with the program's memory.
    judged,
    /// Lookups during which the memory changed, so that nothing could be said.
    undecided,
    /// Lookups that got an error, as they must, since not all was mapped.
    unmapped,
    /// Lookups that were refused for want of room, or because this kernel does not pin such memory.
    refused,
    /// Lookups that got another thread's error of before the last change, and were repeated.
    repeated,
    /// Guards that were used again after a while.
    used,
    /// Changes.
    changes,
    /// Children forked.
    forks,
    /// Lookups that found a registration.
    hits,
    /// Lookups that did not.
    misses,
    /// Lookups that waited for another thread's registration.
    joined,
    /// Registrations that a cache found to have become stale.
    stale_caught,
    /// Registrations evicted.
    evicted,
    /// Registrations made anew because of an event while they were made.
    repinned,
    /// Registrations handed out uncached.
    uncached,
    /// Registrations made.
    registrations,
}

impl Totals {
    /// Adds what a cache counted.
    pub fn add_stats(&mut self, stats: &Stats) {
        self.hits += stats.hits;
        self.misses += stats.misses;
        self.joined += stats.joined;
        self.stale_caught += stats.stale;
        self.evicted += stats.evicted;
        self.repinned += stats.repinned;
        self.uncached += stats.uncached();
        self.registrations += stats.registrations;
    }

    /// The values, in order.
    pub fn line(&self) -> String {
        let values: Vec<_> = self.all().into_iter().map(|(_, value)| value.to_string()).collect();
        values.join(" ")
    }

    /// The members of a JSON object.
    pub fn json(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.all() {
            let _ = writeln!(text, "  \"{name}\": {value},");
        }
        text
    }
}

/// Counts one.
pub fn count(counter: &AtomicU64) {
    // Relaxed: a count says nothing about other memory.
    counter.fetch_add(1, Ordering::Relaxed);
}
