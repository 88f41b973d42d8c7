//! What a cache consists of. The guards point to it, so it stays where it is.
//!
//! # Locks
//!
//! `drainer` serialises drains, marking included; `table` is taken inside it or alone; the lists of
//! [`blocks`](Shared::blocks) and `outside` are leaves. `table` is never held while memory is pinned,
//! unpinned, watched, unwatched or verified, nor while anybody waits for another thread. A thread that
//! is inside one of them, and in a callback or the allocator, is refused: see [`lock`].

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};

use crate::barrier::Barrier;
use crate::builder::Settings;
use crate::cells::Blocks;
use crate::error::Error;
use crate::fork::Owner;
use crate::hints::Hints;
use crate::lock::{self, Lock};
use crate::monitor::{Invalid, Monitor, MonitorError};
use crate::outside::Outside;
use crate::registrar::Registrar;
use crate::slot::{Body, Slot, Slots};
use crate::stats::Counters;
use crate::table::{Dead, Table};
use crate::tls::CacheId;

pub(crate) type BodyOf<R> = Body<<R as Registrar>::Region>;
pub(crate) type SlotOf<R> = Slot<<R as Registrar>::Region>;
pub(crate) type DeadOf<R> = Dead<<R as Registrar>::Region>;
type SlotsOf<R> = Slots<<R as Registrar>::Region>;
type TableOf<R> = Table<<R as Registrar>::Region>;

pub(crate) struct Shared<R: Registrar, M: Monitor> {
    // What a hit reads.
    pub id: CacheId,
    pub owner: Owner,
    pub barrier: Barrier,
    /// A generation of the monitor up to which every event has been marked in the table.
    pub seen: AtomicU64,
    pub monitor: M,
    pub slots: SlotsOf<R>,
    pub hints: Arc<Hints>,
    pub blocks: Blocks,
    // What a miss needs besides.
    pub registrar: R,
    pub settings: Settings,
    /// The barrier was refused: holds are counted. Stored under the table's lock.
    pub counted: AtomicBool,
    /// Somebody let go of what is stale while it could not take the lock.
    pub unsettled: AtomicBool,
    /// The monitor has lost events: nothing is cached any more.
    pub blind: AtomicBool,
    /// What it said when it lost them.
    pub blinded_by: OnceLock<MonitorError>,
    pub drainer: Lock<Vec<Invalid>>,
    pub table: Lock<TableOf<R>>,
    /// Registrations that the table does not know, or does not know any more.
    pub outside: Lock<Outside<R::Region>>,
    pub counters: Counters,
}

impl<R: Registrar, M: Monitor> Shared<R, M> {
    pub(crate) fn new(registrar: R, monitor: M, settings: Settings) -> Result<Self, Error> {
        let owner = Owner::current().map_err(|errno| Error::ForkDetection { errno })?;
        let limits = settings.limits;
        let no_memory = |errno| Error::NoMemory { regions: limits.regions, errno };
        let slots = Slots::new(limits.slots()).map_err(no_memory)?;
        let hints = Arc::new(Hints::new(limits.regions).map_err(no_memory)?);
        // Nothing is watched yet, so no event up to now concerns this cache.
        let seen = AtomicU64::new(monitor.generation());
        Ok(Shared {
            id: CacheId::new(),
            owner,
            barrier: settings.barrier,
            seen,
            monitor,
            table: Lock::new(Table::new(limits, slots.clone(), hints.clone())),
            slots,
            hints,
            blocks: Blocks::new(settings.barrier),
            registrar,
            settings,
            counted: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            blind: AtomicBool::new(false),
            blinded_by: OnceLock::new(),
            drainer: Lock::new(Vec::new()),
            outside: Lock::new(Outside::new()),
            counters: Counters::default(),
        })
    }

    /// Every public function that takes a lock asks this before. In a forked child nobody may ever
    /// release it, and a thread that is inside one of the cache's locks would wait for itself.
    pub(crate) fn may_lock(&self) -> Result<(), Error> {
        match () {
            () if self.owner.is_foreign() => Err(Error::Forked),
            () if lock::is_inside() => Err(Error::Reentered),
            () => Ok(()),
        }
    }
}
