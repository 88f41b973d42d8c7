//! The releases of Debian that kernels come from.

use crate::apt::Suite;
use crate::host::distribution::Distribution;
use crate::host::{self, Need};

/// Debian 12's archive, its newer kernels, and Debian 13's of both.
pub const BOOKWORM_SUITES: &[Suite] = &[
    Suite { archive: "debian", name: "bookworm" },
    Suite { archive: "debian-security", name: "bookworm-security" },
];
pub const BOOKWORM_BACKPORTS: &[Suite] = &[Suite { archive: "debian", name: "bookworm-backports" }];
pub const TRIXIE_SUITES: &[Suite] = &[
    Suite { archive: "debian", name: "trixie" },
    Suite { archive: "debian-security", name: "trixie-security" },
];
pub const TRIXIE_BACKPORTS: &[Suite] = &[Suite { archive: "debian", name: "trixie-backports" }];

/// A release whose tools build kernel modules.
pub struct Release {
    /// Names a directory, and the release for people.
    pub name: &'static str,
    /// Debian's name for it.
    pub codename: &'static str,
    /// What it needs to build modules, beyond what every Debian has.
    pub packages: &'static [&'static str],
    /// What this machine needs to use it: where it runs this release, or for a tree that is made
    /// on every machine.
    needs: &'static [Need],
    /// Whether its tools are for other architectures, and come in a tree on every machine.
    cross: bool,
}

/// Debian 12.
pub const BOOKWORM: Release = Release {
    name: "debian-12",
    codename: "bookworm",
    packages: &["make", "gcc-12", "libelf1", "sparse"],
    needs: host::MODULE_12,
    cross: false,
};

/// Debian 13.
pub const TRIXIE: Release = Release {
    name: "debian-13",
    codename: "trixie",
    packages: &["make", "gcc-14", "libelf1t64", "libssl3t64", "pahole", "sparse"],
    needs: host::MODULE_13,
    cross: false,
};

/// Debian 13 with compilers for each architecture that the module is compiled for.
pub const CROSS: Release = Release {
    name: "debian-13-cross",
    codename: "trixie",
    packages: &["make", "gcc-14", "gcc-14-aarch64-linux-gnu", "libelf1t64", "libssl3t64", "perl"],
    needs: host::TREE,
    cross: true,
};

/// Debian 13 with compilers of C and Rust programs for arm64.
pub const CROSS_PROGRAMS: Release = Release {
    name: "debian-13-arm64-tools",
    codename: "trixie",
    packages: &[
        "make",
        "gcc-14",
        "gcc-14-aarch64-linux-gnu",
        "libelf1t64",
        "libssl3t64",
        "perl",
        "sparse",
        "libc6-dev",
        "rustc",
        "cargo",
    ],
    needs: host::ARM64,
    cross: true,
};

/// The same with the newest compilers, which the newest headers want.
pub const CROSS_NEWEST: Release = Release {
    name: "debian-sid-cross",
    codename: "sid",
    packages: &["make", "gcc", "gcc-aarch64-linux-gnu", "libelf1t64", "libssl3t64", "perl"],
    needs: host::TREE,
    cross: true,
};

impl Release {
    /// Whether this machine runs it.
    pub fn is_here(&self) -> bool {
        !self.cross && Distribution::here().is_debian(self.codename)
    }

    /// What this machine must have to build modules with the release's tools.
    pub fn needs(&self) -> &'static [Need] {
        if self.cross || self.is_here() { self.needs } else { host::TREE }
    }
}
