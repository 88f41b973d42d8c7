//! Forked children: each tries its copy of the caches, and shares all memory while it lives.

use std::io;

use regcache::{Access, Error};

use super::oracle::TruthCache;
use crate::{attempt, raw};

/// A child that waits.
pub struct Child {
    pid: i32,
    quit: i32,
}

/// The child's exit status if a cache worked in it.
const WORKED: i32 = 7;

impl Child {
    /// Forks one; nothing if the kernel has no memory for it.
    ///
    /// `addr` is memory of which the child asks for a registration.
    pub fn fork<'c>(caches: impl Iterator<Item = &'c TruthCache>, addr: usize) -> Option<Child> {
        let mut ends = [0_i32; 2];
        raw!(SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC);
        let [wait, quit] = ends;
        // SAFETY: the child makes system calls and calls that must refuse to do anything, and
        // leaves by _exit.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let refused = caches.fold(true, |all, cache| {
                let got = cache.get_or_register(addr, 1, Access::empty());
                let refused = matches!(&got, Err(Error::Forked))
                    && matches!(cache.drain(), Err(Error::Forked))
                    && matches!(cache.flush(), Err(Error::Forked));
                cache.stats();
                drop(got);
                all && refused
            });
            // It must not keep the parent's files open: others wait for their ends.
            let _ = attempt!(SYS_dup3, wait, 0, 0);
            let _ = attempt!(SYS_close_range, 1, u32::MAX, 0);
            let _ = attempt!(SYS_read, 0, [0_u8; 1].as_mut_ptr(), 1);
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(if refused { 0 } else { WORKED }) }
        }
        raw!(SYS_close, wait);
        if pid < 0 {
            raw!(SYS_close, quit);
            return None;
        }
        Some(Child { pid, quit })
    }

    /// Ends it. The error says what it found wrong.
    pub fn end(self) -> Result<(), String> {
        let mut status = 0_i32;
        // It may have been killed.
        let _ = attempt!(SYS_write, self.quit, [0_u8; 1].as_ptr(), 1);
        raw!(SYS_close, self.quit);
        while let Err(error) = attempt!(SYS_wait4, self.pid, &raw mut status, 0, 0) {
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(format!("wait4: {error}"));
            }
        }
        match libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status)) {
            Some(0) => Ok(()),
            Some(WORKED) => Err("a cache worked in a forked child".to_owned()),
            _ => Err(format!("a forked child ended with wait status {status:#x}")),
        }
    }
}
