//! A small Debian below the target directory, for programs that this machine
//! cannot run: a kernel's build tools want the C library and the compiler of the
//! release that built it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::apt;
use crate::command::Run;
use crate::debian::Release;
use crate::host::root::as_root;
use crate::kernel::lock;
use crate::workspace::Workspace;

/// A tree that is complete.
pub struct Tree {
    root: PathBuf,
}

/// Runs in a mount namespace of its own, so that nothing stays mounted,
/// however it ends. A path is the same within the tree and outside.
const ENTER: &str = r#"
set -e
root="$1" user="$2"
shift 2
while [ "$1" != -- ]; do
	mkdir -p "$root$1"
	mount --bind "$1" "$root$1"
	shift
done
shift
for directory in /dev /proc; do
	mount --rbind "$directory" "$root$directory"
done
exec chroot --userspec="$user" "$root" /usr/bin/env -i LC_ALL=C PATH=/usr/sbin:/usr/bin "$@"
"#;

impl Tree {
    /// Makes the tree unless that was done before.
    pub fn provide(workspace: &Workspace, release: &Release) -> Result<Self> {
        let directory = workspace.target.join("guest").join(release.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let _lock = lock(&directory)?;
        let tree = Self { root: directory.join("root") };
        // Written last, so it also says that the rest is complete.
        let marker = directory.join("packages");
        let packages = release.packages.join(",");
        if fs::read_to_string(&marker).ok().as_ref() == Some(&packages) {
            return Ok(tree);
        }
        eprintln!("xtask: making a {} to build in ...", release.name);
        if tree.root.exists() {
            as_root("rm")?.args(["-rf", "--one-file-system"]).arg(&tree.root).run()?;
        }
        // What debootstrap mounts goes with it, too.
        as_root("unshare")?
            .args(["--mount", "debootstrap", "--variant=minbase"])
            .arg(format!("--keyring={}", apt::KEYRING))
            .arg(format!("--include={packages}"))
            .arg(release.codename)
            .arg(&tree.root)
            .arg(apt::mirror("debian"))
            .stdout(Stdio::null())
            .run()
            .with_context(|| format!("cannot make a {} to build in", release.name))?;
        as_root("chroot")?.arg(&tree.root).args(["apt-get", "clean"]).run()?;
        fs::write(&marker, packages)
            .with_context(|| format!("cannot write {}", marker.display()))?;
        Ok(tree)
    }

    /// The directory that is its root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A command that runs in the tree as the present user, and sees `shared`
    /// of this machine.
    pub fn command(&self, program: &str, shared: &Path) -> Result<Command> {
        self.command_with(program, &[shared])
    }

    /// The same with several shared directories, of which one may hold another that follows.
    pub fn command_with(&self, program: &str, shared: &[&Path]) -> Result<Command> {
        let mut command = as_root("unshare")?;
        let user = format!("+{}:+{}", nix::unistd::getuid(), nix::unistd::getgid());
        command.args(["--mount", "sh", "-c", ENTER, "enter"]);
        command.arg(&self.root).arg(user).args(shared).arg("--").arg(program);
        Ok(command)
    }

    /// Copies a directory of this machine's to a place in the tree.
    pub fn copy_in(&self, directory: &Path, place: &Path) -> Result<()> {
        let mut path = self.root.as_os_str().to_owned();
        path.push(place);
        as_root("cp")?.arg("-rT").arg(directory).arg(path).run()
    }
}
