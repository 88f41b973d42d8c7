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

/// Runs a command that must succeed; panics with what it said.
pub fn run(command: &mut std::process::Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
