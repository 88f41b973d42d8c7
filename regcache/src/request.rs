//! What is asked of the cache, checked.

use crate::access::Access;
use crate::error::Error;
use crate::range::AddressRange;

/// What peers may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Peers {
    /// Exactly the bytes that were asked for with remote access. No two ranges are merged.
    #[default]
    Confined,
    /// The rest of the pages too, and what lies between ranges that overlap: fewer registrations,
    /// for jobs whose processes are one program.
    Trusted,
}

/// Refuses what only the unsafe functions do.
#[inline(always)]
pub(crate) fn refuse_remote(access: Access) -> Result<(), Error> {
    if access.is_remote() { Err(Error::RemoteAccessIsUnsafe { access }) } else { Ok(()) }
}

/// A lookup.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// What was asked for.
    pub exact: AddressRange,
    /// What is to be registered on a miss: whole pages where that harms nobody; else exactly what
    /// was asked, since a rounded key would open the neighbours' bytes to the peer.
    pub range: AddressRange,
    /// The pages to be watched.
    pub pages: AddressRange,
    pub access: Access,
    /// More may be registered than was asked for.
    pub may_widen: bool,
}

impl Request {
    pub(crate) fn new(
        addr: usize,
        len: usize,
        access: Access,
        peers: Peers,
    ) -> Result<Request, Error> {
        if len == 0 {
            return Err(Error::EmptyRange { addr });
        }
        let wraps = Error::RangeWraps { addr, len };
        let exact = AddressRange::new(addr, len).ok_or(wraps.clone())?;
        let pages = exact.round_to_pages().ok_or(wraps)?;

        let unsupported = access & (Access::ZERO_BASED | Access::ON_DEMAND);
        if !unsupported.is_empty() {
            return Err(Error::UnsupportedAccess { flags: unsupported });
        }
        let writes_remotely = access.intersects(Access::REMOTE_WRITE | Access::REMOTE_ATOMIC);
        if writes_remotely && !access.contains(Access::LOCAL_WRITE) {
            return Err(Error::NeedsLocalWrite { access });
        }
        let may_widen = !access.is_remote() || peers == Peers::Trusted;
        let range = if may_widen { pages } else { exact };
        Ok(Request { exact, range, pages, access, may_widen })
    }

    /// The accesses of registrations that can serve this request, best first. A local read is also
    /// served by a registration that may be written; every other right must match exactly.
    pub(crate) fn served_by(&self) -> impl Iterator<Item = Access> + use<> {
        let writable = (!self.access.is_remote()).then_some(self.access | Access::LOCAL_WRITE);
        std::iter::once(self.access).chain(writable.filter(|a| *a != self.access))
    }

    /// Whether a registration of `range` with `access` can serve this request.
    pub(crate) fn is_served_by(&self, range: AddressRange, access: Access) -> bool {
        range.covers(self.exact) && self.served_by().any(|a| a == access)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::range::page_size;

    #[test]
    fn local_ranges_are_rounded_and_remote_ones_are_not() {
        let page = page_size();
        let local = Request::new(10 * page + 1, 2, Access::LOCAL_WRITE, Peers::Confined).unwrap();
        assert_eq!(local.range, AddressRange::new(10 * page, page).unwrap());
        let remote = Request::new(10 * page + 1, 2, Access::REMOTE_READ, Peers::Confined).unwrap();
        assert_eq!(remote.range, AddressRange::new(10 * page + 1, 2).unwrap());
        assert_eq!(remote.pages, local.pages);
        let trusted = Request::new(10 * page + 1, 2, Access::REMOTE_READ, Peers::Trusted).unwrap();
        assert_eq!(trusted.range, local.range);
    }

    #[test]
    fn bad_requests_are_named() {
        let error = |addr, len, access| {
            Request::new(addr, len, access, Peers::Confined).unwrap_err().to_string()
        };
        assert_eq!(
            error(0x1000, 0, Access::empty()),
            "cannot register 0 bytes at 0x1000: pass the length of the buffer in bytes"
        );
        assert!(error(usize::MAX - 3, 8, Access::empty()).contains("wrap around"));
        assert!(error(usize::MAX - 8, 4, Access::empty()).contains("wrap around"));
        assert!(error(0x1000, 8, Access::ON_DEMAND).contains("ON_DEMAND"));
        assert!(error(0x1000, 8, Access::REMOTE_WRITE).contains("needs LOCAL_WRITE"));
    }

    #[test]
    fn a_read_is_served_by_a_writable_registration_and_nothing_else_is_widened() {
        let page = AddressRange::new(0x1000, 0x1000).unwrap();
        let served = |want, have| {
            Request::new(0x1000, 8, want, Peers::Confined).unwrap().is_served_by(page, have)
        };
        assert!(served(Access::empty(), Access::LOCAL_WRITE));
        assert!(!served(Access::LOCAL_WRITE, Access::empty()));
        assert!(!served(Access::empty(), Access::LOCAL_WRITE | Access::REMOTE_WRITE));
        assert!(!served(Access::empty(), Access::RELAXED_ORDERING));
        assert!(!served(Access::REMOTE_READ, Access::REMOTE_READ | Access::LOCAL_WRITE));
    }
}
