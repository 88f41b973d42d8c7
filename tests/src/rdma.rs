//! The RDMA device of the guest, and messages over it.

use std::sync::atomic::{AtomicU64, Ordering};

use examples::rdma::{Device, Link, Outcome, Segment};
use regcache::monitor::Monitor;
use regcache::registrar::Verbs;
use regcache::{Access, AddressRange, Cache};

fn open_device() -> &'static Device {
    Box::leak(Box::new(Device::open(None).expect("an RDMA device")))
}

/// A registrar with a device of its own, which stays open.
pub fn verbs() -> Verbs {
    // SAFETY: the device is never closed.
    unsafe { Verbs::from_pd(open_device().pd()) }.expect("libibverbs")
}

/// Two queue pairs, and caches of registrations in their protection domain.
pub struct Wire {
    device: &'static Device,
    link: Link<'static>,
}

impl Wire {
    /// Opens the device and connects.
    pub fn new() -> Wire {
        let device = open_device();
        Wire { device, link: Link::new(device).expect("two connected queue pairs") }
    }

    /// A cache of registrations for this wire.
    pub fn cache<M: Monitor>(&self, monitor: M) -> Cache<Verbs, M> {
        // SAFETY: the device is never closed.
        let verbs = unsafe { Verbs::from_pd(self.device.pd()) }.expect("libibverbs");
        Cache::builder(verbs, monitor).max_bytes(1 << 30).build().expect("cache")
    }

    /// Fills `from`, sends it to `to`, and says whether the program finds there what it sent.
    pub fn delivers<M: Monitor>(
        &self,
        cache: &Cache<Verbs, M>,
        from: AddressRange,
        to: AddressRange,
    ) -> bool {
        static MESSAGES: AtomicU64 = AtomicU64::new(0);
        let number = MESSAGES.fetch_add(1, Ordering::Relaxed);
        let message: Vec<u8> = (0..from.len() as u64)
            .map(|at| (number.wrapping_mul(167) ^ at.wrapping_mul(31) ^ (at >> 12)) as u8)
            .collect();
        // SAFETY: the tests' ranges are mapped, writable and nobody else's.
        unsafe { (from.start() as *mut u8).copy_from(message.as_ptr(), message.len()) };
        // SAFETY: as above.
        unsafe { (to.start() as *mut u8).write_bytes(!message[0], to.len()) };

        let get = |range: AddressRange, access| {
            cache.get_or_register(range.start(), range.len(), access).expect("register")
        };
        let (send, receive) = (get(from, Access::empty()), get(to, Access::LOCAL_WRITE));
        let segment = |range: AddressRange, lkey| Segment {
            addr: range.start(),
            len: range.len() as u32,
            lkey,
        };
        // SAFETY: both registrations are held, and what they have pinned is the tests' own.
        let outcome =
            unsafe { self.link.transfer(segment(from, send.lkey()), segment(to, receive.lkey())) };
        assert!(matches!(outcome.expect("the device works"), Outcome::Delivered));
        // SAFETY: the range is mapped and readable, and the transfer has ended.
        let received = unsafe { std::slice::from_raw_parts(to.start() as *const u8, to.len()) };
        received == message
    }
}

impl Default for Wire {
    fn default() -> Wire {
        Wire::new()
    }
}
