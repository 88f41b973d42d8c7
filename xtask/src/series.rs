//! The kernels that the project is for, and where each comes from.

use clap::ValueEnum;

use crate::apt::Suite;
use crate::architecture::{AMD64, ARM64, Architecture};
use crate::debian::{
    BOOKWORM, BOOKWORM_BACKPORTS, BOOKWORM_SUITES, CROSS_PROGRAMS, Release, TRIXIE,
    TRIXIE_BACKPORTS, TRIXIE_SUITES,
};

/// A kernel that a guest can have.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 12's
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's; elsewhere than there, the one in Debian 12's backports
    #[value(name = "6.12")]
    V6_12,
    /// The newest 7.x, in Debian 13's backports
    #[value(name = "7")]
    V7,
    /// Debian 12's real-time kernel
    #[value(name = "6.1-rt")]
    V6_1Rt,
    /// Debian 13's real-time kernel, as 6.12
    #[value(name = "6.12-rt")]
    V6_12Rt,
    /// The newest real-time kernel, as 7
    #[value(name = "7-rt")]
    V7Rt,
    /// Debian 13's for arm64
    #[value(name = "6.12-arm64")]
    V6_12Arm64,
    /// Debian 13's for arm64, with pages of 16 KiB
    #[value(name = "6.12-arm64-16k")]
    V6_12Arm64With16K,
}

impl Default for Series {
    /// The kernel of this machine's own release, whose modules this machine builds by itself.
    fn default() -> Self {
        if TRIXIE.is_here() { Self::V6_12 } else { Self::V6_1 }
    }
}

/// All that tells one from another.
pub struct Properties {
    /// What it is called here, which also names the directory.
    pub name: &'static str,
    /// The version's beginning.
    pub version: &'static str,
    /// The end of the names of Debian's metapackages for it.
    pub kind: &'static str,
    /// Together they hold all of its packages, and no newer kernel's.
    pub suites: &'static [Suite],
    /// Whose compiler built it: its modules are built there.
    pub release: &'static Release,
    /// What it runs on.
    pub architecture: &'static Architecture,
}

impl Series {
    /// Those that all tests are run on unless something else is said.
    pub const TESTED: [Self; 4] = [Self::V6_1, Self::V6_12, Self::V7, Self::V6_12Rt];

    /// What is known about it.
    pub fn properties(self) -> Properties {
        let bookworm = (BOOKWORM_SUITES, &BOOKWORM);
        let between = if TRIXIE.is_here() {
            (TRIXIE_SUITES, &TRIXIE)
        } else {
            (BOOKWORM_BACKPORTS, &BOOKWORM)
        };
        let newest = (TRIXIE_BACKPORTS, &TRIXIE);
        let arm64 = (TRIXIE_SUITES, &CROSS_PROGRAMS);
        let (name, version, kind, (suites, release)) = match self {
            Self::V6_1 => ("6.1", "6.1", "amd64", bookworm),
            Self::V6_12 => ("6.12", "6.12", "amd64", between),
            Self::V7 => ("7", "7", "amd64", newest),
            Self::V6_1Rt => ("6.1-rt", "6.1", "rt-amd64", bookworm),
            Self::V6_12Rt => ("6.12-rt", "6.12", "rt-amd64", between),
            Self::V7Rt => ("7-rt", "7", "rt-amd64", newest),
            Self::V6_12Arm64 => ("6.12-arm64", "6.12", "arm64", arm64),
            Self::V6_12Arm64With16K => ("6.12-arm64-16k", "6.12", "arm64-16k", arm64),
        };
        let architecture = if kind.starts_with("arm64") { &ARM64 } else { &AMD64 };
        Properties { name, version, kind, suites, release, architecture }
    }
}
