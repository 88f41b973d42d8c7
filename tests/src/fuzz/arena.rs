//! The memory that programs change: one kind of mapping each, at an address of its own.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use regcache::{AddressRange, page_size};

use super::operation::{How, named};
use crate::memory::{advise, huge_memfd, huge_page_size, memfd};
use crate::{attempt, raw};

named! {
    /// A kind of memory.
    Kind {
        /// Private, of small pages.
        Anonymous = "anonymous",
        /// Private, where huge pages are asked for.
        TransparentHuge = "thp",
        /// Private huge pages of the pool.
        Hugetlb = "hugetlb",
        /// Huge pages of the pool in a memfd.
        SharedHugetlb = "shared-hugetlb",
        /// A memfd, mapped shared, twice: the second half of the arena is the first one's pages.
        Shared = "shared",
        /// A memfd, mapped private.
        PrivateFile = "private-file",
        /// The end of the heap. There is one only.
        Brk = "brk",
        /// A System V segment.
        SystemV = "sysv",
    }
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;

impl Kind {
    /// How large an arena of this kind is.
    pub fn pages(self) -> usize {
        match self {
            Kind::TransparentHuge | Kind::Hugetlb | Kind::SharedHugetlb => {
                2 * huge_page_size() / page_size()
            }
            Kind::SystemV => 16,
            _ => 32,
        }
    }

    /// Whether it is of the pool of huge pages.
    pub fn is_hugetlb(self) -> bool {
        matches!(self, Kind::Hugetlb | Kind::SharedHugetlb)
    }

    /// Whether it can be changed so.
    pub fn allows(self, how: How) -> bool {
        use Kind::{Anonymous, Brk, PrivateFile, Shared, SharedHugetlb, SystemV, TransparentHuge};
        match how {
            How::Dontneed
            | How::ProtectNone
            | How::ProtectRead
            | How::ClearRefs
            | How::Populate => true,
            // It is of the whole process and slow, so once in a while is enough.
            How::MigratePages => matches!(self, Brk | SystemV),
            How::UnmapByLibc | How::Unmap | How::UnmapByClone | How::LeaveHole | How::MapOver => {
                !matches!(self, Brk | SystemV)
            }
            How::MremapExchange => matches!(self, Anonymous | TransparentHuge),
            How::UnmapOneByte
            | How::MremapAway
            | How::MremapOnto
            | How::MremapDontunmap
            | How::MremapShrink => {
                matches!(self, Anonymous | TransparentHuge | Shared | PrivateFile)
            }
            How::PunchHole | How::PunchHoleByOther | How::Truncate | How::TruncateByOther => {
                matches!(self, Shared | SharedHugetlb | PrivateFile)
            }
            How::Remove => matches!(self, Shared | SharedHugetlb | SystemV),
            How::RemoveByOther => matches!(self, Shared | SharedHugetlb),
            How::Brk => self == Brk,
            How::ShmAgain | How::ShmOther => self == SystemV,
            _ => !self.is_hugetlb(),
        }
    }
}

/// Memory of one kind.
#[derive(Debug)]
pub struct Arena {
    /// What it is.
    pub kind: Kind,
    base: usize,
    /// As much address space again, where things are moved to and from.
    pub scratch: usize,
    file: Option<File>,
    /// Odd while a change is going on.
    epoch: AtomicU64,
    state: Mutex<State>,
}

/// What the arena's lock guards, and all of its memory with it.
#[derive(Debug)]
pub struct State {
    /// Whether each page is mapped.
    pub mapped: Vec<bool>,
    /// The System V segment.
    pub segment: i32,
}

impl Arena {
    /// Maps the `number`th arena; nothing if this machine has no such memory.
    pub fn new(kind: Kind, number: usize) -> Option<Arena> {
        // Where the kernel places nothing unasked.
        let base = (64 << 30) + number * 32 * huge_page_size();
        let (base, scratch) = match kind {
            Kind::Brk => (end_of_heap(kind.pages() * page_size()), base),
            _ => (base, base + 16 * huge_page_size()),
        };
        let bytes = kind.pages() * page_size();
        let file = match kind {
            Kind::Shared | Kind::PrivateFile => Some(memfd()),
            Kind::SharedHugetlb => Some(huge_memfd()),
            _ => None,
        };
        let state = State { mapped: vec![true; kind.pages()], segment: -1 };
        let epoch = AtomicU64::new(0);
        let arena = Arena { kind, base, scratch, file, epoch, state: Mutex::new(state) };
        if let Some(file) = &arena.file {
            file.set_len(arena.file_bytes() as u64).expect("ftruncate");
        }
        match kind {
            Kind::Hugetlb | Kind::SharedHugetlb => {
                // Without a pool there is nothing to map.
                let flags = arena.flags() | libc::MAP_FIXED;
                attempt!(SYS_mmap, base, bytes, RW, flags, arena.fd(), 0).ok()?;
                arena.populate(arena.range(0, kind.pages())).then_some(())?;
            }
            Kind::Brk => (),
            Kind::SystemV => arena.attach_new(&mut arena.state.lock()),
            _ => arena.map(0, kind.pages()),
        }
        Some(arena)
    }

    /// Some pages of it.
    pub fn range(&self, page: usize, pages: usize) -> AddressRange {
        AddressRange::new(self.base + page * page_size(), pages * page_size())
            .expect("a range of an arena")
    }

    /// The whole.
    pub fn all(&self) -> AddressRange {
        self.range(0, self.kind.pages())
    }

    /// The bytes that a lookup asks for. They never hold one page of a file twice: what the oracle
    /// writes there must stay.
    pub fn request(&self, at: usize, len: usize) -> AddressRange {
        let limit = self.limit(at / page_size()) * page_size();
        let at = at.min(limit - 1);
        AddressRange::new(self.base + at, len.clamp(1, limit - at)).expect("a range of an arena")
    }

    /// The pages that a change concerns: whole huge pages where there are no others.
    pub fn pages(&self, page: usize, pages: usize) -> (usize, usize) {
        let page = page.min(self.kind.pages() - 1);
        let end = (page + pages.max(1)).min(self.limit(page));
        if self.kind.is_hugetlb() {
            let each = huge_page_size() / page_size();
            let page = page / each * each;
            return (page, end.next_multiple_of(each) - page);
        }
        (page, end - page)
    }

    /// The page after the last that can be used together with this one.
    fn limit(&self, page: usize) -> usize {
        let half = self.kind.pages() / 2;
        if self.kind == Kind::Shared && page < half { half } else { self.kind.pages() }
    }

    /// The page of an address.
    pub fn page_of(&self, addr: usize) -> usize {
        (addr - self.base) / page_size()
    }

    /// The file behind it.
    pub fn fd(&self) -> i32 {
        self.file.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// How large that is.
    pub fn file_bytes(&self) -> usize {
        let bytes = self.kind.pages() * page_size();
        if self.kind == Kind::Shared { bytes / 2 } else { bytes }
    }

    /// Where in the file a page lies.
    pub fn offset(&self, page: usize) -> usize {
        page * page_size() % self.file_bytes()
    }

    /// How it is mapped. Huge pages are not reserved, since Linux 6.12 loses count of those that are
    /// (HugePages_Rsvd falls below 0 after some forks and holes) and then refuses all mappings.
    pub fn flags(&self) -> i32 {
        let huge = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB;
        match self.kind {
            Kind::Shared => libc::MAP_SHARED,
            Kind::SharedHugetlb => libc::MAP_SHARED | libc::MAP_NORESERVE,
            Kind::PrivateFile => libc::MAP_PRIVATE,
            Kind::Hugetlb => huge | libc::MAP_NORESERVE,
            _ => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
        }
    }

    /// Maps these pages, over whatever is there.
    pub fn map(&self, page: usize, pages: usize) {
        let half = self.kind.pages() / 2;
        if self.kind == Kind::Shared && page < half && page + pages > half {
            self.map(page, half - page);
            return self.map(half, page + pages - half);
        }
        let range = self.range(page, pages);
        self.map_at(range.start(), page, pages);
        if self.kind == Kind::TransparentHuge {
            advise(range, libc::MADV_HUGEPAGE);
        }
    }

    /// Maps what belongs at these pages somewhere.
    pub fn map_at(&self, addr: usize, page: usize, pages: usize) {
        let (len, flags) = (pages * page_size(), self.flags() | libc::MAP_FIXED);
        let map = || attempt!(SYS_mmap, addr, len, RW, flags, self.fd(), self.offset(page));
        if self.kind.is_hugetlb() {
            assert!(until(|| map().is_ok()), "no huge page to map: {}", huge_pages());
        } else {
            map().unwrap_or_else(|error| panic!("mmap: {error}"));
        }
    }

    /// Waits until huge pages are there: those that are still pinned come back to the pool some
    /// time after they were let go. A page that is not there would be a signal.
    pub fn populate(&self, range: AddressRange) -> bool {
        const MADV_POPULATE_WRITE: i32 = 23;
        until(|| attempt!(SYS_madvise, range.start(), range.len(), MADV_POPULATE_WRITE).is_ok())
    }

    /// A new segment in the place of what there is. It goes when it is not attached any more.
    pub fn attach_new(&self, state: &mut State) {
        let bytes = self.kind.pages() * page_size();
        let id = raw!(SYS_shmget, libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o600);
        raw!(SYS_shmat, id, self.base, libc::SHM_REMAP);
        // The second attachment keeps it alive while the first is away.
        raw!(SYS_shmat, id, self.scratch, libc::SHM_REMAP);
        raw!(SYS_shmctl, id, libc::IPC_RMID, 0);
        state.segment = id as i32;
    }

    /// The present epoch.
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }

    /// Keeps changes and other judges away.
    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// As [`lock`](Arena::lock), for a change: the epoch is odd until what is returned is dropped.
    pub fn lock_for_change(&self) -> Change<'_> {
        let state = self.state.lock();
        self.epoch.fetch_add(1, Ordering::SeqCst);
        Change { state, epoch: &self.epoch }
    }
}

/// A change that is going on.
pub struct Change<'a> {
    /// What it may touch.
    pub state: MutexGuard<'a, State>,
    epoch: &'a AtomicU64,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

/// Takes `bytes` at the end of the heap, and keeps the C library from going on after them.
fn end_of_heap(bytes: usize) -> usize {
    // SAFETY: more heap is asked for, and nothing that is in use given back. The library's own
    // functions, since it remembers where the heap ends.
    unsafe {
        let start = (libc::sbrk(0) as usize).next_multiple_of(page_size()) + page_size();
        assert_eq!(libc::brk((start + bytes) as *mut _), 0, "brk");
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        raw!(SYS_mmap, start + bytes + page_size(), page_size(), libc::PROT_NONE, flags, -1, 0);
        start
    }
}

/// How many huge pages there are, and what for.
pub fn huge_pages() -> String {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let lines = meminfo.lines().filter(|line| line.starts_with("HugePages_"));
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Tries for ten seconds.
fn until(mut good: impl FnMut() -> bool) -> bool {
    for _ in 0..500 {
        if good() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    false
}
