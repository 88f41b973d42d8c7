//! Finds the present thread's block of cells for a cache.

use std::cell::{Cell, RefCell};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::cells::{Block, BlockPages, Blocks, Owned};

/// Names a cache; never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CacheId(u64);

impl CacheId {
    const NONE: CacheId = CacheId(0);
}

impl CacheId {
    pub(crate) fn new() -> CacheId {
        static LAST: AtomicU64 = AtomicU64::new(0);
        // Relaxed: a number says nothing about other memory.
        CacheId(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}

/// Caches whose block is found in one step; a thread may use more.
const RECENT: usize = 4;

thread_local! {
    /// Where the blocks are. No destructor, so that reaching it is a load.
    static NEAR: [Cell<(CacheId, NonNull<Block>)>; RECENT] =
        const { [const { Cell::new((CacheId::NONE, NonNull::dangling())) }; RECENT] };
    static OWN: RefCell<OwnBlocks> = const { RefCell::new(OwnBlocks(Vec::new())) };
}

/// A number that no two living threads share.
pub(crate) fn this_thread() -> usize {
    thread_local!(static HERE: Cell<u8> = const { Cell::new(0) });
    HERE.with(|here| ptr::from_ref(here) as usize)
}

/// The blocks that this thread has claimed, and abandons when it exits.
struct OwnBlocks(Vec<(CacheId, Arc<BlockPages>)>);

impl Drop for OwnBlocks {
    fn drop(&mut self) {
        // Destructors that run after this one must not find the blocks.
        let _ = NEAR
            .try_with(|near| near.iter().for_each(|n| n.set((CacheId::NONE, NonNull::dangling()))));
        self.0.iter().for_each(|(_, block)| block.abandon());
    }
}

/// This thread's block for the cache of this name, if it has been used lately.
#[inline]
pub(crate) fn near(cache: CacheId, _blocks: &Blocks) -> Option<Owned<'_>> {
    NEAR.try_with(|near| {
        let (id, block) = near[cache.0 as usize % RECENT].get();
        // SAFETY: the name is this cache's, so the block is one of `blocks`; this thread claimed it, and
        // clears the entry when it abandons it. The cache, which lives for the borrow, keeps a block as
        // long as it is owned or something is held by it.
        (id == cache).then(|| unsafe { block.as_ref().owned() })
    })
    .ok()
    .flatten()
}

/// As [`near`], and claims a block where this thread has none. `None` in the last moments of a
/// thread.
pub(crate) fn own(cache: CacheId, blocks: &Blocks) -> Option<Owned<'_>> {
    if let Some(owned) = near(cache, blocks) {
        return Some(owned);
    }
    OWN.try_with(|own| {
        let own = &mut own.try_borrow_mut().ok()?.0;
        if !own.iter().any(|(id, _)| *id == cache) {
            // What nobody else has any more belongs to caches that are gone.
            own.retain(|(_, block)| Arc::strong_count(block) > 1);
            own.push((cache, blocks.claim()?));
        }
        let (_, block) = own.iter().find(|(id, _)| *id == cache)?;
        NEAR.try_with(|near| {
            near[cache.0 as usize % RECENT].set((cache, NonNull::<Block>::from(&***block)))
        })
        .ok()?;
        Some(())
    })
    .ok()
    .flatten()?;
    near(cache, blocks)
}
