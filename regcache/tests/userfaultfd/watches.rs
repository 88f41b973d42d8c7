//! Watches and events, without a cache.

use std::os::fd::AsFd;

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use regcache::monitor::{Cookie, Invalid, Monitor, MonitorError, Userfaultfd};
use regcache::{AddressRange, page_size};

use super::hangs::run_alone;
use super::memory::{ANONYMOUS, Memory, lonely_range};
use super::monitor;

/// What is told. The generation is that of all monitors of the process, so other tests move it.
fn drain(monitor: &Userfaultfd) -> Vec<AddressRange> {
    let mut told = Vec::new();
    let before = monitor.generation();
    let generation = monitor.drain(&mut |invalid| match invalid {
        Invalid::Range(range) => told.push(range),
        other => panic!("{other:?}"),
    });
    assert!((before..=monitor.generation()).contains(&generation.unwrap()));
    told
}

fn is_told(monitor: &Userfaultfd, change: impl FnOnce()) -> Vec<AddressRange> {
    let before = monitor.generation();
    change();
    let moved = monitor.generation() != before;
    let told = drain(monitor);
    assert!(moved || told.is_empty());
    told
}

#[test]
fn the_end_of_a_watch_is_not_the_end_of_its_neighbours() {
    let Some(monitor) = monitor() else { return };
    let memory = Memory::new(8);
    let range = |n, count| memory.pages(n, count).range;
    monitor.watch(Cookie(1), range(0, 4)).unwrap();
    monitor.watch(Cookie(2), range(2, 4)).unwrap();
    monitor.watch(Cookie(3), range(2, 4)).unwrap();
    monitor.unwatch(Cookie(1)).unwrap();
    monitor.unwatch(Cookie(2)).unwrap();
    let unmap = |n, count| is_told(&monitor, || memory.pages(n, count).unmap());
    assert_eq!(unmap(0, 1), []);
    assert_eq!(unmap(3, 1), [range(3, 1)]);
    assert_eq!(unmap(6, 2), []);
    assert_eq!(unmap(5, 1), [range(5, 1)]);
    monitor.unwatch(Cookie(3)).unwrap();
    assert_eq!(unmap(1, 4), []);
}

#[test]
fn a_part_of_a_page_is_the_page() {
    let Some(monitor) = monitor() else { return };
    let memory = Memory::new(2);
    let byte = AddressRange::new(memory.range.start() + page_size() + 5, 1).unwrap();
    monitor.watch(Cookie(1), byte).unwrap();
    let told = is_told(&monitor, || memory.advise(libc::MADV_DONTNEED));
    assert_eq!(told, [memory.pages(1, 1).range]);
}

#[test]
fn the_end_of_a_watch_leaves_what_has_come_since() {
    let Some(monitor) = monitor() else { return };
    let memory = Memory::new(8);
    monitor.watch(Cookie(1), memory.range).unwrap();
    // Now three mappings and a hole, of which the monitor can have one.
    memory.pages(0, 6).unmap();
    memory.pages(1, 1).map_again();
    let file = Memory::of_memfd(1, libc::MAP_SHARED).file;
    Memory { file, ..memory.pages(3, 1) }.map_at(libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
    assert_eq!(drain(&monitor), [memory.pages(0, 6).range]);
    monitor.unwatch(Cookie(1)).unwrap();
    assert_eq!(is_told(&monitor, || memory.unmap()), []);
}

#[test]
fn memory_that_was_moved_is_left_in_the_end() {
    let Some(monitor) = monitor() else { return };
    let (memory, other) = (Memory::new(4), Memory::new(1));
    monitor.watch(Cookie(1), memory.range).unwrap();
    let to = lonely_range(memory.range.len());
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    memory.remap(to.len(), flags, to.start()).unwrap();
    let told = drain(&monitor);
    assert!(!told.is_empty() && told.iter().all(|range| *range == memory.range), "{told:?}");
    monitor.watch(Cookie(2), other.range).unwrap();
    let moved = Memory { range: to, file: None };
    assert_eq!(is_told(&monitor, || moved.unmap()), []);
    assert_eq!(is_told(&monitor, || other.unmap()), [other.range]);
}

#[test]
fn memory_is_not_watched_while_its_pages_are_dropped() {
    let Some(monitor) = monitor() else { return };
    let memory = Memory::new(4);
    monitor.watch(Cookie(1), memory.range).unwrap();
    memory.advise(libc::MADV_DONTNEED);
    drain(&monitor);
    let refused = monitor.watch(Cookie(2), memory.pages(3, 1).range).unwrap_err();
    assert!(matches!(refused, MonitorError::Unwatchable { .. }), "{refused}");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    monitor.watch(Cookie(3), memory.pages(3, 1).range).unwrap();
}

#[test]
fn more_events_than_there_is_room_for() {
    if monitor().is_some() {
        // Other tests' monitors would take events from the ring, and hear of all memory.
        assert!(run_alone("watches::alone_overflow").success());
    }
}

#[test]
#[ignore = "run by more_events_than_there_is_room_for, in a process of its own"]
fn alone_overflow() {
    let monitor = monitor().expect("as the caller's");
    let memory = Memory::new(1);
    monitor.watch(Cookie(1), memory.range).unwrap();
    for _ in 0..1100 {
        memory.advise(libc::MADV_FREE);
    }
    let told = drain(&monitor);
    assert!(told.iter().any(|range| range.covers(Memory::new(1).range)), "everything");
    assert_eq!(is_told(&monitor, || memory.unmap()), [memory.range]);
}

fn is_readable(monitor: &Userfaultfd, within: u16) -> bool {
    let mut files = [PollFd::new(monitor.as_fd(), PollFlags::POLLIN)];
    poll(&mut files, PollTimeout::from(within)).unwrap() == 1
}

/// Other tests may make it readable, though not for ever.
fn becomes_quiet(monitor: &Userfaultfd) -> bool {
    (0..1000).any(|_| {
        drain(monitor);
        !is_readable(monitor, 20)
    })
}

#[test]
fn each_monitor_can_be_polled() {
    let (Some(monitor), Some(other)) = (monitor(), monitor()) else { return };
    let memory = Memory::new(1);
    monitor.watch(Cookie(1), memory.range).unwrap();
    other.watch(Cookie(1), memory.range).unwrap();
    for _ in 0..10 {
        assert!(becomes_quiet(&monitor) && becomes_quiet(&other));
        memory.map_at(ANONYMOUS | libc::MAP_FIXED);
        assert!(is_readable(&monitor, 10_000));
        // What one of them drains is not taken away from the other.
        assert_eq!(drain(&monitor), [memory.range]);
        assert!(is_readable(&other, 10_000));
        assert_eq!(drain(&other), [memory.range]);
        for (cookie, monitor) in [(2, &monitor), (3, &other)] {
            monitor.unwatch(Cookie(cookie - 1)).unwrap();
            monitor.unwatch(Cookie(cookie)).unwrap();
            monitor.watch(Cookie(cookie), memory.range).unwrap();
        }
    }
}

/// Whether the mapping at the start of `range` is a userfaultfd's, as the kernel says (proc(5)).
fn is_watched(range: AddressRange) -> bool {
    let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut inside = false;
    for line in smaps.lines() {
        let bounds = line.split(' ').next().and_then(|word| word.split_once('-'));
        let address = |word| usize::from_str_radix(word, 16).ok();
        if let Some((start, end)) = bounds.and_then(|(a, b)| address(a).zip(address(b))) {
            inside = (start..end).contains(&range.start());
        } else if let (true, Some(flags)) = (inside, line.strip_prefix("VmFlags:")) {
            return flags.split(' ').any(|flag| flag == "uw");
        }
    }
    panic!("{range} is not mapped");
}

#[test]
fn monitors_share_memory_and_part() {
    let (Some(monitor), Some(other)) = (monitor(), monitor()) else { return };
    let memory = Memory::new(8);
    let range = |n, count| memory.pages(n, count).range;
    monitor.watch(Cookie(1), range(0, 6)).unwrap();
    other.watch(Cookie(1), range(4, 4)).unwrap();
    assert_eq!(is_told(&monitor, || memory.pages(0, 1).unmap()), [range(0, 1)]);
    assert_eq!(drain(&other), [], "it does not watch this");
    assert_eq!(is_told(&other, || memory.pages(5, 1).unmap()), [range(5, 1)]);
    assert_eq!(drain(&monitor), [range(5, 1)]);
    // The end of one leaves what the other watches, and nothing else.
    assert!(is_watched(range(1, 1)) && is_watched(range(4, 1)));
    drop(monitor);
    assert!(!is_watched(range(1, 1)), "who unmaps it would wait for nothing");
    assert_eq!(is_told(&other, || memory.pages(4, 1).unmap()), [range(4, 1)]);
    assert_eq!(is_told(&other, || memory.pages(7, 1).unmap()), [range(7, 1)]);
}
