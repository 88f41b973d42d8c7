//! What a program does, and its text: one operation a line.

use std::fmt;
use std::str::FromStr;

/// Makes an enum whose values have names.
macro_rules! named {
    ($(#[$meta:meta])* $type:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($(#[$doc])* $value,)+ }

        impl $type {
            /// All there are.
            pub const ALL: &[$type] = &[$($type::$value),+];
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $($type::$value => $name),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = String;

            fn from_str(text: &str) -> Result<$type, String> {
                match text {
                    $($name => Ok($type::$value),)+
                    _ => Err(format!("{text:?} is none of {:?}", [$($name),+])),
                }
            }
        }
    };
}
pub(crate) use named;

/// One operation. Caches, arenas, holds and children are named by their numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Looks `len` bytes up, `at` bytes into an arena, and judges what comes.
    Get {
        /// The cache that is asked.
        cache: usize,
        /// Where the memory is.
        arena: usize,
        /// The first byte.
        at: usize,
        /// The number of bytes.
        len: usize,
        /// Whether the device is to write, too.
        write: bool,
        /// Where the guard is kept; what was there is dropped. Without, the guard is dropped at
        /// once.
        hold: Option<usize>,
    },
    /// Lets the device work through a guard that is held: it may be stale, but it must be alive.
    Use {
        /// Which.
        hold: usize,
    },
    /// Drops a guard that is held, whichever thread got it.
    Drop {
        /// Which.
        hold: usize,
    },
    /// Changes memory.
    Change {
        /// Which.
        arena: usize,
        /// The first page.
        page: usize,
        /// The number of pages.
        pages: usize,
        /// What is done.
        how: How,
    },
    /// Forks a child that tries the caches and shares all memory, or ends it.
    Fork {
        /// Which.
        child: usize,
    },
    /// [`Cache::drain`](regcache::Cache::drain).
    Drain {
        /// Which cache.
        cache: usize,
    },
    /// [`Cache::flush`](regcache::Cache::flush).
    Flush {
        /// Which cache.
        cache: usize,
    },
    /// [`Cache::stats`](regcache::Cache::stats).
    Stats {
        /// Which cache.
        cache: usize,
    },
}

named! {
    /// How memory is changed. Whatever it is, all of it is mapped afterwards, but for `LeaveHole`.
    How {
        /// munmap(2) by the C library's wrapper, and new memory there.
        UnmapByLibc = "munmap-libc",
        /// The same by raw system calls.
        Unmap = "munmap",
        /// The same by a child that shares the address space.
        UnmapByClone = "munmap-clone",
        /// munmap(2) of one byte, which takes its page.
        UnmapOneByte = "munmap-byte",
        /// munmap(2) and nothing more.
        LeaveHole = "munmap-hole",
        /// mmap(2) over what is there.
        MapOver = "mmap-over",
        /// mremap(2) to elsewhere, and new memory there.
        MremapAway = "mremap-away",
        /// mremap(2) of other memory to here.
        MremapOnto = "mremap-onto",
        /// mremap(2) that leaves an empty mapping.
        MremapDontunmap = "mremap-dontunmap",
        /// mremap(2) to one page and back.
        MremapShrink = "mremap-shrink",
        /// Both halves change places by mremap(2).
        MremapExchange = "mremap-exchange",
        /// madvise(2).
        Dontneed = "dontneed",
        /// madvise(2) of memory that is locked.
        DontneedLocked = "dontneed-locked",
        /// madvise(2) through an io_uring.
        DontneedByUring = "dontneed-uring",
        /// process_madvise(2), from Linux 6.13 on.
        DontneedByProcess = "dontneed-process",
        /// Guard pages, installed and removed, from Linux 6.13 on.
        Guard = "guard",
        /// madvise(2).
        Free = "free",
        /// madvise(2) of shared memory.
        Remove = "remove",
        /// The same in another process's mapping.
        RemoveByOther = "remove-other",
        /// madvise(2).
        Pageout = "pageout",
        /// process_madvise(2) by another process.
        PageoutByOther = "pageout-other",
        /// madvise(2).
        Cold = "cold",
        /// madvise(2), from Linux 6.1 on.
        Collapse = "collapse",
        /// madvise(2).
        Populate = "populate",
        /// madvise(2).
        Hugepage = "hugepage",
        /// madvise(2).
        NoHugepage = "nohugepage",
        /// MADV_DONTFORK and back.
        DontFork = "dontfork",
        /// MADV_MERGEABLE: the kernel looks for equal pages.
        Mergeable = "mergeable",
        /// MADV_UNMERGEABLE.
        Unmergeable = "unmergeable",
        /// fallocate(2).
        PunchHole = "punch",
        /// The same by another process.
        PunchHoleByOther = "punch-other",
        /// ftruncate(2) to the first page, and back.
        Truncate = "truncate",
        /// The same by another process.
        TruncateByOther = "truncate-other",
        /// mprotect(2) to nothing and back.
        ProtectNone = "protect-none",
        /// mprotect(2) to reading only and back.
        ProtectRead = "protect-read",
        /// mlock(2) and munlock(2).
        Lock = "mlock",
        /// All soft-dirty bits of the process are cleared.
        ClearRefs = "clear-refs",
        /// move_pages(2) to the other node.
        MovePages = "move-pages",
        /// migrate_pages(2) of the whole process.
        MigratePages = "migrate-pages",
        /// brk(2) down to the first page, and up again.
        Brk = "brk",
        /// shmdt(2), and shmat(2) of the same segment.
        ShmAgain = "shm-again",
        /// shmat(2) of another segment over it.
        ShmOther = "shm-other",
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Operation::Get { cache, arena, at, len, write, hold } => {
                let access = if write { 'w' } else { 'r' };
                write!(f, "get {cache} {arena} {at}+{len} {access}")?;
                match hold {
                    Some(hold) => write!(f, " {hold}"),
                    None => Ok(()),
                }
            }
            Operation::Use { hold } => write!(f, "use {hold}"),
            Operation::Drop { hold } => write!(f, "drop {hold}"),
            Operation::Change { arena, page, pages, how } => {
                write!(f, "change {arena} {page}+{pages} {how}")
            }
            Operation::Fork { child } => write!(f, "fork {child}"),
            Operation::Drain { cache } => write!(f, "drain {cache}"),
            Operation::Flush { cache } => write!(f, "flush {cache}"),
            Operation::Stats { cache } => write!(f, "stats {cache}"),
        }
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(line: &str) -> Result<Operation, String> {
        let mut words = line.split_whitespace();
        let operation = parse(&mut words).map_err(|error| format!("{line:?}: {error}"))?;
        match words.next() {
            None => Ok(operation),
            Some(word) => Err(format!("{line:?}: {word:?} is too much")),
        }
    }
}

fn parse<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<Operation, String> {
    let what = word(words)?;
    Ok(match what {
        "get" => {
            let (cache, arena) = (number(word(words)?)?, number(word(words)?)?);
            let (at, len) = range(word(words)?)?;
            let write = match word(words)? {
                "r" => false,
                "w" => true,
                other => return Err(format!("{other:?} is neither r nor w")),
            };
            let hold = words.next().map(number).transpose()?;
            Operation::Get { cache, arena, at, len, write, hold }
        }
        "use" => Operation::Use { hold: number(word(words)?)? },
        "drop" => Operation::Drop { hold: number(word(words)?)? },
        "change" => {
            let arena = number(word(words)?)?;
            let (page, pages) = range(word(words)?)?;
            Operation::Change { arena, page, pages, how: word(words)?.parse()? }
        }
        "fork" => Operation::Fork { child: number(word(words)?)? },
        "drain" => Operation::Drain { cache: number(word(words)?)? },
        "flush" => Operation::Flush { cache: number(word(words)?)? },
        "stats" => Operation::Stats { cache: number(word(words)?)? },
        other => return Err(format!("{other:?} is no operation")),
    })
}

fn word<'a>(words: &mut impl Iterator<Item = &'a str>) -> Result<&'a str, String> {
    words.next().ok_or_else(|| "a word is missing".to_owned())
}

fn number(word: &str) -> Result<usize, String> {
    word.parse().map_err(|_| format!("{word:?} is no number"))
}

/// `START+LENGTH`.
fn range(word: &str) -> Result<(usize, usize), String> {
    let (start, len) = word.split_once('+').ok_or_else(|| format!("{word:?} has no +"))?;
    Ok((number(start)?, number(len)?))
}
