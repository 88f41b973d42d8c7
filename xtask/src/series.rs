//! The kernels that the project is for, and where each comes from.

use clap::ValueEnum;

use crate::apt::Suite;
use crate::host::{self, Need};
use crate::tree::Release;

/// A kernel that a guest can have.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Series {
    /// Debian 12's
    #[default]
    #[value(name = "6.1")]
    V6_1,
    /// In Debian 12's backports
    #[value(name = "6.12")]
    V6_12,
    /// The newest 7.x, in Debian 13's backports
    #[value(name = "7")]
    V7,
}

/// All that tells one from another.
pub struct Properties {
    /// The version's beginning, which also names the directory.
    pub version: &'static str,
    /// Together they hold all of its packages, and no newer kernel's.
    pub suites: &'static [Suite],
    /// Where its modules are built; nothing if this machine will do.
    pub tree: Option<Release>,
    /// What this machine must have to build its modules.
    pub needs: &'static [Need],
}

impl Series {
    /// What is known about it.
    pub fn properties(self) -> Properties {
        match self {
            Self::V6_1 => Properties {
                version: "6.1",
                suites: &[
                    Suite { archive: "debian", name: "bookworm" },
                    Suite { archive: "debian-security", name: "bookworm-security" },
                ],
                tree: None,
                needs: host::MODULE,
            },
            Self::V6_12 => Properties {
                version: "6.12",
                suites: &[Suite { archive: "debian", name: "bookworm-backports" }],
                tree: None,
                needs: host::MODULE,
            },
            Self::V7 => Properties {
                version: "7",
                suites: &[Suite { archive: "debian", name: "trixie-backports" }],
                tree: Some(Release {
                    name: "debian-13",
                    suite: "trixie",
                    packages: &["make", "gcc-14", "libelf1t64", "libssl3t64", "pahole", "sparse"],
                }),
                needs: host::TREE,
            },
        }
    }
}
