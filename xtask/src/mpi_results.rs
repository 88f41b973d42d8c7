//! What the MPI programs found, read from what they printed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// The paths to RDMA, as run.sh calls them, in the order in which they are shown.
const PATHS: [&str; 3] = ["mtl-ofi", "pml-ucx", "btl-openib"];
/// How many processes of a run have the plug-in.
const RANKS: usize = 2;

/// Everything that one run of the demonstration found.
#[derive(Serialize, Deserialize)]
pub struct Results {
    /// On how many machines the two ranks were.
    pub hosts: u8,
    /// What voids the results: a run that failed, a plug-in that was not active.
    pub problems: Vec<String>,
    /// Catalogue and speed.
    pub rows: Vec<Row>,
}

/// A line of the results.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub enum Row {
    /// Messages by one path while memory changed in one way.
    Stale(Stale),
    /// What one path costs at one size.
    Speed(Speed),
}

/// How many messages arrived with wrong bytes.
#[derive(Serialize, Deserialize)]
pub struct Stale {
    /// How MPI reached the device: `pml/ucx`.
    pub path: String,
    /// How memory changed.
    pub way: String,
    /// Whether the plug-in was there.
    pub plugin: bool,
    /// Messages.
    pub transfers: u64,
    /// Those that arrived with wrong bytes.
    pub corrupted: u64,
    /// Those of the corrupted before which the sender's memory had changed.
    pub sender: u64,
    /// Those of the corrupted before which the receiver's memory had changed.
    pub receiver: u64,
}

/// Medians of stock and plug-in, side by side in two jobs: one pair of ranks is the plug-in's in the
/// first and stock's in the second, so that it does not matter if one pair is the slower for its
/// place.
#[derive(Serialize, Deserialize)]
pub struct Speed {
    /// How MPI reached the device.
    pub path: String,
    /// `latency_us` or `bandwidth_mb_s`.
    pub measure: String,
    /// The messages' size.
    pub bytes: u64,
    /// The median without the plug-in.
    pub stock: f64,
    /// The median with it.
    pub plugin: f64,
    /// The plug-in's to stock's: of both jobs the median of neighbouring turns' ratios, which is
    /// steadier than the ratio of the medians, and of the two the geometric mean.
    pub ratio: f64,
    /// The ratio's standard error, as the turns' ratios differ.
    pub error: f64,
}

/// A line of the program `stale`.
#[derive(Deserialize)]
struct StaleLine {
    way: String,
    transfers: u64,
    corrupted: u64,
    sender: u64,
    receiver: u64,
}

/// A line of the program `speed`.
#[derive(Deserialize)]
struct SpeedLine {
    measure: String,
    bytes: u64,
    first: f64,
    second: f64,
    ratio: f64,
    error: f64,
}

impl SpeedLine {
    fn is_of(&self, path: &str, row: &Speed) -> bool {
        row.path == path && row.measure == self.measure && row.bytes == self.bytes
    }
}

impl Speed {
    /// Takes in what the second job found.
    fn cross(&mut self, line: &SpeedLine) {
        let error = (self.error / self.ratio).hypot(line.error / line.ratio) / 2.0;
        self.ratio = (self.ratio / line.ratio).sqrt();
        self.error = self.ratio * error;
        self.plugin = (self.plugin * line.first).sqrt();
        self.stock = (self.stock * line.second).sqrt();
    }
}

impl Stale {
    /// True of the row in which memory was left alone.
    pub fn is_control(&self) -> bool {
        self.way.starts_with("none")
    }
}

impl Results {
    /// What run.sh left in `directory`.
    pub fn read(directory: &Path, hosts: u8) -> Result<Self> {
        let mut results = Self { hosts, problems: Vec::new(), rows: Vec::new() };
        for name in PATHS {
            for (run, plugin) in [
                ("stale-stock", false),
                ("stale-plugin", true),
                ("speed", true),
                ("speed-crossed", true),
            ] {
                let run = format!("{name}-{run}");
                let output = directory.join(format!("{run}.out"));
                if !output.exists() {
                    continue;
                }
                let output = text(&output)?;
                let path = name.replacen('-', "/", 1);
                if let Err(error) = results.add(&path, plugin, &run, &output) {
                    // A run that was killed may leave half a line.
                    results.problems.push(format!("{error:#}"));
                }
                let log = text(&directory.join(format!("{run}.log")))?;
                results.problems.extend(activity(&run, if plugin { RANKS } else { 0 }, &log));
            }
        }
        if results.rows.is_empty() {
            bail!("no run left a result in {}", directory.display());
        }
        Ok(results)
    }

    fn add(&mut self, path: &str, plugin: bool, run: &str, output: &str) -> Result<()> {
        for line in output.lines().filter(|line| line.starts_with('{')) {
            let path = path.to_owned();
            self.rows.push(if run.contains("speed") {
                let line: SpeedLine =
                    serde_json::from_str(line).with_context(|| format!("{run}: {line}"))?;
                if run.ends_with("crossed") {
                    let row = self.rows.iter_mut().find_map(|row| match row {
                        Row::Speed(row) => line.is_of(&path, row).then_some(row),
                        Row::Stale(_) => None,
                    });
                    row.with_context(|| format!("{run}: no row to cross with"))?.cross(&line);
                    continue;
                }
                let SpeedLine { measure, bytes, first, second, ratio, error } = line;
                Row::Speed(Speed {
                    path,
                    measure,
                    bytes,
                    stock: first,
                    plugin: second,
                    ratio,
                    error,
                })
            } else {
                let line: StaleLine =
                    serde_json::from_str(line).with_context(|| format!("{run}: {line}"))?;
                let StaleLine { way, transfers, corrupted, sender, receiver } = line;
                Row::Stale(Stale { path, way, plugin, transfers, corrupted, sender, receiver })
            });
        }
        Ok(())
    }

    /// The rows of the catalogue.
    pub fn stale(&self) -> impl Iterator<Item = &Stale> + Clone {
        self.rows.iter().filter_map(|row| match row {
            Row::Stale(row) => Some(row),
            Row::Speed(_) => None,
        })
    }

    /// The rows of what it costs.
    pub fn speed(&self) -> impl Iterator<Item = &Speed> + Clone {
        self.rows.iter().filter_map(|row| match row {
            Row::Speed(row) => Some(row),
            Row::Stale(_) => None,
        })
    }

    /// The paths that were run, each once.
    pub fn paths(&self) -> Vec<&str> {
        distinct(self.stale().map(|row| row.path.as_str()))
    }

    /// The ways in which memory changed, each once.
    pub fn ways(&self) -> Vec<&str> {
        distinct(self.stale().map(|row| row.way.as_str()))
    }

    /// The one row of the catalogue.
    pub fn cell(&self, path: &str, way: &str, plugin: bool) -> Option<&Stale> {
        self.stale().find(|row| row.path == path && row.way == way && row.plugin == plugin)
    }

    /// The geometric mean of all sizes' ratios, and its standard error.
    pub fn mean(&self, path: &str, measure: &str) -> Option<(f64, f64)> {
        let rows = || self.speed().filter(|row| row.path == path && row.measure == measure);
        let count = rows().count() as f64;
        if count == 0.0 {
            return None;
        }
        let mean = (rows().map(|row| row.ratio.ln()).sum::<f64>() / count).exp();
        let errors = rows().map(|row| (row.error / row.ratio).powi(2)).sum::<f64>();
        Some((mean, mean * errors.sqrt() / count))
    }
}

/// What is measured, as the rows call it.
pub const MEASURES: [&str; 2] = ["latency_us", "bandwidth_mb_s"];
/// `k of n`, or nothing but 0.
pub fn share(row: Option<&Stale>) -> String {
    match row {
        None => "-".to_owned(),
        Some(row) if row.corrupted == 0 => "0".to_owned(),
        Some(row) => format!("{} of {}", row.corrupted, row.transfers),
    }
}

/// Each once, in the order in which they first come.
pub fn distinct<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

fn text(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    // mpirun passes on whatever its processes write.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What is wrong with a run's log if `expected` processes should have said that the plug-in is
/// active in them.
fn activity(run: &str, expected: usize, log: &str) -> Option<String> {
    let said = |word: &str| {
        let lines = log.lines().filter_map(|line| line.split_once("regcache: "));
        lines.filter(|(_, line)| line.contains(word)).map(|(_, line)| line).collect::<Vec<_>>()
    };
    if let Some(line) = said(": INACTIVE").first() {
        return Some(format!("{run}: the plug-in was not active: {line}"));
    }
    let active = said(": active").len();
    (active != expected).then(|| {
        format!("{run}: {active} processes said that the plug-in is active in them, not {expected}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIVE: &str = "regcache: ucx: active, x (pid 1)\nregcache: ucx: active, x (pid 2)\n";

    #[test]
    fn a_plug_in_must_say_that_it_is_active() {
        assert_eq!(activity("run", 2, ACTIVE), None);
        assert!(activity("run", 2, "").is_some());
        assert!(activity("run", 0, ACTIVE).is_some());
        let silent = format!("{ACTIVE}regcache: ucx: INACTIVE, nothing is changed: no device\n");
        assert!(activity("run", 2, &silent).unwrap().contains("no device"));
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut results = Results { hosts: 1, problems: Vec::new(), rows: Vec::new() };
        let speed = r#"{"measure": "latency_us", "bytes": 4, "first": 2, "second": 3, "ratio": 1.5, "error": 0.3}"#;
        results.add("pml/ucx", true, "pml-ucx-speed", &format!("noise\n{speed}\n")).unwrap();
        let stale = r#"{"way": "w", "transfers": 20, "corrupted": 7, "sender": 3, "receiver": 4}"#;
        results.add("pml/ucx", false, "pml-ucx-stale-stock", stale).unwrap();
        let text = serde_json::to_string(&results).unwrap();
        let again: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(again.speed().map(|row| row.plugin).collect::<Vec<_>>(), [3.0]);
        assert_eq!(again.cell("pml/ucx", "w", false).map(|row| row.corrupted), Some(7));
        let (mean, error) = again.mean("pml/ucx", "latency_us").unwrap();
        assert!((mean - 1.5).abs() < 1e-9 && (error - 0.3).abs() < 1e-9);
        assert!(results.add("pml/ucx", true, "pml-ucx-speed", "{").is_err());

        // The second pair is the slower by half, whoever it is.
        results.add("pml/ucx", true, "pml-ucx-speed-crossed", speed).unwrap();
        let (mean, _) = results.mean("pml/ucx", "latency_us").unwrap();
        assert!((mean - 1.0).abs() < 1e-9);
        let other = speed.replace(": 4,", ": 8,");
        assert!(results.add("pml/ucx", true, "pml-ucx-speed-crossed", &other).is_err());
    }
}
