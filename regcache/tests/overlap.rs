//! Ranges that overlap, and what peers may reach.

mod common;

use common::{Recorder, cache, page, pages};
use nix::errno::Errno;
use regcache::monitor::Manual;
use regcache::{Access, AddressRange, Cache, Peers, page_size};

const RW: Access = Access::LOCAL_WRITE;
const REMOTE: Access = Access::LOCAL_WRITE.union(Access::REMOTE_WRITE);

#[test]
fn two_ranges_that_overlap_become_one() {
    let cache = cache();
    let first = cache.get_or_register(page(0), 2 * page_size(), RW).unwrap();
    let second = cache.get_or_register(page(1), 2 * page_size(), RW).unwrap();
    assert_eq!(second.range(), pages(0, 3));
    assert_eq!(first.range(), pages(0, 2), "the old guard keeps what it has");
    assert_eq!(cache.registrar().live(), 2);
    drop(first);
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 3)]);
    assert_eq!(cache.get_or_register(page(0), 3 * page_size(), RW).unwrap().lkey(), second.lkey());
}

#[test]
fn neighbours_are_not_merged() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    drop(cache.get_or_register(page(1), 8, RW).unwrap());
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 1), pages(1, 1)]);
}

/// 64 windows that slide by a page, of several widths: nothing grows without bound.
#[test]
fn sliding_windows_register_at_most_twice_what_was_asked_for() {
    for width in [1, 2, 3, 8, 64] {
        let recorder = Recorder::default();
        let cache = Cache::builder(recorder.clone(), Manual::new()).build().unwrap();
        for start in 0..64 {
            drop(cache.get_or_register(page(start), width * page_size(), RW).unwrap());
        }
        let registered = recorder.registered_bytes();
        let asked = 64 * width * page_size();
        assert!(registered <= 2 * asked, "width {width}: {registered} of {asked}");
        let pages_asked = 64 + width - 1;
        let held: usize = recorder.live_ranges().iter().map(|r| r.len()).sum();
        assert!(held <= 2 * pages_asked * page_size(), "width {width}: {held} bytes are held");
    }
}

#[test]
fn what_nobody_asked_for_is_not_registered() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 2 * page_size(), RW).unwrap());
    drop(cache.get_or_register(page(10), 2 * page_size(), RW).unwrap());
    drop(cache.get_or_register(page(1), 10 * page_size(), RW).unwrap());
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 12)]);
    drop(cache.get_or_register(page(20), 8, RW).unwrap());
    drop(cache.get_or_register(page(30), 8, RW).unwrap());
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 12), pages(20, 1), pages(30, 1)]);
}

#[test]
fn a_neighbour_that_is_gone_does_not_fail_the_lookup() {
    // The first range can be registered alone, but not together with another.
    let recorder = Recorder::with(|range| match range == pages(0, 3) {
        true => Err(Errno::EFAULT),
        false => Ok(()),
    });
    let cache = Cache::builder(recorder, Manual::new()).build().unwrap();
    drop(cache.get_or_register(page(0), 2 * page_size(), RW).unwrap());
    let guard = cache.get_or_register(page(1), 2 * page_size(), RW).unwrap();
    assert_eq!(guard.range(), pages(1, 2));
    assert!(guard.is_cached());
    assert_eq!(cache.stats().bytes, 4 * page_size() as u64);
}

#[test]
fn different_rights_are_not_merged() {
    let cache = cache();
    drop(cache.get_or_register(page(0), 2 * page_size(), RW).unwrap());
    let other = RW | Access::RELAXED_ORDERING;
    let guard = cache.get_or_register(page(1), 2 * page_size(), other).unwrap();
    assert_eq!(guard.range(), pages(1, 2));
}

#[test]
fn peers_reach_exactly_what_they_were_given_unless_they_are_trusted() {
    let remote = |peers| {
        let cache =
            Cache::builder(Recorder::default(), Manual::new()).peers(peers).build().unwrap();
        for addr in [page(0) + 100, page(0) + 150] {
            // SAFETY: the registrar of this test lets nobody reach any memory.
            drop(unsafe { cache.get_or_register_remote(addr, 100, REMOTE) }.unwrap());
        }
        cache.registrar().live_ranges()
    };
    let exact = |addr| AddressRange::new(addr, 100).unwrap();
    assert_eq!(remote(Peers::Confined), [exact(page(0) + 100), exact(page(0) + 150)]);
    assert_eq!(remote(Peers::Trusted), [pages(0, 1)]);
}

#[test]
fn revoked_keys_are_dead_or_counted() {
    let cache = cache();
    let guard = cache.get_or_register(page(0), 8, RW).unwrap();
    drop(cache.get_or_register(page(1), 8, RW).unwrap());
    drop(cache.get_or_register(page(7), 8, RW).unwrap());
    assert_eq!(cache.revoke(pages(0, 2)).unwrap(), 1);
    assert_eq!(cache.registrar().live_ranges(), [pages(0, 1), pages(7, 1)]);
    let new = cache.get_or_register(page(0), 8, RW).unwrap();
    assert_ne!(new.lkey(), guard.lkey(), "no lookup finds what was revoked");
    drop((guard, new));
    assert_eq!(cache.revoke(pages(0, 2)).unwrap(), 0);
    assert_eq!(cache.registrar().live_ranges(), [pages(7, 1)]);
    assert_eq!(cache.stats().revoked, 3);
}

#[test]
fn bytes_within_one_page_are_invalidated_with_the_page() {
    let cache = cache();
    // SAFETY: the registrar of this test lets nobody reach any memory.
    let old = unsafe { cache.get_or_register_remote(page(0) + 100, 8, REMOTE) }.unwrap().lkey();
    cache.monitor().invalidate(AddressRange::new(page(0) + 4000, 1).unwrap());
    // SAFETY: as above.
    let new = unsafe { cache.get_or_register_remote(page(0) + 100, 8, REMOTE) }.unwrap().lkey();
    assert_ne!(old, new);
}

/// Events are for pages: also one that ends in the last page, whose end is no address.
#[test]
fn a_change_up_to_the_end_of_the_address_space_begins_with_its_page() {
    for len in [1, page_size(), usize::MAX - page(0) - 100] {
        let cache = cache();
        let lkey = || {
            // SAFETY: the registrar is a fake, which lets no peer reach any memory.
            unsafe { cache.get_or_register_remote(page(0), 8, REMOTE) }.unwrap().lkey()
        };
        let old = lkey();
        assert_eq!(lkey(), old);
        cache.monitor().invalidate(AddressRange::new(page(0) + 100, len).unwrap());
        assert_ne!(lkey(), old, "a change of {len} bytes from the same page on");
    }
}
