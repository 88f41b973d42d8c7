//! What the example programs share.

#[cfg(feature = "rdma")]
pub mod rdma;

/// An example has no use for more than the text of an error.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
