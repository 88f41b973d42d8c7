//! Who wants to know when what was invalidated is gone.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::sync::Arc;

use parking_lot::Mutex;
use regcache::AddressRange;

use crate::boundary;

/// `regcache_completion`
pub type CompletionFn = unsafe extern "C-unwind" fn(context: *mut c_void);

/// Calls the caller back when it is dropped: with the last registration that has it.
#[derive(Debug)]
pub(crate) struct Completion {
    function: CompletionFn,
    context: *mut c_void,
}

// SAFETY: the header says that the function is called on any thread.
unsafe impl Send for Completion {}
// SAFETY: as above.
unsafe impl Sync for Completion {}

impl Completion {
    pub(crate) fn new(function: CompletionFn, context: *mut c_void) -> Arc<Completion> {
        Arc::new(Completion { function, context })
    }
}

impl Drop for Completion {
    fn drop(&mut self) {
        // SAFETY: the caller of regcache_invalidate() promised a function that can be called with
        // this context, once, on any thread.
        boundary::callback(|| unsafe { (self.function)(self.context) });
    }
}

/// The registrations that live, and who waits for the end of each.
#[derive(Debug, Default)]
pub(crate) struct Living {
    regions: Mutex<BTreeMap<usize, Life>>,
}

#[derive(Debug)]
struct Life {
    range: AddressRange,
    awaited: Vec<Arc<Completion>>,
}

impl Living {
    pub(crate) fn begin(&self, region: usize, range: AddressRange) {
        self.regions.lock().insert(region, Life { range, awaited: Vec::new() });
    }

    /// The caller drops what this returns, when it holds no lock.
    #[must_use = "completions are called when it is dropped"]
    pub(crate) fn end(&self, region: usize) -> Vec<Arc<Completion>> {
        self.regions.lock().remove(&region).map(|life| life.awaited).unwrap_or_default()
    }

    /// `completion` waits for all that touch `range` now.
    pub(crate) fn wait(&self, range: AddressRange, completion: &Arc<Completion>) {
        for life in self.regions.lock().values_mut() {
            if life.range.overlaps(range) {
                life.awaited.push(completion.clone());
            }
        }
    }

    /// Those that touch `range`.
    pub(crate) fn touching(&self, range: AddressRange) -> usize {
        self.regions.lock().values().filter(|life| life.range.overlaps(range)).count()
    }

    pub(crate) fn count(&self) -> usize {
        self.regions.lock().len()
    }
}
