//! Bad input and bad circumstances: a typed error with the value and the way out, nothing cached,
//! nothing leaked.
#![cfg(feature = "guest")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::resource::{Resource, setrlimit};
use regcache::monitor::Ummunotify;
use regcache::{Access, Cache, Error, page_size};
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::pinned::{assert_pinned_returns_to, pinned_kib};
use regcache_guest_tests::raw;
use regcache_guest_tests::rdma::verbs;
use regcache_guest_tests::rows::told;

const DEVICE: &str = "/dev/ummunotify";
const NOBODY: u32 = 65534;

#[test]
fn bad_ranges_are_named_and_leave_nothing() {
    let before = pinned_kib();
    let cache = told();
    let memory = Memory::anonymous(4);
    let (start, len) = (memory.range.start(), memory.range.len());

    let error = |addr, len| cache.get_or_register(addr, len, Access::LOCAL_WRITE).unwrap_err();
    assert!(matches!(error(start, 0), Error::EmptyRange { .. }));
    assert!(matches!(error(usize::MAX - 10, 100), Error::RangeWraps { .. }));

    let hole = memory.pages(2, 1);
    raw!(SYS_munmap, hole.start(), hole.len());
    let unmapped = error(start, len);
    assert!(matches!(unmapped, Error::NotAccessible { .. }), "{unmapped}");

    let head = memory.pages(0, 2);
    raw!(SYS_mprotect, head.start(), head.len(), libc::PROT_READ);
    let read_only = error(head.start(), head.len());
    assert!(matches!(read_only, Error::NotAccessible { .. }), "{read_only}");
    assert!(read_only.to_string().contains("read-only"), "{read_only}");

    let stats = cache.stats();
    assert_eq!((stats.regions, stats.registrations), (0, 0), "{stats}");
    assert_pinned_returns_to(before);
}

#[test]
fn everything_is_unpinned_in_the_end() {
    let before = pinned_kib();
    let cache = told();
    let memory = Memory::anonymous(64);
    for page in 0..64 {
        let page = memory.pages(page, 1);
        drop(cache.get_or_register(page.start(), page.len(), Access::LOCAL_WRITE).unwrap());
    }
    assert!(pinned_kib() > before);
    memory.unmap();
    cache.drain().unwrap();
    assert_eq!(cache.stats().regions, 0, "no lookup was needed");
    assert_pinned_returns_to(before);
}

#[test]
fn a_limit_of_the_module_lends_out_uncached_when_nothing_can_be_evicted() {
    const LIMIT: &str = "/sys/module/ummunotify/parameters/max_regions";
    let old = fs::read_to_string(LIMIT).unwrap();
    let before = pinned_kib();
    fs::write(LIMIT, "2").unwrap();
    let cache = told();
    let memory = Memory::anonymous(4);
    let get = |page| {
        let page = memory.pages(page, 1);
        cache.get_or_register(page.start(), page.len(), Access::LOCAL_WRITE)
    };
    let held = get(0).unwrap();
    drop(get(1).unwrap());
    let other = get(2).unwrap();
    assert_eq!(cache.stats().evicted, 1, "the idle one made room");
    let extra = get(3);
    fs::write(LIMIT, old.trim()).unwrap();
    let extra = extra.unwrap();
    assert!(held.is_cached() && !extra.is_cached());
    assert_eq!(cache.stats().uncached_unwatchable, 1);
    drop(extra);
    drop((held, other));
    cache.flush().unwrap();
    assert_pinned_returns_to(before);
}

#[test]
fn an_absent_device_says_what_to_load() {
    const ELSEWHERE: &str = "/dev/ummunotify.away";
    fs::rename(DEVICE, ELSEWHERE).unwrap();
    let result = Ummunotify::open();
    fs::rename(ELSEWHERE, DEVICE).unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, ummunotify::Error::NotFound { .. }), "{error}");
    assert!(error.to_string().contains("modprobe ummunotify"), "{error}");
}

/// Runs the test `name` of this program once more, as nobody.
fn as_nobody(name: &str, prepare: fn() -> nix::Result<()>) {
    // The directory of this program may be closed to others, as homes are.
    let copy = std::env::temp_dir().join(format!("bad-input-{}-{name}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let mut command = Command::new(&copy);
    command.current_dir("/").args(["--exact", name, "--test-threads=1"]);
    // SAFETY: setrlimit(2) and the like need no memory and no lock.
    unsafe { command.pre_exec(move || prepare().map_err(std::io::Error::from)) };
    let output = command.uid(NOBODY).gid(NOBODY).output();
    fs::remove_file(&copy).unwrap();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn is_nobody() -> bool {
    nix::unistd::getuid().as_raw() == NOBODY
}

#[test]
fn a_forbidden_device_points_to_the_udev_rule() {
    if is_nobody() {
        let error = Ummunotify::open().unwrap_err();
        assert!(matches!(error, ummunotify::Error::PermissionDenied { .. }), "{error}");
        assert!(error.to_string().contains("70-ummunotify.rules"), "{error}");
        return;
    }
    fs::set_permissions(DEVICE, fs::Permissions::from_mode(0o600)).unwrap();
    as_nobody("a_forbidden_device_points_to_the_udev_rule", || Ok(()));
}

#[test]
fn a_limit_on_locked_memory_evicts_and_is_then_an_error() {
    if is_nobody() {
        return nobody_may_pin_256_pages();
    }
    fs::set_permissions(DEVICE, fs::Permissions::from_mode(0o444)).unwrap();
    let limit = || {
        let bytes = 256 * page_size() as u64;
        setrlimit(Resource::RLIMIT_MEMLOCK, bytes, bytes)
    };
    as_nobody("a_limit_on_locked_memory_evicts_and_is_then_an_error", limit);
    fs::set_permissions(DEVICE, fs::Permissions::from_mode(0o600)).unwrap();
}

fn nobody_may_pin_256_pages() {
    let before = pinned_kib();
    let cache = Cache::builder(verbs(), Ummunotify::open().unwrap())
        // Its own limit is of no help here.
        .max_bytes(1 << 30)
        .build()
        .unwrap();
    let memory = Memory::anonymous(1024);
    let get = |page, count| {
        let range = memory.pages(page, count);
        cache.get_or_register(range.start(), range.len(), Access::LOCAL_WRITE)
    };
    for n in 0..8 {
        drop(get(100 * n, 100).unwrap_or_else(|error| panic!("{n}: {error}")));
    }
    assert!(cache.stats().evicted > 0);
    let error = get(0, 1024).unwrap_err();
    assert!(
        matches!(error, Error::CannotPin { memlock_limit: Some(limit), .. } if limit == 256 * page_size() as u64),
        "{error}"
    );
    assert!(error.to_string().contains("ulimit -l"), "{error}");
    assert_eq!(cache.stats().regions, 0);
    assert_pinned_returns_to(before);
}
