//! The C interface of [`regcache`]; `include/regcache.h` says what each function does.
//!
//! Three layers: a cache over an `ibv_pd`, a cache over the caller's callbacks ([`create`], with
//! [`lookup`] and [`local`]), and the monitor alone ([`monitor`]).
//!
//! # Conventions
//!
//! Every function checks its pointers for NULL, answers 0 or a negative errno, and leaves a sentence
//! behind for `regcache_last_error()`. No panic crosses the border ([`boundary`]). Handles are never
//! freed, so that a call on one that was destroyed is an error (`handle.rs`). A registration is lent
//! out by a ticket that is good once (`lease.rs`).

#![allow(clippy::missing_safety_doc, reason = "the header has the contract of every function")]

pub mod boundary;
mod completion;
pub mod create;
mod failure;
mod handle;
mod input;
mod lease;
mod lessee;
pub mod local;
pub mod lookup;
pub mod manage;
pub mod monitor;
mod region;
mod registrar;
pub mod report;
mod source;
mod threads;

pub use create::{Callbacks, Options};
pub use lease::Ticket;
pub use monitor::{Event, MonitorOptions};
pub use region::Region;
pub use report::Statistics;
