//! The far side of an asymmetric barrier: membarrier(2), Linux 4.14.
//!
//! # Semantics
//!
//! Every thread of the process executes a full memory barrier between the start and the end of
//! [`Barrier::fence`]. So of two threads, where one does
//!
//! ```text
//! store A; near_fence(); load B          store B; fence(); load A
//! ```
//!
//! at least one sees the other's store: if the first loaded B before the barrier reached it, its
//! store of A was made visible by the barrier and the second's load comes later; if after, the store
//! of B was visible already. The first pays nothing for it.

use nix::errno::Errno;

/// How a holder of a registration and who wants to end it agree on who comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// membarrier(2): a hit stores, and who invalidates or evicts pays for the order.
    Membarrier,
    /// An atomic count on every hit. The order is the hardware's, and invalidation is cheap.
    Atomic,
}

impl Barrier {
    /// [`Membarrier`](Barrier::Membarrier) where the kernel has it, else [`Atomic`](Barrier::Atomic).
    /// Asked anew each time, since a seccomp filter may have come in between.
    pub fn best() -> Barrier {
        // The process registers once; again it is nothing.
        let registered = membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED).is_ok()
            && membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED).is_ok();
        if registered { Barrier::Membarrier } else { Barrier::Atomic }
    }

    /// The far side of [`near_fence`](crate::sync::near_fence). Fails where the kernel has begun to
    /// refuse (a seccomp filter that came later): then nothing may be concluded.
    pub(crate) fn fence(self) -> Result<(), Errno> {
        match self {
            Barrier::Membarrier => membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED),
            Barrier::Atomic => Ok(()),
        }
    }
}

/// Miri has no membarrier(2): there the near fence is a fence too.
#[cfg(miri)]
fn membarrier(_command: libc::c_int) -> Result<(), Errno> {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

#[cfg(not(miri))]
fn membarrier(command: libc::c_int) -> Result<(), Errno> {
    // SAFETY: membarrier(2) takes no pointer, and only ever strengthens the order of memory accesses.
    Errno::result(unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) }).map(drop)
}
