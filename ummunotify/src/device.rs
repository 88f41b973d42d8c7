//! The device and its calls.

use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use crate::error::Error;
use crate::event::{EventBuffer, Events};
use crate::sys::{self, CounterPage, RegisterIoctl};

/// What [`Device::generation`] answers outside the process that opened the device. The kernel's own
/// counter never gets there.
pub const FOREIGN: u64 = u64::MAX;

/// An open `/dev/ummunotify`: a set of watched ranges of this process's address space, and the
/// events that they raise.
///
/// All methods take `&self` and may be called from any thread. The file is close-on-exec and does
/// not block.
#[derive(Debug)]
pub struct Device {
    file: File,
    counter: CounterPage,
}

impl Device {
    /// Opens [`DEVICE_PATH`](crate::DEVICE_PATH).
    pub fn open() -> Result<Device, Error> {
        Device::open_path(crate::DEVICE_PATH)
    }

    /// Opens the device at `path`.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Device, Error> {
        let path = path.as_ref();
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(path, flags, Mode::empty()).map(File::from).map_err(|errno| {
            let path = path.to_path_buf();
            match errno {
                Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Error::NotFound { path },
                Errno::EACCES | Errno::EPERM => Error::PermissionDenied { path },
                Errno::EMFILE | Errno::ENFILE => Error::TooManyFiles { path, errno },
                errno => Error::System { call: "open", errno },
            }
        })?;
        let page_size = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|bytes| NonZeroUsize::new(bytes as usize))
            .ok_or(Error::System { call: "sysconf", errno: Errno::EINVAL })?;
        let counter = CounterPage::map(&file, page_size).map_err(system("mmap"))?;
        Ok(Device { file, counter })
    }

    /// The generation counter: one load and a fence, no system call.
    ///
    /// It has moved before a mapping of a watched range changes, so as long as it stands still
    /// nothing that is watched has changed. [`FOREIGN`] in a forked child.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.counter.load()
    }

    /// Watches the pages of the `len` bytes at `start`; events name them by `cookie`.
    ///
    /// Waits (up to a second) for changes of the range that are already under way; if they take
    /// longer, or a signal arrives, the range is watched and reported as invalid at once.
    /// `UMMUNOTIFY_REGISTER_REGION`.
    pub fn register(&self, start: usize, len: usize, cookie: u64) -> Result<(), Error> {
        let end = start.checked_add(len).ok_or(Error::RangeWraps { start, len })?;
        let region = RegisterIoctl {
            start: start as u64,
            end: end as u64,
            user_cookie: cookie,
            flags: 0,
            reserved: 0,
        };
        sys::register(&self.file, &region).map_err(|errno| match errno {
            Errno::EINVAL => Error::CookieInUse { cookie },
            Errno::ENOSPC => Error::TooManyRegions { start: region.start, end: region.end },
            errno => system("register")(errno),
        })
    }

    /// Stops watching the range of `cookie`. An event of it that was not read is dropped.
    /// `UMMUNOTIFY_UNREGISTER_REGION`.
    pub fn unregister(&self, cookie: u64) -> Result<(), Error> {
        sys::unregister(&self.file, cookie).map_err(|errno| match errno {
            Errno::EINVAL => Error::UnknownCookie { cookie },
            errno => system("unregister")(errno),
        })
    }

    /// Reads events into `buffer`; without blocking, and without events if there are none.
    ///
    /// [`Event::Last`](crate::Event::Last) closes what there was to read; where it is missing and
    /// the iterator was not empty, there is more. A range that was reported is watched again from
    /// then on.
    pub fn read<'b>(&self, buffer: &'b mut EventBuffer) -> Result<Events<'b>, Error> {
        loop {
            return match (&self.file).read(buffer.bytes_mut()) {
                Ok(len) => buffer.events(len),
                Err(error) => match error.raw_os_error().map(Errno::from_raw) {
                    Some(Errno::EINTR) => continue,
                    Some(Errno::EAGAIN) => buffer.events(0),
                    errno => Err(system("read")(errno.unwrap_or(Errno::EIO))),
                },
            };
        }
    }

    /// Waits until there is something to read, `timeout` at most (rounded to milliseconds; `None`
    /// waits for ever). Returns whether there is. The device also works with any event loop,
    /// through [`AsFd`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let timeout = timeout
            .map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, timeout) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(system("poll")(errno)),
        }
        let seen = fds[0].revents().unwrap_or(PollFlags::empty());
        if seen.contains(PollFlags::POLLERR) {
            return Err(Error::ForeignProcess);
        }
        Ok(seen.contains(PollFlags::POLLIN))
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn system(call: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| match errno {
        // The module's answer to a caller from another address space; no other call here fails so.
        Errno::EPERM => Error::ForeignProcess,
        errno => Error::System { call, errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_is_absent_says_how_to_load_it() {
        let error = Device::open_path("/nonexistent/ummunotify").unwrap_err();
        assert_eq!(
            error.to_string(),
            "/nonexistent/ummunotify does not exist: is the module loaded? (modprobe ummunotify)"
        );
    }

    #[test]
    fn a_file_that_is_no_ummunotify_device_is_refused() {
        let error = Device::open_path("/dev/null").unwrap_err();
        assert!(matches!(error, Error::System { call: "mmap", .. }), "{error}");
    }
}
