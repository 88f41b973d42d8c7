//! `cargo xtask doctor`: looks this machine over, and lists for each thing
//! where it was found, or which command brings it. Installs nothing.

use std::env::consts::ARCH;
use std::io::Write;

use anyhow::Result;

use crate::host::distribution::{Distribution, has_apt};
use crate::host::root::Root;
use crate::host::{self, Need, resources};
use crate::series::Series;
use crate::workspace::Workspace;
use crate::{demo, guest, native, test};

/// Runs the task; the exit status is 0 if nothing is missing.
pub fn main() -> Result<u8> {
    let mut report = Report::default();
    let missing = look_over(&mut report)?;
    // A reader that had enough, head(1) for instance, is no error.
    let _ = std::io::stdout().write_all(report.0.as_bytes());
    Ok(u8::from(missing > 0))
}

/// Returns how much is missing.
fn look_over(report: &mut Report) -> Result<usize> {
    let workspace = Workspace::find()?;
    let system = Distribution::here();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    report.line(&format!("{}, {ARCH}, {cores} processors", system.name));
    report.row(
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
    report.row(
        "disk",
        &format!("{free} MiB free for {target}; the demonstration takes {few}, the tests {many}"),
    );
    report.row("root", Root::here().describe());
    report.row(
        "KVM",
        &match resources::kvm() {
            Ok(()) => "guests run by KVM".to_owned(),
            Err(reason) => format!("{reason}: guests are emulated, which works and is slower"),
        },
    );
    report.row(
        "device",
        if native::is_ready() {
            "/dev/ummunotify and an RDMA device: everything runs here, without a guest"
        } else {
            "none here: everything that needs one runs in a guest"
        },
    );

    let demo = demo::needs();
    let for_demo = host::each(&demo);
    let mut missing = report.part("cargo xtask demo", &for_demo);
    let all = test::needs(&Series::TESTED);
    let mut more = host::each(&all);
    more.retain(|need| !for_demo.iter().any(|listed| listed.name() == need.name()));
    missing += report.part("cargo xtask test, beyond that", &more);
    if missing == 0 {
        report.line("\nNothing is missing.");
        return Ok(0);
    }
    report.line(&format!("\n{missing} missing. For the demonstration: {}", advice(&demo)));
    report.line(&format!("For the tests: {}", advice(&all)));
    if has_apt() {
        report.line("Both commands do that by themselves.");
    }
    Ok(missing)
}

/// What is printed.
#[derive(Default)]
struct Report(String);

impl Report {
    fn line(&mut self, text: &str) {
        self.0 += text;
        self.0 += "\n";
    }

    fn row(&mut self, name: &str, text: &str) {
        self.line(&format!("  {name:<8} {text}"));
    }

    /// Lists what is needed; returns how much of it is missing.
    fn part(&mut self, title: &str, needs: &[&Need]) -> usize {
        self.line(&format!("\n{title}"));
        let mut missing = 0;
        for need in needs {
            let name = need.name();
            match need.found() {
                Some(path) => self.line(&format!("  found    {name:<34} {}", path.display())),
                None => {
                    missing += 1;
                    self.line(&format!("  MISSING  {name:<34} {}", need.remedy()));
                }
            }
        }
        missing
    }
}

fn advice(needs: &[&[Need]]) -> String {
    let missing = host::missing(needs);
    if missing.is_empty() { "nothing".to_owned() } else { host::advice(&missing) }
}
