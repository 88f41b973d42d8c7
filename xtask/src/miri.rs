//! `cargo xtask miri`: runs the lock-free code under Miri, which finds what is undefined in Rust, in
//! several orders of the threads.

use std::process::{Command, Stdio};

use anyhow::Result;
use clap::Args;

use crate::command::Run;
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What rustup calls the toolchain that has Miri, and what it needs of it.
const TOOLCHAIN: &str = "nightly";
const COMPONENTS: [&str; 2] = ["miri", "rust-src"];

/// The programs: small ones, since Miri runs them a thousand times slower.
const PROGRAMS: [(&str, &[&str]); 2] = [
    ("guards and cells", &["-p", "regcache", "--no-default-features", "--test", "miri"]),
    ("leases", &["-p", "regcache-ffi", "--lib", "lease"]),
];

#[derive(Args)]
pub struct MiriArgs {
    /// How many orders of the threads
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    seeds: u32,
}

/// Runs the task; the exit status is 0 if nothing failed.
pub fn main(args: MiriArgs) -> Result<u8> {
    let workspace = Workspace::find()?;
    let mut tally = Tally::default();
    match unavailable() {
        Some(reason) => tally.skip("miri", &reason),
        None => {
            for (name, words) in PROGRAMS {
                println!("\n== {name}, {} orders of the threads", args.seeds);
                let mut test = cargo();
                test.args(["miri", "test"]).args(words).current_dir(&workspace.root);
                test.env("CARGO_TARGET_DIR", workspace.target.join("miri"));
                // parking_lot makes pointers of numbers, and the cache asks for limits in /proc.
                let flags = "-Zmiri-disable-isolation -Zmiri-permissive-provenance";
                test.env("MIRIFLAGS", format!("{flags} -Zmiri-many-seeds=0..{}", args.seeds));
                tally.check(name, test.status_of()?.success());
            }
        }
    }
    println!();
    for failure in tally.failures() {
        println!("FAILED: {failure}");
    }
    println!("miri: {tally}");
    Ok(u8::from(!tally.is_good()))
}

/// cargo of the toolchain that has Miri; this program runs under another, which says so in the
/// environment.
fn cargo() -> Command {
    let mut cargo = Command::new("rustup");
    cargo.args(["run", TOOLCHAIN, "cargo"]);
    for name in ["CARGO", "RUSTC", "RUSTDOC", "RUSTUP_TOOLCHAIN"] {
        cargo.env_remove(name);
    }
    cargo
}

/// Why Miri is not to be had; it is installed if rustup can.
fn unavailable() -> Option<String> {
    if has_miri() {
        return None;
    }
    let mut add = Command::new("rustup");
    add.args(["component", "add", "--toolchain", TOOLCHAIN]).args(COMPONENTS);
    add.stdin(Stdio::null());
    println!("installs Miri: {}", add.line());
    match add.read() {
        Ok(_) if has_miri() => None,
        Ok(_) => Some(format!("rustup's toolchain {TOOLCHAIN} has none that starts")),
        Err(error) => Some(format!(
            "{error:#}; `rustup toolchain install {TOOLCHAIN} --component {}` brings it",
            COMPONENTS.join(",")
        )),
    }
}

fn has_miri() -> bool {
    cargo().args(["miri", "--version"]).read().is_ok()
}
