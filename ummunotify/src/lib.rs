//! Safe binding of `/dev/ummunotify`, the character device by which the kernel tells a process,
//! cheaply and truthfully, when its memory mappings change.
//!
//! ```no_run
//! # fn main() -> Result<(), ummunotify::Error> {
//! use ummunotify::{Device, Event, EventBuffer};
//!
//! let device = Device::open()?;
//! let before = device.generation();
//! device.register(0x7f00_0000_0000, 4096, 1)?; // address, bytes, cookie
//! // ... pin the memory; later, before each use of it:
//! if device.generation() != before {
//!     let mut buffer = EventBuffer::new();
//!     for event in device.read(&mut buffer)? {
//!         match event {
//!             Event::Invalid(hit) => println!("cookie {} was hit", hit.cookie),
//!             Event::Last { generation } => println!("nothing more up to {generation}"),
//!         }
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # The order that is sound
//!
//! Load [`Device::generation`], [`Device::register`], pin the memory, load the generation again. If
//! it moved, read the events; if the range is among them, unpin, unregister, and start again. Only
//! `register` waits for changes in flight, so pinning again after an event without registering
//! again may pin the old pages.
//!
//! # Beyond 2009
//!
//! [`Options`] asks for more: [`Watch::ignore`] spares events that no pinned page feels, and
//! [`Device::slot_generation`] tells of one range at a time. A kernel grants what it has, and
//! [`Device::features`] says what that is.
//!
//! # Fork
//!
//! A device belongs to the address space that opened it. In a forked child `generation` answers
//! [`FOREIGN`], and every call fails with [`Error::ForeignProcess`].

mod device;
mod error;
mod event;
mod options;
mod sys;

pub use device::{Device, FOREIGN};
pub use error::Error;
pub use event::{Event, EventBuffer, Events, Invalid};
pub use options::{Features, Kinds, Options, Watch};

/// Where the kernel module puts its device.
pub const DEVICE_PATH: &str = "/dev/ummunotify";
