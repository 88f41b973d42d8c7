//! How often the cache's order of eviction hits, against others, on traces of several kinds. The
//! cache itself is driven along the traces; the others are simulated. No time is measured, so the
//! result is the same on every machine.

mod clock;
mod lru;
mod policy;
mod real;
mod s3_fifo;
mod sieve;
mod trace;

use std::fs;
use std::process::ExitCode;

use serde::Serialize;

use clock::Clock;
use lru::Lru;
use policy::{Policy, hit_ratio};
use real::Real;
use s3_fifo::S3Fifo;
use sieve::Sieve;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How many regions the caches hold.
const CAPACITY: usize = 1024;

/// The share of hits of one policy on one trace.
#[derive(Serialize)]
struct Row {
    trace: &'static str,
    policy: &'static str,
    hit_ratio: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eviction: {error}");
            ExitCode::FAILURE
        }
    }
}

fn policies() -> [(&'static str, Box<dyn Policy>); 5] {
    [
        ("regcache", Box::new(Real::new(CAPACITY))),
        ("CLOCK", Box::new(Clock::new(CAPACITY))),
        ("LRU", Box::new(Lru::new(CAPACITY))),
        ("SIEVE", Box::new(Sieve::new(CAPACITY))),
        ("S3-FIFO", Box::new(S3Fifo::new(CAPACITY))),
    ]
}

fn run() -> Result<()> {
    let out = std::env::args().nth(1);
    let mut rows = Vec::new();
    let names = policies().map(|(name, _)| format!("{name:>9}")).join("");
    println!("{:<40}{names}", format!("% hits, {CAPACITY} regions"));
    for trace in trace::all(CAPACITY) {
        print!("{:<40}", trace.name);
        for (policy, mut cache) in policies() {
            let hit_ratio = hit_ratio(&mut *cache, &trace.keys);
            print!("{:>9.1}", 100.0 * hit_ratio);
            rows.push(Row { trace: trace.name, policy, hit_ratio });
        }
        println!();
    }
    if let Some(out) = out {
        let json = serde_json::json!({ "capacity": CAPACITY, "rows": rows });
        fs::write(&out, serde_json::to_string_pretty(&json)?)?;
    }
    Ok(())
}
