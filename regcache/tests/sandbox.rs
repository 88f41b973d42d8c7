//! A seccomp filter that comes after the cache was made refuses membarrier(2).
//!
//! Each case is run in a process of its own, by the test that is not ignored.

use std::process::Command;
use std::sync::Barrier as Meeting;
use std::thread;

mod common;

use common::{Recorder, page};
use nix::errno::Errno;
use nix::libc;
use regcache::monitor::Manual;
use regcache::{Access, AddressRange, Barrier, Cache, Error, page_size};

const RW: Access = Access::LOCAL_WRITE;

/// Refuses membarrier(2) to this process, by EPERM.
fn close_the_sandbox() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD, 0, 0, 0),
        step(EQUAL, 0, 1, libc::SYS_membarrier as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | Errno::EPERM as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program is live during the call, and is as long as it says.
    let closed = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(
                libc::SYS_seccomp,
                libc::SECCOMP_SET_MODE_FILTER,
                libc::SECCOMP_FILTER_FLAG_TSYNC,
                &raw const program,
            ) == 0
    };
    assert!(closed, "seccomp: {}", Errno::last());
}

fn cache(regions: usize) -> Cache<Recorder, Manual> {
    let builder = Cache::builder(Recorder::default(), Manual::new()).max_regions(regions);
    builder.barrier(Barrier::Membarrier).max_bytes(1 << 40).build().unwrap()
}

fn change(cache: &Cache<Recorder, Manual>, n: usize) {
    cache.monitor().invalidate(AddressRange::new(page(n), page_size()).unwrap());
}

/// A full cache goes on caching what is new, and gives back what was there before.
#[test]
#[ignore = "closes this process's sandbox"]
fn alone_a_full_cache() {
    let cache = cache(64);
    (0..64).for_each(|n| drop(cache.get_or_register(page(n), 8, RW).unwrap()));
    close_the_sandbox();
    drop(cache.get_or_register(page(100), 8, RW).unwrap());
    for _ in 0..100 {
        let guard = cache.get_or_register(page(100), 8, RW).unwrap();
        assert!(guard.is_cached());
    }
    let stats = cache.stats();
    assert_eq!((stats.uncached(), stats.barrier_failures), (0, 1), "{stats:?}");
    assert!(stats.hits >= 100 && stats.evicted < 10, "{stats:?}");
    assert!(cache.registrar().live() <= 64);
    // Nothing is stale, and nothing stays.
    for n in 0..200 {
        change(&cache, n % 50);
        let before = cache.registrar().calls();
        drop(cache.get_or_register(page(n % 50), 8, RW).unwrap());
        assert_eq!(cache.registrar().calls(), before + 1, "page {}", n % 50);
    }
    assert!(cache.registrar().live() <= 64);
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

/// What is held by a cell from before stays until it is let go of.
#[test]
#[ignore = "closes this process's sandbox"]
fn alone_what_is_held() {
    let cache = cache(64);
    let held = cache.get_or_register(page(0), 8, RW).unwrap();
    close_the_sandbox();
    change(&cache, 0);
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    cache.flush().unwrap();
    assert!(cache.registrar().is_live(*held.region()));
    assert_eq!(cache.registrar().live(), 1);
    let clone = held.clone();
    drop(held);
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 1);
    drop(clone);
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

/// A thread that does not come back may hold what nobody sees: it stays pinned, what is new is
/// cached all the same, and where the device is full the error says why.
#[test]
#[ignore = "closes this process's sandbox"]
fn alone_another_thread() {
    let cache = cache(64);
    let meeting = Meeting::new(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            drop(cache.get_or_register(page(0), 8, RW).unwrap());
            meeting.wait();
            meeting.wait();
            drop(cache.get_or_register(page(7), 8, RW).unwrap());
            meeting.wait();
            meeting.wait();
        });
        meeting.wait();
        drop(cache.get_or_register(page(1), 8, RW).unwrap());
        close_the_sandbox();
        (0..2).for_each(|n| change(&cache, n));
        for n in 0..2 {
            drop(cache.get_or_register(page(n), 8, RW).unwrap());
            assert!(cache.get_or_register(page(n), 8, RW).unwrap().is_cached());
        }
        assert_eq!(cache.registrar().live(), 4, "two are stale, and stay");
        cache.flush().unwrap();
        assert_eq!(cache.registrar().live(), 2, "those of before");
        cache.registrar().set_capacity(2 * page_size());
        let error = cache.get_or_register(page(2), 8, RW).unwrap_err();
        let bytes = 2 * page_size() as u64;
        assert!(matches!(error, Error::BarrierRefused { bytes: b, .. } if b == bytes), "{error}");
        cache.registrar().set_capacity(usize::MAX);
        meeting.wait();
        meeting.wait();
        // It has come back, and knows.
        cache.registrar().set_capacity(3 * page_size());
        drop(cache.get_or_register(page(2), 8, RW).unwrap());
        drop(cache.get_or_register(page(3), 8, RW).unwrap());
        cache.flush().unwrap();
        assert_eq!(cache.registrar().live(), 0);
        meeting.wait();
    });
}

/// Whoever makes a cache then has one that needs no barrier.
#[test]
#[ignore = "closes this process's sandbox"]
fn alone_a_new_cache() {
    assert_eq!(Barrier::best(), Barrier::Membarrier);
    close_the_sandbox();
    assert_eq!(Barrier::best(), Barrier::Atomic);
    let builder = || Cache::builder(Recorder::default(), Manual::new());
    let error = builder().barrier(Barrier::Membarrier).build().unwrap_err();
    assert!(matches!(error, Error::NoMembarrier), "{error}");
    let cache = builder().build().unwrap();
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    change(&cache, 0);
    drop(cache.get_or_register(page(0), 8, RW).unwrap());
    assert_eq!((cache.registrar().live(), cache.stats().barrier_failures), (1, 0));
}

#[test]
fn a_sandbox_that_closes_later() {
    if Barrier::best() != Barrier::Membarrier {
        eprintln!("SKIPPED: membarrier(2) is refused already");
        return;
    }
    for case in
        ["alone_a_full_cache", "alone_what_is_held", "alone_another_thread", "alone_a_new_cache"]
    {
        let mut command = Command::new(std::env::current_exe().unwrap());
        let output = command.args(["--exact", case, "--ignored", "--test-threads=1"]).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{text}{errors}");
    }
}
