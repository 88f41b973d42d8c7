//! Memory of every kind, and the system calls that change its mappings, made raw: no C library
//! wrapper that a hook could see.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use regcache::{AddressRange, page_size};

/// Makes a system call, and panics with its name if it fails.
#[macro_export]
macro_rules! raw {
    ($call:ident $(, $arg:expr)* $(,)?) => {
        $crate::memory::system_call(
            stringify!($call),
            libc::$call,
            &[$({ let arg = $arg; arg as usize }),*],
        )
    };
}

/// As [`raw!`], for a call that may fail: returns what the kernel said.
#[macro_export]
macro_rules! attempt {
    ($call:ident $(, $arg:expr)* $(,)?) => {
        $crate::memory::attempted_call(libc::$call, &[$({ let arg = $arg; arg as usize }),*])
    };
}

/// What [`raw!`] calls.
pub fn system_call(name: &str, number: i64, args: &[usize]) -> usize {
    attempted_call(number, args).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// What [`attempt!`](crate::attempt) calls; every argument fills a register.
pub fn attempted_call(number: i64, args: &[usize]) -> io::Result<usize> {
    let mut all = [0; 6];
    all[..args.len()].copy_from_slice(args);
    let [a, b, c, d, e, f] = all;
    // SAFETY: the tests make system calls on memory that they mapped themselves and that no
    // reference points into, and give buffers of the size that the call asks for.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

/// madvise(2). Kernels without transparent huge pages, as real-time ones are, do not know the advice
/// about them, and need none.
pub fn advise(range: AddressRange, advice: i32) {
    let of_huge_pages = matches!(advice, libc::MADV_HUGEPAGE | libc::MADV_NOHUGEPAGE);
    if !of_huge_pages || has_transparent_huge_pages() {
        raw!(SYS_madvise, range.start(), range.len(), advice);
    }
}

/// Whether the kernel has transparent huge pages at all.
pub fn has_transparent_huge_pages() -> bool {
    Path::new("/sys/kernel/mm/transparent_hugepage").exists()
}

/// The size of a huge page, transparent or of the pool, that fills a table of small pages.
pub fn huge_page_size() -> usize {
    page_size() * page_size() / size_of::<u64>()
}

const RW: i32 = libc::PROT_READ | libc::PROT_WRITE;
const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;

/// A mapping of whole pages that the test owns. It is unmapped at the end of the test's process
/// only: some tests pull it away themselves.
#[derive(Debug)]
pub struct Memory {
    /// Where it is.
    pub range: AddressRange,
    file: Option<File>,
}

impl Memory {
    /// `pages` pages of private anonymous memory, written to, without huge pages.
    pub fn anonymous(pages: usize) -> Memory {
        let memory = Memory::map(pages * page_size(), ANONYMOUS, None);
        memory.advise(libc::MADV_NOHUGEPAGE);
        memory.fill(1);
        memory
    }

    /// `pages` pages that no one has touched.
    pub fn untouched(pages: usize) -> Memory {
        let memory = Memory::map(pages * page_size(), ANONYMOUS, None);
        memory.advise(libc::MADV_NOHUGEPAGE);
        memory
    }

    /// One transparent huge page, if the kernel gives one.
    pub fn transparent_huge() -> Memory {
        let huge = huge_page_size();
        let room = Memory::map(2 * huge, ANONYMOUS, None);
        let start = room.range.start().next_multiple_of(huge);
        let memory = Memory { range: AddressRange::new(start, huge).unwrap(), file: None };
        memory.advise(libc::MADV_HUGEPAGE);
        memory.fill(1);
        memory
    }

    /// Private huge pages from the pool.
    pub fn hugetlb(count: usize) -> Memory {
        let memory = Memory::map(count * huge_page_size(), ANONYMOUS | libc::MAP_HUGETLB, None);
        memory.fill(1);
        memory
    }

    /// `pages` pages of a memfd, mapped shared.
    pub fn shared(pages: usize) -> Memory {
        let bytes = pages * page_size();
        let file = memfd();
        file.set_len(bytes as u64).expect("ftruncate");
        let memory = Memory::map(bytes, libc::MAP_SHARED, Some(file));
        memory.fill(1);
        memory
    }

    /// The first `pages` pages of a file, mapped shared.
    pub fn of_file(file: File, pages: usize) -> Memory {
        Memory::map(pages * page_size(), libc::MAP_SHARED, Some(file))
    }

    /// Huge pages from the pool, as a memfd, mapped shared.
    pub fn shared_hugetlb(count: usize) -> Memory {
        let bytes = count * huge_page_size();
        let file = huge_memfd();
        file.set_len(bytes as u64).expect("ftruncate");
        let memory = Memory::map(bytes, libc::MAP_SHARED, Some(file));
        memory.fill(1);
        memory
    }

    /// A page of machine code that does nothing, in a memfd, mapped private and read-only.
    pub fn code() -> Memory {
        const NOP: &[u8] = if cfg!(target_arch = "x86_64") {
            &[0x90]
        } else if cfg!(target_arch = "aarch64") {
            &[0x1f, 0x20, 0x03, 0xd5]
        } else {
            panic!("its code is not known here")
        };
        let file = memfd();
        file.write_all_at(&NOP.repeat(page_size() / NOP.len()), 0).expect("fill a memfd");
        let memory = Memory::map(page_size(), libc::MAP_PRIVATE, Some(file));
        let prot = libc::PROT_READ | libc::PROT_EXEC;
        raw!(SYS_mprotect, memory.range.start(), memory.range.len(), prot);
        memory
    }

    /// Memory that somebody else mapped.
    pub fn at(addr: usize, len: usize) -> Memory {
        let range = AddressRange::new(addr, len).unwrap().round_to_pages().unwrap();
        Memory { range, file: None }
    }

    fn map(bytes: usize, flags: i32, file: Option<File>) -> Memory {
        let fd = file.as_ref().map_or(-1, AsRawFd::as_raw_fd);
        let addr = lonely_address(bytes);
        raw!(SYS_mmap, addr, bytes, RW, flags | libc::MAP_FIXED_NOREPLACE, fd, 0);
        Memory { range: AddressRange::new(addr, bytes).unwrap(), file }
    }

    /// The memfd behind the memory.
    pub fn file(&self) -> &File {
        self.file.as_ref().expect("memory of a file")
    }

    /// Page `n` and the `count - 1` after it.
    pub fn pages(&self, n: usize, count: usize) -> AddressRange {
        AddressRange::new(self.range.start() + n * page_size(), count * page_size()).unwrap()
    }

    /// Writes `value` to the first byte of every page.
    pub fn fill(&self, value: u8) {
        for page in (self.range.start()..self.range.end()).step_by(page_size()) {
            // SAFETY: the range is mapped writable, and no reference points into it.
            unsafe { ptr::write_volatile(page as *mut u8, value) };
        }
    }

    /// madvise(2) of all of it.
    pub fn advise(&self, advice: i32) {
        advise(self.range, advice);
    }

    /// madvise(2), unless this kernel does not know the advice. Says whether it does.
    pub fn advise_if_known(&self, advice: i32) -> bool {
        // SAFETY: as in `raw!`.
        let result = unsafe {
            libc::syscall(libc::SYS_madvise, self.range.start(), self.range.len(), advice)
        };
        result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
    }

    /// munmap(2), past the C library.
    pub fn unmap(&self) {
        raw!(SYS_munmap, self.range.start(), self.range.len());
    }

    /// New private memory at the same address, which must be free.
    pub fn map_again(&self) {
        let flags = ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
        let addr = raw!(SYS_mmap, self.range.start(), self.range.len(), RW, flags, -1, 0);
        assert_eq!(addr, self.range.start());
        self.fill(2);
    }

    /// New private memory over the old.
    pub fn map_over(&self) {
        let flags = ANONYMOUS | libc::MAP_FIXED;
        raw!(SYS_mmap, self.range.start(), self.range.len(), RW, flags, -1, 0);
        self.fill(2);
    }
}

/// An empty file in memory.
pub fn memfd() -> File {
    new_memfd(0)
}

/// An empty file of huge pages of the pool.
pub fn huge_memfd() -> File {
    new_memfd(libc::MFD_HUGETLB)
}

fn new_memfd(flags: u32) -> File {
    let fd = raw!(SYS_memfd_create, c"regcache-test".as_ptr(), libc::MFD_CLOEXEC | flags);
    // SAFETY: the kernel has just made this descriptor, and nothing else knows of it.
    unsafe { File::from_raw_fd(fd as i32) }
}

/// An address where the kernel places nothing unasked: what a test unmaps stays unmapped, whatever
/// other threads do, and no two memories share a huge page's block.
fn lonely_address(bytes: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(64 << 30);
    NEXT.fetch_add(bytes.next_multiple_of(huge_page_size()), Ordering::Relaxed)
}

/// Runs `body` in a forked child and waits for it; panics unless the child finished well.
///
/// The child may use memory and make system calls; it must not wait for another thread.
pub fn in_child(body: impl FnOnce()) {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    // SAFETY: the child runs system calls only, and leaves by _exit.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let good = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            // SAFETY: _exit(2) runs no code of this process any more.
            unsafe { libc::_exit(if good { 0 } else { 1 }) }
        }
        ForkResult::Parent { child } => {
            let status = waitpid(child, None).expect("waitpid");
            assert_eq!(status, WaitStatus::Exited(child, 0), "the child failed");
        }
    }
}

/// A forked child that does nothing but share what private memory its parent had. It ends when this
/// is dropped.
#[derive(Debug)]
pub struct Sharer {
    pid: i32,
    quit: i32,
}

impl Sharer {
    /// Forks it.
    pub fn fork() -> Sharer {
        let mut ends = [0_i32; 2];
        raw!(SYS_pipe2, ends.as_mut_ptr(), libc::O_CLOEXEC);
        let [wait, quit] = ends;
        // SAFETY: the child makes three system calls and leaves by _exit.
        let pid = unsafe { libc::fork() };
        assert!(pid >= 0, "fork: {}", io::Error::last_os_error());
        if pid == 0 {
            // SAFETY: as above.
            unsafe {
                libc::close(quit);
                libc::read(wait, [0_u8; 1].as_mut_ptr().cast(), 1);
                libc::_exit(0)
            }
        }
        raw!(SYS_close, wait);
        Sharer { pid, quit }
    }
}

impl Drop for Sharer {
    fn drop(&mut self) {
        raw!(SYS_close, self.quit);
        raw!(SYS_wait4, self.pid, 0, 0, 0);
    }
}
