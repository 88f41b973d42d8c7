//! What NOTE and VERIFY cost for large regions.

use std::fs::File;
use std::hint::black_box;
use std::os::fd::AsRawFd;
use std::time::Instant;

use regcache::page_size;
use regcache_benches::row::Row;
use regcache_benches::worker::{Turn, Worker, compare};

use super::cgroup::Cgroup;
use super::{ELSEWHERE, Result, TURNS, memfd, open};

/// What VERIFY looks at in one go.
const CHUNK: usize = 2 << 20;
const COOKIE: u64 = 1;

/// A region that needs no memory of its own: each chunk maps the same pages.
struct Large {
    chunks: usize,
}

impl Large {
    fn map(chunks: usize) -> Large {
        let file = memfd(CHUNK);
        for chunk in 0..chunks {
            map_chunk(&file, ELSEWHERE + chunk * CHUNK);
        }
        Large { chunks }
    }

    /// Clears the mapping of a chunk and brings the same pages back: the event tells of no change.
    fn touch(&self, chunk: usize) {
        let start = ELSEWHERE + chunk % self.chunks * CHUNK;
        // SAFETY: what was mapped is a file's, so that nothing is lost.
        let failed = unsafe { libc::madvise(start as *mut _, CHUNK, libc::MADV_DONTNEED) };
        assert_eq!(failed, 0, "{}", std::io::Error::last_os_error());
        for page in (start..start + CHUNK).step_by(page_size()) {
            // SAFETY: the page is mapped.
            black_box(unsafe { (page as *const u8).read_volatile() });
        }
    }

    fn pages(&self) -> usize {
        self.chunks * CHUNK / page_size()
    }
}

fn map_chunk(file: &File, addr: usize) {
    let flags = libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE | libc::MAP_POPULATE;
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: NOREPLACE replaces nothing.
    let at = unsafe { libc::mmap(addr as *mut _, CHUNK, prot, flags, file.as_raw_fd(), 0) };
    assert_eq!(at as usize, addr, "{}", std::io::Error::last_os_error());
}

/// Of one chunk that was touched, in a small region and in a large one.
pub fn verifying(done: &mut impl FnMut(Row)) -> Result<()> {
    let worker = |chunks: usize| {
        Worker::new(move || -> Turn {
            let region = Large::map(chunks);
            let device = open();
            device.register(ELSEWHERE, chunks * CHUNK, COOKIE).expect("register");
            device.note(COOKIE).expect("note");
            let mut turn = 0;
            Box::new(move || {
                turn += 1;
                // No divisor of the number of chunks, so it goes everywhere.
                region.touch(turn * 7919);
                let start = Instant::now();
                assert!(device.verify(COOKIE).expect("verify"), "nothing has changed");
                start.elapsed().as_nanos() as f64 / 1000.0
            })
        })
    };
    let mut baseline = worker((64 << 20) / CHUNK)?;
    let mut subject = worker((64 << 30) / CHUNK)?;
    let measure = "VERIFY after 2 MiB were touched, in 64 GiB (baseline: in 64 MiB), us";
    done(compare(measure, TURNS, &mut baseline, &mut subject).at_most(1.5));
    Ok(())
}

/// Of each page, where each chunk has a digest and where the region has one.
pub fn noting(done: &mut impl FnMut(Row)) -> Result<()> {
    let worker = |chunks: usize| {
        Worker::new(move || -> Turn {
            let region = Large::map(chunks);
            let device = open();
            device.register(ELSEWHERE, chunks * CHUNK, COOKIE).expect("register");
            Box::new(move || {
                let start = Instant::now();
                device.note(COOKIE).expect("note");
                start.elapsed().as_nanos() as f64 / region.pages() as f64
            })
        })
    };
    let mut baseline = worker((16 << 20) / CHUNK)?;
    let mut subject = worker((1 << 30) / CHUNK)?;
    let measure = "NOTE of a page, by chunks (baseline: by one digest for the region), ns";
    done(compare(measure, TURNS, &mut baseline, &mut subject).at_most(1.2));
    Ok(())
}

/// By the memory cgroup's own account, for each chunk.
pub fn memory_of_a_note(done: &mut impl FnMut(Row)) -> Result<()> {
    const CHUNKS: usize = (16 << 30) / CHUNK;
    // The account is some dozens of pages behind.
    const NOTES: usize = 64;
    let Some(cgroup) = Cgroup::create()? else { return Ok(()) };
    let joined = cgroup.clone();
    let mut worker = Worker::new(move || {
        joined.join();
        let region = Large::map(CHUNKS);
        let device = open();
        for cookie in 0..NOTES {
            device.register(ELSEWHERE, CHUNKS * CHUNK, cookie as u64).expect("register");
        }
        let mut ready = false;
        Box::new(move || {
            black_box(&region);
            for cookie in (0..NOTES).filter(|_| ready) {
                device.note(cookie as u64).expect("note");
            }
            ready = true;
            0.0
        })
    })?;
    worker.turn();
    let before = cgroup.kernel_bytes()?;
    worker.turn();
    let bytes = (cgroup.kernel_bytes()? - before) / (NOTES * CHUNKS) as f64;
    done(Row::alone("kernel memory of a note, bytes for 2 MiB", bytes).at_most(16.0));
    drop(worker);
    cgroup.remove();
    Ok(())
}
