//! What the end-to-end tests have in common: memory to churn, ways to churn it, and an oracle that
//! says whether a registration is of the pages that the program sees.

pub mod frames;
pub mod fuzz;
pub mod memory;
pub mod pinned;
#[cfg(feature = "guest")]
pub mod rdma;
pub mod rows;
pub mod truth;
