//! Tests of the device wrapper and the registrar on a real device.

use regcache::registrar::{Registrar, Verbs, VerbsRegion};
use regcache::{Access, AddressRange};

use std::ptr;

use examples::rdma::{Device, Link, Outcome, Segment, read_mr};

use crate::ways::Way;

const LEN: usize = 10_007;

fn verbs(device: &Device) -> Verbs {
    // SAFETY: every test drops its registrar and deregisters before it drops the device.
    unsafe { Verbs::from_pd(device.pd()) }.unwrap()
}

fn range(addr: usize) -> AddressRange {
    AddressRange::new(addr, LEN).unwrap()
}

fn register(verbs: &Verbs, range: AddressRange, access: Access) -> nix::Result<VerbsRegion> {
    // SAFETY: no test asks for remote access.
    unsafe { verbs.register(range, access) }
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_failed_transfer_leaves_the_link_usable() {
    let device = Device::open(None).unwrap();
    let link = Link::new(&device).unwrap();
    let verbs = verbs(&device);
    let buffers = [(); 2].map(|()| Way::Untouched.buffer(LEN).unwrap());
    let regions =
        [0, 1].map(|n| register(&verbs, range(buffers[n].addr()), Access::LOCAL_WRITE).unwrap());
    let segments = [0, 1].map(|n| Segment {
        addr: buffers[n].addr(),
        len: LEN as u32,
        lkey: regions[n].lkey(),
    });
    // SAFETY: the wrong key is of no registration, and the device refuses it; the others are of
    // live registrations of buffers that nobody else uses.
    let transfer = |from, to| unsafe { link.transfer(from, to) }.unwrap();
    let wrong = Segment { lkey: segments[0].lkey ^ 0xff_ff00, ..segments[0] };
    for turn in 1..4 {
        assert!(matches!(transfer(wrong, segments[1]), Outcome::Failed(_)));
        // SAFETY: the buffers are this test's, and no transfer is under way.
        unsafe { ptr::write_bytes(segments[0].addr as *mut u8, turn, LEN) };
        assert!(matches!(transfer(segments[0], segments[1]), Outcome::Delivered));
        // SAFETY: as above.
        let received = unsafe { std::slice::from_raw_parts(segments[1].addr as *const u8, LEN) };
        assert!(received.iter().all(|byte| *byte == turn));
    }
    for region in &regions {
        verbs.deregister(region).unwrap();
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn the_registrar_says_what_the_device_says() {
    let device = Device::open(None).unwrap();
    let verbs = verbs(&device);
    let mut buffer = Way::RawRemap.buffer(LEN).unwrap();
    buffer.churn().unwrap();
    let optional = Access::LOCAL_WRITE | Access::RELAXED_ORDERING;
    let regions = [Access::empty(), Access::LOCAL_WRITE, optional]
        .map(|access| register(&verbs, range(buffer.addr()), access).unwrap());
    for region in &regions {
        // SAFETY: the region is registered.
        let mr = unsafe { read_mr(region.as_ptr()) };
        assert_eq!((mr.lkey, mr.rkey), (region.lkey(), region.rkey()));
        assert_eq!((mr.addr as usize, mr.length), (buffer.addr(), LEN as u64));
        assert_eq!(mr.pd, verbs.pd().as_ptr());
    }
    assert_ne!(regions[0].lkey(), regions[1].lkey());
    for region in &regions {
        assert_eq!(verbs.deregister(region), Ok(()));
        assert_eq!(verbs.deregister(region), Err(nix::errno::Errno::EINVAL));
    }
    let unmapped = range(buffer.addr() + (1 << 20));
    let refused = register(&verbs, unmapped, Access::LOCAL_WRITE);
    assert_eq!(refused.err(), Some(nix::errno::Errno::EFAULT));
}
