//! The path of a hit: no lock, no allocation, no system call, and where membarrier(2) serves no
//! read-modify-write.
//!
//! # Why a hit is never stale
//!
//! `seen` is a generation of the monitor up to which every event has been *marked*: the registrations
//! concerned are not valid any more. A lookup loads `seen`, then the monitor's generation, then the
//! slot's state. The monitor's generation moves before a mapping changes, so a lookup that starts
//! after the change loads a generation of at least that change. If `seen` is equal to it, the change
//! was marked before `seen` was stored, and the Acquire load of `seen` lets the later load of the
//! state see the mark. A thread that is in the middle of draining has not stored `seen` yet.
//!
//! Where the monitor has a word for each slot, it is compared with the one that was loaded before the
//! registration's watch began. It never goes back, so equality says that nothing has happened to this
//! range since, whatever else was drained or not.
//!
//! # Why what is held stays
//!
//! A lookup writes the slot into a cell of its own, *then* loads the slot's state. Who ends a
//! registration makes the slot stale, goes through the far side of the [barrier](crate::barrier),
//! *then* looks into the cells. So either the one sees the cell, or the other sees that the slot is
//! stale and lets go of it. In the same way, who lets go empties the cell and then loads the state:
//! either the scan sees the empty cell, or the holder sees that the slot is stale and settles it. A
//! slot may have come to hold another registration between being found and being held. That is no
//! matter: what the slot holds once it is held and found valid is looked at, not what it held before.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use crate::access::Access;
use crate::barrier::Barrier;
use crate::cells::{HoldCell, Owned, PageHash};
use crate::guard::Guard;
use crate::monitor::Monitor;
use crate::registrar::Registrar;
use crate::shared::{Shared, SlotOf};
use crate::slot::{Phase, SlotId, State};

impl<R: Registrar, M: Monitor> Shared<R, M> {
    /// A registration of the `len` bytes at `addr`, if it is the one that this thread last found for
    /// that page. In a forked child no thread remembers any.
    ///
    /// This much stands at the place of the call, so that nothing goes through memory that can go
    /// through registers. All else is out of the way.
    #[inline(always)]
    pub(crate) fn hit<'c>(
        &'c self,
        block: Owned<'c>,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Option<Guard<'c, R, M>> {
        let id = block.recall(PageHash::of(addr, access));
        let slot = self.slots.get(id)?;
        let id = id as SlotId;
        let cell = block.next_cell();
        match cell {
            Some(cell) => cell.hold(id),
            None if self.barrier == Barrier::Atomic => slot.add_reference(),
            // The next one is in use; another may be free.
            None => return None,
        }
        if !self.is_good(id, slot, addr, len, access, |state| state.is(Phase::Valid)) {
            self.let_go_of_wrong(slot, cell);
            return None;
        }
        slot.visit();
        block.count_hit();
        // SAFETY: the slot is held, by `cell` or by count, and was found valid since.
        Some(unsafe { Guard::new(self, NonNull::from(slot), cell) })
    }

    #[cold]
    #[inline(never)]
    fn let_go_of_wrong(&self, slot: &SlotOf<R>, cell: Option<&HoldCell>) {
        self.let_go_of(slot, cell);
    }

    /// A registration of the `len` bytes at `addr`, if the hints lead to one. The long way of a hit,
    /// still without a lock.
    pub(crate) fn hit_by_hints<'c>(
        &'c self,
        block: Option<Owned<'c>>,
        addr: usize,
        len: usize,
        access: Access,
    ) -> Option<Guard<'c, R, M>> {
        self.hints.find(addr, len, access, |id| {
            let slot = self.slots.get(id.into())?;
            let cell = self.hold(block, id);
            let good = |state: State| state.is(Phase::Valid) || cell.is_none() && state.is_live();
            if !self.is_good(id, slot, addr, len, access, good) {
                self.let_go_of(slot, cell);
                return None;
            }
            slot.visit();
            match block {
                Some(block) => {
                    block.remember(PageHash::of(addr, access), id);
                    block.count_hit();
                }
                None => _ = self.counters.other_hits.add(1),
            }
            // SAFETY: the slot is held, by `cell` or by count, and was found valid since.
            Some(unsafe { Guard::new(self, NonNull::from(slot), cell) })
        })
    }

    /// Whether holds are by count; the thread's block then says that the thread knows.
    pub(crate) fn learn_of_counting(&self, block: Option<Owned<'_>>) -> bool {
        // Acquire pairs with the Release in `count_holds`: who knows of it finds no slot valid any
        // more, only counted.
        let counted = self.counted.load(Ordering::Acquire);
        if let (true, Some(block)) = (counted, block) {
            block.counts_from_now_on();
        }
        counted
    }

    /// Holds a slot: by a cell of this thread, or by count.
    pub(crate) fn hold<'c>(&'c self, block: Option<Owned<'c>>, id: SlotId) -> Option<&'c HoldCell> {
        let counted = self.learn_of_counting(block);
        let cell = block.filter(|_| !counted).and_then(Owned::free_cell);
        match cell {
            Some(cell) => cell.hold(id),
            None => self.slots[id].add_reference(),
        }
        cell
    }

    /// Whether the slot, which is held, is in a good state, fresh, and covers what is wanted.
    #[inline(always)]
    fn is_good(
        &self,
        id: SlotId,
        slot: &SlotOf<R>,
        addr: usize,
        len: usize,
        access: Access,
        good: impl Fn(State) -> bool,
    ) -> bool {
        let word = self.monitor.slot_generation(id);
        // Before the state.
        if word.is_none() && !self.is_fresh() {
            return false;
        }
        if !good(slot.state()) {
            return false;
        }
        // SAFETY: the slot is held, and was found valid since.
        let body = unsafe { slot.body() };
        // What is empty or wraps takes the long way, to an error.
        let end = addr.wrapping_add(len);
        let covers = addr < end && body.range.start() <= addr && end <= body.range.end();
        covers
            && (body.access == access || body.access.serves_read(access))
            && word.is_none_or(|word| word == slot.generation())
    }

    /// Ends a hold, and the registration if this was the last hold on a stale one.
    #[inline]
    pub(crate) fn let_go_of(&self, slot: &SlotOf<R>, cell: Option<&HoldCell>) {
        match cell {
            Some(cell) => cell.release(),
            None => slot.release_reference(),
        }
        if slot.state().is(Phase::Stale) {
            self.settle_zombie(slot);
        }
    }
}
