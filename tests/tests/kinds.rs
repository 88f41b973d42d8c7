//! The table of kinds: what every change of memory tells, and what it does to a long-term pin. A
//! test a row; each prints its line of the table.
//!
//! Not here, since user space cannot provoke it or could not look: device-exclusive access and
//! migrate_vma (they take a driver), and process_mrelease and the OOM reaper (they take the memory
//! of an address space only once every process that has it is dying, so none is left to be told).
//!
//! Run by `cargo xtask test`, in a guest: the oracle needs root, and the devices the kernel module.
#![cfg(feature = "guest")]

/// Makes a test of each row.
macro_rules! rows {
    ($($(#[$meta:meta])* $name:ident: $row:expr;)+) => {
        $($(#[$meta])* #[test] fn $name() { $row.judge(stringify!($name)) })+
    };
}

#[path = "kinds/machine.rs"]
mod machine;
#[path = "kinds/real.rs"]
mod real;
#[path = "kinds/spurious.rs"]
mod spurious;
#[path = "kinds/uffd.rs"]
mod uffd;
#[path = "kinds/unpinned.rs"]
mod unpinned;

use regcache::page_size;
use regcache_guest_tests::memory::{Memory, huge_page_size};

const ANONYMOUS: fn() -> Memory = || Memory::anonymous(4);
const SHARED: fn() -> Memory = || Memory::shared(4);
const HUGETLB: fn() -> Memory = || Memory::hugetlb(1);
const SHARED_HUGETLB: fn() -> Memory = || Memory::shared_hugetlb(1);
const TRANSPARENT_HUGE: fn() -> Memory = Memory::transparent_huge;
/// Small pages that fill an aligned block as large as a huge page, and so a page table.
const BLOCK: fn() -> Memory = || Memory::anonymous(block());

/// How many pages a page table has.
fn block() -> usize {
    huge_page_size() / page_size()
}

/// Not in the libc crate for glibc.
const MADV_DONTNEED_LOCKED: i32 = 24;
const MADV_COLLAPSE: i32 = 25;
const MADV_SOFT_OFFLINE: i32 = 101;
const MADV_GUARD_INSTALL: i32 = 102;
const MADV_GUARD_REMOVE: i32 = 103;
