//! Who holds what: one block of cells for each thread.
//!
//! A holder writes the number of the slot that it holds into a cell of its thread's block, with a
//! plain store. Who wants to end a registration makes it stale, goes through the far side of the
//! barrier, and then looks into all cells of all threads. These are hazard pointers
//! (M. Michael, IEEE TPDS 2004), made asymmetric by membarrier(2).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::access::Access;
use crate::barrier::Barrier;
use crate::hints::{GRANULE_BITS, spread};
use crate::lock::Lock;
#[cfg(not(loom))]
use crate::pages::WipedAtFork;
use crate::slot::SlotId;
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, near_fence};

/// Registrations that a thread holds by cells; more are held by count.
#[cfg(not(loom))]
pub(crate) const CELLS: usize = 256;
#[cfg(loom)]
pub(crate) const CELLS: usize = 2;

/// Pages that a thread remembers the slots of.
#[cfg(not(loom))]
const FRONT: usize = 4096;
#[cfg(loom)]
const FRONT: usize = 1;

/// How many lookups go by until a thread whose cells were all in use looks for a free one again.
const PATIENCE: u32 = 64;

/// Holds a slot, or nothing.
#[derive(Debug)]
pub(crate) struct HoldCell(AtomicU32);

impl HoldCell {
    /// From here on, who makes the slot stale, goes through the barrier and then scans, finds the
    /// hold; or this thread finds the slot stale when it loads its state next.
    #[inline]
    pub(crate) fn hold(&self, slot: SlotId) {
        // Release: a scan that finds it finds the block's high-water mark too.
        self.0.store(slot + 1, Ordering::Release);
        near_fence();
    }

    /// From here on, a scan finds the cell empty; or this thread finds the slot stale when it loads
    /// its state next. Called by whichever thread has the hold.
    #[inline]
    pub(crate) fn release(&self) {
        // Release pairs with the Acquire in `held`: what the holder did comes before the
        // deregistration.
        self.0.store(0, Ordering::Release);
        near_fence();
    }

    #[inline]
    fn held(&self) -> Option<SlotId> {
        // Acquire pairs with the Release in `release`, after which the holder does not touch the cell any
        // more, and with that in `hold`.
        self.0.load(Ordering::Acquire).checked_sub(1)
    }

    /// Nothing is ever held by it.
    fn close(&self) {
        // Relaxed: before anybody else knows of the block.
        self.0.store(SlotId::MAX, Ordering::Relaxed);
    }

    #[inline]
    fn is_free(&self) -> bool {
        // Acquire pairs with the Release in `release`, which another thread may have made: what that
        // holder did comes before the owner's next hold, whose value a scan may find instead of 0.
        self.0.load(Ordering::Acquire) == 0
    }
}

/// The cells of one thread, and what else it keeps for itself. It lies in pages of its own, so that
/// no two threads' blocks are neighbours in a processor's cache, and a forked child finds zeros: it
/// remembers no slot, so that each of its lookups takes the long way, where it is refused.
#[repr(C)]
pub(crate) struct Block {
    /// So that nothing here has an offset in its page that what a hit loads of a slot has too: to
    /// some processors a load after a store at the same offset looks like a load of what was stored.
    _shift: [u64; 8],
    cells: [HoldCell; CELLS],
    /// The last cell that may have been used.
    last: AtomicU32,
    /// Lookups that hit.
    hits: AtomicU64,
    /// A thread has the block.
    owned: AtomicBool,
    /// Its owner knows that holds are counted: it holds nothing more by a cell.
    counts: AtomicBool,
    /// Where to look for a free cell. Its owner's.
    cursor: Cell<u32>,
    /// Lookups to go until a full block is looked through again. Its owner's.
    patience: Cell<u32>,
    /// The slots that were last found, by page. Its owner's.
    front: [Cell<Remembered>; FRONT],
}

// SAFETY: `cursor`, `patience` and `front` are reached through `Owned` only, of which one thread has
// one at a time. All else is atomic.
unsafe impl Sync for Block {}

impl Block {
    /// A block of zeros is one that nobody has used.
    #[cfg(loom)]
    fn new() -> Block {
        Block {
            _shift: [0; 8],
            cells: std::array::from_fn(|_| HoldCell(AtomicU32::new(0))),
            last: AtomicU32::new(0),
            hits: AtomicU64::new(0),
            owned: AtomicBool::new(false),
            counts: AtomicBool::new(false),
            cursor: Cell::new(0),
            patience: Cell::new(0),
            front: std::array::from_fn(|_| Cell::new(Remembered(0))),
        }
    }

    /// Lets another thread have the block. Holds that are still in it stay good.
    pub(crate) fn abandon(&self) {
        // Release pairs with the Acquire in `Blocks::claim`.
        self.owned.store(false, Ordering::Release);
    }

    /// The block, for the thread that owns it.
    ///
    /// # Safety
    ///
    /// The caller got it by [`Blocks::claim`] and has not abandoned it, and no other thread uses it
    /// meanwhile.
    #[inline]
    pub(crate) unsafe fn owned(&self) -> Owned<'_> {
        Owned(self)
    }
}

/// A page's tag above, and the number of a slot plus one below; or zero. With the tag taken off, only
/// the page's own slot is a small number, so that no other page's slot is looked at in vain.
#[derive(Clone, Copy)]
struct Remembered(u64);

/// Where a thread remembers the slot that was found for a page and a kind of access.
#[derive(Clone, Copy)]
pub(crate) struct PageHash {
    place: usize,
    /// The lower half is zero.
    tag: u64,
}

impl PageHash {
    #[inline]
    pub(crate) fn of(addr: usize, access: Access) -> PageHash {
        let product = spread(addr as u64 >> GRANULE_BITS);
        // The rights are few and mostly known where this is compiled: they move the place.
        let place = (product >> 52) as usize ^ (access.bits() as usize).wrapping_mul(0x2b);
        PageHash { place: place % FRONT, tag: product << 32 }
    }
}

/// A block, in the hands of the thread that owns it.
#[derive(Clone, Copy)]
pub(crate) struct Owned<'b>(&'b Block);

impl<'b> Owned<'b> {
    /// A cell to hold something by, if the next one is free.
    #[inline]
    pub(crate) fn next_cell(self) -> Option<&'b HoldCell> {
        let cell = &self.0.cells[self.0.cursor.get() as usize % CELLS];
        cell.is_free().then_some(cell)
    }

    /// A cell to hold something by; `None` if all are in use.
    pub(crate) fn free_cell(self) -> Option<&'b HoldCell> {
        self.next_cell().or_else(|| self.search())
    }

    #[cold]
    #[inline(never)]
    fn search(self) -> Option<&'b HoldCell> {
        let block = self.0;
        if block.patience.get() > 0 {
            block.patience.set(block.patience.get() - 1);
            return None;
        }
        // Round from the cursor on, so that holds that end in the order in which they began find the
        // next cell free at once; then one that was never used.
        let (start, last) = (block.cursor.get(), block.last.load(Ordering::Relaxed));
        let unused = (last + 1).min(CELLS as u32 - 1);
        let mut round = (start..=last).chain(0..start).chain([unused]);
        let found = round.find(|n| block.cells[*n as usize].is_free());
        let Some(n) = found else {
            block.patience.set(PATIENCE);
            return None;
        };
        if n > last {
            // Before the cell's first use: who must find a hold in it, finds this.
            block.last.store(n, Ordering::Release);
        }
        block.cursor.set(n);
        Some(&block.cells[n as usize])
    }

    /// The number of the slot that was last found for this page; a number that no slot has if none
    /// is remembered.
    #[inline]
    pub(crate) fn recall(self, page: PageHash) -> u64 {
        let Remembered(entry) = self.0.front[page.place].get();
        (entry ^ page.tag).wrapping_sub(1)
    }

    #[inline]
    pub(crate) fn remember(self, page: PageHash, slot: SlotId) {
        self.0.front[page.place].set(Remembered(page.tag | (u64::from(slot) + 1)));
    }

    /// The owner knows that holds are counted.
    pub(crate) fn counts_from_now_on(self) {
        // Relaxed: only the owner stores it.
        if !self.0.counts.load(Ordering::Relaxed) {
            // Release pairs with the Acquire in `all_count`: every hold by a cell comes before.
            self.0.counts.store(true, Ordering::Release);
        }
    }

    #[inline]
    pub(crate) fn count_hit(self) {
        // Relaxed, and no read-modify-write: only the owner counts.
        self.0.hits.store(self.0.hits.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }
}

/// Blocks without a thread that are kept for the next ones, beside as many as there are threads.
#[cfg(not(loom))]
const SPARE: usize = 64;
#[cfg(loom)]
const SPARE: usize = 2;

/// The blocks of all threads that have used a cache.
pub(crate) struct Blocks {
    barrier: Barrier,
    list: Lock<Vec<Arc<BlockPages>>>,
    /// Hits counted in blocks that are gone.
    past_hits: AtomicU64,
}

/// The memory of a block.
#[cfg(not(loom))]
pub(crate) type BlockPages = WipedAtFork<Block>;
#[cfg(loom)]
pub(crate) type BlockPages = Box<Block>;

#[cfg(not(loom))]
fn new_block() -> Option<BlockPages> {
    // SAFETY: a block of zeros is one that nobody has used, and it needs no drop.
    unsafe { WipedAtFork::new() }.ok()
}

#[cfg(loom)]
fn new_block() -> Option<BlockPages> {
    Some(Box::new(Block::new()))
}

impl Blocks {
    pub(crate) fn new(barrier: Barrier) -> Blocks {
        Blocks { barrier, list: Lock::new(Vec::new()), past_hits: AtomicU64::new(0) }
    }

    /// A block for this thread: one that another thread has abandoned, or a new one. `None` where
    /// there is no memory for one.
    pub(crate) fn claim(&self) -> Option<Arc<BlockPages>> {
        let mut blocks = self.list.lock();
        // Acquire pairs with the Release in `abandon`: the last owner has done with it.
        let abandoned = blocks.iter().position(|b| !b.owned.load(Ordering::Acquire));
        let at = match abandoned {
            Some(at) => at,
            None => {
                let block = new_block()?;
                if self.barrier == Barrier::Atomic {
                    block.cells.iter().for_each(HoldCell::close);
                }
                blocks.push(Arc::new(block));
                blocks.len() - 1
            }
        };
        // The lock is held, and only who holds it claims.
        blocks[at].owned.store(true, Ordering::Relaxed);
        Some(blocks[at].clone())
    }

    /// The slots that are held by cells, ascending. It is the truth for slots that were made stale
    /// before the caller went through the barrier, and a hint for others.
    pub(crate) fn held(&self) -> Vec<SlotId> {
        let mut held = Vec::new();
        let mut blocks = self.list.lock();
        let mut unused = 0;
        for block in blocks.iter() {
            // Before the cells. Acquire pairs with the Release in `abandon`: the last owner's cells are
            // as it left them.
            let owned = block.owned.load(Ordering::Acquire);
            let before = held.len();
            // Acquire pairs with the Release in `search`.
            let last = block.last.load(Ordering::Acquire) as usize;
            held.extend(block.cells[..=last].iter().filter_map(HoldCell::held));
            unused += usize::from(!owned && held.len() == before);
        }
        let spare = SPARE.max(blocks.len() - unused);
        if unused > spare {
            self.forget(&mut blocks, unused - spare);
        }
        held.sort_unstable();
        held
    }

    /// Frees blocks that no thread has and by which nothing is held. Nobody comes to hold anything by
    /// them: claims take the list's lock.
    fn forget(&self, blocks: &mut Vec<Arc<BlockPages>>, mut most: usize) {
        blocks.retain(|block| {
            let idle = !block.owned.load(Ordering::Acquire)
                && block.cells.iter().all(|cell| cell.held().is_none());
            let keep = most == 0 || !idle;
            if !keep {
                most -= 1;
                // Relaxed: a count.
                self.past_hits.fetch_add(block.hits.load(Ordering::Relaxed), Ordering::Relaxed);
            }
            keep
        });
    }

    /// How many blocks there are.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.list.lock().len()
    }

    /// Whether every thread knows that holds are counted, so that its cells are as they are seen, with
    /// no barrier. Asked after that was made known to all.
    pub(crate) fn all_count(&self) -> bool {
        // Acquire pairs with the Release in `abandon` and in `counts_from_now_on`. A thread that
        // claims a block later takes the list's lock later, and so knows.
        let counts = |block: &BlockPages| {
            !block.owned.load(Ordering::Acquire) || block.counts.load(Ordering::Acquire)
        };
        self.list.lock().iter().all(|block| counts(block))
    }

    pub(crate) fn hits(&self) -> u64 {
        let blocks = self.list.lock();
        let hits = blocks.iter().map(|block| block.hits.load(Ordering::Relaxed));
        hits.sum::<u64>() + self.past_hits.load(Ordering::Relaxed)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn an_abandoned_block_is_taken_over_with_what_is_held() {
        let blocks = Blocks::new(Barrier::Membarrier);
        let first = blocks.claim().unwrap();
        let second = blocks.claim().unwrap();
        assert!(!Arc::ptr_eq(&first, &second), "each thread has its own");
        // SAFETY: only this thread uses the block.
        let cell = unsafe { first.owned() }.free_cell().unwrap();
        cell.hold(7);
        first.abandon();
        let again = blocks.claim().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert_eq!(blocks.held(), [7]);
        // SAFETY: as above.
        unsafe { again.owned() }.free_cell().unwrap().hold(3);
        assert_eq!(blocks.held(), [3, 7]);
        cell.release();
        assert_eq!(blocks.held(), [3]);
    }

    #[test]
    fn all_cells_can_be_used_and_found_again() {
        let blocks = Blocks::new(Barrier::Membarrier);
        let block = blocks.claim().unwrap();
        // SAFETY: only this thread uses the block.
        let owned = unsafe { block.owned() };
        let cells: Vec<_> = (0..CELLS as SlotId)
            .map(|slot| {
                let cell = owned.free_cell().unwrap();
                cell.hold(slot);
                cell
            })
            .collect();
        assert!(owned.free_cell().is_none());
        assert_eq!(blocks.held(), (0..CELLS as SlotId).collect::<Vec<_>>());
        cells[100].release();
        let found = (0..=PATIENCE).find_map(|_| owned.free_cell());
        assert!(std::ptr::eq(found.unwrap(), cells[100]), "after a while");
    }

    #[test]
    fn blocks_of_many_threads_of_once_are_freed_but_for_what_is_held() {
        let blocks = Blocks::new(Barrier::Membarrier);
        let claimed: Vec<_> = (0..2000).map(|_| blocks.claim().unwrap()).collect();
        assert_eq!(blocks.held(), []);
        assert_eq!(blocks.count(), 2000, "all have a thread");
        // SAFETY: only this thread uses the block.
        let cells = [7, 1900].map(|n| unsafe { claimed[n].owned() }.free_cell().unwrap());
        (1..).zip(cells).for_each(|(slot, cell)| cell.hold(slot));
        // SAFETY: as above.
        unsafe { claimed[3].owned() }.count_hit();
        claimed.iter().for_each(|block| block.abandon());
        assert_eq!(blocks.held(), [1, 2]);
        assert_eq!((blocks.count(), blocks.hits()), (SPARE + 2, 1));
        cells.into_iter().for_each(HoldCell::release);
        assert_eq!(blocks.held(), []);
        assert!(blocks.count() >= SPARE);
        let again: Vec<_> = (0..SPARE).map(|_| blocks.claim().unwrap()).collect();
        assert!(again.iter().all(|new| claimed.iter().any(|old| Arc::ptr_eq(old, new))));
    }

    #[test]
    fn where_holds_are_counted_no_cell_is_free() {
        let blocks = Blocks::new(Barrier::Atomic);
        let block = blocks.claim().unwrap();
        // SAFETY: only this thread uses the block.
        let owned = unsafe { block.owned() };
        assert!(owned.next_cell().is_none() && owned.free_cell().is_none());
    }
}
