//! The atomics of the lock-free parts: the standard ones, or loom's for the models.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// The near side of the barrier of [`crate::barrier`]: keeps the compiler from reordering, and costs
/// no instruction. What stands before it and what stands after it are in that order for every thread
/// that has since been through the far side.
#[inline(always)]
pub(crate) fn near_fence() {
    #[cfg(not(loom))]
    std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
    // loom knows no membarrier(2). A full fence on both sides gives the same guarantee.
    #[cfg(loom)]
    loom::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// Nothing: accesses that are SeqCst themselves are ordered among each other. loom treats them as
/// Acquire and Release only, so that it needs the fence that they imply.
#[inline(always)]
pub(crate) fn count_fence() {
    #[cfg(loom)]
    loom::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}
