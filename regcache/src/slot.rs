//! Where a registration lives: a slot of a table that stays as long as the cache.
//!
//! A slot's *state* is a version and a phase in one word. Only who holds the cache's table lock
//! stores it; lookups load it without. A slot is reused, so a lookup may come upon one whose
//! registration it does not know: that is harmless, since slots never go, and since a lookup reads
//! the registration itself only when it *holds* the slot and has then found it valid.
//!
//! ```text
//!  Free ──reserve──▶ Pending ──publish──▶ Valid ──invalidate, evict──▶ Stale ──settle──▶ Dying
//!   ▲                   │                  ▲ │                                             │
//!   │                   │            verify│ │event                                        │
//!   └──────cancel───────┘                  │ ▼                                             │
//!   ▲                                   Suspect ──verify says no──▶ Stale                  │
//!   └──────────────────────────── version + 1 ◀────────────────────────────────────────────┘
//! ```

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::process::abort;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use nix::errno::Errno;

use crate::access::Access;
use crate::monitor::Cookie;
#[cfg(not(loom))]
use crate::pages::ZeroedSlice;
use crate::range::AddressRange;
use crate::registrar::Keys;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64};

pub(crate) type SlotId = u32;

/// What a slot is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    Free = 0,
    /// A thread is registering.
    Pending = 1,
    /// Can be found.
    Valid = 2,
    /// An event came, and the monitor is being asked whether it mattered.
    Suspect = 3,
    /// Cannot be found any more; whoever lets go of it looks whether it was the last.
    Stale = 4,
    /// Nobody holds it; it is being deregistered.
    Dying = 5,
    /// Not of the table: lent out once.
    Uncached = 6,
    /// As `Valid`, but only for who holds it by count: see [`crate::drain`], "When the barrier is
    /// refused".
    Counted = 7,
}

/// Holders by count of one slot. As many again would have to be adding themselves at once, each by a
/// thread of its own, for the count to wrap.
const MAX_REFERENCES: u32 = u32::MAX / 2;

/// Version and phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct State(u64);

impl State {
    fn new(version: u32, phase: Phase) -> State {
        State(u64::from(version) << 8 | phase as u64)
    }

    #[inline]
    pub(crate) fn is(self, phase: Phase) -> bool {
        self.0 as u8 == phase as u8
    }

    /// Valid, for who holds by a cell or by count.
    pub(crate) fn is_live(self) -> bool {
        self.is(Phase::Valid) || self.is(Phase::Counted)
    }

    /// Part of the cookie, so that an event of an earlier tenant is told from one of this.
    pub(crate) fn version(self) -> u32 {
        (self.0 >> 8) as u32
    }

    pub(crate) fn to(self, phase: Phase) -> State {
        State::new(self.version(), phase)
    }
}

/// A registration, from pin to unpin.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Body<T> {
    pub range: AddressRange,
    pub access: Access,
    pub keys: Keys,
    pub region: T,
}

/// One registration at a time. What every hit reads lies in one cache line.
#[repr(C, align(64))]
pub(crate) struct Slot<T> {
    state: AtomicU64,
    /// The monitor's generation of this slot, where it has one.
    generation: AtomicU64,
    /// Holders that have no cell.
    references: AtomicU32,
    /// Found since the clock's hand last came by.
    visited: AtomicBool,
    body: UnsafeCell<MaybeUninit<Body<T>>>,
}

// With what a hit writes into a cell, one line of the slot is all that it touches.
#[cfg(not(loom))]
const _: () = assert!(size_of::<Slot<usize>>() == 64);

// SAFETY: the body is written only by who has the slot to itself (`fill`, `take`), and read only by
// who holds it (`body`); their callers promise that. All else is atomic.
unsafe impl<T: Send + Sync> Sync for Slot<T> {}
// SAFETY: it owns the body, and all else is atomic.
unsafe impl<T: Send + Sync> Send for Slot<T> {}

impl<T> Slot<T> {
    pub(crate) fn new() -> Slot<T> {
        Slot {
            state: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            references: AtomicU32::new(0),
            visited: AtomicBool::new(false),
            body: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// A registration that is lent out once, in a slot of its own.
    pub(crate) fn uncached(body: Body<T>) -> Box<Slot<T>> {
        let slot = Slot::new();
        slot.set(State::new(0, Phase::Uncached));
        // SAFETY: nobody else knows of the slot.
        unsafe { slot.fill(body) };
        Box::new(slot)
    }

    /// Acquire pairs with the Release in `set`: who finds the slot valid finds the body. Asked by who
    /// has just begun to hold the slot or let go of it, it is not older than what the ender of the
    /// registration stored before it missed the hold: the near fence of a cell orders the one, and
    /// the count the other (see `references`).
    #[inline]
    pub(crate) fn state(&self) -> State {
        State(self.state.load(Ordering::Acquire))
    }

    /// The table's lock is held. Release pairs with the Acquire in `state`.
    pub(crate) fn set(&self, state: State) {
        self.state.store(state.0, Ordering::Release);
    }

    /// The monitor's word for this slot, as of its registration. Relaxed: it is compared by who has
    /// found the slot valid, and so sees at least the value of the publication; a later one is stored
    /// only for the same registration.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn set_generation(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// Remembers that the slot was found. Mostly a load: the line stays shared.
    #[inline]
    pub(crate) fn visit(&self) {
        // Relaxed: a hint for the clock.
        if !self.visited.load(Ordering::Relaxed) {
            self.visited.store(true, Ordering::Relaxed);
        }
    }

    /// Whether it was found since the last call. The table's lock is held.
    pub(crate) fn take_visited(&self) -> bool {
        let visited = self.visited.load(Ordering::Relaxed);
        if visited {
            self.visited.store(false, Ordering::Relaxed);
        }
        visited
    }

    /// AcqRel: see `references`. A program that leaks guards may come to the end of the numbers: it is
    /// aborted, as by `Arc`, since a count that wraps would free what is held.
    #[inline]
    pub(crate) fn add_reference(&self) {
        if self.references.fetch_add(1, Ordering::AcqRel) >= MAX_REFERENCES {
            abort();
        }
    }

    /// AcqRel: see `references`. It also releases what the holder did.
    #[inline]
    pub(crate) fn release_reference(&self) {
        self.references.fetch_sub(1, Ordering::AcqRel);
    }

    /// Releases one reference to a slot that [`uncached`](Slot::uncached) made, and returns whether
    /// it was the last. If it was not, another thread may free the slot before this returns: so only
    /// the count is borrowed, and not the slot.
    ///
    /// # Safety
    ///
    /// The caller has a reference, and gives it up.
    pub(crate) unsafe fn release_uncached(slot: NonNull<Slot<T>>) -> bool {
        // SAFETY: the slot lives until its last reference is released, which is this one or a later.
        let references = unsafe { &(*slot.as_ptr()).references };
        // AcqRel: what other holders did comes before the end of the slot.
        references.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// How many hold the slot by count, asked by who has made it stale.
    ///
    /// This adds nothing, as a read-modify-write, and so do the others: of this and a holder's, the
    /// one that comes later reads what the earlier one wrote, by AcqRel. So either this finds the
    /// holder (or finds it gone), or the holder's next look at the state finds it stale.
    pub(crate) fn references(&self) -> u32 {
        self.references.fetch_add(0, Ordering::AcqRel)
    }

    /// Whether somebody seems to hold the slot by count.
    pub(crate) fn seems_referenced(&self) -> bool {
        // Relaxed: a hint for the clock and for people.
        self.references.load(Ordering::Relaxed) > 0
    }

    /// Puts a registration into the slot.
    ///
    /// # Safety
    ///
    /// The slot is pending and the caller's own, and holds no registration.
    pub(crate) unsafe fn fill(&self, body: Body<T>) {
        // SAFETY: nobody reads or writes the body of a pending slot but its owner.
        unsafe { (*self.body.get()).write(body) };
    }

    /// The registration in the slot.
    ///
    /// # Safety
    ///
    /// The slot has one, and keeps it for the life of the reference: the caller holds the slot and
    /// has found it valid since; or holds the table's lock, and the slot is not free or pending.
    #[inline]
    pub(crate) unsafe fn body(&self) -> &Body<T> {
        // SAFETY: it is filled, and `take` is not called while somebody may read.
        unsafe { (*self.body.get()).assume_init_ref() }
    }

    /// Takes the registration out of the slot.
    ///
    /// # Safety
    ///
    /// The slot has one, nobody holds the slot, and nobody else can come to read it.
    pub(crate) unsafe fn take(&self) -> Body<T> {
        // SAFETY: it is filled, and the caller has it to itself. Nobody reads it again before `fill`.
        unsafe { (*self.body.get()).assume_init_read() }
    }
}

/// All slots of a cache. A clone is the same slots.
pub(crate) struct Slots<T> {
    /// Of `pages`, so that a lookup finds them in one step.
    first: NonNull<Slot<T>>,
    count: u32,
    pages: Arc<SlotPages<T>>,
}

#[cfg(not(loom))]
type SlotPages<T> = ZeroedSlice<Slot<T>>;
#[cfg(loom)]
type SlotPages<T> = Box<[Slot<T>]>;

#[cfg(not(loom))]
fn new_slots<T>(count: u32) -> Result<SlotPages<T>, Errno> {
    // SAFETY: a slot of zeros is a free one: integers, and a body that need not be initialised.
    unsafe { ZeroedSlice::new(count as usize) }
}

#[cfg(loom)]
fn new_slots<T>(count: u32) -> Result<SlotPages<T>, Errno> {
    Ok((0..count).map(|_| Slot::new()).collect())
}

// SAFETY: `first` points into `pages`, which may be sent and shared if slots may.
unsafe impl<T: Send + Sync> Send for Slots<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Sync for Slots<T> {}

impl<T> Clone for Slots<T> {
    fn clone(&self) -> Self {
        Slots { first: self.first, count: self.count, pages: self.pages.clone() }
    }
}

impl<T> Slots<T> {
    pub(crate) fn new(count: u32) -> Result<Slots<T>, Errno> {
        let pages = Arc::new(new_slots(count)?);
        Ok(Slots { first: NonNull::from(&pages[..]).cast(), count, pages })
    }

    /// The slot of this number, if there is one: any number may be asked for.
    #[inline]
    pub(crate) fn get(&self, id: u64) -> Option<&Slot<T>> {
        // SAFETY: `pages` has `count` slots and is never moved or changed while it lives.
        (id < self.count.into()).then(|| unsafe { self.first.add(id as usize).as_ref() })
    }

    pub(crate) fn len(&self) -> u32 {
        self.count
    }

    /// The number of a slot of this table.
    #[inline]
    pub(crate) fn id_of(&self, slot: &Slot<T>) -> SlotId {
        let offset = std::ptr::from_ref(slot) as usize - self.first.as_ptr() as usize;
        (offset / size_of::<Slot<T>>()) as SlotId
    }

    /// The name of the slot's present tenant.
    pub(crate) fn cookie(&self, id: SlotId) -> Cookie {
        Cookie(u64::from(self[id].state().version()) << 32 | u64::from(id))
    }
}

impl<T> std::ops::Index<SlotId> for Slots<T> {
    type Output = Slot<T>;

    #[inline]
    fn index(&self, id: SlotId) -> &Slot<T> {
        self.get(id.into()).expect("a slot of this cache")
    }
}

impl State {
    /// Free again, under a new version; `None` when all versions have been used.
    pub(crate) fn next(self, phase: Phase) -> Option<State> {
        Some(State::new(self.version().checked_add(1)?, phase))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use nix::sys::signal::Signal;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_count_that_would_wrap_aborts() {
        let slot = Slot::<u32>::new();
        slot.references.store(MAX_REFERENCES - 1, Ordering::SeqCst);
        slot.add_reference();
        assert_eq!(slot.references(), MAX_REFERENCES);
        // SAFETY: the child makes one atomic access and ends: it takes no lock and no memory.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                slot.add_reference();
                // SAFETY: it ends the child, and runs nothing of this process's.
                unsafe { libc::_exit(0) }
            }
            ForkResult::Parent { child } => {
                let ended = waitpid(child, None).unwrap();
                assert!(matches!(ended, WaitStatus::Signaled(_, Signal::SIGABRT, _)), "{ended:?}");
            }
        }
    }
}
