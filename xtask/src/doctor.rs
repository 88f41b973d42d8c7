//! `cargo xtask doctor`: looks this machine over, and lists for each thing
//! where it was found, or which command brings it. Installs nothing.

use std::env::consts::ARCH;

use anyhow::Result;

use crate::host::distribution::{Distribution, has_apt};
use crate::host::root::Root;
use crate::host::{self, Need, resources};
use crate::series::Series;
use crate::workspace::Workspace;
use crate::{demo, guest, native, test};

/// Runs the task; the exit status is 0 if nothing is missing.
pub fn main() -> Result<u8> {
    let workspace = Workspace::find()?;
    let system = Distribution::here();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{}, {ARCH}, {cores} processors", system.name);
    row(
        "memory",
        &resources::available_memory().map_or_else(
            || "the kernel does not say how much is available".to_owned(),
            |free| {
                let (demo, tests) = (demo::MEMORY, guest::MEMORY);
                format!(
                    "{free} MiB available; the demonstration's guest has {demo}, the tests' {tests}"
                )
            },
        ),
    );
    let free = resources::free_disk(&workspace.target)?;
    let (target, few, many) = (workspace.target.display(), demo::DISK, test::DISK);
    row(
        "disk",
        &format!("{free} MiB free for {target}; the demonstration takes {few}, the tests {many}"),
    );
    row("root", Root::here().describe());
    row(
        "KVM",
        &match resources::kvm() {
            Ok(()) => "guests run by KVM".to_owned(),
            Err(reason) => format!("{reason}: guests are emulated, which works and is slower"),
        },
    );
    row(
        "device",
        if native::is_ready() {
            "/dev/ummunotify and an RDMA device: everything runs here, without a guest"
        } else {
            "none here: everything that needs one runs in a guest"
        },
    );

    let demo = demo::needs();
    let for_demo = host::each(&demo);
    let mut missing = part("cargo xtask demo", &for_demo);
    let all = test::needs(&Series::all());
    let mut more = host::each(&all);
    more.retain(|need| !for_demo.iter().any(|listed| listed.name() == need.name()));
    missing += part("cargo xtask test, beyond that", &more);
    if missing == 0 {
        println!("\nNothing is missing.");
        return Ok(0);
    }
    println!("\n{missing} missing. For the demonstration: {}", advice(&demo));
    println!("For the tests: {}", advice(&all));
    if has_apt() {
        println!("Both commands do that by themselves.");
    }
    Ok(1)
}

fn row(name: &str, text: &str) {
    println!("  {name:<8} {text}");
}

/// Lists what is needed; returns how much of it is missing.
fn part(title: &str, needs: &[&Need]) -> usize {
    println!("\n{title}");
    let mut missing = 0;
    for need in needs {
        match need.found() {
            Some(path) => println!("  found    {:<34} {}", need.name(), path.display()),
            None => {
                missing += 1;
                println!("  MISSING  {:<34} {}", need.name(), need.remedy());
            }
        }
    }
    missing
}

fn advice(needs: &[&[Need]]) -> String {
    let missing = host::missing(needs);
    if missing.is_empty() { "nothing".to_owned() } else { host::advice(&missing) }
}
