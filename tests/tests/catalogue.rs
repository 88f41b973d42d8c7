//! The catalogue of what makes a cached registration stale, a test a row, on real pins.
//!
//! Run by `cargo xtask test`, in a guest: the oracle needs root, and the cache the kernel module.
#![cfg(feature = "guest")]

#[path = "catalogue/keeps.rs"]
mod keeps;
#[path = "catalogue/loses.rs"]
mod loses;
