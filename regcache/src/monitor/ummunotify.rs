//! The kernel's word.

use std::os::fd::{AsFd, BorrowedFd};

use parking_lot::Mutex;
use ummunotify::{Device, Event, EventBuffer, Features, Kinds, Options, Watch};

use super::{Cookie, Invalid, Monitor, MonitorError};
use crate::range::AddressRange;

/// Generation slots that are asked for: enough for a cache of the default size.
const SLOTS: u32 = 20_480;

/// The kernel module: sees every change, whoever makes it and however.
///
/// Each cache needs one of its own, since events go to whoever reads them first.
#[derive(Debug)]
pub struct Ummunotify {
    device: Device,
    buffer: Mutex<EventBuffer>,
}

impl Ummunotify {
    /// Opens `/dev/ummunotify`, with all that the cache can use of what the module offers.
    pub fn open() -> Result<Ummunotify, ummunotify::Error> {
        let options = Options::new().features(Features::FILTER | Features::VERIFY).slots(SLOTS);
        Ok(Ummunotify::from(options.open()?))
    }

    /// The device, to be polled: when it is readable, [`Cache::drain`](crate::Cache::drain) has
    /// something to do.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

impl From<Device> for Ummunotify {
    /// Uses what the device was granted, and needs nothing of it.
    fn from(device: Device) -> Ummunotify {
        Ummunotify { device, buffer: Mutex::new(EventBuffer::new()) }
    }
}

impl Monitor for Ummunotify {
    #[inline]
    fn generation(&self) -> u64 {
        self.device.generation()
    }

    fn watch(&self, cookie: Cookie, range: AddressRange) -> Result<(), MonitorError> {
        let mut watch = Watch::new();
        if self.device.features().contains(Features::FILTER) {
            // None of these gives the program another page: what is pinned stays, and what is not
            // pinned is copied later, with an event of its own.
            watch = watch.ignore(Kinds::FILTERABLE);
        }
        if cookie.slot() < self.device.slots() {
            watch = watch.slot(cookie.slot());
        }
        Ok(self.device.register_with(range.start(), range.len(), cookie.0, watch)?)
    }

    fn unwatch(&self, cookie: Cookie) -> Result<(), MonitorError> {
        Ok(self.device.unregister(cookie.0)?)
    }

    fn drain(&self, invalid: &mut dyn FnMut(Invalid)) -> Result<u64, MonitorError> {
        let mut buffer = self.buffer.lock();
        loop {
            // Loaded before the read: if that finds nothing, all up to here has been reported.
            let before = self.device.generation();
            let events = self.device.read(&mut buffer)?;
            if events.len() == 0 {
                return Ok(before);
            }
            for event in events {
                match event {
                    Event::Invalid(hit) => invalid(Invalid::Watch(Cookie(hit.cookie))),
                    Event::Last { generation } => return Ok(generation),
                }
            }
        }
    }

    #[inline]
    fn slot_generation(&self, slot: u32) -> Option<u64> {
        (slot < self.device.slots()).then(|| self.device.slot_generation(slot))
    }

    fn pinned(&self, cookie: Cookie) {
        // Without it `verify` says no.
        let _ = self.device.note(cookie.0);
    }

    fn verify(&self, cookie: Cookie) -> bool {
        self.device.verify(cookie.0).unwrap_or(false)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }
}
