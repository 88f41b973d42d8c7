//! The atomics of the lock-free parts: the standard ones, or loom's for the models.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

#[cfg(loom)]
pub(crate) use model::near_fence;

/// The near side of the barrier of [`crate::barrier`]: keeps the compiler from reordering, and costs
/// no instruction. What stands before it and what stands after it are in that order for every thread
/// that has since been through the far side; for nobody else it is in any order.
#[cfg(not(loom))]
#[inline(always)]
pub(crate) fn near_fence() {
    #[cfg(not(miri))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    // Miri has no membarrier(2). A full fence on both sides gives the same guarantee, and more.
    #[cfg(miri)]
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// membarrier(2) as loom can have it, and no stronger than it is.
///
/// Each thread has a word. Its near fence is an access to that word, and the far fence one to the word
/// of every thread. So of a near and a far fence one comes first, and what stands before it comes
/// before what stands after the other; and two near fences say nothing to each other.
#[cfg(loom)]
pub(crate) mod model {
    use loom::sync::atomic::{AtomicU32, Ordering};

    /// Threads of a model: loom itself has no more than four.
    const THREADS: usize = 4;

    loom::lazy_static! {
        static ref WORDS: [AtomicU32; THREADS] = std::array::from_fn(|_| AtomicU32::new(0));
    }

    loom::thread_local! {
        static INDEX: std::cell::Cell<usize> = std::cell::Cell::new(0);
    }

    /// Tells the threads of a model apart. One that does not say is number 0.
    pub(crate) fn this_is_thread(index: usize) {
        INDEX.with(|here| here.set(index));
    }

    pub(crate) fn near_fence() {
        WORDS[INDEX.with(|here| here.get())].fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn far_fence() {
        for word in WORDS.iter() {
            word.fetch_add(1, Ordering::AcqRel);
        }
    }
}
