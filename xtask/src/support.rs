//! The support table, docs/kernels.md: what was run on which kernel, when, and what came of it. The
//! runs write docs/kernels.json, from which the table is made.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::command::Run;
use crate::matrix;
use crate::series::Series;
use crate::tally::Tally;
use crate::workspace::Workspace;

const RECORDS: &str = "docs/kernels.json";
const TABLE: &str = "docs/kernels.md";

/// What is known of all kernels.
#[derive(Default, Serialize, Deserialize)]
struct Records {
    /// What the last compile matrix found, in its order.
    compiled: Vec<Compiled>,
    /// What guests found, by the row's name.
    guests: BTreeMap<String, Guest>,
}

/// A row of the compile matrix.
#[derive(Serialize, Deserialize)]
pub struct Compiled {
    /// `trixie/arm64-16k`
    pub row: String,
    /// What `uname -r` says.
    pub release: String,
    /// Debian's name of the architecture.
    pub architecture: String,
    /// KiB.
    pub pages: u32,
    /// "yes", or why not.
    pub outcome: String,
    /// When.
    pub date: String,
}

/// What a guest found. Each part has the kernel's release and the date of its own run.
#[derive(Default, Serialize, Deserialize)]
struct Guest {
    module: Option<Part>,
    cache: Option<Part>,
    demonstration: Option<Part>,
}

#[derive(Serialize, Deserialize)]
struct Part {
    release: String,
    date: String,
    outcome: String,
}

/// Today, as the table has it.
pub fn today() -> Result<String> {
    Ok(Command::new("date").arg("+%F").read()?.trim().to_owned())
}

/// Writes what the compile matrix found, all of it.
pub fn write_matrix(workspace: &Workspace, compiled: Vec<Compiled>) -> Result<()> {
    update(workspace, |records| records.compiled = compiled)
}

/// Writes what all tests found on a kernel: those of the module, and those of the cache.
pub fn write_tests(
    workspace: &Workspace,
    series: Series,
    release: &str,
    module: &Tally,
    cache: &Tally,
) -> Result<()> {
    let date = today()?;
    let part = |tally: &Tally| {
        Some(Part { release: release.to_owned(), date: date.clone(), outcome: tally.to_string() })
    };
    let (module, cache) = (part(module), part(cache));
    update(workspace, |records| {
        let guest = records.guests.entry(matrix::row_of(series)).or_default();
        guest.module = module;
        guest.cache = cache;
    })
}

/// Writes how the demonstration ended on a kernel.
pub fn write_demonstration(
    workspace: &Workspace,
    series: Series,
    release: &str,
    good: bool,
) -> Result<()> {
    let outcome = if good { "every byte right" } else { "failed" }.to_owned();
    let part = Part { release: release.to_owned(), date: today()?, outcome };
    update(workspace, |records| {
        let guest = records.guests.entry(matrix::row_of(series)).or_default();
        guest.demonstration = Some(part);
    })
}

fn update(workspace: &Workspace, change: impl FnOnce(&mut Records)) -> Result<()> {
    let path = workspace.root.join(RECORDS);
    let mut records = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text)
            .with_context(|| format!("{} is not what was written there", path.display()))?,
        Err(_) => Records::default(),
    };
    change(&mut records);
    let mut text = serde_json::to_string_pretty(&records)?;
    text.push('\n');
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    let path = workspace.root.join(TABLE);
    fs::write(&path, table(&records)).with_context(|| format!("cannot write {}", path.display()))
}

fn table(records: &Records) -> String {
    let mut text = String::from(
        "# Kernels\n\n\
         Written by the runs: `cargo xtask matrix --write`, `cargo xtask test --kernel … --record` and \
         `cargo xtask demo --kernel … --record`; as data, [kernels.json](kernels.json). *Compiled* is \
         with W=1 and without a warning, as the headers are, and again with version numbers that they \
         do not have (5.15 and 99.0): the module asks the headers, not the number. *Module* is its \
         selftests in a guest of that kernel, *cache* all other tests there, over soft-RoCE and \
         io_uring. A kernel with nothing in these columns was compiled only. arm64 is emulated, which \
         proves nothing about the order of memory accesses.\n\n\
         | kernel | from | architecture | pages | compiled | module | cache | demonstration |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    let nothing = Guest::default();
    for row in &records.compiled {
        let guest = records.guests.get(&row.row).unwrap_or(&nothing);
        let part = |part: &Option<Part>| match part {
            Some(part) if part.release == row.release => format!("{}, {}", part.outcome, part.date),
            Some(part) => format!("{}, {}, Linux {}", part.outcome, part.date, part.release),
            None => "–".to_owned(),
        };
        let (source, _) = row.row.split_once('/').unwrap_or((&row.row, ""));
        let _ = writeln!(
            text,
            "| {} | {source} | {} | {} KiB | {}, {} | {} | {} | {} |",
            row.release,
            row.architecture,
            row.pages,
            row.outcome,
            row.date,
            part(&guest.module),
            part(&guest.cache),
            part(&guest.demonstration),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_that_of_the_records() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
        let records: Records = serde_json::from_str(&read(RECORDS)).unwrap();
        assert_eq!(read(TABLE), table(&records));
    }

    #[test]
    fn what_was_run_on_an_older_release_says_so() {
        let part = |release: &str| Part {
            release: release.to_owned(),
            date: "2026-01-02".to_owned(),
            outcome: "5 passed, 0 failed".to_owned(),
        };
        let compiled = Compiled {
            row: "trixie/amd64".to_owned(),
            release: "6.12.9".to_owned(),
            architecture: "amd64".to_owned(),
            pages: 4,
            outcome: "yes".to_owned(),
            date: "2026-01-03".to_owned(),
        };
        let guest = Guest {
            module: Some(part("6.12.9")),
            cache: Some(part("6.12.8")),
            demonstration: None,
        };
        let guests = BTreeMap::from([("trixie/amd64".to_owned(), guest)]);
        let table = table(&Records { compiled: vec![compiled], guests });
        let row = table.lines().last().unwrap();
        assert_eq!(
            row,
            "| 6.12.9 | trixie | amd64 | 4 KiB | yes, 2026-01-03 | 5 passed, 0 failed, 2026-01-02 | \
             5 passed, 0 failed, 2026-01-02, Linux 6.12.8 | – |"
        );
    }
}
