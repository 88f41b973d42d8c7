//! The contents of a cache, for a person to read.

use std::fmt;

use crate::access::Access;
use crate::monitor::{Monitor, MonitorError};
use crate::range::AddressRange;
use crate::registrar::Registrar;
use crate::shared::Shared;
use crate::slot::{Phase, SlotId};

/// What a cache held at one moment; from [`Cache::dump`](crate::Cache::dump). Its `Display` is a
/// table.
#[derive(Debug, Clone)]
pub struct Dump {
    regions: Vec<DumpedRegion>,
    monitor_error: Option<MonitorError>,
}

/// One registration of a [`Dump`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DumpedRegion {
    /// What is registered.
    pub range: AddressRange,
    /// With what access.
    pub access: Access,
    /// The key for this process's own work requests.
    pub lkey: u32,
    /// The key for a peer's work requests.
    pub rkey: u32,
    /// No lookup finds it any more; it lives until its last guard is dropped.
    pub stale: bool,
    /// Somebody holds it, as far as could be seen.
    pub in_use: bool,
}

impl Dump {
    pub(crate) fn of<R: Registrar, M: Monitor>(shared: &Shared<R, M>) -> Dump {
        let table = shared.table.lock();
        let held = shared.blocks.held();
        let in_use =
            |id: SlotId| held.binary_search(&id).is_ok() || shared.slots[id].seems_referenced();
        let mut regions: Vec<_> = table
            .list()
            .map(|(id, phase, body)| DumpedRegion {
                range: body.range,
                access: body.access,
                lkey: body.keys.local,
                rkey: body.keys.remote,
                stale: phase == Phase::Stale,
                in_use: in_use(id),
            })
            .collect();
        regions.sort_by_key(|region| (region.range.start(), region.range.end()));
        Dump { regions, monitor_error: shared.blinded_by.get().cloned() }
    }

    /// The registrations, by address.
    pub fn regions(&self) -> &[DumpedRegion] {
        &self.regions
    }

    /// Why the cache does not trust its monitor any more, and caches nothing; `None` where it does.
    pub fn monitor_error(&self) -> Option<&MonitorError> {
        self.monitor_error.as_ref()
    }
}

impl fmt::Display for Dump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>18} {:>18} {:>12}  {:<10} {:<10}  access",
            "start", "end", "bytes", "lkey", "rkey"
        )?;
        for region in &self.regions {
            let DumpedRegion { range, access, lkey, rkey, stale, in_use } = region;
            write!(
                f,
                "{:>#18x} {:>#18x} {:>12}  {lkey:<#10x} {rkey:<#10x}  ",
                range.start(),
                range.end(),
                range.len()
            )?;
            match access.is_empty() {
                true => f.write_str("read")?,
                false => bitflags::parser::to_writer(access, &mut *f)?,
            }
            f.write_str(if *stale { ", stale" } else { "" })?;
            f.write_str(if *in_use { ", in use\n" } else { "\n" })?;
        }
        write!(f, "{} registrations", self.regions.len())?;
        match &self.monitor_error {
            Some(error) => write!(f, "; nothing is cached any more: {error}"),
            None => Ok(()),
        }
    }
}
