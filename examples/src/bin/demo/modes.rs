//! Where a program gets the keys of its buffers from.

use std::marker::PhantomData;

use regcache::monitor::{Manual, Monitor, Ummunotify};
use regcache::registrar::{Registrar, Verbs};
use regcache::{Access, AddressRange, Cache};

use examples::Result;
use examples::rdma::Device;

/// How registrations are kept.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Not at all: each transfer registers and deregisters. Always right, and slow.
    EveryTime,
    /// In a cache that nobody tells of changes, as one whose hooks do not see them.
    Unaided,
    /// In a cache that the kernel tells of changes.
    Regcache,
}

impl Mode {
    pub const ALL: [Mode; 3] = [Mode::EveryTime, Mode::Unaided, Mode::Regcache];

    pub fn name(self) -> &'static str {
        match self {
            Mode::EveryTime => "every-time",
            Mode::Unaided => "unaided",
            Mode::Regcache => "regcache",
        }
    }

    /// A source of keys that works in this way, with nothing registered yet.
    pub fn keys(self, device: &Device) -> Result<Keys<'_>> {
        // SAFETY: `Keys` borrows the device, and deregisters everything when it is dropped.
        let verbs = unsafe { Verbs::from_pd(device.pd()) }?;
        let source = match self {
            Mode::EveryTime => Source::EveryTime { verbs, registrations: 0 },
            Mode::Unaided => Source::Unaided(cache(verbs, Manual::new())?),
            Mode::Regcache => {
                let monitor = Ummunotify::open().map_err(|error| {
                    format!("{error}; `cargo xtask demo` boots a guest that has the kernel module")
                })?;
                Source::Regcache(cache(verbs, monitor)?)
            }
        };
        Ok(Keys { source, device: PhantomData })
    }
}

fn cache<M: Monitor>(verbs: Verbs, monitor: M) -> Result<Cache<Verbs, M>> {
    Ok(Cache::builder(verbs, monitor).max_regions(64).build()?)
}

/// Gives keys for memory.
pub struct Keys<'d> {
    source: Source,
    device: PhantomData<&'d Device>,
}

enum Source {
    EveryTime { verbs: Verbs, registrations: u64 },
    Unaided(Cache<Verbs, Manual>),
    Regcache(Cache<Verbs, Ummunotify>),
}

impl Keys<'_> {
    /// Calls `transfer` with the keys to send from `from` and to receive to `to`. The registrations
    /// stay at least until it returns.
    pub fn with<T>(
        &mut self,
        from: AddressRange,
        to: AddressRange,
        transfer: impl FnOnce(u32, u32) -> T,
    ) -> Result<T> {
        match &mut self.source {
            Source::EveryTime { verbs, registrations } => {
                // SAFETY: no peer can reach either.
                let send = unsafe { verbs.register(from, Access::empty()) }?;
                // SAFETY: as above.
                let receive = unsafe { verbs.register(to, Access::LOCAL_WRITE) }?;
                *registrations += 2;
                let result = transfer(send.lkey(), receive.lkey());
                verbs.deregister(&send)?;
                verbs.deregister(&receive)?;
                Ok(result)
            }
            Source::Unaided(cache) => cached(cache, from, to, transfer),
            Source::Regcache(cache) => cached(cache, from, to, transfer),
        }
    }

    /// How many registrations were made.
    pub fn registrations(&self) -> u64 {
        match &self.source {
            Source::EveryTime { registrations, .. } => *registrations,
            Source::Unaided(cache) => cache.stats().registrations,
            Source::Regcache(cache) => cache.stats().registrations,
        }
    }

    /// The share of lookups that needed no registration.
    pub fn hit_rate(&self) -> f64 {
        match &self.source {
            Source::EveryTime { .. } => 0.0,
            Source::Unaided(cache) => cache.stats().hit_rate(),
            Source::Regcache(cache) => cache.stats().hit_rate(),
        }
    }
}

fn cached<M: Monitor, T>(
    cache: &Cache<Verbs, M>,
    from: AddressRange,
    to: AddressRange,
    transfer: impl FnOnce(u32, u32) -> T,
) -> Result<T> {
    let send = cache.get_or_register(from.start(), from.len(), Access::empty())?;
    let receive = cache.get_or_register(to.start(), to.len(), Access::LOCAL_WRITE)?;
    Ok(transfer(send.lkey(), receive.lkey()))
}
