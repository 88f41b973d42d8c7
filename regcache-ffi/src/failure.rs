//! Errors, as C has them: an errno and a sentence.

use std::borrow::Cow;

use libc::c_int;
use regcache::Error;
use regcache::monitor::MonitorError;
use regcache::registrar::VerbsError;

/// Why a call failed.
pub(crate) struct Failure {
    errno: c_int,
    text: Cow<'static, str>,
}

impl Failure {
    pub(crate) fn new(errno: c_int, text: impl Into<Cow<'static, str>>) -> Failure {
        Failure { errno, text: text.into() }
    }

    pub(crate) fn invalid(text: impl Into<Cow<'static, str>>) -> Failure {
        Failure::new(libc::EINVAL, text)
    }

    pub(crate) fn null(what: &'static str) -> Failure {
        Failure::invalid(format!("{what} is NULL"))
    }

    /// The handle's owner has destroyed it.
    pub(crate) fn dead() -> Failure {
        Failure::new(libc::EBADF, "the handle was destroyed, or never created")
    }

    pub(crate) fn dead_ticket() -> Failure {
        Failure::invalid("the ticket is not live here: it was put before, or is of another handle")
    }

    /// The answer to the caller.
    pub(crate) fn code(&self) -> c_int {
        -self.errno
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<Error> for Failure {
    #[cold]
    fn from(error: Error) -> Failure {
        let errno = match &error {
            Error::UnsupportedAccess { .. } | Error::NoMembarrier => libc::EOPNOTSUPP,
            Error::NotAccessible { errno, .. } | Error::Register { errno, .. } => number(*errno),
            Error::NoMemory { errno, .. } | Error::ForkDetection { errno } => number(*errno),
            Error::CannotPin { .. } | Error::BarrierRefused { .. } => libc::ENOMEM,
            Error::NotDeregistered { .. } => libc::EBUSY,
            Error::Watch { source, .. } => monitor_errno(source),
            Error::Abandoned { .. } => libc::EAGAIN,
            Error::Forked => libc::EPERM,
            Error::Reentered => libc::EDEADLK,
            _ => libc::EINVAL,
        };
        Failure::new(errno, error.to_string())
    }
}

impl From<ummunotify::Error> for Failure {
    fn from(error: ummunotify::Error) -> Failure {
        Failure::new(device_errno(&error), error.to_string())
    }
}

impl From<VerbsError> for Failure {
    fn from(error: VerbsError) -> Failure {
        Failure::new(libc::ELIBACC, error.to_string())
    }
}

fn monitor_errno(error: &MonitorError) -> c_int {
    match error {
        MonitorError::Ummunotify(error) => device_errno(error),
        MonitorError::TooManyWatches(_) => libc::ENOSPC,
        MonitorError::Unwatchable { .. } => libc::EOPNOTSUPP,
        _ => libc::EIO,
    }
}

fn device_errno(error: &ummunotify::Error) -> c_int {
    use ummunotify::Error;
    match error {
        Error::NotFound { .. } => libc::ENODEV,
        Error::PermissionDenied { .. } => libc::EACCES,
        Error::TooManyFiles { errno, .. }
        | Error::NoDescriptor { errno, .. }
        | Error::System { errno, .. } => number(*errno),
        Error::TooManyRegions { .. } => libc::ENOSPC,
        Error::CookieInUse { .. } => libc::EEXIST,
        Error::UnknownCookie { .. } => libc::ENOENT,
        Error::ForeignProcess => libc::EPERM,
        Error::DescriptorLost { .. } => libc::EBADF,
        Error::NotGranted { .. } => libc::EOPNOTSUPP,
        Error::UnknownEvent { .. } => libc::EPROTO,
        _ => libc::EINVAL,
    }
}

/// An errno that is one; 0 would be success.
fn number(errno: nix::errno::Errno) -> c_int {
    match errno as c_int {
        errno if errno > 0 => errno,
        _ => libc::EIO,
    }
}
