//! A cache of RDMA memory registrations that is never stale.
//!
//! Memory must be registered (pinned) before a NIC may touch it, and registering is slow, so
//! programs keep registrations. A registration goes stale when the program's mappings change: the
//! NIC then reads and writes pages that the program no longer sees. This cache is told of every
//! change by the kernel, and promises: **a lookup that happens after a mapping changed never
//! returns a registration of the old pages, whoever changed it and however.**
//!
//! ```no_run
//! use regcache::monitor::Ummunotify;
//! use regcache::registrar::Verbs;
//! use regcache::{Access, Cache};
//! # use std::{error::Error, ffi::c_void, ptr::NonNull};
//!
//! # fn post_send(addr: usize, len: usize, lkey: u32) -> Result<(), Box<dyn Error>> { Ok(()) }
//! # fn wait_for_completion() -> Result<(), Box<dyn Error>> { Ok(()) }
//! fn send_all(pd: NonNull<c_void>, messages: &[Vec<u8>]) -> Result<(), Box<dyn Error>> {
//!     // SAFETY: the caller's `struct ibv_pd` outlives this function, and with it the cache.
//!     let registrar = unsafe { Verbs::from_pd(pd)? };
//!     let cache = Cache::builder(registrar, Ummunotify::open()?).build()?;
//!
//!     for message in messages {
//!         let addr = message.as_ptr() as usize;
//!         let mr = cache.get_or_register(addr, message.len(), Access::empty())?;
//!         post_send(addr, message.len(), mr.lkey())?;
//!         wait_for_completion()?;
//!     } // dropping `mr` lets the registration go back to the cache
//!
//!     println!("{}", cache.stats());
//!     Ok(())
//! }
//! ```
//!
//! # Parts
//!
//! - [`Cache`] finds a registration or makes one, and lends it out as a [`Guard`].
//! - A [`Monitor`](monitor::Monitor) tells that mappings changed: [`monitor::Ummunotify`] is the
//!   kernel's word, [`monitor::Manual`] is the caller's.
//! - A [`Registrar`](registrar::Registrar) pins: [`registrar::Verbs`] for any `ibv_pd`,
//!   [`registrar::IoUring`] for an io_uring, which pins in the same way on any Linux machine.

mod access;
mod builder;
mod cache;
mod error;
mod flight;
mod fork;
mod guard;
mod index;
pub mod monitor;
mod range;
pub mod registrar;
mod request;
mod stats;
mod table;

pub use access::Access;
pub use builder::Builder;
pub use cache::Cache;
pub use error::Error;
pub use guard::Guard;
pub use range::{AddressRange, page_size};
pub use stats::Stats;
