//! The kernels that the project is for, and where each comes from.

use clap::ValueEnum;

use crate::apt::Suite;
use crate::debian::{
    BOOKWORM, BOOKWORM_BACKPORTS, BOOKWORM_SUITES, Release, TRIXIE, TRIXIE_BACKPORTS, TRIXIE_SUITES,
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
}

impl Default for Series {
    /// The kernel of this machine's own release, whose modules this machine builds by itself.
    fn default() -> Self {
        if TRIXIE.is_here() { Self::V6_12 } else { Self::V6_1 }
    }
}

/// All that tells one from another.
pub struct Properties {
    /// The version's beginning, which also names the directory.
    pub version: &'static str,
    /// Together they hold all of its packages, and no newer kernel's.
    pub suites: &'static [Suite],
    /// Whose compiler built it: its modules are built there.
    pub release: &'static Release,
}

impl Series {
    /// Every one.
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// What is known about it.
    pub fn properties(self) -> Properties {
        match self {
            Self::V6_1 => {
                Properties { version: "6.1", suites: BOOKWORM_SUITES, release: &BOOKWORM }
            }
            Self::V6_12 if TRIXIE.is_here() => {
                Properties { version: "6.12", suites: TRIXIE_SUITES, release: &TRIXIE }
            }
            Self::V6_12 => {
                Properties { version: "6.12", suites: BOOKWORM_BACKPORTS, release: &BOOKWORM }
            }
            Self::V7 => Properties { version: "7", suites: TRIXIE_BACKPORTS, release: &TRIXIE },
        }
    }
}
