//! Makes the pages of a large registration before it is pinned, a piece at a time, so that a program
//! can show how far it is. Pinning would make them all in one call.

use nix::sys::mman::{MmapAdvise, madvise};
use std::ffi::c_void;
use std::ptr::NonNull;

use crate::access::Access;
use crate::builder::Settings;
use crate::range::AddressRange;

/// Pieces, in bytes.
const STEP: usize = 64 << 20;

/// How far a large registration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being registered.
    pub range: AddressRange,
    /// Bytes of it whose pages are there. Pinning itself follows when it is the length of `range`.
    pub ready: usize,
}

pub(crate) fn populate(settings: &Settings, range: AddressRange, access: Access) {
    let Some(callback) = &settings.progress else { return };
    if range.len() <= STEP {
        return;
    }
    let Some(pages) = range.round_to_pages() else { return };
    let advice = match access.contains(Access::LOCAL_WRITE) {
        true => MmapAdvise::MADV_POPULATE_WRITE,
        false => MmapAdvise::MADV_POPULATE_READ,
    };
    for start in (pages.start()..pages.end()).step_by(STEP) {
        callback(Progress { range, ready: start.saturating_sub(range.start()) });
        let Some(piece) = NonNull::new(start as *mut c_void) else { return };
        // SAFETY: madvise(2) with this advice makes the pages that a read or a write would make, and
        // changes no contents. Where there is no mapping it fails, and the registrar will say so.
        let done = unsafe { madvise(piece, STEP.min(pages.end() - start), advice) };
        if done.is_err() {
            return;
        }
    }
    callback(Progress { range, ready: range.len() });
}
