//! Nobody ever waits for good: not in fork, at exit, at exec, when the monitor goes, or when locks
//! are held during munmap. A hang ends the test program by SIGALRM.

use std::process::{Child, Command, ExitStatus};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::libc;
use regcache::monitor::{Cookie, Monitor};
use regcache::{Access, Error};

use super::memory::{Memory, raw};
use super::{cache, is_right, monitor};

/// Watches, changes, and hits until `stop`.
fn work(cache: &super::Watched, stop: &AtomicBool) {
    let memory = Memory::new(4);
    while !stop.load(Ordering::Relaxed) {
        memory.fill();
        assert!(is_right(cache, &memory));
        assert!(is_right(cache, &memory));
        memory.unmap();
        memory.map_again();
    }
}

#[test]
fn fork_while_others_work() {
    let Some(cache) = cache() else { return };
    let stop = AtomicBool::new(false);
    let memory = Memory::new(4);
    thread::scope(|scope| {
        scope.spawn(|| work(&cache, &stop));
        scope.spawn(|| work(&cache, &stop));
        for _ in 0..200 {
            assert!(is_right(&cache, &memory));
            // SAFETY: the child makes system calls, calls that refuse before they take a lock, and
            // leaves by _exit.
            let child = unsafe { libc::fork() };
            if child == 0 {
                let range = memory.range;
                let lookup = cache.get_or_register(range.start(), 1, Access::empty());
                let refused = matches!(lookup, Err(Error::Forked))
                    && cache.monitor().watch(Cookie(u64::MAX), range).is_err()
                    && cache.monitor().drain(&mut |_| ()).is_err();
                // SAFETY: the memory is the child's copy, and nothing refers to it.
                unsafe {
                    libc::madvise(range.start() as *mut _, range.len(), libc::MADV_DONTNEED);
                    libc::munmap(range.start() as *mut _, range.len());
                    libc::_exit(if refused { 0 } else { 1 })
                }
            }
            let mut status = -1_i32;
            raw(libc::SYS_wait4, &[child as usize, &raw mut status as usize, 0, 0]);
            assert_eq!(status, 0);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(is_right(&cache, &memory));
}

/// A child that drops the cache waits for no thread of its parent, and harms nothing of it.
#[test]
fn a_child_that_drops_the_cache() {
    let Some(cache) = cache() else { return };
    let memory = Memory::new(4);
    assert!(is_right(&cache, &memory));
    let mut cache = Some(cache);
    // SAFETY: the child frees memory, which glibc's allocator allows, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(cache.take());
        // SAFETY: _exit(2) runs no code of this process any more.
        unsafe { libc::_exit(0) }
    }
    let mut status = -1_i32;
    raw(libc::SYS_wait4, &[child as usize, &raw mut status as usize, 0, 0]);
    assert_eq!(status, 0);
    let cache = cache.unwrap();
    assert!(is_right(&cache, &memory));
    memory.unmap();
    memory.map_again();
    memory.fill();
    assert!(is_right(&cache, &memory));
}

/// The file is the event thread's alone: no child keeps it open, and nothing of the program's is
/// kept open by the thread.
#[test]
fn nobody_else_has_the_file() {
    let Some(monitor) = monitor() else { return };
    let files = |directory: &str| -> Vec<String> {
        let links = fs::read_dir(directory).unwrap().filter_map(|entry| {
            fs::read_link(entry.unwrap().path()).ok()?.into_os_string().into_string().ok()
        });
        links.collect()
    };
    assert!(!files("/proc/self/fd").iter().any(|name| name.contains("userfaultfd")));
    // Other tests of this program have a thread of their own.
    let mut threads = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let task = task.unwrap().path().into_os_string().into_string().unwrap();
        match fs::read_to_string(format!("{task}/comm")) {
            Ok(name) if name.trim() == "regcache-uffd" => {}
            _ => continue,
        }
        let names = files(&format!("{task}/fd"));
        if names.len() == 3 {
            threads += 1;
            assert!(names.iter().any(|name| name.contains("userfaultfd")), "{names:?}");
        }
    }
    assert!(threads > 0);
    drop(monitor);
}

#[test]
fn drop_while_others_unmap() {
    let Some(_probe) = monitor() else { return };
    for _ in 0..200 {
        let memory: Vec<_> = (0..4).map(|_| Memory::new(4)).collect();
        let monitor = monitor().unwrap();
        for (n, memory) in memory.iter().enumerate() {
            monitor.watch(Cookie(n as u64), memory.range).unwrap();
        }
        thread::scope(|scope| {
            for memory in &memory[..3] {
                scope.spawn(|| (0..4).for_each(|n| memory.pages(n, 1).unmap()));
            }
            scope.spawn(|| drop(monitor));
        });
        memory[3].unmap();
    }
}

#[test]
fn drop_and_a_child_that_lives_on() {
    let Some(monitor) = monitor() else { return };
    let (memory, moved) = (Memory::new(4), Memory::new(4));
    monitor.watch(Cookie(1), memory.range).unwrap();
    monitor.watch(Cookie(2), moved.range).unwrap();
    // SAFETY: the child makes system calls only, and leaves by _exit.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::pause();
            libc::_exit(0)
        }
    }
    let to = super::memory::lonely_range(moved.range.len());
    moved.remap(to.len(), libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED, to.start()).unwrap();
    drop(monitor);
    memory.unmap();
    Memory { range: to, file: None }.unmap();
    raw(libc::SYS_kill, &[child as usize, libc::SIGKILL as usize]);
    raw(libc::SYS_wait4, &[child as usize, 0, 0, 0]);
}

/// Whoever unmaps may hold a lock that those who look up want.
#[test]
fn munmap_under_a_lock_of_the_application() {
    let Some(cache) = cache() else { return };
    let lock = Mutex::new(());
    let memory = Memory::new(4);
    let end = Instant::now() + Duration::from_secs(2);
    thread::scope(|scope| {
        scope.spawn(|| {
            while Instant::now() < end {
                let _held = lock.lock().unwrap();
                memory.unmap();
                memory.map_again();
            }
        });
        scope.spawn(|| {
            while Instant::now() < end {
                let _held = lock.lock().unwrap();
                memory.fill();
                assert!(is_right(&cache, &memory));
            }
        });
        scope.spawn(|| {
            while Instant::now() < end {
                let _held = lock.lock().unwrap();
                cache.drain().unwrap();
            }
        });
    });
}

/// A signal whose handler unmaps watched memory never runs in the event thread.
#[test]
fn signals_do_not_reach_the_event_thread() {
    let Some(_monitor) = monitor() else { return };
    let mut checked = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let Ok(status) = fs::read_to_string(task.unwrap().path().join("status")) else { continue };
        if status.starts_with("Name:\tregcache-uffd") {
            let line = status.lines().find(|line| line.starts_with("SigBlk:")).unwrap();
            let blocked = u64::from_str_radix(line[7..].trim(), 16).unwrap();
            // All but SIGKILL and SIGSTOP, and two that are the C library's own.
            let own = 1 << (libc::SIGKILL - 1) | 1 << (libc::SIGSTOP - 1) | 3 << 31;
            assert_eq!(blocked | own, u64::MAX, "{blocked:#x}");
            checked += 1;
        }
    }
    assert!(checked > 0);
}

/// Runs a test of this program in a process of its own, and says how it ended.
pub fn run_alone(name: &str) -> ExitStatus {
    let program = env::current_exe().unwrap();
    let mut child = Command::new(program)
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=2"])
        .spawn()
        .unwrap();
    wait(&mut child)
}

fn wait(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(30) {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it hangs: {}", child.wait().unwrap());
}

/// Starts threads that are in munmap of watched memory nearly all the time.
fn unmap_for_ever() {
    let cache: &'static super::Watched = Box::leak(Box::new(cache().expect("as the caller's")));
    for _ in 0..4 {
        thread::spawn(|| work(cache, &AtomicBool::new(false)));
    }
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn exit_while_others_unmap() {
    if monitor().is_none() {
        return;
    }
    for _ in 0..20 {
        assert_eq!(run_alone("hangs::alone_exit").code(), Some(7));
    }
}

#[test]
#[ignore = "run by exit_while_others_unmap, in a process of its own"]
fn alone_exit() {
    unmap_for_ever();
    std::process::exit(7);
}

#[test]
fn exec_while_others_unmap() {
    if monitor().is_none() {
        return;
    }
    for _ in 0..20 {
        assert!(run_alone("hangs::alone_exec").success());
    }
}

#[test]
#[ignore = "run by exec_while_others_unmap, in a process of its own"]
fn alone_exec() {
    use std::os::unix::process::CommandExt;

    unmap_for_ever();
    panic!("{}", Command::new("true").exec());
}

#[test]
fn kill_while_others_unmap() {
    if monitor().is_none() {
        return;
    }
    for _ in 0..20 {
        assert!(!run_alone("hangs::alone_kill").success());
    }
}

#[test]
#[ignore = "run by kill_while_others_unmap, in a process of its own"]
fn alone_kill() {
    unmap_for_ever();
    raw(libc::SYS_kill, &[std::process::id() as usize, libc::SIGKILL as usize]);
}

/// The commands of a program that watches much memory go on as ever: fork, exec and wait.
#[test]
fn commands_run_as_ever() {
    let Some(cache) = cache() else { return };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| work(&cache, &stop));
        for _ in 0..50 {
            assert!(Command::new("true").status().unwrap().success());
        }
        stop.store(true, Ordering::Relaxed);
    });
}
