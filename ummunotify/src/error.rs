//! What can go wrong, and the way out.

use std::path::PathBuf;

use nix::errno::Errno;

use crate::options::{Features, Kinds};

/// Why a call on the device failed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// There is no such device (ENOENT, ENODEV, ENXIO).
    #[error("{} does not exist: is the module loaded? (modprobe ummunotify)", path.display())]
    NotFound {
        /// The device that was opened.
        path: PathBuf,
    },
    /// The device exists, and this user may not open it (EACCES, EPERM).
    #[error(
        "no permission to open {}: install the udev rule 70-ummunotify.rules, \
         which lets every user watch their own memory, then run \
         `udevadm control --reload && udevadm trigger --name-match=ummunotify`",
        path.display()
    )]
    PermissionDenied {
        /// The device that was opened.
        path: PathBuf,
    },
    /// This process (EMFILE) or this machine (ENFILE) has as many files open as it may, of any kind.
    #[error(
        "cannot open {}: {}",
        path.display(),
        if *errno == Errno::ENFILE {
            "this machine has as many files open as it may (sysctl fs.file-max)"
        } else {
            "this process has as many files open as it may (RLIMIT_NOFILE: ulimit -n, LimitNOFILE=)"
        }
    )]
    NoDescriptor {
        /// The device that was opened.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// This process or this user has as many files of this device open as the module allows (EMFILE).
    #[error(
        "{} cannot be opened once more ({errno}): this process has as many files of it open as the \
         module's parameter max_files allows, or this user as max_user_files does (each cache has \
         one); raise that in /sys/module/ummunotify/parameters, or drop caches that are not used",
        path.display()
    )]
    TooManyFiles {
        /// The device that was opened.
        path: PathBuf,
        /// What the kernel said.
        errno: Errno,
    },
    /// The file watches as many ranges as the module allows (ENOSPC).
    #[error(
        "cannot watch {start:#x}..{end:#x}: this file watches as many ranges as it may \
         (raise /sys/module/ummunotify/parameters/max_regions, or unregister some)"
    )]
    TooManyRegions {
        /// First address of the range.
        start: u64,
        /// First address after the range.
        end: u64,
    },
    /// The range wraps around the end of the address space.
    #[error("{len} bytes at {start:#x} wrap around the end of the address space")]
    RangeWraps {
        /// First address of the range.
        start: usize,
        /// Its length in bytes.
        len: usize,
    },
    /// The cookie already names a range on this file (EINVAL).
    #[error("cookie {cookie:#x} already names a range: unregister it first, or choose another")]
    CookieInUse {
        /// The cookie.
        cookie: u64,
    },
    /// No range on this file has this cookie (EINVAL).
    #[error("no range is registered under cookie {cookie:#x}")]
    UnknownCookie {
        /// The cookie.
        cookie: u64,
    },
    /// The caller is not in the address space that opened the device (EPERM): a forked child, or a
    /// process that was handed the file.
    #[error("the device was opened by another process: open it again after fork")]
    ForeignProcess,
    /// The descriptor is closed, or another file's by now. That file was left alone.
    #[error(
        "file descriptor {fd}, once of the ummunotify device, is closed or another file's now \
         ({errno}): other code of this process closed it, as daemon(3), closefrom(3) or a second \
         close(2) do; open the device again, and after that"
    )]
    DescriptorLost {
        /// The descriptor.
        fd: i32,
        /// What it answered.
        errno: Errno,
    },
    /// The kernel sent an event that the 2009 interface does not have.
    #[error(
        "the kernel sent an event of unknown type {kind}: is another module behind the device?"
    )]
    UnknownEvent {
        /// The event's `type`.
        kind: u32,
    },
    /// A feature was used that was not granted, because it was not wanted or this module has it not.
    #[error("{features:?} was not granted: ask for it in Options, and look at Device::features")]
    NotGranted {
        /// What is missing.
        features: Features,
    },
    /// There is no such generation slot.
    #[error("there is no generation slot {slot}: {slots} were granted, from 0")]
    NoSuchSlot {
        /// The slot that was asked for.
        slot: u32,
        /// How many there are.
        slots: u32,
    },
    /// A change of this kind takes pages away, so it cannot be ignored.
    #[error("{kinds:?} cannot be ignored; Kinds::FILTERABLE can")]
    NotFilterable {
        /// What was to be ignored.
        kinds: Kinds,
    },
    /// Any other failure of a system call.
    #[error("{call} on the ummunotify device failed: {errno}")]
    System {
        /// The call.
        call: &'static str,
        /// What it failed with.
        errno: Errno,
    },
}
