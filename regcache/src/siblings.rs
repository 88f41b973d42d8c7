//! The caches of this process, a rail each perhaps: what they pin counts against the same limits. So
//! where nothing more can be pinned, what is idle in the others goes before an error.

use std::sync::Arc;

use parking_lot::RwLock;

use crate::fork::PerProcess;
use crate::lock::Lock;
use crate::monitor::Monitor;
use crate::registrar::Registrar;
use crate::shared::Shared;
use crate::tls::CacheId;

static CACHES: PerProcess<Lock<Vec<Arc<Sibling>>>> = PerProcess::new();

/// A cache, as the others see it.
struct Sibling {
    id: CacheId,
    /// `Some` until the cache is closed.
    cache: RwLock<Option<Erased>>,
}

/// A cache whose type is not known here.
struct Erased {
    shared: *const (),
    evict: unsafe fn(*const (), u64) -> bool,
    pinned: unsafe fn(*const ()) -> u64,
}

// SAFETY: it points to a `Shared`, whose registrar and monitor may be sent and shared.
unsafe impl Send for Erased {}
// SAFETY: as above.
unsafe impl Sync for Erased {}

impl Sibling {
    /// What `call` says of the cache, if it is not closed. It is not closed meanwhile.
    fn with<T>(&self, call: impl FnOnce(&Erased) -> T) -> Option<T> {
        // Recursive: the deregistration of one cache may come to evict in another.
        self.cache.read_recursive().as_ref().map(call)
    }
}

/// # Safety
///
/// `shared` is a live `Shared<R, M>`.
unsafe fn evict<R: Registrar, M: Monitor>(shared: *const (), bytes: u64) -> bool {
    // SAFETY: the caller promises it.
    unsafe { &*shared.cast::<Shared<R, M>>() }.evict_for_sibling(bytes)
}

/// # Safety
///
/// As of [`evict`].
unsafe fn pinned<R: Registrar, M: Monitor>(shared: *const ()) -> u64 {
    // SAFETY: the caller promises it.
    unsafe { &*shared.cast::<Shared<R, M>>() }.pinned_bytes()
}

/// A cache begins. [`leave`] comes before its `Shared` is dropped.
pub(crate) fn join<R: Registrar, M: Monitor>(shared: &Shared<R, M>) {
    let erased = Erased {
        shared: std::ptr::from_ref(shared).cast(),
        evict: evict::<R, M>,
        pinned: pinned::<R, M>,
    };
    let sibling = Sibling { id: shared.id, cache: RwLock::new(Some(erased)) };
    if let Some(caches) = CACHES.get() {
        caches.lock().push(Arc::new(sibling));
    }
}

/// The cache is closed: waits for those who evict in it.
pub(crate) fn leave(id: CacheId) {
    let sibling = CACHES.get().and_then(|caches| {
        let mut caches = caches.lock();
        let at = caches.iter().position(|sibling| sibling.id == id);
        at.map(|at| caches.swap_remove(at))
    });
    if let Some(sibling) = sibling {
        *sibling.cache.write() = None;
    }
}

fn others(id: CacheId) -> Vec<Arc<Sibling>> {
    let Some(caches) = CACHES.get() else { return Vec::new() };
    caches.lock().iter().filter(|sibling| sibling.id != id).cloned().collect()
}

/// Evicts in the other caches what is idle, of `bytes` or a little more in the first that has some, and
/// says whether there was any.
pub(crate) fn evict_in_others(id: CacheId, bytes: u64) -> bool {
    others(id).iter().any(|other| {
        // SAFETY: the cache is not closed before this returns.
        other.with(|cache| unsafe { (cache.evict)(cache.shared, bytes) }).unwrap_or(false)
    })
}

/// What the other caches hold pinned, in bytes.
pub(crate) fn pinned_by_others(id: CacheId) -> u64 {
    let pinned = |other: &Arc<Sibling>| {
        // SAFETY: the cache is not closed before this returns.
        other.with(|cache| unsafe { (cache.pinned)(cache.shared) }).unwrap_or(0)
    };
    others(id).iter().map(pinned).sum()
}
