//! Changes memory, in every way there is.

use std::ffi::c_void;
use std::fs;

use io_uring::{IoUring, opcode};

use regcache::page_size;

use super::arena::{Arena, State, huge_pages};
use super::helper::{Helper, Order};
use super::operation::How;
use crate::{attempt, raw};

/// Not in the libc crate for glibc.
const MADV_COLD: i32 = 20;
const MADV_PAGEOUT: i32 = 21;
const MADV_POPULATE_WRITE: i32 = 23;
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLLAPSE: i32 = 25;
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const MOVE: i32 = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;

/// What a thread needs to change memory.
pub struct Tools {
    ring: Option<IoUring>,
    stack: Vec<u8>,
}

impl Tools {
    /// None of them is made before it is needed.
    pub fn new() -> Tools {
        Tools { ring: None, stack: Vec::new() }
    }
}

/// Changes these pages of the arena, whose lock is held. What this kernel cannot do is not done.
pub fn change(
    arena: &Arena,
    state: &mut State,
    (page, pages): (usize, usize),
    how: How,
    tools: &mut Tools,
    helper: &Helper,
) {
    if !arena.kind.allows(how) {
        return;
    }
    let (page, pages) = arena.pages(page, pages);
    fill_holes(arena, state, page, pages);
    let range = arena.range(page, pages);
    let (addr, len) = (range.start(), range.len());
    let advise = |advice: i32| attempt!(SYS_madvise, addr, len, advice);
    let must = |advice: i32| {
        raw!(SYS_madvise, addr, len, advice);
    };
    let protect = |prot: i32| {
        raw!(SYS_mprotect, addr, len, prot);
        raw!(SYS_mprotect, addr, len, RW);
    };
    let fd = arena.fd();
    let (offset, file_bytes) = (arena.offset(page), arena.file_bytes());
    match how {
        How::UnmapByLibc => {
            // SAFETY: the memory is the arena's, and no reference points into it.
            assert_eq!(unsafe { libc::munmap(addr as *mut c_void, len) }, 0, "munmap");
            arena.map(page, pages);
        }
        How::Unmap => {
            raw!(SYS_munmap, addr, len);
            arena.map(page, pages);
        }
        How::UnmapByClone => unmap_by_clone(arena, page, pages, tools),
        How::UnmapOneByte => {
            raw!(SYS_munmap, addr, 1);
            arena.map(page, 1);
        }
        How::LeaveHole => {
            raw!(SYS_munmap, addr, len);
            state.mapped[page..page + pages].fill(false);
        }
        How::MapOver => arena.map(page, pages),
        How::MremapAway => {
            if attempt!(SYS_mremap, addr, len, len, MOVE, arena.scratch).is_ok() {
                raw!(SYS_munmap, arena.scratch, len);
            }
            arena.map(page, pages);
        }
        How::MremapOnto => {
            arena.map_at(arena.scratch, page, pages);
            raw!(SYS_mremap, arena.scratch, len, len, MOVE, addr);
        }
        How::MremapDontunmap => {
            let flags = MOVE | libc::MREMAP_DONTUNMAP;
            if attempt!(SYS_mremap, addr, len, len, flags, arena.scratch).is_ok() {
                raw!(SYS_munmap, arena.scratch, len);
            }
        }
        How::MremapShrink => {
            let shrunk = attempt!(SYS_mremap, addr, len, page_size(), 0).is_ok();
            if pages > 1 && !(shrunk && attempt!(SYS_mremap, addr, page_size(), len, 0).is_ok()) {
                arena.map(page + 1, pages - 1);
            }
        }
        How::MremapExchange => exchange(arena, page, pages),
        How::Dontneed => must(libc::MADV_DONTNEED),
        How::DontneedLocked => {
            let _ = attempt!(SYS_mlock, addr, len);
            must(MADV_DONTNEED_LOCKED);
            raw!(SYS_munlock, addr, len);
        }
        How::DontneedByUring => dontneed_by_uring(addr, len, tools),
        How::DontneedByProcess => {
            let pidfd = raw!(SYS_pidfd_open, std::process::id(), 0);
            let iovec = libc::iovec { iov_base: addr as *mut c_void, iov_len: len };
            let _ =
                attempt!(SYS_process_madvise, pidfd, &raw const iovec, 1, libc::MADV_DONTNEED, 0);
            raw!(SYS_close, pidfd);
        }
        How::Guard => {
            if advise(MADV_GUARD_INSTALL).is_ok() {
                must(MADV_GUARD_REMOVE);
            }
        }
        How::Free => drop(advise(libc::MADV_FREE)),
        How::Remove => must(libc::MADV_REMOVE),
        How::Pageout => drop(advise(MADV_PAGEOUT)),
        How::Cold => drop(advise(MADV_COLD)),
        How::Collapse => drop(advise(MADV_COLLAPSE)),
        How::Populate => drop(advise(MADV_POPULATE_WRITE)),
        How::Hugepage => drop(advise(libc::MADV_HUGEPAGE)),
        How::NoHugepage => drop(advise(libc::MADV_NOHUGEPAGE)),
        How::DontFork => {
            must(libc::MADV_DONTFORK);
            must(libc::MADV_DOFORK);
        }
        How::Mergeable => drop(advise(libc::MADV_MERGEABLE)),
        How::Unmergeable => drop(advise(libc::MADV_UNMERGEABLE)),
        How::PunchHole => {
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            raw!(SYS_fallocate, fd, mode, offset, len);
        }
        How::Truncate => {
            raw!(SYS_ftruncate, fd, offset);
            raw!(SYS_ftruncate, fd, file_bytes);
        }
        How::PunchHoleByOther => helper.run(Order::Punch, fd as usize, offset, len),
        How::TruncateByOther => helper.run(Order::Truncate, fd as usize, offset, file_bytes),
        How::RemoveByOther => helper.run(Order::Remove, 0, addr, len),
        How::PageoutByOther => helper.run(Order::Pageout, 0, addr, len),
        How::ProtectNone => protect(libc::PROT_NONE),
        How::ProtectRead => protect(libc::PROT_READ),
        How::Lock => {
            let _ = attempt!(SYS_mlock, addr, len);
            raw!(SYS_munlock, addr, len);
        }
        How::ClearRefs => drop(fs::write("/proc/self/clear_refs", "4")),
        How::MovePages => move_pages(arena, page, pages),
        How::MigratePages => {
            let (from, to) = if arena.epoch() & 2 == 0 { (1_u64, 2_u64) } else { (2, 1) };
            let _ = attempt!(SYS_migrate_pages, 0, 64, &raw const from, &raw const to);
        }
        How::Brk => {
            let end = arena.all().end();
            // SAFETY: what is given back is the arena's, and no reference points into it.
            unsafe {
                assert_eq!(libc::brk(addr as *mut c_void), 0, "brk");
                assert_eq!(libc::brk(end as *mut c_void), 0, "brk");
            }
        }
        How::ShmAgain => {
            raw!(SYS_shmdt, arena.all().start());
            raw!(SYS_shmat, state.segment, arena.all().start(), 0);
        }
        How::ShmOther => arena.attach_new(state),
    }
    if arena.kind.is_hugetlb() && how != How::LeaveHole {
        assert!(arena.populate(range), "no huge page to touch: {}", huge_pages());
    }
}

/// Maps what an earlier change left unmapped.
fn fill_holes(arena: &Arena, state: &mut State, page: usize, pages: usize) {
    for page in page..page + pages {
        if !state.mapped[page] {
            let (page, pages) = arena.pages(page, 1);
            arena.map(page, pages);
            state.mapped[page..page + pages].fill(true);
        }
    }
}

fn exchange(arena: &Arena, page: usize, pages: usize) {
    let half = pages / 2;
    if half == 0 {
        return;
    }
    let (a, b) = (arena.range(page, half).start(), arena.range(page + half, half).start());
    let len = half * page_size();
    let go = |from: usize, to: usize| attempt!(SYS_mremap, from, len, len, MOVE, to).is_ok();
    // A range of several mappings may not be movable, and then is mapped anew.
    let away = go(a, arena.scratch);
    if !go(b, a) {
        arena.map(page, half);
    }
    if !(away && go(arena.scratch, b)) {
        arena.map(page + half, half);
    }
    raw!(SYS_munmap, arena.scratch, len);
}

/// What the child that shares the address space is told.
struct Remap<'a> {
    arena: &'a Arena,
    page: usize,
    pages: usize,
}

fn unmap_by_clone(arena: &Arena, page: usize, pages: usize, tools: &mut Tools) {
    extern "C" fn child(remap: *mut c_void) -> i32 {
        // SAFETY: the parent waits for this child (CLONE_VFORK) and lent it this.
        let Remap { arena, page, pages } = unsafe { &*remap.cast::<Remap>() };
        let range = arena.range(*page, *pages);
        raw!(SYS_munmap, range.start(), range.len());
        arena.map(*page, *pages);
        0
    }

    tools.stack.resize(256 << 10, 0);
    let mut remap = Remap { arena, page, pages };
    // SAFETY: the stack is the child's own, both outlive the child, for which CLONE_VFORK waits,
    // and the child only makes system calls.
    let pid = unsafe {
        libc::clone(
            child,
            tools.stack.as_mut_ptr().add(tools.stack.len()).cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD,
            (&raw mut remap).cast(),
        )
    };
    assert!(pid > 0, "clone: {}", std::io::Error::last_os_error());
    raw!(SYS_wait4, pid, 0, 0, 0);
}

fn dontneed_by_uring(addr: usize, len: usize, tools: &mut Tools) {
    let ring = tools.ring.get_or_insert_with(|| IoUring::new(1).expect("io_uring"));
    let entry = opcode::Madvise::new(addr as *const c_void, len as i64, libc::MADV_DONTNEED);
    // SAFETY: the memory is the arena's, and no reference points into it.
    unsafe { ring.submission().push(&entry.build()) }.expect("room for one");
    while ring.completion().is_empty() {
        // EINTR is no matter.
        let _ = ring.submit_and_wait(1);
    }
    let completion = ring.completion().next();
    assert_eq!(completion.map(|c| c.result()), Some(0), "madvise by io_uring");
}

fn move_pages(arena: &Arena, page: usize, pages: usize) {
    const MPOL_MF_MOVE: usize = 2;
    const MOST: usize = 16;
    let count = pages.min(MOST);
    let addresses: [usize; MOST] =
        std::array::from_fn(|n| arena.range(page, 1).start() + n.min(count - 1) * page_size());
    let nodes = [(arena.epoch() >> 1 & 1) as i32; MOST];
    let mut status = [0_i32; MOST];
    let (addresses, nodes) = (addresses.as_ptr(), nodes.as_ptr());
    // One node only, or a kind of memory that does not move: no matter.
    let _ = attempt!(SYS_move_pages, 0, count, addresses, nodes, status.as_mut_ptr(), MPOL_MF_MOVE);
}
