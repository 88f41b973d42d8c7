//! A cache of RDMA memory registrations that is never stale.
//!
//! Memory must be registered (pinned) before a NIC may touch it, and registering is slow, so
//! programs keep registrations. A registration goes stale when the program's mappings change: the
//! NIC then reads and writes pages that the program no longer sees. This cache is told of every
//! change by the kernel, and promises: **a lookup that happens after a mapping changed never
//! returns a registration of the old pages, whoever changed it and however.**
//!
//! This runs on any Linux machine: an io_uring pins as an RDMA device does, and the program itself
//! tells of changes. With the kernel module, [`monitor::Ummunotify`] tells of all of them, and
//! [`registrar::Verbs`] takes the place of the ring; the README shows that.
//!
//! ```
//! use regcache::monitor::Manual;
//! use regcache::registrar::IoUring;
//! use regcache::{Access, Cache};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # if IoUring::new(1).is_err() { return Ok(()) } // a sandbox without io_uring
//! let cache = Cache::builder(IoUring::new(64)?, Manual::new()).build()?;
//! let buffer = vec![7_u8; 65536];
//! let addr = buffer.as_ptr() as usize;
//!
//! let first = cache.get_or_register(addr, buffer.len(), Access::empty())?;
//! let again = cache.get_or_register(addr + 100, 200, Access::empty())?;
//! assert_eq!(first.lkey(), again.lkey());
//!
//! cache.monitor().invalidate(first.range()); // the mapping is about to change
//! let new = cache.get_or_register(addr, buffer.len(), Access::empty())?;
//! assert_ne!(first.lkey(), new.lkey());
//! assert_eq!(cache.stats().stale, 1);
//! # Ok(()) }
//! ```
//!
//! # Parts
//!
//! - [`Cache`] finds a registration or makes one, and lends it out as a [`Guard`].
//! - A [`Monitor`](monitor::Monitor) tells that mappings changed: [`monitor::Ummunotify`] is the
//!   kernel's word, [`monitor::Userfaultfd`] a weaker one on kernels without the module, and
//!   [`monitor::Manual`] is the caller's.
//! - A [`Registrar`](registrar::Registrar) pins: [`registrar::Verbs`] for any `ibv_pd`,
//!   [`registrar::IoUring`] for an io_uring, which pins in the same way on any Linux machine.

#[macro_use]
mod trace;

mod access;
mod barrier;
mod builder;
mod cache;
mod cause;
mod cells;
mod descriptor;
mod drain;
mod dump;
pub mod environment;
mod error;
mod flight;
mod fork;
mod guard;
mod hints;
mod hit;
mod index;
#[cfg(all(test, not(loom)))]
mod litmus;
mod local;
mod lock;
mod many;
mod memory_limits;
mod miss;
#[cfg(all(test, loom))]
mod models;
pub mod monitor;
mod ordered;
mod outside;
mod pages;
mod progress;
mod range;
mod reaper;
pub mod registrar;
mod request;
mod shared;
mod siblings;
mod slot;
mod stats;
mod sync;
mod table;
mod tls;
mod unwinding;
mod waiting;

pub use access::Access;
pub use barrier::Barrier;
pub use builder::Builder;
pub use cache::Cache;
pub use dump::{Dump, DumpedRegion};
pub use error::Error;
pub use guard::Guard;
pub use local::Local;
pub use progress::Progress;
pub use range::{AddressRange, page_size};
pub use reaper::Reaper;
pub use request::Peers;
pub use stats::Stats;

/// The examples of the README are compiled with the tests.
#[cfg(all(doctest, feature = "ummunotify", feature = "verbs"))]
#[doc = include_str!("../../README.md")]
pub struct Readme;
