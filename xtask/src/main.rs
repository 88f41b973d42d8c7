//! `cargo xtask`: builds the kernel module, boots a throw-away guest where
//! this machine has no device, and tests and demonstrates everything there.

mod apt;
mod architecture;
mod bench;
mod bindings;
mod builds;
mod c_interface;
mod command;
mod comparisons;
mod console;
mod debian;
mod debug;
mod debug_kernel;
mod demo;
mod doctor;
mod foreign;
mod fuzz_truth;
mod guest;
mod hit_ratios;
mod host;
mod image;
mod initramfs;
mod kernel;
mod link;
mod machine;
mod matrix;
mod miri;
mod module;
mod mpi;
mod mpi_picture;
mod mpi_report;
mod mpi_results;
mod native;
mod newcomer;
mod openib;
mod package;
mod picture;
mod plugins;
mod program;
mod ratios;
mod selftests;
mod series;
mod soak;
mod suite;
mod support;
mod svg;
mod tally;
mod test;
mod tree;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, test and demonstration tasks of regcache")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run a command where /dev/ummunotify and an RDMA device exist: here, or
    /// in a guest booted for it
    Guest(guest::Args),
    /// Run every check and test, on this machine and in a guest
    Test(test::Args),
    /// Change memory at random for long, on each kernel, and look for lost
    /// events
    Soak(soak::Args),
    /// Run the device's tests, a stress and injected failures on a kernel that
    /// checks itself
    Debug(debug::Args),
    /// Corrupt transfers on purpose, with and without regcache, and draw the
    /// result
    Demo(demo::Args),
    /// Measure, and draw the result
    Bench(bench::Args),
    /// Run random programs against the cache, every lookup judged
    FuzzTruth(fuzz_truth::Args),
    /// Give the cache protection domains of the crates rdma-sys and ibverbs-sys
    Bindings(guest::Options),
    /// Run the lock-free code under Miri, in several orders of the threads
    Miri(miri::MiriArgs),
    /// Compile the kernel module for every kernel whose headers Debian serves
    Matrix(matrix::Args),
    /// Look this machine over: what is there, what is missing, and what brings it
    Doctor,
    /// Run the README's commands on fresh machines, made by debootstrap
    Newcomer(newcomer::Args),
    /// Build Open MPI's btl/openib for RDMA over Ethernet, which Debian's cannot
    Openib,
    /// Make a Debian package of the kernel module
    Package(package::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Guest(args) => guest::main(args),
        Task::Test(args) => test::main(args),
        Task::Soak(args) => soak::main(args),
        Task::Debug(args) => debug::main(args),
        Task::Demo(args) => demo::main(args),
        Task::Bench(args) => bench::main(args),
        Task::FuzzTruth(args) => fuzz_truth::main(args),
        Task::Bindings(options) => bindings::main(options),
        Task::Miri(args) => miri::main(args),
        Task::Matrix(args) => matrix::main(args),
        Task::Doctor => doctor::main(),
        Task::Newcomer(args) => newcomer::main(args),
        Task::Openib => openib::main(),
        Task::Package(args) => package::main(args),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
