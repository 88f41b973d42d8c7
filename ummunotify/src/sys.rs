//! The kernel interface: `ummunotify-kmod/include/uapi/linux/ummunotify.h` in Rust. All of this
//! crate's unsafe code is here.

use std::ffi::{c_int, c_void};
use std::mem::ManuallyDrop;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::stat::fstat;

/// `struct ummunotify_register_ioctl`
#[repr(C)]
#[derive(Debug)]
pub(crate) struct RegisterIoctl {
    pub start: u64,
    pub end: u64,
    pub user_cookie: u64,
    pub flags: u32,
    pub reserved: u32,
}

/// `struct ummunotify_event`
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawEvent {
    pub kind: u32,
    pub flags: u32,
    pub hint_start: u64,
    pub hint_end: u64,
    pub user_cookie_counter: u64,
}

/// `UMMUNOTIFY_EVENT_TYPE_INVAL`
pub(crate) const EVENT_INVAL: u32 = 0;
/// `UMMUNOTIFY_EVENT_TYPE_LAST`
pub(crate) const EVENT_LAST: u32 = 1;
/// `UMMUNOTIFY_EVENT_FLAG_HINT`
pub(crate) const EVENT_FLAG_HINT: u32 = 1;

/// The size of an event as `read(2)` returns it, in bytes.
pub(crate) const EVENT_SIZE: usize = size_of::<RawEvent>();

const _: () = assert!(size_of::<RegisterIoctl>() == 32 && EVENT_SIZE == 32);

/// `struct ummunotify_negotiate`
#[repr(C)]
#[derive(Debug, Default)]
pub(crate) struct NegotiateIoctl {
    pub size: u32,
    pub features: u32,
    pub slots: u32,
    pub kinds: u32,
    pub max_regions: u32,
    pub max_batch: u32,
}

/// `UMMUNOTIFY_REGISTER_SLOT`
pub(crate) const REGISTER_SLOT: u32 = 1 << 10;
/// `UMMUNOTIFY_EVENT_KINDS_SHIFT`
pub(crate) const EVENT_KINDS_SHIFT: u32 = 8;

/// `UMMUNOTIFY_FEATURE_IDENTITY`
const FEATURE_IDENTITY: u32 = 1 << 10;

/// `struct ummunotify_call`
#[repr(C)]
#[derive(Debug)]
struct CallIoctl {
    size: u32,
    call: u32,
    identity: u64,
    answer: u64,
    arg: u64,
    len: u64,
}

const _: () = assert!(size_of::<CallIoctl>() == 40);

const REGISTER: u32 = nix::request_code_write!(b'U', 2, size_of::<RegisterIoctl>()) as u32;
const UNREGISTER: u32 = nix::request_code_write!(b'U', 3, size_of::<u64>()) as u32;
const NEGOTIATE: u32 = nix::request_code_none!(b'U', 4) as u32;
const NOTE: u32 = nix::request_code_write!(b'U', 8, size_of::<u64>()) as u32;
const VERIFY: u32 = nix::request_code_write!(b'U', 9, size_of::<u64>()) as u32;
const IDENTIFY: u32 = nix::request_code_write!(b'U', 10, size_of::<u64>()) as u32;
const CALL: u32 = nix::request_code_none!(b'U', 11) as u32;
const READ: u32 = nix::request_code_none!(b'U', 12) as u32;
/// For CALL: compares the identity and does nothing.
const NOTHING: u32 = 0;

/// `F_SETSIG` and `F_GETSIG` of asm-generic/fcntl.h.
const F_SETSIG: c_int = 10;
const F_GETSIG: c_int = 11;

/// Why a call did not succeed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The device refused.
    Refused(Errno),
    /// The descriptor is no longer the device's. Nothing was done to what it is now.
    NotOurs(Errno),
}

/// How the device's file is told from another that came to have its number.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// The kernel compares this number in the call itself.
    Identity(u64),
    /// A module without CALL: before each call, the file's device number and the signal number of
    /// its `F_SETSIG` are compared. The signal is never sent, as nothing sets `O_ASYNC`.
    Mark(c_int),
}

/// The file of the device. Other code of the process may close its number, which the next file that
/// is opened gets: then every call here fails and touches nothing.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    fd: ManuallyDrop<OwnedFd>,
    /// `st_rdev`
    device: u64,
    process: u32,
    proof: Proof,
}

impl DeviceFile {
    /// Takes over a device that was just opened. `unique` is a number that no other file of the
    /// process has been given, and not 0.
    pub(crate) fn new(
        fd: OwnedFd,
        unique: u64,
        wanted: &mut NegotiateIoctl,
    ) -> Result<Self, Errno> {
        let device = fstat(&fd)?.st_rdev;
        let mark = (unique / 4096 % 64) as c_int + 1;
        let process = std::process::id();
        // SAFETY: fcntl(2) with F_SETSIG takes a number.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), F_SETSIG, mark) })?;
        let mut file =
            DeviceFile { fd: ManuallyDrop::new(fd), device, process, proof: Proof::Mark(mark) };
        wanted.size = size_of::<NegotiateIoctl>() as u32;
        wanted.features |= FEATURE_IDENTITY;
        match file.ioctl(NEGOTIATE, ptr::from_mut(wanted).cast()) {
            Ok(_) => {}
            // A module of 2009 grants nothing.
            Err(Errno::ENOTTY) => *wanted = NegotiateIoctl::default(),
            Err(errno) => return Err(errno),
        }
        if wanted.features & FEATURE_IDENTITY != 0 {
            file.ioctl(IDENTIFY, (&raw const unique).cast_mut().cast())?;
            file.proof = Proof::Identity(unique);
        }
        Ok(file)
    }

    /// `UMMUNOTIFY_REGISTER_REGION`
    pub(crate) fn register(&self, region: &RegisterIoctl) -> Result<(), Failure> {
        self.call(REGISTER, ptr::from_ref(region).cast_mut().cast(), 0).map(drop)
    }

    /// `UMMUNOTIFY_UNREGISTER_REGION`
    pub(crate) fn unregister(&self, cookie: u64) -> Result<(), Failure> {
        self.call(UNREGISTER, (&raw const cookie).cast_mut().cast(), 0).map(drop)
    }

    /// `UMMUNOTIFY_NOTE`
    pub(crate) fn note(&self, cookie: u64) -> Result<(), Failure> {
        self.call(NOTE, (&raw const cookie).cast_mut().cast(), 0).map(drop)
    }

    /// `UMMUNOTIFY_VERIFY`
    pub(crate) fn verify(&self, cookie: u64) -> Result<bool, Failure> {
        self.call(VERIFY, (&raw const cookie).cast_mut().cast(), 0).map(|same| same != 0)
    }

    /// read(2)
    pub(crate) fn read(&self, buffer: &mut [u8]) -> Result<usize, Failure> {
        let len = buffer.len();
        self.call(READ, buffer.as_mut_ptr().cast(), len).map(|len| len as usize)
    }

    /// Whether the descriptor is still the device's.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.call(NOTHING, ptr::null_mut(), 0).map(drop)
    }

    /// Makes one of the calls above: each gives a live argument of the type and size that the call
    /// reads or writes, and the kernel keeps no pointer to it.
    fn call(&self, call: u32, arg: *mut c_void, len: usize) -> Result<c_int, Failure> {
        match self.proof {
            Proof::Identity(identity) => {
                let mut parm = CallIoctl {
                    size: size_of::<CallIoctl>() as u32,
                    call,
                    identity,
                    answer: 0,
                    arg: arg as u64,
                    len: len as u64,
                };
                let result = self.ioctl(CALL, (&raw mut parm).cast());
                match result {
                    _ if parm.answer == !identity => result.map_err(Failure::Refused),
                    // The device's answer to another address space, before it looks at anything.
                    Err(Errno::EPERM) if self.process != std::process::id() => {
                        Err(Failure::Refused(Errno::EPERM))
                    }
                    _ => Err(Failure::NotOurs(result.err().unwrap_or(Errno::ENOTTY))),
                }
            }
            Proof::Mark(mark) => {
                self.check_mark(mark).map_err(Failure::NotOurs)?;
                let result = match call {
                    NOTHING => Ok(0),
                    // SAFETY: the caller gives a live buffer of `len` bytes, which may be written.
                    READ => Errno::result(unsafe { libc::read(self.fd.as_raw_fd(), arg, len) })
                        .map(|len| len as c_int),
                    _ => self.ioctl(call, arg),
                };
                result.map_err(Failure::Refused)
            }
        }
    }

    fn check_mark(&self, mark: c_int) -> Result<(), Errno> {
        let fd = self.fd.as_raw_fd();
        // SAFETY: fcntl(2) with F_GETSIG takes nothing else.
        let signal = Errno::result(unsafe { libc::fcntl(fd, F_GETSIG) })?;
        if signal == mark && self.is_device() { Ok(()) } else { Err(Errno::ESTALE) }
    }

    fn is_device(&self) -> bool {
        fstat(&*self.fd).is_ok_and(|stat| stat.st_rdev == self.device)
    }

    fn ioctl(&self, request: u32, arg: *mut c_void) -> Result<c_int, Errno> {
        // SAFETY: the callers, all of them in this type, give a live argument of the size that the
        // request has; of the device no request keeps a pointer.
        Errno::result(unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, arg) })
    }
}

impl AsFd for DeviceFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for DeviceFile {
    /// Closes the device, and not what has its number now.
    fn drop(&mut self) {
        let is_ours = match self.check() {
            Ok(()) => true,
            // In a forked child, whose file it is as well, the kernel does not compare.
            Err(Failure::Refused(_)) => self.is_device(),
            Err(Failure::NotOurs(_)) => false,
        };
        if is_ours {
            // SAFETY: it is dropped once, here, and not used after.
            unsafe { ManuallyDrop::drop(&mut self.fd) };
        }
    }
}

/// Generations that the kernel counts up, mapped read-only: the counter, or the slots.
#[derive(Debug)]
pub(crate) struct Generations {
    first: NonNull<AtomicU64>,
    bytes: NonZeroUsize,
}

// SAFETY: the mapping is owned by this value, belongs to the process and not to a thread, and is
// only ever read, by atomic loads.
unsafe impl Send for Generations {}
// SAFETY: as above.
unsafe impl Sync for Generations {}

impl Generations {
    /// Maps `bytes`, whole pages, at `offset` of the file.
    pub(crate) fn map(
        file: impl AsFd,
        bytes: NonZeroUsize,
        offset: usize,
    ) -> Result<Generations, Errno> {
        let (prot, flags) = (ProtFlags::PROT_READ, MapFlags::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing in use.
        let first = unsafe { mmap(None, bytes, prot, flags, file, offset as i64) }?;
        Ok(Generations { first: first.cast(), bytes })
    }

    /// The first number.
    pub(crate) fn as_ptr(&self) -> *const AtomicU64 {
        self.first.as_ptr()
    }

    /// Loads number `index`.
    ///
    /// An atomic load from read-only memory is only sure to be a plain load when it is relaxed
    /// (`std::sync::atomic`, "Atomic accesses to read-only memory"), so the order comes from the
    /// fence. It pairs with the kernel's increment, which the kernel makes before it changes a page
    /// table entry: reads after this call see a world no older than the generation.
    ///
    /// # Panics
    ///
    /// Where there is no such number.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> u64 {
        assert!(index < self.bytes.get() / size_of::<u64>(), "no generation {index}");
        // SAFETY: the mapping lives as long as `self`, is page-aligned, and the index is inside.
        // The kernel backs it with pages for as long as it is mapped (in a forked child, with
        // ones).
        let value = unsafe { self.first.add(index).as_ref() }.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        value
    }
}

impl Drop for Generations {
    fn drop(&mut self) {
        // SAFETY: `map` made exactly this mapping, and no reference to it outlives `self`. The call
        // can only fail for arguments that are not a mapping's.
        let _ = unsafe { munmap(self.first.cast(), self.bytes.get()) };
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use nix::unistd::dup2_raw;

    use super::*;

    /// A module that cannot compare: any file will do for the device.
    #[test]
    fn a_marked_file_is_told_from_its_like() {
        let zero = || OwnedFd::from(File::open("/dev/zero").unwrap());
        let (fd, other) = (zero(), zero());
        let number = fd.as_raw_fd();
        let mark = 9;
        // SAFETY: fcntl(2) with F_SETSIG takes a number.
        assert_eq!(unsafe { libc::fcntl(number, F_SETSIG, mark) }, 0);
        let file = DeviceFile {
            device: fstat(&fd).unwrap().st_rdev,
            fd: ManuallyDrop::new(fd),
            process: std::process::id(),
            proof: Proof::Mark(mark),
        };
        assert_eq!(file.read(&mut [1; 4]), Ok(4));
        assert_eq!(file.unregister(1), Err(Failure::Refused(Errno::ENOTTY)));
        // SAFETY: the number is used only through `file`, which is to find out.
        std::mem::forget(unsafe { dup2_raw(&other, number) }.unwrap());
        assert_eq!(file.read(&mut [1; 4]), Err(Failure::NotOurs(Errno::ESTALE)));
        assert_eq!(file.unregister(1), Err(Failure::NotOurs(Errno::ESTALE)));
        drop(file);
        // SAFETY: fcntl(2) with F_GETFD takes nothing else.
        assert!(unsafe { libc::fcntl(number, libc::F_GETFD) } >= 0, "closed");
    }
}
