//! Memory that cannot be watched with truth: right every time, and never cached.

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use regcache::{Access, AddressRange, Error, page_size};

use super::memory::{ANONYMOUS, Memory, RW, lonely_range, raw, try_raw};
use super::{cache, is_right, skip};

fn row(memory: &Memory, change: impl Fn(&Memory)) {
    let Some(cache) = cache() else { return };
    let (start, len) = (memory.range.start(), memory.range.len());
    if let Err(error) = cache.get_or_register(start, len, Access::empty()) {
        // Old kernels' io_uring pins no file but shared memory, and no two kinds at once.
        let Error::Register { errno, .. } = error else { panic!("{error}") };
        assert!(matches!(errno, Errno::EOPNOTSUPP | Errno::EINVAL), "{error}");
        return skip(&error);
    }
    for _ in 0..3 {
        assert!(is_right(&cache, memory));
        change(memory);
        memory.fill();
        assert!(is_right(&cache, memory));
    }
    let stats = cache.stats();
    assert_eq!((stats.hits, stats.uncached_unwatchable, stats.regions), (0, 7, 0), "{stats}");
}

#[test]
fn a_shared_memfd_and_holes_in_it() {
    row(&Memory::of_memfd(4, libc::MAP_SHARED), |memory| {
        let file = memory.file.as_ref().unwrap();
        let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
        raw(libc::SYS_fallocate, &[file.as_raw_fd() as usize, mode, 0, memory.range.len()]);
    });
}

#[test]
fn a_shared_memfd_and_its_length() {
    row(&Memory::of_memfd(4, libc::MAP_SHARED), |memory| {
        let file = memory.file.as_ref().unwrap();
        file.set_len(0).unwrap();
        file.set_len(memory.range.len() as u64).unwrap();
    });
}

#[test]
fn a_private_memfd() {
    row(&Memory::of_memfd(4, libc::MAP_PRIVATE), |memory| {
        memory.map_at(libc::MAP_PRIVATE | libc::MAP_FIXED);
    });
}

#[test]
fn shared_anonymous_memory() {
    let memory = Memory::map(4 * page_size(), libc::MAP_SHARED | libc::MAP_ANONYMOUS, None);
    memory.fill();
    row(&memory, |memory| memory.advise(libc::MADV_REMOVE));
}

#[test]
fn system_v_shared_memory() {
    let range = lonely_range(4 * page_size());
    let mode = (libc::IPC_CREAT | 0o600) as usize;
    let id = raw(libc::SYS_shmget, &[libc::IPC_PRIVATE as usize, range.len(), mode]);
    raw(libc::SYS_shmat, &[id, range.start(), 0]);
    raw(libc::SYS_shmctl, &[id, libc::IPC_RMID as usize, 0]);
    row(&Memory { range, file: None }, |_| ());
}

#[test]
fn a_library_s_data() {
    // In .data, and more than a page of it.
    static mut DATA: [u8; 65536] = [1; 65536];
    let start = (&raw mut DATA as usize).next_multiple_of(page_size());
    let range = AddressRange::new(start, 4 * page_size()).unwrap();
    row(&Memory { range, file: None }, |_| ());
}

#[test]
fn huge_pages_of_the_pool() {
    let huge = page_size() * page_size() / size_of::<u64>();
    let range = lonely_range(huge);
    let flags = (ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_FIXED_NOREPLACE) as usize;
    let args = [range.start(), huge, RW as usize, flags, usize::MAX, 0];
    if let Err(error) = try_raw(libc::SYS_mmap, &args) {
        return skip(&format!("a huge page (vm.nr_hugepages): {error}"));
    }
    let memory = Memory { range, file: None };
    memory.fill();
    row(&memory.pages(3, 4), |_| drop(memory.try_advise(libc::MADV_DONTNEED)));
    row(&memory, |_| drop(memory.try_advise(libc::MADV_DONTNEED)));
}

#[test]
fn a_range_with_a_part_that_cannot_be_watched() {
    let range = lonely_range(4 * page_size());
    let memory = Memory { range, file: None };
    memory.pages(0, 2).map_at(ANONYMOUS | libc::MAP_FIXED_NOREPLACE);
    let file = Memory::of_memfd(2, libc::MAP_SHARED);
    let shared = Memory { file: file.file, ..memory.pages(2, 2) };
    shared.map_at(libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
    memory.fill();
    row(&memory, |_| {
        let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as usize;
        let fd = shared.file.as_ref().unwrap().as_raw_fd() as usize;
        raw(libc::SYS_fallocate, &[fd, mode, 0, shared.range.len()]);
    });
}

#[test]
fn memory_of_another_userfaultfd() {
    let memory = Memory::new(4);
    let Ok(fd) = try_raw(libc::SYS_userfaultfd, &[(libc::O_CLOEXEC | 1) as usize]) else {
        return skip(&"no userfaultfd");
    };
    // UFFDIO_API, and UFFDIO_REGISTER for missing pages, of which there are none.
    let mut api = [0xaa_u64, 0, 0];
    raw(libc::SYS_ioctl, &[fd, 0xc018_aa3f, api.as_mut_ptr() as usize]);
    let mut register = [memory.range.start() as u64, memory.range.len() as u64, 1, 0];
    raw(libc::SYS_ioctl, &[fd, 0xc020_aa00, register.as_mut_ptr() as usize]);
    row(&memory, |_| ());
    // The other's registration is what it was: a page that goes missing faults, and so EFAULT.
    memory.advise(libc::MADV_DONTNEED);
    let null = File::open("/dev/zero").unwrap();
    let read = try_raw(libc::SYS_read, &[null.as_raw_fd() as usize, memory.range.start(), 1]);
    assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EFAULT));
}

#[test]
fn a_range_with_a_hole_is_an_error_as_ever() {
    let Some(cache) = cache() else { return };
    let memory = Memory::new(4);
    memory.pages(1, 1).unmap();
    let range = memory.range;
    let error = cache.get_or_register(range.start(), range.len(), Access::empty()).unwrap_err();
    assert!(matches!(error, Error::NotAccessible { .. }), "{error}");
    assert_eq!(cache.stats().regions, 0);
    // What was there is still watched as soon as it is whole.
    memory.pages(1, 1).map_again();
    memory.fill();
    assert!(is_right(&cache, &memory));
    assert!(is_right(&cache, &memory));
    assert_eq!(cache.stats().hits, 1);
}
