//! The device and its calls.

use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::Mode;
use nix::unistd::{SysconfVar, sysconf};

use crate::error::Error;
use crate::event::{EventBuffer, Events};
use crate::options::{Features, Kinds, Options, Watch};
use crate::sys::{DeviceFile, Failure, Generations, NegotiateIoctl, RegisterIoctl};

/// What [`Device::generation`] answers outside the process that opened the device. The kernel's own
/// counter never gets there.
pub const FOREIGN: u64 = u64::MAX;

/// An open `/dev/ummunotify`: a set of watched ranges of this process's address space, and the
/// events that they raise.
///
/// All methods take `&self` and may be called from any thread. The file is close-on-exec and does
/// not block.
///
/// # A descriptor that somebody else closes
///
/// Other code of the process may close the descriptor (daemon(3), closefrom(3), a second close(2)),
/// and the next file that is opened gets its number. Every method then fails with
/// [`Error::DescriptorLost`]; nothing is read from the other file, written to it or closed. The kernel
/// itself compares the file, in the call. A module that cannot (it lacks
/// `UMMUNOTIFY_FEATURE_IDENTITY`, as that of 2009 does) gets a mark by `F_SETSIG` of fcntl(2), which is
/// looked at before each call: leave `F_SETSIG` alone there.
#[derive(Debug)]
pub struct Device {
    file: DeviceFile,
    counter: Generations,
    features: Features,
    slots: Option<Slots>,
}

#[derive(Debug)]
struct Slots {
    count: u32,
    generations: Generations,
}

impl Device {
    /// Opens [`DEVICE_PATH`](crate::DEVICE_PATH), with nothing beyond the interface of 2009.
    pub fn open() -> Result<Device, Error> {
        Options::new().open()
    }

    /// Opens the device at `path`, with nothing beyond the interface of 2009.
    pub fn open_path(path: impl AsRef<Path>) -> Result<Device, Error> {
        Options::new().path(path).open()
    }

    pub(crate) fn open_with(options: &Options) -> Result<Device, Error> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = open(&options.path, flags, Mode::empty()).map_err(|errno| {
            let path = options.path.clone();
            match errno {
                Errno::ENOENT | Errno::ENODEV | Errno::ENXIO => Error::NotFound { path },
                Errno::EACCES | Errno::EPERM => Error::PermissionDenied { path },
                Errno::EMFILE | Errno::ENFILE => match other_file(flags) {
                    // The device alone refuses: it is the module's own limit.
                    Ok(()) => Error::TooManyFiles { path, errno },
                    Err(errno) => Error::NoDescriptor { path, errno },
                },
                errno => Error::System { call: "open", errno },
            }
        })?;
        let page_size = sysconf(SysconfVar::PAGE_SIZE)
            .ok()
            .flatten()
            .and_then(|bytes| NonZeroUsize::new(bytes as usize))
            .ok_or(Error::System { call: "sysconf", errno: Errno::EINVAL })?;
        let counter = Generations::map(&file, page_size, 0).map_err(system("mmap"))?;

        let mut granted = NegotiateIoctl {
            features: options.features.bits(),
            slots: options.slots,
            ..NegotiateIoctl::default()
        };
        // No other file is mapped there.
        let unique = counter.as_ptr() as u64;
        let file = DeviceFile::new(file, unique, &mut granted).map_err(system("negotiate"))?;
        let features = Features::from_bits_truncate(granted.features);
        let slot_bytes = NonZeroUsize::new(granted.slots as usize * size_of::<u64>());
        let slots = slot_bytes.filter(|_| features.contains(Features::GENSLOT)).map(|bytes| {
            let generations = Generations::map(&file, bytes, page_size.get());
            Ok(Slots { count: granted.slots, generations: generations.map_err(system("mmap"))? })
        });
        Ok(Device { file, counter, features, slots: slots.transpose()? })
    }

    /// What was granted of what [`Options`] wanted.
    pub fn features(&self) -> Features {
        self.features
    }

    /// How many generation slots there are; they are numbered from 0.
    #[inline]
    pub fn slots(&self) -> u32 {
        self.slots.as_ref().map_or(0, |slots| slots.count)
    }

    /// The generation of a slot: one load and a fence, no system call.
    ///
    /// It has moved before a mapping of a range with this slot changes, and stands still for
    /// changes elsewhere. [`FOREIGN`] in a forked child.
    ///
    /// # Panics
    ///
    /// Where [`slots`](Device::slots) says that there is no such slot.
    #[inline]
    pub fn slot_generation(&self, slot: u32) -> u64 {
        let slots = self.slots.as_ref().expect("generation slots were granted");
        slots.generations.load(slot as usize)
    }

    /// The generation counter: one load and a fence, no system call.
    ///
    /// It has moved before a mapping of a watched range changes, so as long as it stands still
    /// nothing that is watched has changed. [`FOREIGN`] in a forked child.
    #[inline]
    pub fn generation(&self) -> u64 {
        self.counter.load(0)
    }

    /// Where the counter is, for callers that load it themselves (relaxed, then an acquire fence).
    /// It is mapped read-only for as long as the device lives.
    pub fn counter(&self) -> *const AtomicU64 {
        self.counter.as_ptr()
    }

    /// Watches the pages of the `len` bytes at `start`; events name them by `cookie`.
    ///
    /// Waits (up to a second) for changes of the range that are already under way; if they take
    /// longer, or a signal arrives, the range is watched and reported as invalid at once.
    /// `UMMUNOTIFY_REGISTER_REGION`.
    pub fn register(&self, start: usize, len: usize, cookie: u64) -> Result<(), Error> {
        self.register_with(start, len, cookie, Watch::new())
    }

    /// As [`register`](Device::register), with more to say about it. What asks for a feature that
    /// was not granted is [`Error::NotGranted`].
    pub fn register_with(
        &self,
        start: usize,
        len: usize,
        cookie: u64,
        watch: Watch,
    ) -> Result<(), Error> {
        let missing = watch.needs() - self.features;
        if !missing.is_empty() {
            return Err(Error::NotGranted { features: missing });
        }
        if let Some(slot) = watch.slot.filter(|slot| *slot >= self.slots()) {
            return Err(Error::NoSuchSlot { slot, slots: self.slots() });
        }
        if !Kinds::FILTERABLE.contains(watch.ignore) {
            return Err(Error::NotFilterable { kinds: watch.ignore - Kinds::FILTERABLE });
        }
        let end = start.checked_add(len).ok_or(Error::RangeWraps { start, len })?;
        let region = RegisterIoctl {
            start: start as u64,
            end: end as u64,
            user_cookie: cookie,
            flags: watch.flags(),
            reserved: watch.slot.unwrap_or(0),
        };
        self.file.register(&region).map_err(|failure| match failure {
            Failure::Refused(Errno::EINVAL) => Error::CookieInUse { cookie },
            Failure::Refused(Errno::ENOSPC) => {
                Error::TooManyRegions { start: region.start, end: region.end }
            }
            failure => self.failed("register", failure),
        })
    }

    /// Notes which pages the range of `cookie` has now, for [`verify`](Device::verify). Call it
    /// when the range is pinned: where more than 64 pages are not there, it is `EFAULT`, and no more
    /// than that are faulted in.
    /// `UMMUNOTIFY_NOTE`.
    ///
    /// This, and a [`verify`](Device::verify) that says yes, also spare events: where all of the
    /// range is private anonymous memory, and the range ignores both
    /// [`PROTECTION_VMA`](crate::Kinds::PROTECTION_VMA) and
    /// [`PROTECTION_PAGE`](crate::Kinds::PROTECTION_PAGE), it ignores until its next event that these
    /// split a huge page, as fork(2) does with one that is pinned.
    pub fn note(&self, cookie: u64) -> Result<(), Error> {
        self.needs(Features::VERIFY)?;
        self.file.note(cookie).map_err(|failure| match failure {
            Failure::Refused(Errno::EINVAL) => Error::UnknownCookie { cookie },
            failure => self.failed("note", failure),
        })
    }

    /// Whether the range of `cookie` still has the pages that it had at [`note`](Device::note). An
    /// event of it that was not read is taken back, and the range is watched on.
    ///
    /// It holds only if the range has been pinned all the time since, and if the generation that
    /// was loaded before this call has not moved after it. `UMMUNOTIFY_VERIFY`.
    pub fn verify(&self, cookie: u64) -> Result<bool, Error> {
        self.needs(Features::VERIFY)?;
        self.file.verify(cookie).map_err(|failure| match failure {
            Failure::Refused(Errno::EINVAL) => Error::UnknownCookie { cookie },
            failure => self.failed("verify", failure),
        })
    }

    fn needs(&self, features: Features) -> Result<(), Error> {
        match features - self.features {
            missing if missing.is_empty() => Ok(()),
            missing => Err(Error::NotGranted { features: missing }),
        }
    }

    /// Stops watching the range of `cookie`. An event of it that was not read is dropped.
    /// `UMMUNOTIFY_UNREGISTER_REGION`.
    pub fn unregister(&self, cookie: u64) -> Result<(), Error> {
        self.file.unregister(cookie).map_err(|failure| match failure {
            Failure::Refused(Errno::EINVAL) => Error::UnknownCookie { cookie },
            failure => self.failed("unregister", failure),
        })
    }

    /// Reads events into `buffer`; without blocking, and without events if there are none.
    ///
    /// [`Event::Last`](crate::Event::Last) closes what there was to read; where it is missing and
    /// the iterator was not empty, there is more. A range that was reported is watched again from
    /// then on.
    pub fn read<'b>(&self, buffer: &'b mut EventBuffer) -> Result<Events<'b>, Error> {
        loop {
            return match self.file.read(buffer.bytes_mut()) {
                Ok(len) => buffer.events(len),
                Err(Failure::Refused(Errno::EINTR)) => continue,
                Err(Failure::Refused(Errno::EAGAIN)) => buffer.events(0),
                Err(failure) => Err(self.failed("read", failure)),
            };
        }
    }

    /// Waits until there is something to read, `timeout` at most (rounded to milliseconds; `None`
    /// waits for ever). Returns whether there is. The device also works with any event loop,
    /// through [`AsFd`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        let timeout = timeout
            .map_or(PollTimeout::NONE, |t| PollTimeout::try_from(t).unwrap_or(PollTimeout::MAX));
        self.file.check().map_err(|failure| self.failed("wait", failure))?;
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

    fn failed(&self, call: &'static str, failure: Failure) -> Error {
        match failure {
            Failure::Refused(errno) => system(call)(errno),
            Failure::NotOurs(errno) => {
                Error::DescriptorLost { fd: self.file.as_fd().as_raw_fd(), errno }
            }
        }
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

/// Whether a file can be opened that is no device of this kind.
fn other_file(flags: OFlag) -> Result<(), Errno> {
    open("/dev/null", flags, Mode::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, setrlimit};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    use super::*;

    #[test]
    fn a_process_without_descriptors_is_not_told_of_the_modules_limit() {
        // SAFETY: no test of this program holds a lock that the child takes, and it leaves by _exit.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                setrlimit(Resource::RLIMIT_NOFILE, 0, 0).unwrap();
                let error = Device::open_path("/dev/zero").unwrap_err();
                let text = error.to_string();
                let good = matches!(error, Error::NoDescriptor { errno: Errno::EMFILE, .. })
                    && text.contains("ulimit -n")
                    && !text.contains("max_files");
                // SAFETY: _exit(2) runs no code of this process any more.
                unsafe { libc::_exit(i32::from(!good)) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
            }
        }
    }

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
