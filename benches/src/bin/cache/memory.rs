//! What a cached region costs in this process's memory.

use std::fs;

use regcache_benches::comparison::Comparison;
use regcache_benches::course::{Arena, count};
use regcache_benches::subject::Subject;
use regcache_benches::ucx::Ucx;
use regcache_benches::worker::{Turn, Worker};

use crate::contestants::{Kind, Ours, cache};
use crate::{Report, Result};

const REGIONS: usize = 1 << 16;

/// Ours and UCX's.
pub fn of_a_region(report: &mut Report) -> Result<()> {
    let measure = format!("memory a region, {}", count(REGIONS));
    if !report.wants(&measure) {
        return Ok(());
    }
    let ours = Worker::new(|| growth(|| Ours::new(cache(REGIONS, |builder| builder))))?.turn();
    let ucx = Worker::new(|| growth(|| Ucx::new(REGIONS)))?.turn();
    let row = Comparison::bytes(measure, ours, Some((Kind::Ucx.name(), ucx)));
    report.add(row.at_most(256.0));
    Ok(())
}

/// How much the process grows by a cache and its regions, for each region.
fn growth<S: Subject>(make: impl FnOnce() -> S + 'static) -> Turn {
    let mut make = Some(make);
    Box::new(move || {
        let make = make.take().expect("one turn");
        let arena = Arena::map(REGIONS).expect("mmap");
        let before = anonymous_bytes();
        let mut subject = make();
        for index in 0..REGIONS {
            subject.look_up(arena.region(index));
        }
        (anonymous_bytes() - before) / REGIONS as f64
    })
}

/// The memory of this process that is nobody else's and no file's: whoever allocated it, and
/// exactly (proc(5), `smaps_rollup`).
fn anonymous_bytes() -> f64 {
    let text = fs::read_to_string("/proc/self/smaps_rollup").expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Anonymous:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    1024.0 * kib.expect("smaps_rollup tells of anonymous memory")
}
