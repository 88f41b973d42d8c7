//! A process with a cache for each of many devices and their domains: each cache has a file of
//! `/dev/ummunotify` of its own, and is judged by page frames.
#![cfg(feature = "guest")]

use std::fs;

use regcache::Access;
use regcache_guest_tests::frames::is_stale;
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::rows::told;
use ummunotify::{Device, Error};

#[test]
fn each_of_256_caches_is_told() {
    let memory = Memory::anonymous(2);
    let caches: Vec<_> = (0..256).map(|_| told()).collect();
    for round in 0..3 {
        for (number, cache) in caches.iter().enumerate() {
            let (start, len) = (memory.range.start(), memory.range.len());
            for _ in 0..2 {
                let guard = cache.get_or_register(start, len, Access::LOCAL_WRITE).unwrap();
                assert!(!is_stale(&guard, memory.range), "cache {number}, round {round}");
            }
        }
        memory.unmap();
        memory.map_again();
    }
    for cache in &caches {
        let stats = cache.stats();
        assert_eq!((stats.registrations, stats.hits, stats.uncached()), (3, 3, 0), "{stats}");
    }
}

const MAX_FILES: &str = "/sys/module/ummunotify/parameters/max_files";

/// The module's limit and the process's are two causes, with two ways out.
#[test]
fn the_modules_limit_names_its_parameters() {
    let before = fs::read_to_string(MAX_FILES).unwrap();
    fs::write(MAX_FILES, "3").unwrap();
    let devices: Vec<_> = (0..3).map(|_| Device::open().unwrap()).collect();
    let error = Device::open().unwrap_err();
    fs::write(MAX_FILES, before).unwrap();
    let text = error.to_string();
    assert!(matches!(error, Error::TooManyFiles { .. }), "{text}");
    for part in ["max_files", "max_user_files", "/sys/module/ummunotify/parameters"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(!text.contains("ulimit"), "{text}");
    assert_eq!(devices.len(), 3);
    Device::open().unwrap();
}
