//! A file descriptor of this crate that other code of the process may close.
//!
//! daemon(3), closefrom(3), a second close(2): the next file that is opened then has the number. So
//! the file is marked when it is made, and the mark is looked at before the number is used.

use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;
use nix::errno::Errno;

/// `F_SETSIG` and `F_GETSIG` of asm-generic/fcntl.h.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;

/// Signals that F_SETSIG takes.
const SIGNALS: u32 = 64;

/// What a file is told by: the signal number of its `F_SETSIG`, which no signal is ever sent for
/// since nothing sets `O_ASYNC`. Files of one kind come round to the same number after 64 of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(c_int);

impl Mark {
    /// Marks the file.
    pub(crate) fn set(fd: RawFd) -> Result<Mark, Errno> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mark = (NEXT.fetch_add(1, Ordering::Relaxed) % SIGNALS) as c_int + 1;
        // SAFETY: fcntl(2) with F_SETSIG takes a number.
        Errno::result(unsafe { libc::fcntl(fd, F_SETSIG, mark) })?;
        Ok(Mark(mark))
    }

    /// The mark that the file has, or a new one.
    fn of(fd: RawFd) -> Result<Mark, Errno> {
        // SAFETY: fcntl(2) with F_GETSIG takes nothing else.
        match Errno::result(unsafe { libc::fcntl(fd, F_GETSIG) })? {
            0 => Mark::set(fd),
            mark => Ok(Mark(mark)),
        }
    }

    /// Whether the descriptor is the file that was marked. Another thread may close it right after.
    pub(crate) fn is_on(self, fd: RawFd) -> bool {
        // SAFETY: fcntl(2) with F_GETSIG takes nothing else.
        unsafe { libc::fcntl(fd, F_GETSIG) == self.0 }
    }
}

/// A descriptor that is closed at the end only if it still is what it was.
#[derive(Debug)]
pub(crate) struct Descriptor {
    fd: ManuallyDrop<OwnedFd>,
    mark: Mark,
}

impl Descriptor {
    pub(crate) fn new(fd: OwnedFd) -> Result<Descriptor, Errno> {
        let mark = Mark::set(fd.as_raw_fd())?;
        Ok(Descriptor { fd: ManuallyDrop::new(fd), mark })
    }

    /// A duplicate of `fd`: its file keeps the mark that it may have, of another descriptor.
    pub(crate) fn duplicate_of(fd: BorrowedFd<'_>) -> Result<Descriptor, Errno> {
        let fd = fd
            .try_clone_to_owned()
            .map_err(|error| Errno::try_from(error).unwrap_or(Errno::EIO))?;
        let mark = Mark::of(fd.as_raw_fd())?;
        Ok(Descriptor { fd: ManuallyDrop::new(fd), mark })
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.mark.is_on(self.fd.as_raw_fd())
    }
}

impl AsFd for Descriptor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.is_ours() {
            // SAFETY: it is dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::eventfd::EventFd;
    use nix::unistd::{dup2_raw, pipe};

    use super::*;

    #[test]
    fn what_came_to_have_the_number_is_told_apart_and_stays_open() {
        let (reader, _writer) = pipe().unwrap();
        for other in [OwnedFd::from(EventFd::new().unwrap()), reader] {
            let ours = Descriptor::new(EventFd::new().unwrap().into()).unwrap();
            assert!(ours.is_ours());
            let number = ours.as_fd().as_raw_fd();
            // SAFETY: what is closed by this is used no more.
            let _other = unsafe { dup2_raw(&other, number) }.unwrap();
            assert!(!ours.is_ours());
            drop(ours);
            // SAFETY: fcntl(2) with F_GETFD takes nothing else.
            assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "closed");
        }
    }
}
