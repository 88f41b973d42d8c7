//! The guest's first file system: busybox, the modules without which the
//! shared directories cannot be mounted, and one script.
//!
//! Made here, with only what is needed, since what a distribution's generator
//! makes takes a guest without KVM many seconds to unpack and run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use cpio::newc::{self, ModeFileType};

use crate::command::Run;
use crate::host::find;
use crate::kernel::Kernel;

/// To reach the host's files and to send output; modules that come later are
/// loaded from the shared root.
const MODULES: &[&str] = &["virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay"];

const INIT: &str = include_str!("../guest/init.sh");

/// Writes the archive to `path`. `settings` is a shell script that the init
/// script sources.
pub fn write(path: &Path, kernel: &Kernel, settings: &str) -> Result<()> {
    let file =
        fs::File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    let mut archive = Archive { out: std::io::BufWriter::new(file), inode: 1 };
    for directory in ["bin", "dev", "proc", "sys", "modules", "lower", "upper", "root"] {
        archive.add(directory, ModeFileType::Directory, 0o755, &[])?;
    }
    let busybox = match kernel.foreign() {
        Some(foreign) => foreign.root().join("usr/bin/busybox"),
        None => find::static_busybox().context("there is no static busybox in PATH")?,
    };
    let busybox =
        fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    archive.add("bin/busybox", ModeFileType::Regular, 0o755, &busybox)?;
    archive.add("init", ModeFileType::Regular, 0o755, INIT.as_bytes())?;
    archive.add("settings", ModeFileType::Regular, 0o644, settings.as_bytes())?;
    for (index, module) in in_order(kernel)?.iter().enumerate() {
        let content = read(module)?;
        // The shell's pattern sorts by name, so the number is the order.
        let name = format!("modules/{index:02}.ko");
        archive.add(&name, ModeFileType::Regular, 0o644, &content)?;
    }
    newc::trailer(archive.out)?.flush()?;
    Ok(())
}

struct Archive<W> {
    out: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    fn add(&mut self, name: &str, kind: ModeFileType, mode: u32, content: &[u8]) -> Result<()> {
        let size = u32::try_from(content.len())
            .with_context(|| format!("{name} is too large for an initramfs"))?;
        let header = newc::Builder::new(name).ino(self.inode).mode(mode).set_mode_file_type(kind);
        let mut writer = header.write(&mut self.out, size);
        writer.write_all(content)?;
        writer.finish()?;
        self.inode += 1;
        Ok(())
    }
}

/// A module's content. Busybox cannot load what is compressed.
fn read(module: &Path) -> Result<Vec<u8>> {
    if module.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(module).with_context(|| format!("cannot read {}", module.display()));
    }
    let mut xz = Command::new("xz");
    xz.arg("-dc").arg(module).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = xz.output().with_context(|| format!("cannot run `{}`", xz.line()))?;
    if !output.status.success() {
        bail!("`{}` failed: {}", xz.line(), output.status);
    }
    Ok(output.stdout)
}

/// The files of [`MODULES`] and of all that they depend on, in an order in
/// which they can be loaded.
fn in_order(kernel: &Kernel) -> Result<Vec<PathBuf>> {
    let directory = kernel.modules();
    let [index, builtin] = ["modules.dep", "modules.builtin"].map(|name| directory.join(name));
    let index =
        fs::read_to_string(&index).with_context(|| format!("cannot read {}", index.display()))?;
    let builtin = fs::read_to_string(&builtin)
        .with_context(|| format!("cannot read {}", builtin.display()))?;
    let mut ordered = Vec::new();
    for wanted in MODULES {
        if builtin.lines().any(|file| name(file) == *wanted) {
            continue;
        }
        let line = index.lines().filter_map(|line| line.split_once(':'));
        let Some((file, depends)) = line.into_iter().find(|(file, _)| name(file) == *wanted) else {
            bail!("Linux {} has no module {wanted}", kernel.release);
        };
        // depmod lists a module's dependencies in reverse.
        for file in depends.split_whitespace().rev().chain([file]) {
            let path = directory.join(file);
            if !ordered.contains(&path) {
                ordered.push(path);
            }
        }
    }
    Ok(ordered)
}

/// `kernel/fs/9p/9p.ko` is `9p`; a dash in a file's name is an underscore.
fn name(file: &str) -> String {
    let file = file.rsplit('/').next().unwrap_or(file);
    file.split('.').next().unwrap_or(file).replace('-', "_")
}
