//! What can go wrong, and the way out.

use nix::errno::Errno;

use crate::access::Access;
use crate::monitor::MonitorError;
use crate::range::AddressRange;

/// Why the cache could not hand out a registration. After any error nothing new is cached and
/// nothing stays pinned.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A registration of no bytes was asked for.
    #[error("cannot register 0 bytes at {addr:#x}: pass the length of the buffer in bytes")]
    EmptyRange {
        /// The address.
        addr: usize,
    },
    /// The range wraps around the end of the address space.
    #[error("{len} bytes at {addr:#x} wrap around the end of the address space")]
    RangeWraps {
        /// The address.
        addr: usize,
        /// The length, in bytes.
        len: usize,
    },
    /// Access rights that a cached registration cannot have.
    #[error("cannot cache a registration with {flags:?}: register that memory without the cache")]
    UnsupportedAccess {
        /// The rights that are in the way.
        flags: Access,
    },
    /// Access rights that are only had together with another.
    #[error("{access:?} needs LOCAL_WRITE too (ibv_reg_mr(3))")]
    NeedsLocalWrite {
        /// The rights that were asked for.
        access: Access,
    },
    /// Remote access was asked for in the safe function.
    #[error(
        "{access:?} lets a peer reach this memory at any time: \
         use the unsafe get_or_register_remote and keep its promises"
    )]
    RemoteAccessIsUnsafe {
        /// The rights that were asked for.
        access: Access,
    },
    /// The memory is not mapped, or not writable while the access writes (EFAULT, EACCES).
    #[error(
        "cannot register {range} for {access:?} ({errno}): {}",
        why.as_deref().unwrap_or(
            "not all of it is mapped, it is read-only and the device would write to it, or it is of \
             a kind that cannot be pinned"
        )
    )]
    NotAccessible {
        /// The range that was to be registered.
        range: AddressRange,
        /// The access that was asked for.
        access: Access,
        /// What the registrar said.
        errno: Errno,
        /// What is in the way, where it could be found out.
        why: Option<String>,
    },
    /// No more memory can be pinned (ENOMEM), after everything idle was let go.
    #[error(
        "cannot pin {range} ({} bytes) with {pinned_bytes} bytes held by this cache, \
         {pinned_by_others} by other caches of this process{}: \
         raise the limit (ulimit -l, LimitMEMLOCK=, /etc/security/limits.d) \
         or drop guards that are no longer needed",
        range.len(),
        match memlock_limit {
            Some(limit) => format!(" and a limit of {limit} bytes on locked memory"),
            None => String::new(),
        }
    )]
    CannotPin {
        /// The range that was to be registered.
        range: AddressRange,
        /// What this cache holds pinned, in bytes. All of it is in use.
        pinned_bytes: u64,
        /// What other caches of this process hold pinned, in bytes. All of it is in use.
        pinned_by_others: u64,
        /// `RLIMIT_MEMLOCK` of this process in bytes; `None` where no limit counts.
        memlock_limit: Option<u64>,
    },
    /// The registrar keeps registrations that it was told to end, and there is no room beside them.
    #[error(
        "cannot register {range}: {bytes} bytes are registered that the device will not deregister \
         ({errno}): unbind memory windows, or raise the limit on bytes and regions"
    )]
    NotDeregistered {
        /// The range that was to be registered.
        range: AddressRange,
        /// What it keeps, in bytes.
        bytes: u64,
        /// What it said last.
        errno: Errno,
    },
    /// No more memory can be pinned, while some stays pinned that nobody uses: it was registered before
    /// membarrier(2) was refused, and without that call it is not known whether a thread that has not
    /// used the cache since still holds it.
    #[error(
        "cannot pin {range}: {bytes} bytes that are stale stay pinned, since a seccomp filter refuses \
         membarrier(2) and some thread has not used the cache since: allow membarrier in the filter, \
         make the cache after the filter, or look up something from each thread"
    )]
    BarrierRefused {
        /// The range that was to be registered.
        range: AddressRange,
        /// What stays pinned, in bytes.
        bytes: u64,
    },
    /// The registrar refused for another reason.
    #[error(
        "cannot register {range} for {access:?}: {errno}{}",
        match (why, errno) {
            (Some(why), _) => format!(" ({why})"),
            (None, Errno::EBADF) => " (other code of this process has closed the device's descriptor: \
                                     open the device again, and make a new cache)"
                .to_owned(),
            (None, Errno::EIO | Errno::ENODEV) =>
                " (the device is gone, or has failed for good: see its asynchronous events)".to_owned(),
            (None, _) => String::new(),
        }
    )]
    Register {
        /// The range that was to be registered.
        range: AddressRange,
        /// The access that was asked for.
        access: Access,
        /// What the registrar said.
        errno: Errno,
        /// What is in the way, where it could be found out.
        why: Option<String>,
    },
    /// The monitor cannot watch the range, so a registration of it could go stale unnoticed.
    #[error("cannot watch {range}: {source}")]
    Watch {
        /// The pages that were to be watched.
        range: AddressRange,
        /// What the monitor said.
        source: MonitorError,
    },
    /// The thread that was registering the same range panicked.
    #[error("another thread panicked while it registered {range}; try again")]
    Abandoned {
        /// The range.
        range: AddressRange,
    },
    /// The cache belongs to the parent process: registrations and watches are not inherited.
    #[error("this cache belongs to the parent process: make a new one after fork")]
    Forked,
    /// The thread is inside a lock of a cache already: the caller is an allocator that the cache called,
    /// or a monitor's `drain` or `verify`.
    #[error(
        "called from inside the cache, by an allocator or by a monitor's drain or verify: there, only \
         announce changes (Manual::invalidate)"
    )]
    Reentered,
    /// More registrations than a cache can hold were allowed.
    #[error("a cache of {regions} registrations: {most} is the most")]
    TooManyRegions {
        /// What was asked for.
        regions: usize,
        /// The most.
        most: usize,
    },
    /// membarrier(2) was asked for, and the kernel has none or refuses it.
    #[error(
        "the kernel refuses membarrier(2) (is it older than 4.14, or a seccomp filter in the way?): \
         use Barrier::Atomic"
    )]
    NoMembarrier,
    /// A setting in the environment that is not understood.
    #[error("{name}={value}: expected {expected}")]
    BadSetting {
        /// The variable.
        name: String,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// A variable in the environment that looks like a misspelt setting.
    #[error("{name} is no setting of regcache: is {known} meant? unset one that is not")]
    UnknownSetting {
        /// The variable.
        name: String,
        /// The setting whose name is nearest.
        known: &'static str,
    },
    /// The memory for the cache's own tables could not be had.
    #[error("no memory for a cache of {regions} registrations: {errno}")]
    NoMemory {
        /// Registrations that it was to hold.
        regions: u32,
        /// What the kernel said.
        errno: Errno,
    },
    /// A page that shows whether the process was forked could not be had.
    #[error("cannot set up the detection of fork: {errno}")]
    ForkDetection {
        /// What the kernel said.
        errno: Errno,
    },
}
