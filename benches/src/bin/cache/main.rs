//! What the cache itself costs, side by side with UCX's `ucs_rcache` in one run: hits, misses,
//! events, memory. Registrations are free on both sides, the memory, the order of addresses and the
//! loop around the calls are the same, and the two take turns.

mod contestants;
mod events;
mod hits;
mod memory;
mod misses;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use regcache_benches::arguments::Arguments;
use regcache_benches::comparison::{Comparison, heading, verdict};
use regcache_benches::rounds::Samples;

use contestants::Kind;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cache: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments = Arguments::of_this_program()?;
    println!("{}", heading());
    let mut report = Report { arguments, rows: Vec::new(), floors: Vec::new() };
    memory::of_a_region(&mut report)?;
    hits::of_one_thread(&mut report)?;
    hits::of_many_threads(&mut report)?;
    misses::with_eviction(&mut report)?;
    events::elsewhere(&mut report)?;
    events::drain(&mut report)?;
    println!("\n{}", verdict(&report.rows));
    if let Some(out) = &report.arguments.out {
        let floors: serde_json::Map<_, _> = report
            .floors
            .iter()
            .map(|(name, nanos)| (format!("{name}, ns"), (*nanos).into()))
            .collect();
        let json = serde_json::json!({ "rows": report.rows, "floors": floors });
        fs::write(out, serde_json::to_string_pretty(&json)?)?;
    }
    Ok(())
}

/// What was found so far.
struct Report {
    arguments: Arguments,
    rows: Vec<Comparison>,
    floors: Vec<(&'static str, f64)>,
}

impl Report {
    fn wants(&self, measure: &str) -> bool {
        measure.contains(&self.arguments.only)
    }

    fn turns(&self) -> usize {
        self.arguments.turns
    }

    fn time(&self) -> Duration {
        self.arguments.time
    }

    fn add(&mut self, row: Comparison) {
        println!("{}", row.line());
        self.rows.push(row);
    }

    fn floors(&mut self, samples: &Samples) {
        for kind in [Kind::CounterLoad, Kind::AddSub] {
            if let Some((nanos, _)) = samples.alone(kind.name()) {
                self.floors.push((kind.name(), nanos));
            }
        }
    }
}
