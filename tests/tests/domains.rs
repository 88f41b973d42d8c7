//! Several protection domains, and devices that go away.
#![cfg(feature = "guest")]

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use examples::rdma::Device;
use regcache::monitor::Ummunotify;
use regcache::registrar::Verbs;
use regcache::{Access, Cache};
use regcache_guest_tests::memory::{Memory, in_child};
use regcache_guest_tests::rdma::Wire;
use regcache_guest_tests::run;

/// With `RDMAV_FORK_SAFE`, libibverbs marks what is registered by `MADV_DONTFORK`, which counts pages
/// for the whole process: three rails on one buffer, and forks between.
#[test]
fn three_domains_that_are_safe_to_fork() {
    if std::env::var_os("RDMAV_FORK_SAFE").is_none() {
        // libibverbs reads it once.
        let test = ["--exact", "three_domains_that_are_safe_to_fork", "--nocapture"];
        let mut again = Command::new(std::env::current_exe().unwrap());
        assert!(again.args(test).env("RDMAV_FORK_SAFE", "1").status().unwrap().success());
        return;
    }
    let wires = [(); 3].map(|()| Wire::new());
    let caches = wires.each_ref().map(|wire| wire.cache(Ummunotify::open().unwrap()));
    let (from, to) = (Memory::anonymous(8), Memory::anonymous(8));
    for round in 1..=8 {
        for _ in 0..2 {
            for (wire, cache) in wires.iter().zip(&caches) {
                assert!(wire.delivers(cache, from.range, to.range), "round {round}");
            }
            in_child(|| ());
        }
        for memory in [&from, &to] {
            memory.unmap();
            memory.map_again();
        }
    }
    for cache in &caches {
        let stats = cache.stats();
        assert_eq!(stats.uncached(), 0, "{stats}");
        assert!(stats.registrations >= 16 && stats.hits >= 8, "{stats}");
    }
}

/// A second soft-RoCE device, which the test may delete.
struct Second;

impl Second {
    const NAME: &str = "rxe-second";

    fn new() -> Second {
        run(&mut command("ip link add roce-second type dummy"));
        run(&mut command("ip link set roce-second mtu 4200 up"));
        run(&mut command("rdma link add rxe-second type rxe netdev roce-second"));
        Second
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let _ = command("ip link del roce-second").status();
    }
}

fn command(words: &str) -> Command {
    let mut words = words.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).stdin(Stdio::null());
    command
}

fn ends(child: &mut Child, within: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < within {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(10));
    }
    false
}

/// Nothing hangs when the device has gone or the kernel waits for it to be let go, and nothing keeps
/// it waiting once the cache is dropped.
#[test]
fn a_device_that_is_deleted_under_a_cache() {
    let _second = Second::new();
    let device = Device::open(Some(Second::NAME)).unwrap();
    // SAFETY: the cache is dropped before the device is closed.
    let verbs = unsafe { Verbs::from_pd(device.pd()) }.unwrap();
    let cache = Cache::builder(verbs, Ummunotify::open().unwrap()).build().unwrap();
    let memory: Vec<_> = (0..8).map(|_| Memory::anonymous(4)).collect();
    let look_up = |memory: &Memory| {
        let (start, len) = (memory.range.start(), memory.range.len());
        cache.get_or_register(start, len, Access::LOCAL_WRITE).map(drop)
    };
    memory.iter().for_each(|memory| look_up(memory).unwrap());
    let mut deletion = command("rdma link delete rxe-second").spawn().unwrap();
    // Older kernels wait for the device's users here; newer ones take it away from them.
    let taken = ends(&mut deletion, Duration::from_millis(300));
    println!("the device is {}", if taken { "gone" } else { "waited for" });
    // Registered before, and stale: the device may refuse or not, and the cache goes on.
    memory[0].unmap();
    memory[0].map_again();
    let new = Memory::anonymous(4);
    for memory in memory.iter().chain([&new]) {
        let _ = look_up(memory);
    }
    let _ = cache.drain();
    drop(cache);
    drop(device);
    assert!(ends(&mut deletion, Duration::from_secs(30)), "something still holds the device");
}
