//! Sends messages by RDMA between buffers whose memory is changed between the transfers, in ways
//! that hooks on `free`, `munmap` and `madvise` do not see, and compares every byte.
//!
//! Three programs in one: the first registers the buffers for each transfer, the second keeps
//! registrations in a cache that nobody tells of changes, and the third keeps them in the same cache
//! told by the kernel.

#[cfg(test)]
mod device_tests;
mod modes;
mod report;
mod ways;

use std::fs;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::slice;
use std::time::{Duration, Instant};

use regcache::AddressRange;

use examples::Result;
use examples::rdma::{Device, Link, Outcome, Segment};
use modes::Mode;
use report::Row;
use ways::Way;

const USAGE: &str = "\
usage: demo [options]
  --transfers N   transfers for each mode and each way of changing memory (default 200)
  --size BYTES    the size of a message (default 32768)
  --device NAME   the RDMA device (default: the first)
  --mode NAME     only this mode: every-time, unaided or regcache; may be repeated
  --out FILE      write the results to FILE as JSON
";

struct Options {
    transfers: u64,
    size: usize,
    device: Option<String>,
    modes: Vec<Mode>,
    out: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let Some(options) = options()? else {
        print!("{USAGE}");
        return Ok(());
    };
    let device = Device::open(options.device.as_deref())?;
    let link = Link::new(&device)?;
    println!(
        "{} transfers of {} bytes for each mode and way, between two queue pairs of {}.",
        options.transfers,
        options.size,
        device.name()
    );
    let mut rows = Vec::new();
    for &mode in &options.modes {
        for way in Way::ALL {
            rows.push(row(mode, way, &options, &device, &link)?);
        }
    }
    println!("\n{}", report::table(&rows));
    if let Some(out) = &options.out {
        fs::write(out, report::json(&rows)).map_err(|error| format!("{out}: {error}"))?;
    }
    println!("{}", report::verdict(&rows)?);
    Ok(())
}

/// All transfers of one mode with one way of changing memory.
fn row(mode: Mode, way: Way, options: &Options, device: &Device, link: &Link) -> Result<Row> {
    let progress = Progress::new(mode, way, options.transfers);
    let mut send = way.buffer(options.size)?;
    let mut receive = way.buffer(options.size)?;
    let mut keys = mode.keys(device)?;
    let (mut corrupted, mut failed) = (0, 0);
    let mut time = Duration::ZERO;
    for transfer in 0..options.transfers {
        // Each lookup of the two follows a change of its own buffer every other time, so a cache
        // that drops what changed, and no more, hits every other time.
        match transfer {
            0 => {}
            _ if transfer % 2 == 0 => send.churn()?,
            _ => receive.churn()?,
        }
        let (from, to) = (range(send.addr(), options.size)?, range(receive.addr(), options.size)?);
        let sent = pattern(mode, way, transfer, options.size);
        write(from, &sent);
        write(to, &vec![0xa5; options.size]);

        let start = Instant::now();
        let outcome = keys.with(from, to, |send_lkey, receive_lkey| {
            // SAFETY: both keys are of registrations of these ranges that live until this closure
            // returns. They may be stale: then they are of pages that were one of these buffers, are
            // pinned, and so are nobody else's.
            unsafe { link.transfer(segment(from, send_lkey)?, segment(to, receive_lkey)?) }
        })??;
        time += start.elapsed();

        let right = match outcome {
            Outcome::Delivered => received(to) == sent,
            Outcome::Failed(reason) if mode == Mode::Unaided => {
                failed += 1;
                progress.note(&format!("transfer {transfer} failed: {reason}"));
                false
            }
            Outcome::Failed(reason) => {
                return Err(format!(
                    "{}, {}: transfer {transfer} failed: {reason}",
                    mode.name(),
                    way.name()
                )
                .into());
            }
        };
        corrupted += u64::from(!right);
        progress.show(transfer + 1, corrupted);
    }
    progress.done(corrupted);
    Ok(Row {
        mode,
        way,
        transfers: options.transfers,
        corrupted,
        failed,
        registrations: keys.registrations(),
        hit_rate: keys.hit_rate(),
        time,
    })
}

fn range(addr: usize, len: usize) -> Result<AddressRange> {
    AddressRange::new(addr, len).ok_or_else(|| "a message has at least one byte".into())
}

fn segment(range: AddressRange, lkey: u32) -> Result<Segment> {
    Ok(Segment { addr: range.start(), len: u32::try_from(range.len())?, lkey })
}

/// Bytes that no other transfer sends, and no other place in this one holds.
fn pattern(mode: Mode, way: Way, transfer: u64, len: usize) -> Vec<u8> {
    let stream = (mode as u64) << 56 | (way as u64) << 48 | transfer << 24;
    let words = (stream..).take(len.div_ceil(8));
    let mut bytes: Vec<u8> = words.flat_map(|word| scramble(word).to_ne_bytes()).collect();
    bytes.truncate(len);
    bytes
}

/// Different for different words (the finaliser of SplitMix64, a bijection).
fn scramble(word: u64) -> u64 {
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Writes `bytes` to a buffer.
fn write(to: AddressRange, bytes: &[u8]) {
    assert_eq!(to.len(), bytes.len());
    // SAFETY: every caller's range is a buffer, mapped, writable and nobody else's, and has the
    // length of the bytes.
    unsafe { (to.start() as *mut u8).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
}

/// What the CPU sees in a buffer.
fn received(to: AddressRange) -> Vec<u8> {
    // SAFETY: every caller's range is a buffer, mapped and readable, and no transfer is under way.
    unsafe { slice::from_raw_parts(to.start() as *const u8, to.len()) }.to_vec()
}

/// A line that tells how far it is; on a terminal it moves.
struct Progress {
    name: String,
    transfers: u64,
    moves: bool,
}

impl Progress {
    fn new(mode: Mode, way: Way, transfers: u64) -> Progress {
        let name = format!("{:<10}  {:<25}", mode.name(), way.name());
        Progress { name, transfers, moves: io::stdout().is_terminal() }
    }

    fn show(&self, transfer: u64, corrupted: u64) {
        if self.moves && transfer % 10 == 0 {
            self.print("\r", transfer, corrupted, "");
        }
    }

    fn note(&self, text: &str) {
        println!("{}{}  {text}", if self.moves { "\r" } else { "" }, self.name);
    }

    fn done(&self, corrupted: u64) {
        self.print(if self.moves { "\r" } else { "" }, self.transfers, corrupted, "\n");
    }

    fn print(&self, before: &str, transfer: u64, corrupted: u64, after: &str) {
        let Progress { name, transfers, .. } = self;
        print!("{before}{name}  {transfer:>5} of {transfers}, {corrupted:>5} corrupted{after}");
        // Progress that cannot be shown is no reason to stop.
        let _ = io::stdout().flush();
    }
}

/// The command line, or `None` where help is asked for.
fn options() -> Result<Option<Options>> {
    let mut options =
        Options { transfers: 200, size: 32 << 10, device: None, modes: Vec::new(), out: None };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--help" || name == "-h" {
            return Ok(None);
        }
        let value = arguments.next().ok_or_else(|| format!("{name}: what?\n{USAGE}"))?;
        let number = || value.parse().map_err(|error| format!("{name} {value}: {error}"));
        match name.as_str() {
            "--transfers" => options.transfers = number()?,
            "--size" => options.size = number()? as usize,
            "--device" => options.device = Some(value),
            "--out" => options.out = Some(value),
            "--mode" => options.modes.push(
                *Mode::ALL
                    .iter()
                    .find(|mode| mode.name() == value)
                    .ok_or_else(|| format!("{value} is no mode\n{USAGE}"))?,
            ),
            _ => return Err(format!("{name} is no option\n{USAGE}").into()),
        }
    }
    if options.transfers == 0 || options.size == 0 {
        return Err("--transfers and --size are at least 1".into());
    }
    if options.modes.is_empty() {
        options.modes.extend(Mode::ALL);
    }
    Ok(Some(options))
}
