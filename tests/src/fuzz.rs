//! The truth machine: random programs of memory operations against caches, every lookup judged.
//!
//! A [`Program`](program::Program) is a list of operations for each of several threads, made from a
//! seed. Each program runs in a process of its own, so that one that fails spoils no other; a
//! program that fails is shrunk to what it takes to fail, and printed as text that runs again.
//!
//! # What is judged
//!
//! Every arena of memory has a lock and an epoch. A change holds the lock, and the epoch is odd
//! while it lasts; a lookup takes no lock, so lookups and changes race as in a real program. What a
//! lookup returned is judged under the lock, if the epoch is even and was the same before the
//! lookup: then the lookup began after the last change had ended, and must be of the pages that the
//! program sees now. If a change came between, nothing is said of it.
//!
//! Nothing but that decides: no hook knows what the cache did, and a hit, a miss and an uncached
//! registration are judged alike.

pub mod arena;
mod change;
mod child;
pub mod driver;
pub mod generate;
mod helper;
pub mod operation;
mod oracle;
pub mod program;
mod run;
pub mod shrink;
mod totals;
mod watchdog;
