//! Tells whether this process is the one that made a cache: one load, whatever way the process was
//! cloned.
//!
//! Some pages are wiped by the kernel at fork (`MADV_WIPEONFORK`, madvise(2), Linux 4.14). One holds
//! the number of this process; a child reads zero there, and takes a new number when it makes a
//! cache of its own.

use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::errno::Errno;

use crate::pages::WipedAtFork;

/// Remembers in which process it was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner {
    present: &'static AtomicU64,
    process: u64,
}

impl Owner {
    /// This process.
    pub(crate) fn current() -> Result<Owner, Errno> {
        static PAGE: OnceLock<Result<WipedAtFork<AtomicU64>, Errno>> = OnceLock::new();
        // Ordinary memory, so a child goes on from its parent's value and no two processes of a
        // family have the same number.
        static LAST_NUMBER: AtomicU64 = AtomicU64::new(0);

        // SAFETY: zeros are a number, and it needs no drop.
        let page = PAGE.get_or_init(|| unsafe { WipedAtFork::new() }).as_ref();
        let present: &'static AtomicU64 = page.map_err(|errno| *errno)?;
        // Relaxed: a number says nothing about other memory.
        let number = LAST_NUMBER.fetch_add(1, Ordering::Relaxed) + 1;
        let process =
            match present.compare_exchange(0, number, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => number,
                Err(process) => process,
            };
        Ok(Owner { present, process })
    }

    /// Whether the caller is in another process.
    #[inline]
    pub(crate) fn is_foreign(self) -> bool {
        self.present.load(Ordering::Relaxed) != self.process
    }
}

/// A value that each process of a family has for itself: a forked child does not find its parent's,
/// whose locks another thread may have had at the time of the fork.
pub(crate) struct PerProcess<T>(AtomicPtr<(Owner, T)>);

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess(AtomicPtr::new(ptr::null_mut()))
    }

    /// This process's value, which is made at the first call and lives for ever. `None` where forks
    /// cannot be told: then there is no cache either.
    pub(crate) fn get(&'static self) -> Option<&'static T> {
        loop {
            // Acquire pairs with the Release of the exchange below.
            let present = self.0.load(Ordering::Acquire);
            // SAFETY: it is null or was leaked by this function, and is never freed after.
            match unsafe { present.as_ref() } {
                Some((owner, value)) if !owner.is_foreign() => return Some(value),
                _ => {}
            }
            let owner = Owner::current().ok()?;
            let new = Box::into_raw(Box::new((owner, T::default())));
            let exchanged =
                self.0.compare_exchange(present, new, Ordering::Release, Ordering::Relaxed);
            if exchanged.is_err() {
                // SAFETY: nobody else knows of it.
                drop(unsafe { Box::from_raw(new) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_child_has_a_value_of_its_own() {
        static VALUE: PerProcess<parking_lot::Mutex<u32>> = PerProcess::new();
        let mut value = VALUE.get().unwrap().lock();
        *value = 7;
        // The lock is held at the time of the fork.
        // SAFETY: the child takes no lock but its own, and leaves by _exit.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let own = VALUE.get().and_then(|own| own.try_lock()).map(|own| *own);
                // SAFETY: _exit(2) runs no code of this process any more.
                unsafe { libc::_exit(i32::from(own != Some(0))) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
        drop(value);
        assert_eq!(*VALUE.get().unwrap().lock(), 7);
    }

    #[test]
    fn a_child_is_foreign_and_can_own_anew() {
        let owner = Owner::current().unwrap();
        assert!(!owner.is_foreign());
        // SAFETY: the child makes no call that could wait for another thread, and leaves by _exit.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let own = Owner::current().unwrap();
                let good = owner.is_foreign() && !own.is_foreign();
                // SAFETY: _exit(2) runs no code of this process any more.
                unsafe { libc::_exit(if good { 0 } else { 1 }) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                assert!(!owner.is_foreign());
            }
        }
    }
}
