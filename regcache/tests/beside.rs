//! What programs do beside lookups: threads that come and go, guards that outlive theirs, signals,
//! children.

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::{Recorder, TestCache, cache, page, pages};
use nix::libc;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork};
use regcache::{Access, Guard};

const RW: Access = Access::LOCAL_WRITE;

fn get(cache: &TestCache, n: usize) -> Guard<'_, Recorder, regcache::monitor::Manual> {
    cache.get_or_register(page(n), 8, RW).unwrap()
}

#[test]
fn thousands_of_short_threads() {
    let cache = cache();
    for _ in 0..500 {
        thread::scope(|scope| {
            for n in 0..8 {
                let cache = &cache;
                scope.spawn(move || assert!(get(cache, n).is_cached()));
            }
        });
    }
    assert_eq!(cache.registrar().calls(), 8, "each is registered once");
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

/// Sixteen thousand guards, of more threads than live at a time, dropped by others in another order.
#[test]
fn guards_of_threads_that_have_exited() {
    let cache = cache();
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for round in 0..64 {
            let (cache, send) = (&cache, send.clone());
            let thread = scope.spawn(move || {
                (0..250).for_each(|n| send.send(get(cache, (round + n) % 40)).unwrap());
            });
            if round % 8 == 7 {
                thread.join().unwrap();
            }
        }
        drop(send);
    });
    let mut guards: Vec<_> = receive.into_iter().collect();
    assert_eq!(guards.len(), 16_000);
    cache.monitor().invalidate(pages(0, 40));
    cache.drain().unwrap();
    assert_eq!(cache.registrar().live(), 40, "all are held");
    let odd: Vec<_> = (0..8000).map(|n| guards.swap_remove(n)).collect();
    thread::scope(|scope| {
        for part in [guards, odd] {
            scope.spawn(move || drop(part));
        }
    });
    assert_eq!(cache.registrar().live(), 0);
}

static HANDLED: AtomicUsize = AtomicUsize::new(0);

extern "C" fn handle(_signal: libc::c_int) {
    HANDLED.fetch_add(1, Ordering::Relaxed);
    // Something else on the stack, and a system call.
    let mut bytes = [0_u8; 256];
    // SAFETY: the buffer is live and as long as it is said to be.
    unsafe { libc::syscall(libc::SYS_getrandom, bytes.as_mut_ptr(), bytes.len(), 0) };
}

/// A timer's signal, 1,400 times a second, in the midst of hits, misses and releases.
#[test]
fn a_timers_signals() {
    let cache = cache();
    // SAFETY: the handler is async-signal-safe, and the structures are live during the calls.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handle as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGPROF, &action, std::ptr::null_mut()), 0);
        let often = libc::timeval { tv_sec: 0, tv_usec: 714 };
        let timer = libc::itimerval { it_interval: often, it_value: often };
        assert_eq!(libc::setitimer(libc::ITIMER_PROF, &timer, std::ptr::null_mut()), 0);
    }
    let start = Instant::now();
    let mut round = 0;
    while start.elapsed() < Duration::from_secs(1) {
        let guards: Vec<_> = (0..20).map(|n| get(&cache, n)).collect();
        cache.monitor().invalidate(pages(round % 20, 1));
        drop(guards);
        drop(get(&cache, round % 20));
        round += 1;
    }
    // SAFETY: the structures are live during the call.
    unsafe {
        let none: libc::itimerval = std::mem::zeroed();
        libc::setitimer(libc::ITIMER_PROF, &none, std::ptr::null_mut());
    }
    assert!(HANDLED.load(Ordering::Relaxed) > 50, "the signals came");
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}

/// fork and posix_spawn (by the standard library) while other threads hit and miss.
#[test]
fn children_beside_hits() {
    let cache = cache();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..3 {
            let (cache, stop) = (&cache, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    (0..20).for_each(|m| drop(get(cache, n + m)));
                    cache.monitor().invalidate(pages(n, 1));
                }
            });
        }
        for _ in 0..20 {
            assert!(Command::new("/bin/true").status().unwrap().success());
            // SAFETY: the child calls only what is refused before any lock, and leaves by _exit.
            match unsafe { fork() }.unwrap() {
                ForkResult::Child => {
                    let refused = cache.get_or_register(page(0), 8, RW).is_err();
                    // SAFETY: _exit(2) runs no code of this process any more.
                    unsafe { libc::_exit(i32::from(!refused)) }
                }
                ForkResult::Parent { child } => {
                    assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 0));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    cache.flush().unwrap();
    assert_eq!(cache.registrar().live(), 0);
}
