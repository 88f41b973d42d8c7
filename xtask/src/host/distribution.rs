//! Which system this machine runs, and what its packages are called.

use std::env::consts::ARCH;
use std::fs;
use std::sync::OnceLock;

use super::find;
use super::root::Root;

/// What `/etc/os-release` says (os-release(5)).
pub struct Distribution {
    /// `debian`, `fedora`, ...
    id: String,
    /// What it derives from: `rhel fedora` for Rocky Linux.
    like: String,
    /// `trixie`; empty where releases have no such name.
    codename: String,
    /// For people: `Debian GNU/Linux 13 (trixie)`.
    pub name: String,
}

/// Who packages the software of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Debian and what derives from it: apt.
    Debian,
    /// Fedora, RHEL and what derives from them: dnf.
    Fedora,
    /// Arch Linux: pacman.
    Arch,
    /// openSUSE and SLES: zypper.
    Suse,
    /// Anything else.
    Unknown,
}

/// What the packages of one family are called where others call them as Debian does, or have no
/// such package. Empty: the family has none.
struct Names {
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    suse: &'static str,
}

const fn names(
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    suse: &'static str,
) -> Names {
    Names { debian, fedora, arch, suse }
}

/// Packages that have the same name everywhere are not listed. The names were looked up in Fedora's
/// spec files, Arch's PKGBUILDs, openSUSE Tumbleweed's package list, and those that mkosi and
/// rdma-core install; of RHEL, busybox, apt, dpkg, debootstrap and debian-keyring are in EPEL.
/// Unchecked: openmpi5 of openSUSE beside its -devel, and dpkg-dev outside Debian.
const NAMES: &[Names] = &[
    names("apt", "apt", "apt", ""),
    names("busybox-static", "busybox", "busybox", "busybox-static"),
    names("debian-archive-keyring", "debian-keyring", "debian-archive-keyring", ""),
    names("dpkg-dev", "dpkg-dev", "dpkg", "dpkg-devel"),
    names("g++", "gcc-c++", "gcc", "gcc-c++"),
    names("ibverbs-providers", "libibverbs", "rdma-core", "libibverbs"),
    names("iproute2", "iproute", "iproute2", "iproute2"),
    names("libc6-dev", "glibc-devel", "glibc", "glibc-devel"),
    names("libelf-dev", "elfutils-libelf-devel", "libelf", "libelf-devel"),
    names("libelf1", "elfutils-libelf", "libelf", "libelf1"),
    names("libevent-dev", "libevent-devel", "libevent", "libevent-devel"),
    names("libfabric-dev", "libfabric-devel", "libfabric", "libfabric-devel"),
    names("libhwloc-dev", "hwloc-devel", "hwloc", "hwloc-devel"),
    names("libibverbs-dev", "rdma-core-devel", "rdma-core", "rdma-core-devel"),
    names("libibverbs1", "libibverbs", "rdma-core", "libibverbs1"),
    names("libopenmpi-dev", "openmpi-devel", "openmpi", "openmpi5-devel"),
    names("libssl-dev", "openssl-devel", "openssl", "libopenssl-devel"),
    names("libucx-dev", "ucx-devel", "openucx", "libucp-devel"),
    names("mandoc", "mandoc", "mandoc", "mandoc-bin"),
    names("openmpi-bin", "openmpi", "openmpi", "openmpi5"),
    names("pkg-config", "pkgconf-pkg-config", "pkgconf", "pkgconf-pkg-config"),
    names("qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86", "qemu-x86"),
    names("xz-utils", "xz", "xz", "xz"),
];

impl Distribution {
    /// This machine's, read once.
    pub fn here() -> &'static Self {
        static HERE: OnceLock<Distribution> = OnceLock::new();
        HERE.get_or_init(|| Self::parse(&fs::read_to_string("/etc/os-release").unwrap_or_default()))
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_default().trim_matches(['"', '\'']).to_owned()
        };
        let name = Some(value("PRETTY_NAME")).filter(|name| !name.is_empty());
        Self {
            id: value("ID"),
            like: value("ID_LIKE"),
            codename: value("VERSION_CODENAME"),
            name: name.unwrap_or_else(|| "a Linux that does not give its name".to_owned()),
        }
    }

    /// Whether this is that release of Debian itself, for instance `trixie`.
    pub fn is_debian(&self, codename: &str) -> bool {
        self.id == "debian" && self.codename == codename
    }

    /// Who packages it.
    pub fn family(&self) -> Family {
        let ids = [self.id.as_str()].into_iter().chain(self.like.split_whitespace());
        let known = ids.filter_map(|id| match id {
            "debian" | "ubuntu" => Some(Family::Debian),
            "fedora" | "rhel" | "centos" => Some(Family::Fedora),
            "arch" => Some(Family::Arch),
            "suse" | "opensuse" | "sles" => Some(Family::Suse),
            _ => None,
        });
        known.into_iter().next().unwrap_or(Family::Unknown)
    }
}

impl Family {
    /// The command that installs Debian's `packages` by the names that they have here; nothing if
    /// it is not known. Packages that the family lacks are left out.
    pub fn install(self, packages: &[&str]) -> Option<String> {
        let command = match self {
            Self::Debian => "apt-get install --no-install-recommends",
            Self::Fedora => "dnf install",
            Self::Arch => "pacman -S --needed",
            Self::Suse => "zypper install",
            Self::Unknown => return None,
        };
        let mut packages: Vec<_> = packages.iter().filter_map(|name| self.package(name)).collect();
        packages.sort_unstable();
        packages.dedup();
        Some(Root::here().line(&format!("{command} {}", packages.join(" "))))
    }

    /// What Debian's `package` is called here; nothing if there is none.
    pub fn package(self, package: &str) -> Option<&str> {
        let row = NAMES.iter().find(|row| row.debian == package);
        let name = match (self, row) {
            (Self::Fedora, Some(row)) => row.fedora,
            (Self::Arch, Some(row)) => row.arch,
            (Self::Suse, Some(row)) => row.suse,
            _ => package,
        };
        Some(name).filter(|name| !name.is_empty())
    }
}

/// Debian's name for this machine's architecture.
pub fn debian_architecture() -> &'static str {
    match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The directories of this machine's shared libraries.
pub fn library_directories() -> Vec<String> {
    let multiarch = format!("{ARCH}-linux-gnu");
    vec![
        format!("/usr/lib/{multiarch}"),
        format!("/lib/{multiarch}"),
        "/usr/lib64".to_owned(),
        "/lib64".to_owned(),
        "/usr/lib".to_owned(),
    ]
}

/// True where apt can install what is missing.
pub fn has_apt() -> bool {
    Distribution::here().family() == Family::Debian && find::program("apt-get").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_is_known_by_what_it_says() {
        let debian = Distribution::parse(
            "PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_CODENAME=trixie\nID=debian\n",
        );
        assert_eq!(debian.name, "Debian GNU/Linux 13 (trixie)");
        assert!(debian.is_debian("trixie") && !debian.is_debian("bookworm"));
        for (text, family) in [
            ("ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n", Family::Debian),
            ("ID=fedora\n", Family::Fedora),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Family::Fedora),
            ("ID=arch\n", Family::Arch),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Family::Suse),
            ("ID=nixos\n", Family::Unknown),
            ("", Family::Unknown),
        ] {
            let system = Distribution::parse(text);
            assert_eq!(system.family(), family, "{text}");
            assert!(!system.is_debian("trixie"));
        }
    }

    #[test]
    fn packages_have_the_names_of_the_system() {
        let wanted = ["qemu-system-x86", "libibverbs-dev", "make"];
        let line = Family::Fedora.install(&wanted).expect("dnf is known");
        assert!(line.contains("dnf install make qemu-system-x86-core rdma-core-devel"), "{line}");
        let line = Family::Arch.install(&["libibverbs-dev", "libibverbs1"]).expect("known");
        assert!(line.contains("pacman -S --needed rdma-core"), "{line}");
        assert_eq!(Family::Suse.package("debian-archive-keyring"), None);
        assert_eq!(Family::Debian.package("xz-utils"), Some("xz-utils"));
        assert_eq!(Family::Unknown.install(&wanted), None);
    }
}
