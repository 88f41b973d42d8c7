//! How a row of the table of kinds is judged: what the kernel tells of a change, and whether the
//! change takes pinned pages away.
//!
//! Two devices watch the same memory, one told of everything, one that ignores what may be ignored.
//! Two oracles say whether the pin is of other pages than the program sees: the page frames, and
//! the bytes that an io_uring reads through the pin.

use std::any::Any;
use std::fs;
use std::os::unix::fs::FileExt;
use std::sync::Once;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use regcache::registrar::{IoUring, IoUringRegion, Registrar};
use regcache::{Access, AddressRange};
use ummunotify::{Device, Event, EventBuffer, Features, Kinds, Options, Watch};

use crate::frames::frames;
use crate::memory::{Memory, Sharer, has_transparent_huge_pages, memfd};

/// What a row needs of the machine: undone when it is dropped.
pub type Conditions = Box<dyn Any>;

/// A change of memory, and what is said of it.
#[must_use = "a row is judged by Row::judge"]
pub struct Row {
    memory: fn() -> Memory,
    watched: fn(&Memory) -> AddressRange,
    pinned: Pinned,
    shared: bool,
    since: (u32, u32),
    conditions: fn() -> Result<Conditions, String>,
    change: fn(&Memory),
    until_seen: bool,
    restore: fn(&Memory),
    touch: fn(&Memory),
    kinds: Kinds,
    kinds_before: Option<((u32, u32), Kinds)>,
    of_huge_pages: Kinds,
    spared: Kinds,
    stale: Option<bool>,
}

enum Pinned {
    Before,
    /// The change is the pin itself.
    ByChange,
    Never,
}

impl Row {
    /// `memory`, which is pinned and watched.
    pub fn of(memory: fn() -> Memory) -> Row {
        Row {
            memory,
            watched: |m| m.range,
            pinned: Pinned::Before,
            shared: false,
            since: (0, 0),
            conditions: || Ok(Box::new(())),
            change: |_| (),
            until_seen: false,
            restore: |_| (),
            touch: |m| m.fill(3),
            kinds: Kinds::empty(),
            kinds_before: None,
            of_huge_pages: Kinds::empty(),
            spared: Kinds::empty(),
            stale: None,
        }
    }

    /// Only this part of the memory is pinned and watched.
    pub fn watching(self, watched: fn(&Memory) -> AddressRange) -> Row {
        Row { watched, ..self }
    }

    /// Nobody pins the memory. A frame may be freed and come back as another page, so this is for
    /// changes that keep the old page or hold both at a time.
    pub fn unpinned(self) -> Row {
        Row { pinned: Pinned::Never, ..self }
    }

    /// What happens to the memory is that it is pinned.
    pub fn pinned_by_the_change(self) -> Row {
        Row { pinned: Pinned::ByChange, ..self }
    }

    /// A forked child shares the memory from before it is watched.
    pub fn shared_with_a_child(self) -> Row {
        Row { shared: true, ..self }
    }

    /// Kernels before this cannot do it.
    pub fn since(self, major: u32, minor: u32) -> Row {
        Row { since: (major, minor), ..self }
    }

    /// What the machine must have; the error says what it has not.
    pub fn with(self, conditions: fn() -> Result<Conditions, String>) -> Row {
        Row { conditions, ..self }
    }

    /// What happens to the memory.
    pub fn change(self, change: fn(&Memory)) -> Row {
        Row { change, ..self }
    }

    /// The kernel does the rest in its own time, while the program works.
    pub fn until_seen(self) -> Row {
        Row { until_seen: true, ..self }
    }

    /// Makes the memory usable again, after the events were read.
    pub fn then(self, restore: fn(&Memory)) -> Row {
        Row { restore, ..self }
    }

    /// How the program writes the memory after all that; it writes all of it, unless told.
    pub fn touching(self, touch: fn(&Memory)) -> Row {
        Row { touch, ..self }
    }

    /// It raises exactly `kinds`, and takes the pages away.
    pub fn real(self, kinds: Kinds) -> Row {
        Row { kinds, stale: Some(true), ..self }
    }

    /// It raises exactly `kinds`, and the pages stay.
    pub fn spurious(self, kinds: Kinds) -> Row {
        Row { kinds, stale: Some(false), ..self }
    }

    /// It raises exactly `kinds`, and the pages may stay or not.
    pub fn undecided(self, kinds: Kinds) -> Row {
        Row { kinds, stale: None, ..self }
    }

    /// These do not come past a filter and a note, though they cannot be ignored elsewhere.
    pub fn sparing(self, spared: Kinds) -> Row {
        Row { spared, ..self }
    }

    /// On kernels before this, it raises exactly these.
    pub fn kinds_before(self, major: u32, minor: u32, kinds: Kinds) -> Row {
        Row { kinds_before: Some(((major, minor), kinds)), ..self }
    }

    /// Kernels without transparent huge pages do not raise these of them.
    pub fn with_huge_pages_only(self, of_huge_pages: Kinds) -> Row {
        Row { of_huge_pages, ..self }
    }

    /// Plays the row, prints what it showed, and panics unless it is what was said.
    pub fn judge(&self, name: &str) {
        static ALONE: Mutex<()> = Mutex::new(());
        static HEADER: Once = Once::new();
        // A row may fork, or clear soft-dirty bits everywhere.
        let _alone = ALONE.lock();
        HEADER.call_once(|| print_row("", "kinds", "stale", "filtered", "verify"));

        let release = release();
        let (major, minor) = self.since;
        if release < self.since {
            println!("\n{name}: not judged, for it came with Linux {major}.{minor}");
            return;
        }
        let _conditions = match (self.conditions)() {
            Ok(conditions) => conditions,
            Err(reason) => {
                println!("\n{name}: not judged, for {reason}");
                return;
            }
        };
        let kinds = match self.kinds_before {
            Some((limit, kinds)) if release < limit => kinds,
            _ => self.kinds,
        };
        let kinds = if has_transparent_huge_pages() { kinds } else { kinds - self.of_huge_pages };

        let seen = self.play();
        let stale = if seen.stale() { "yes" } else { "no" };
        let verify = if seen.verified { "same" } else { "changed" };
        print_row(name, &names(seen.kinds), stale, &names(seen.filtered), verify);

        assert_eq!(seen.kinds, kinds, "the kinds");
        let filtered = kinds - Kinds::FILTERABLE - self.spared;
        assert_eq!(seen.filtered, filtered, "the kinds past a filter");
        assert_eq!(seen.generation_moved, !kinds.is_empty(), "the generation tells the same");
        assert_eq!(seen.slot_moved, !kinds.is_empty(), "the slot tells the same");
        if let Some(stale_bytes) = seen.stale_bytes {
            assert_eq!(seen.stale_frames, stale_bytes, "frames and bytes tell the same");
        }
        assert_eq!(seen.verified, !seen.stale(), "VERIFY tells what the oracles tell");
        if let Some(stale) = self.stale {
            assert_eq!(seen.stale(), stale, "is the pin stale?");
        }
        assert!(!seen.stale() || !seen.filtered.is_empty(), "stale, and a filter hides it");
        let late = if self.until_seen { seen.late - kinds } else { seen.late };
        assert_eq!(late, Kinds::empty(), "kinds that a later write raised");
    }

    fn play(&self) -> Seen {
        let memory = (self.memory)();
        let _sharer = self.shared.then(Sharer::fork);
        let range = (self.watched)(&memory);
        let all = Watcher::open(range, Features::KINDS, Kinds::empty());
        let filter = Features::KINDS | Features::FILTER | Features::VERIFY;
        let filtered = Watcher::open(range, filter, Kinds::FILTERABLE);
        // What the kernel does in its own time, it may have begun.
        let early = if self.until_seen { self.kinds } else { Kinds::empty() };
        let start = || {
            assert_eq!(all.kinds() - early, Kinds::empty(), "nothing has happened yet");
            assert_eq!(filtered.kinds() - early, Kinds::empty(), "nothing has happened yet");
            all.generations()
        };

        // What a pin holds are the frames that are seen when it is made, unless an event says
        // otherwise.
        let (before, pin, (generation, slot)) = match self.pinned {
            Pinned::Before => {
                let pin = Pin::new(range);
                (frames(range), Some(pin), start())
            }
            Pinned::ByChange => {
                let start = start();
                let pin = Pin::new(range);
                (frames(range), Some(pin), start)
            }
            Pinned::Never => (frames(range), None, start()),
        };
        filtered.device.note(COOKIE).expect("note");
        (self.change)(&memory);
        if self.until_seen {
            let start = Instant::now();
            while all.device.generation() == generation {
                assert!(start.elapsed() < Duration::from_secs(120), "the kernel does nothing");
                (self.touch)(&memory);
            }
        }
        let (generation_after, slot_after) = all.generations();
        let (kinds, filtered_kinds) = (all.kinds(), filtered.kinds());

        (self.restore)(&memory);
        all.kinds();
        (self.touch)(&memory);
        Seen {
            kinds,
            filtered: filtered_kinds,
            late: all.kinds(),
            generation_moved: generation_after != generation,
            slot_moved: slot_after != slot,
            verified: filtered.device.verify(COOKIE).expect("verify"),
            stale_frames: frames(range) != before,
            stale_bytes: pin.map(|pin| pin.bytes() != bytes_of(range)),
        }
    }
}

/// What a row showed.
struct Seen {
    kinds: Kinds,
    filtered: Kinds,
    late: Kinds,
    generation_moved: bool,
    slot_moved: bool,
    verified: bool,
    stale_frames: bool,
    stale_bytes: Option<bool>,
}

impl Seen {
    fn stale(&self) -> bool {
        self.stale_frames || self.stale_bytes == Some(true)
    }
}

const COOKIE: u64 = 1;

/// A device that watches one range.
struct Watcher {
    device: Device,
}

impl Watcher {
    fn open(range: AddressRange, features: Features, ignore: Kinds) -> Watcher {
        let device = Options::new().features(features).slots(1).open().expect("/dev/ummunotify");
        assert_eq!(device.features() & features, features, "the module grants them");
        let watch = Watch::new().ignore(ignore).slot(0);
        device.register_with(range.start(), range.len(), COOKIE, watch).expect("register");
        Watcher { device }
    }

    fn generations(&self) -> (u64, u64) {
        (self.device.generation(), self.device.slot_generation(0))
    }

    /// The kinds of all events that there are.
    fn kinds(&self) -> Kinds {
        let mut buffer = EventBuffer::new();
        let mut kinds = Kinds::empty();
        for event in self.device.read(&mut buffer).expect("read") {
            if let Event::Invalid(hit) = event {
                assert_eq!(hit.cookie, COOKIE);
                assert!(!hit.kinds.is_empty(), "an event of no kind");
                kinds |= hit.kinds;
            }
        }
        kinds
    }
}

/// A long-term pin.
struct Pin {
    ring: IoUring,
    region: IoUringRegion,
    range: AddressRange,
}

impl Pin {
    fn new(range: AddressRange) -> Pin {
        let ring = IoUring::new(1).expect("io_uring");
        // SAFETY: the access is not remote.
        let region = unsafe { ring.register(range, Access::LOCAL_WRITE) }.expect("pin");
        Pin { ring, region, range }
    }

    /// What the device finds in the pages.
    fn bytes(&self) -> Vec<u8> {
        let file = memfd();
        let len = self.range.len();
        let mut done = 0;
        while done < len {
            let (addr, left) = (self.range.start() + done, len - done);
            let n = self.ring.write_fixed(&self.region, addr, left, &file, done as u64);
            done += n.expect("write_fixed");
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0).expect("read a memfd");
        bytes
    }
}

/// What the program finds in the pages.
fn bytes_of(range: AddressRange) -> Vec<u8> {
    // SAFETY: the tests' ranges are mapped and readable, and nobody writes them meanwhile.
    unsafe { std::slice::from_raw_parts(range.start() as *const u8, range.len()) }.to_vec()
}

fn names(kinds: Kinds) -> String {
    let names: Vec<_> = kinds.iter_names().map(|(name, _)| name).collect();
    if names.is_empty() { "-".to_owned() } else { names.join("+") }
}

fn print_row(name: &str, kinds: &str, stale: &str, filtered: &str, verify: &str) {
    println!("\n{name:<44} {kinds:<22} {stale:<5} {filtered:<12} {verify}");
}

/// The kernel's version.
fn release() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").expect("osrelease");
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map_while(|n| n.parse().ok());
    let mut next = || numbers.next().expect("a version of two numbers");
    (next(), next())
}

/// A file of settings that gets its old text back when this is dropped.
#[derive(Debug)]
pub struct Knob {
    path: String,
    before: String,
}

impl Knob {
    /// Writes `value` to the file at `path`; the error says what is missing.
    pub fn set(path: &str, value: &str) -> Result<Knob, String> {
        let explain = |error| format!("{path}: {error}");
        let before = fs::read_to_string(path).map_err(explain)?;
        fs::write(path, value).map_err(explain)?;
        Ok(Knob { path: path.to_owned(), before })
    }
}

impl Drop for Knob {
    fn drop(&mut self) {
        // Nothing that a test could do about it.
        let _ = fs::write(&self.path, self.before.trim());
    }
}
