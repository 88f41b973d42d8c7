//! The event thread allocates nothing, so that an allocator may unmap watched memory while it holds
//! its lock. Here is such an allocator: one lock around all of it, and an munmap under the lock in
//! every allocation and every release.
#![cfg(feature = "userfaultfd")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use regcache::monitor::{Cookie, Monitor, Userfaultfd};
use regcache::{AddressRange, page_size};

const PAGES: usize = 64;

struct Unmapping {
    held: AtomicBool,
    /// Pages that are watched, each unmapped by the next who comes.
    pages: [AtomicUsize; PAGES],
    left: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Unmapping = Unmapping {
    held: AtomicBool::new(false),
    pages: [const { AtomicUsize::new(0) }; PAGES],
    left: AtomicUsize::new(0),
};

impl Unmapping {
    fn under_the_lock<T>(&self, body: impl FnOnce() -> T) -> T {
        // Acquire pairs with the Release below, as in any lock.
        while self.held.swap(true, Ordering::Acquire) {
            // SAFETY: sched_yield(2) has no precondition.
            unsafe { libc::sched_yield() };
        }
        // Acquire pairs with the Release in the test, which has written the pages.
        if let Some(last) = self.left.load(Ordering::Acquire).checked_sub(1) {
            self.left.store(last, Ordering::Relaxed);
            let page = self.pages[last].load(Ordering::Relaxed);
            // SAFETY: the page is the test's own, and no reference points into it.
            unsafe { libc::munmap(page as *mut _, page_size()) };
        }
        let result = body();
        self.held.store(false, Ordering::Release);
        result
    }
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Unmapping {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise is passed on.
        self.under_the_lock(|| unsafe { System.alloc(layout) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        self.under_the_lock(|| unsafe { System.dealloc(memory, layout) });
    }
}

#[test]
fn munmap_under_the_lock_of_the_allocator() {
    nix::unistd::alarm::set(300);
    let monitor = match Userfaultfd::open() {
        Ok(monitor) => monitor,
        Err(error) => {
            assert!(std::env::var_os("REGCACHE_NO_SKIP").is_none(), "{error}");
            let _ = writeln!(io::stderr(), "SKIPPED munmap under a lock: {error}");
            return;
        }
    };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // Threads that allocate, so unmap.
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::black_box(vec![0_u8; 100]);
                }
            });
        }
        for round in 0..10 {
            let cookies = (round * PAGES..).map(|n| Cookie(n as u64)).take(PAGES);
            for (slot, cookie) in ALLOCATOR.pages.iter().zip(cookies.clone()) {
                let range = map_page();
                monitor.watch(cookie, range).unwrap();
                slot.store(range.start(), Ordering::Relaxed);
            }
            // Release pairs with the Acquire in the allocator.
            ALLOCATOR.left.store(PAGES, Ordering::Release);
            while ALLOCATOR.left.load(Ordering::Relaxed) > 0 {
                thread::yield_now();
            }
            let mut told = 0;
            while told < PAGES {
                monitor.drain(&mut |_| told += 1).unwrap();
            }
            cookies.for_each(|cookie| monitor.unwatch(cookie).unwrap());
        }
        stop.store(true, Ordering::Relaxed);
    });
}

fn map_page() -> AddressRange {
    let bytes = NonZeroUsize::new(page_size()).unwrap();
    let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let page = unsafe { mmap_anonymous(None, bytes, prot, MapFlags::MAP_PRIVATE) }.unwrap();
    AddressRange::new(page.as_ptr() as usize, bytes.get()).unwrap()
}
