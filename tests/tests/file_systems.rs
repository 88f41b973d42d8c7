//! Files that change beneath registrations, on file systems with a disk.
//!
//! A device may read such memory (a registration without any right to write); most kernels refuse to
//! pin it for writing.
#![cfg(feature = "guest")]

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use regcache::monitor::{Manual, Monitor, Ummunotify};
use regcache::{Access, page_size};
use regcache_guest_tests::frames::is_stale;
use regcache_guest_tests::memory::Memory;
use regcache_guest_tests::rdma::verbs;
use regcache_guest_tests::rows::cache_of;
use regcache_guest_tests::{raw, run};

/// What is registered, and what the file has, in pages.
const MAPPED: usize = 4;
const FILE: usize = 16;

/// `FICLONERANGE` of linux/fs.h.
const FICLONERANGE: libc::c_ulong = 0x4020_940d;

#[repr(C)]
struct FileCloneRange {
    source: i64,
    source_offset: u64,
    source_len: u64,
    destination_offset: u64,
}

/// A file system in a file, mounted.
struct Mounted(PathBuf);

impl Mounted {
    fn new(kind: &str) -> Mounted {
        let directory = PathBuf::from(format!("/run/regcache-{kind}"));
        std::fs::create_dir(&directory).unwrap();
        let image = directory.with_extension("image");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        run(Command::new("modprobe").args(["-a", "loop", kind]));
        run(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        run(Command::new("mount").args(["-o", "loop", "-t", kind]).args([&image, &directory]));
        Mounted(directory)
    }

    /// A file on it whose pages differ, on the disk, and mapped.
    fn memory(&self) -> Memory {
        let memory = Memory::of_file(new_file(&self.0.join("file"), 1), MAPPED);
        // Read, so that there is something to change.
        read(&memory);
        memory
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // What the tests mapped keeps it busy.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn new_file(path: &Path, byte: u8) -> File {
    let _ = std::fs::remove_file(path);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(path).unwrap();
    for page in 0..FILE {
        let content = vec![byte.wrapping_add(page as u8); page_size()];
        file.write_all_at(&content, (page * page_size()) as u64).unwrap();
    }
    file.sync_all().unwrap();
    file
}

fn read(memory: &Memory) -> Vec<u8> {
    // SAFETY: the range is mapped readable, and nothing writes to it at this time.
    unsafe { std::slice::from_raw_parts(memory.range.start() as *const u8, memory.range.len()) }
        .to_vec()
}

/// Whether what a cache gives after `change` is stale.
fn is_stale_after(monitor: impl Monitor, memory: &Memory, change: impl FnOnce(&Memory)) -> bool {
    let cache = cache_of(verbs(), monitor);
    let get = || {
        let (start, len) = (memory.range.start(), memory.range.len());
        cache.get_or_register(start, len, Access::empty()).expect("register")
    };
    let first = get();
    assert!(first.is_cached() && !is_stale(&first, memory.range), "a good start");
    drop(first);
    let before = read(memory);
    change(memory);
    assert_ne!(read(memory), before, "the change changed nothing");
    is_stale(&get(), memory.range)
}

fn fallocate(memory: &Memory, mode: i32) {
    // One page, or from one page on.
    raw!(SYS_fallocate, memory.file().as_raw_fd(), mode, page_size(), page_size());
}

fn collapse(memory: &Memory) {
    fallocate(memory, libc::FALLOC_FL_COLLAPSE_RANGE);
}

fn insert(memory: &Memory) {
    fallocate(memory, libc::FALLOC_FL_INSERT_RANGE);
}

fn zero(memory: &Memory) {
    fallocate(memory, libc::FALLOC_FL_ZERO_RANGE);
}

fn punch(memory: &Memory) {
    fallocate(memory, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE);
}

fn truncate_and_grow(memory: &Memory) {
    let file = memory.file();
    file.set_len(page_size() as u64).unwrap();
    file.set_len((FILE * page_size()) as u64).unwrap();
}

fn path_of(memory: &Memory) -> PathBuf {
    let link = format!("/proc/self/fd/{}", memory.file().as_raw_fd());
    std::fs::read_link(link).unwrap()
}

/// Another file's blocks take the place of this one's.
fn reflink(memory: &Memory) {
    let other = new_file(&path_of(memory).with_file_name("other"), 100);
    let range = FileCloneRange {
        source: other.as_raw_fd().into(),
        source_offset: 0,
        source_len: (MAPPED * page_size()) as u64,
        destination_offset: 0,
    };
    raw!(SYS_ioctl, memory.file().as_raw_fd(), FICLONERANGE, &raw const range);
}

/// A write past the page cache, whose pages it throws away.
fn direct_write(memory: &Memory) {
    let path = path_of(memory);
    let direct = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let source = Memory::anonymous(MAPPED);
    raw!(SYS_pwrite64, direct.as_raw_fd(), source.range.start(), source.range.len(), 0);
}

/// What becomes of a registration that nobody is told about.
#[derive(Clone, Copy, PartialEq)]
enum Unaided {
    Stale,
    /// It depends on what is being written back at the time.
    Either,
}

type Change = (&'static str, fn(&Memory), Unaided);

fn assert_caught(kind: &str, changes: &[Change]) {
    let mounted = Mounted::new(kind);
    for (name, change, expected) in changes {
        let stale = is_stale_after(Manual::new(), &mounted.memory(), change);
        let falls = stale || *expected == Unaided::Either;
        assert!(falls, "{kind}, {name}: an unaided cache must fall for this");
        let told = is_stale_after(Ummunotify::open().unwrap(), &mounted.memory(), change);
        assert!(!told, "{kind}, {name}: stale");
    }
}

const EVERYWHERE: [Change; 3] = [
    ("punch", punch, Unaided::Stale),
    ("zero", zero, Unaided::Stale),
    ("truncate", truncate_and_grow, Unaided::Stale),
];
const SHIFTS: [Change; 2] =
    [("collapse", collapse, Unaided::Stale), ("insert", insert, Unaided::Stale)];
const REFLINK: [Change; 1] = [("reflink", reflink, Unaided::Stale)];
const DIRECT: [Change; 1] = [("O_DIRECT", direct_write, Unaided::Stale)];
/// btrfs may write by way of the page cache after all, in the same pages.
const DIRECT_OR_NOT: [Change; 1] = [("O_DIRECT", direct_write, Unaided::Either)];

#[test]
fn files_of_ext4() {
    assert_caught("ext4", &[&EVERYWHERE[..], &SHIFTS, &DIRECT].concat());
}

#[test]
fn files_of_xfs() {
    assert_caught("xfs", &[&EVERYWHERE[..], &SHIFTS, &REFLINK, &DIRECT].concat());
}

#[test]
fn files_of_btrfs() {
    assert_caught("btrfs", &[&EVERYWHERE[..], &REFLINK, &DIRECT_OR_NOT].concat());
}
