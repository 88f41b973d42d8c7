//! What the measurements have in common.
//!
//! A claim of speed is a ratio of two things measured in turns in one run, the median of several
//! turns: what else the machine does hits both. Each thing has a process of its own
//! ([`worker`]); in it, a [`team`] of threads looks up along a [`course`] of addresses in a
//! [`subject`], which is ours, a peer or a floor.

pub mod arguments;
pub mod clock;
pub mod comparison;
pub mod course;
pub mod floor;
pub mod free;
#[cfg(feature = "libfabric")]
pub mod libfabric;
pub mod rounds;
pub mod row;
pub mod subject;
pub mod team;
#[cfg(feature = "ucx")]
pub mod ucx;
pub mod worker;
