//! Rows that make a registration stale.

use std::ffi::{CStr, c_void};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use io_uring::{IoUring as Ring, opcode};
use nix::sys::signal::{SigSet, SigmaskHow};
use regcache::monitor::{Manual, Ummunotify};
use regcache::registrar::IoUring;
use regcache::{Access, Cache, page_size};
use regcache_guest_tests::frames::Unpinned;
use regcache_guest_tests::memory::{Memory, in_child, memfd};
use regcache_guest_tests::raw;
use regcache_guest_tests::rdma::verbs;
use regcache_guest_tests::rows::{assert_caught, assert_caught_with, cache_of};

/// Not in the libc crate for glibc.
const MADV_DONTNEED_LOCKED: i32 = 24;

const ANONYMOUS: fn() -> Memory = || Memory::anonymous(4);
const SHARED: fn() -> Memory = || Memory::shared(4);

#[test]
fn munmap_and_mmap_by_libc() {
    assert_caught(ANONYMOUS, |m| {
        // SAFETY: the test owns the memory, and no reference points into it.
        let result = unsafe { libc::munmap(m.range.start() as *mut c_void, m.range.len()) };
        assert_eq!(result, 0);
        m.map_again();
    });
}

#[test]
fn munmap_and_mmap_by_raw_system_call() {
    assert_caught(ANONYMOUS, |m| {
        m.unmap();
        m.map_again();
    });
}

#[test]
fn munmap_and_mmap_by_a_clone_vm_child() {
    extern "C" fn child(memory: *mut c_void) -> i32 {
        // SAFETY: the parent waits in this child's way (CLONE_VFORK) and lent it this.
        let m = unsafe { &*memory.cast::<Memory>() };
        m.unmap();
        m.map_again();
        0
    }
    assert_caught(ANONYMOUS, |m| {
        let mut stack = vec![0_u8; 256 << 10];
        // SAFETY: the stack is the child's own, both outlive the child, for which CLONE_VFORK
        // waits, and the child only makes system calls.
        let pid = unsafe {
            libc::clone(
                child,
                stack.as_mut_ptr().add(stack.len()).cast(),
                libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
                std::ptr::from_ref(m).cast_mut().cast(),
            )
        };
        assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
        raw!(SYS_wait4, pid, 0, 0, 0);
    });
}

#[test]
fn mmap_fixed_over() {
    assert_caught(ANONYMOUS, Memory::map_over);
}

#[test]
fn mremap_away() {
    assert_caught(ANONYMOUS, |m| {
        let away = Memory::untouched(4).range.start();
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        raw!(SYS_mremap, m.range.start(), m.range.len(), m.range.len(), flags, away);
        m.map_again();
    });
}

#[test]
fn mremap_dontunmap() {
    assert_caught(ANONYMOUS, |m| {
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_DONTUNMAP;
        raw!(SYS_mremap, m.range.start(), m.range.len(), m.range.len(), flags, 0);
        m.fill(2);
    });
}

#[test]
fn mremap_onto() {
    assert_caught(ANONYMOUS, |m| {
        let other = Memory::anonymous(4).range;
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        raw!(SYS_mremap, other.start(), other.len(), other.len(), flags, m.range.start());
    });
}

#[test]
fn madvise_dontneed() {
    assert_caught(ANONYMOUS, |m| {
        m.advise(libc::MADV_DONTNEED);
        m.fill(2);
    });
}

#[test]
fn madvise_dontneed_locked() {
    assert_caught(ANONYMOUS, |m| {
        m.advise(MADV_DONTNEED_LOCKED);
        m.fill(2);
    });
}

#[test]
fn madvise_dontneed_of_huge_pages() {
    assert_caught(
        || Memory::hugetlb(1),
        |m| {
            m.advise(libc::MADV_DONTNEED);
            m.fill(2);
        },
    );
}

#[test]
fn madvise_dontneed_of_a_transparent_huge_page() {
    assert_caught(Memory::transparent_huge, |m| {
        m.advise(libc::MADV_DONTNEED);
        m.fill(2);
    });
}

#[test]
fn madvise_through_io_uring() {
    assert_caught(ANONYMOUS, |m| {
        let mut ring = Ring::new(1).expect("io_uring");
        let entry = opcode::Madvise::new(
            m.range.start() as *const c_void,
            m.range.len() as i64,
            libc::MADV_DONTNEED,
        )
        .build();
        // SAFETY: the memory is the test's own, and no reference points into it.
        unsafe { ring.submission().push(&entry) }.expect("room for one");
        ring.submit_and_wait(1).expect("submit");
        assert_eq!(ring.completion().next().expect("one completion").result(), 0);
        m.fill(2);
    });
}

#[test]
fn process_madvise() {
    let try_it = |m: &Memory| {
        let pidfd = raw!(SYS_pidfd_open, std::process::id(), 0);
        let iovec =
            libc::iovec { iov_base: m.range.start() as *mut c_void, iov_len: m.range.len() };
        // SAFETY: the memory is the test's own, and no reference points into it.
        let result = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                pidfd,
                &iovec,
                1_usize,
                libc::MADV_DONTNEED,
                0_usize,
            )
        };
        raw!(SYS_close, pidfd);
        m.fill(2);
        result == m.range.len() as i64
    };
    if !try_it(&Memory::anonymous(1)) {
        println!("this kernel has no process_madvise(MADV_DONTNEED) (it came with 6.13)");
        return;
    }
    assert_caught(ANONYMOUS, |m| assert!(try_it(m)));
}

#[test]
fn ftruncate_shrink_and_grow() {
    assert_caught(SHARED, |m| {
        m.file().set_len(0).unwrap();
        m.file().set_len(m.range.len() as u64).unwrap();
        m.fill(2);
    });
}

#[test]
fn ftruncate_by_another_process() {
    assert_caught(SHARED, |m| {
        in_child(|| {
            raw!(SYS_ftruncate, m.file().as_raw_fd(), 0);
            raw!(SYS_ftruncate, m.file().as_raw_fd(), m.range.len());
        });
        m.fill(2);
    });
}

fn punch_hole(m: &Memory) {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    raw!(SYS_fallocate, m.file().as_raw_fd(), mode, 0, m.range.len());
}

#[test]
fn fallocate_punch_hole() {
    assert_caught(SHARED, |m| {
        punch_hole(m);
        m.fill(2);
    });
}

#[test]
fn fallocate_punch_hole_by_another_process() {
    assert_caught(SHARED, |m| {
        in_child(|| punch_hole(m));
        m.fill(2);
    });
}

#[test]
fn madvise_remove() {
    assert_caught(SHARED, |m| {
        m.advise(libc::MADV_REMOVE);
        m.fill(2);
    });
}

#[test]
fn madvise_remove_by_another_process() {
    assert_caught(SHARED, |m| {
        in_child(|| m.advise(libc::MADV_REMOVE));
        m.fill(2);
    });
}

#[test]
fn dlclose_and_dlopen() {
    // The library's zeroed static memory begins in the file's last page; the pages after it are
    // anonymous.
    const NAME: &CStr = c"libregcache-static-buffer.so";
    fn open() -> (*mut c_void, usize) {
        let path = std::env::temp_dir().join(NAME.to_str().unwrap());
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: the library has no constructors.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!library.is_null(), "dlopen {path:?}");
        // SAFETY: the library is open, and the name ends with a zero.
        let buffer = unsafe { libc::dlsym(library, c"static_buffer".as_ptr()) };
        assert!(!buffer.is_null());
        (library, buffer as usize)
    }
    std::fs::write(std::env::temp_dir().join(NAME.to_str().unwrap()), STATIC_BUFFER_SO)
        .expect("write the library");
    let place = || {
        let (library, buffer) = open();
        // SAFETY: nothing of the library is used after this.
        assert_eq!(unsafe { libc::dlclose(library) }, 0);
        buffer
    };
    if place() != place() {
        // A loader that aligns to more than a page takes what room it finds.
        println!("not judged, for the library does not come back to its place");
        return;
    }
    let library = std::cell::Cell::new(std::ptr::null_mut::<c_void>());
    assert_caught(
        || {
            if !library.get().is_null() {
                // SAFETY: the memory of the first round is not used any more.
                assert_eq!(unsafe { libc::dlclose(library.get()) }, 0);
            }
            let (handle, buffer) = open();
            library.set(handle);
            let memory =
                Memory::at(buffer.next_multiple_of(page_size()) + page_size(), 2 * page_size());
            memory.fill(1);
            memory
        },
        |m| {
            // SAFETY: nothing of the library is used after this.
            assert_eq!(unsafe { libc::dlclose(library.get()) }, 0);
            let (handle, buffer) = open();
            library.set(handle);
            let again = buffer.next_multiple_of(page_size()) + page_size();
            assert_eq!(again, m.range.start(), "the library came back elsewhere");
            m.fill(2);
        },
    );
}

/// A shared library with one megabyte of zeroed static memory, made by build.rs.
const STATIC_BUFFER_SO: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/libregcache-static-buffer.so"));

fn shm_segment(bytes: usize) -> i32 {
    let id = raw!(SYS_shmget, libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
    id as i32
}

fn shm_memory(bytes: usize) -> Memory {
    let id = shm_segment(bytes);
    let addr = raw!(SYS_shmat, id, 0, 0);
    raw!(SYS_shmctl, id, libc::IPC_RMID, 0);
    let memory = Memory::at(addr, bytes);
    memory.fill(1);
    memory
}

/// As `assert_caught`, pinned by the RDMA device: an io_uring refuses System V segments on old
/// kernels.
fn assert_caught_by_rdma(memory: impl Fn() -> Memory, change: impl Fn(&Memory)) {
    let unaided = cache_of(verbs(), Manual::new());
    assert_caught_with(unaided, cache_of(verbs(), Ummunotify::open().unwrap()), memory, change);
}

#[test]
fn shmdt_and_shmat() {
    assert_caught_by_rdma(
        || shm_memory(4 * page_size()),
        |m| {
            raw!(SYS_shmdt, m.range.start());
            let id = shm_segment(m.range.len());
            assert_eq!(raw!(SYS_shmat, id, m.range.start(), 0), m.range.start());
            raw!(SYS_shmctl, id, libc::IPC_RMID, 0);
            m.fill(2);
        },
    );
}

#[test]
fn shmat_with_shm_remap() {
    assert_caught_by_rdma(ANONYMOUS, |m| {
        let id = shm_segment(m.range.len());
        assert_eq!(raw!(SYS_shmat, id, m.range.start(), libc::SHM_REMAP), m.range.start());
        raw!(SYS_shmctl, id, libc::IPC_RMID, 0);
        m.fill(2);
    });
}

#[test]
fn brk_shrink_and_grow() {
    // Past the C library's heap, which therefore never notices.
    let base = raw!(SYS_brk, 0).next_multiple_of(page_size());
    let len = 4 * page_size();
    let grow = || assert_eq!(raw!(SYS_brk, base + len), base + len);
    assert_caught(
        || {
            grow();
            let memory = Memory::at(base, len);
            memory.fill(1);
            memory
        },
        |m| {
            assert_eq!(raw!(SYS_brk, base), base);
            grow();
            m.fill(2);
        },
    );
}

#[test]
fn malloc_trim() {
    const BYTES: usize = 1 << 20;
    let allocation = std::cell::Cell::new(std::ptr::null_mut::<c_void>());
    // SAFETY: ordinary use of malloc, in a test that runs alone; the memory is reached by volatile
    // writes only, after it was allocated again at the same place.
    unsafe {
        // Large allocations from the heap, not by mmap.
        assert_eq!(libc::mallopt(libc::M_MMAP_THRESHOLD, 64 << 20), 1);
        assert_caught(
            || {
                allocation.set(libc::malloc(BYTES));
                let start = (allocation.get() as usize).next_multiple_of(page_size());
                // What follows keeps the end of the heap away.
                std::hint::black_box(libc::malloc(100));
                let memory = Memory::at(start, BYTES / 2);
                memory.fill(1);
                memory
            },
            |m| {
                libc::free(allocation.get());
                libc::malloc_trim(0);
                assert_eq!(libc::malloc(BYTES), allocation.get(), "malloc moved");
                m.fill(2);
            },
        );
    }
}

#[test]
fn stack_of_an_exited_thread() {
    /// The address of a buffer deep in the stack of a thread that has ended.
    fn on_a_stack() -> usize {
        #[inline(never)]
        fn buffer() -> usize {
            let mut buffer = [0_u8; 512 << 10];
            std::hint::black_box(&mut buffer).fill(1);
            buffer.as_ptr() as usize
        }
        thread::Builder::new().stack_size(2 << 20).spawn(buffer).unwrap().join().unwrap()
    }
    // The C library keeps the stack for the next thread, and gives its pages back.
    assert_caught(
        || {
            let memory = Memory::at(on_a_stack().next_multiple_of(page_size()), 256 << 10);
            memory.fill(1);
            memory
        },
        |m| {
            let again = on_a_stack().next_multiple_of(page_size());
            assert_eq!(again, m.range.start(), "the stack was not used again");
            m.fill(2);
        },
    );
}

#[test]
fn fork_and_write_of_memory_that_is_not_pinned() {
    let (mut pipe, mut quit) = (0, 0);
    let mut ends = [0_i32; 2];
    raw!(SYS_pipe2, ends.as_mut_ptr(), 0);
    (pipe, quit) = (ends[0].max(pipe), ends[1].max(quit));
    let children = std::cell::RefCell::new(Vec::new());
    assert_caught_with(
        cache_of(Unpinned, Manual::new()),
        cache_of(Unpinned, Ummunotify::open().unwrap()),
        ANONYMOUS,
        |m| {
            // The child keeps the old pages alive until the pipe closes, so the write copies them.
            // SAFETY: the child makes three system calls and leaves by _exit.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                // SAFETY: as above.
                unsafe {
                    libc::close(quit);
                    libc::read(pipe, [0_u8; 1].as_mut_ptr().cast(), 1);
                    libc::_exit(0)
                }
            }
            children.borrow_mut().push(pid);
            m.fill(2);
        },
    );
    raw!(SYS_close, quit);
    for pid in children.into_inner() {
        raw!(SYS_wait4, pid, 0, 0, 0);
    }
}

#[test]
fn partial_changes_are_caught_at_head_middle_and_tail() {
    for page in [0, 3, 7] {
        assert_caught(
            || Memory::anonymous(8),
            |m| {
                let hit = m.pages(page, 1);
                raw!(SYS_madvise, hit.start(), hit.len(), libc::MADV_DONTNEED);
                m.fill(2);
            },
        );
    }
}

#[test]
fn munmap_of_one_byte() {
    // The kernel rounds; hooks that compare the caller's range do not.
    assert_caught(
        || Memory::anonymous(1),
        |m| {
            raw!(SYS_munmap, m.range.start(), 1);
            m.map_again();
        },
    );
}

#[test]
fn a_write_to_a_private_file_mapping_leaves_the_file_page() {
    // Not pinned: a pin would have broken copy-on-write already.
    let file = tempfile(4 * page_size());
    assert_caught_with(
        cache_of(Unpinned, Manual::new()),
        cache_of(Unpinned, Ummunotify::open().unwrap()),
        || {
            let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
            let addr = raw!(SYS_mmap, 0, 4 * page_size(), prot, flags, file.as_raw_fd(), 0);
            Memory::at(addr, 4 * page_size())
        },
        |m| m.fill(2),
    );
}

fn tempfile(bytes: usize) -> std::fs::File {
    let path = std::env::temp_dir().join(format!("regcache-{}", std::process::id()));
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(&path)
        .expect("a temporary file");
    std::fs::remove_file(path).expect("remove it");
    file.write_all_at(&vec![7; bytes], 0).expect("fill it");
    file
}

/// A signal handler maps other pages in the midst of lookups: of what a lookup that began afterwards
/// returns, a device reads what the processor reads.
#[test]
fn a_signal_handler_that_unmaps_in_mid_lookup() {
    static AT: AtomicUsize = AtomicUsize::new(0);
    static CHANGES: AtomicUsize = AtomicUsize::new(0);
    const PAGES: usize = 4;

    extern "C" fn change(_signal: libc::c_int) {
        let (at, len) = (AT.load(Ordering::Relaxed), PAGES * page_size());
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let number = CHANGES.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the memory is the test's own, no reference points into it, and the calls allocate nothing.
        unsafe {
            libc::syscall(libc::SYS_munmap, at, len);
            libc::mmap(at as *mut c_void, len, rights, flags, -1, 0);
            (at as *mut u8).write_volatile(number as u8);
        }
    }

    let ring = IoUring::new(64).unwrap();
    let cache = Cache::builder(ring, Ummunotify::open().unwrap()).build().unwrap();
    let file = memfd();
    let memory = Memory::anonymous(PAGES);
    AT.store(memory.range.start(), Ordering::Relaxed);
    // SAFETY: the handler makes system calls and touches atomics and the test's memory only; the
    // structure is live.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = change as extern "C" fn(libc::c_int) as libc::sighandler_t;
        action.sa_flags = libc::SA_RESTART;
        assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
    }
    // SAFETY: it takes nothing.
    let looker = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    let judged = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(1500));
                // SAFETY: that thread lives, since it joins this one.
                unsafe { libc::pthread_kill(looker, libc::SIGUSR1) };
            }
        });
        let start = Instant::now();
        let mut judged = 0;
        while start.elapsed() < Duration::from_secs(4) {
            let before = CHANGES.load(Ordering::Relaxed);
            let guard = cache.get_or_register(
                memory.range.start(),
                memory.range.len(),
                Access::LOCAL_WRITE,
            );
            let blocked = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
            if CHANGES.load(Ordering::Relaxed) == before {
                judged += 1;
                let (guard, at) = (guard.unwrap(), memory.range.start());
                let sent = cache.registrar().write_fixed(guard.region(), at, 1, &file, 0);
                assert_eq!(sent, Ok(1));
                let mut byte = [0];
                file.read_exact_at(&mut byte, 0).unwrap();
                // SAFETY: the page is mapped, and nobody changes it while signals are blocked.
                let seen = unsafe { (at as *const u8).read_volatile() };
                assert_eq!(byte, [seen], "after {before} changes");
            }
            blocked.thread_set_mask().unwrap();
        }
        done.store(true, Ordering::Relaxed);
        judged
    });
    let changes = CHANGES.load(Ordering::Relaxed);
    println!("{judged} lookups judged, {changes} changes, {}", cache.stats());
    assert!(judged > 100 && changes > 100);
}
