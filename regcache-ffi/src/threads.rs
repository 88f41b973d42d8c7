//! Finds the present thread's lessee of a cache.

use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::Arc;

use crate::create::CacheBody;
use crate::failure::Failure;
use crate::lessee::Lessee;

/// Caches whose lessee is found in one step; a thread may use more.
const RECENT: usize = 4;

/// The name of no cache, and not that of a closed handle.
const NOBODY: u64 = u64::MAX;

thread_local! {
    /// Where the lessees are. No destructor, so that reaching it is a load.
    static NEAR: [Cell<(u64, *const Lessee)>; RECENT] =
        const { [const { Cell::new((NOBODY, ptr::null())) }; RECENT] };
    static OWN: RefCell<Own> = const { RefCell::new(Own(Vec::new())) };
}

/// The lessees that this thread has claimed, and abandons when it exits.
struct Own(Vec<(u64, Arc<Lessee>)>);

impl Drop for Own {
    fn drop(&mut self) {
        // Destructors that run after this one must not find them.
        let _ = NEAR.try_with(|near| near.iter().for_each(|n| n.set((NOBODY, ptr::null()))));
        self.0.iter().for_each(|(_, lessee)| lessee.abandon());
    }
}

/// This thread's lessee for the cache of this name, if it has been used lately.
///
/// # Safety
///
/// The cache is not destroyed while the result is used.
#[inline]
pub(crate) unsafe fn near<'c>(id: u64) -> Option<&'c Lessee> {
    NEAR.try_with(|near| {
        let (name, lessee) = near[id as usize % RECENT].get();
        // SAFETY: the cache keeps its lessees as long as it lives, and names are not used twice.
        // This thread claimed it, and clears the entry when it abandons it.
        (name == id).then(|| unsafe { &*lessee })
    })
    .ok()
    .flatten()
}

/// Calls `with` with a lessee for this thread: its own, or, in the last moments of a thread, one for
/// the occasion.
pub(crate) fn with_lessee<T>(
    cache: &CacheBody,
    with: impl FnOnce(&Lessee) -> Result<T, Failure>,
) -> Result<T, Failure> {
    match own(cache) {
        Some(lessee) => with(&*lessee?),
        None => {
            let lessee = cache.claim_lessee(false)?;
            let result = with(&lessee);
            lessee.abandon();
            result
        }
    }
}

/// Claims a lessee where this thread has none. `None` in the last moments of a thread.
fn own(cache: &CacheBody) -> Option<Result<Arc<Lessee>, Failure>> {
    let id = cache.id;
    OWN.try_with(|own| {
        let own = &mut own.borrow_mut().0;
        let lessee = match own.iter().find(|(name, _)| *name == id) {
            Some((_, lessee)) => lessee.clone(),
            None => {
                // What nobody else has any more belongs to caches that are gone.
                own.retain(|(_, lessee)| Arc::strong_count(lessee) > 1);
                let lessee = match cache.claim_lessee(false) {
                    Ok(lessee) => lessee,
                    Err(failure) => return Err(failure),
                };
                own.push((id, lessee.clone()));
                lessee
            }
        };
        let _ = NEAR.try_with(|near| near[id as usize % RECENT].set((id, Arc::as_ptr(&lessee))));
        Ok(lessee)
    })
    .ok()
}
