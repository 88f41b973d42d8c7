//! Where this machine has what is needed.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::distribution::library_directories;

/// Where a program is. The directories of root's programs count too: other
/// users' PATH often lacks them.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|path| path.is_file())
}

/// Where a shared library is.
pub fn library(name: &str) -> Option<PathBuf> {
    let directories = library_directories().into_iter();
    directories.map(|directory| Path::new(&directory).join(name)).find(|path| path.exists())
}

/// Where a file is that has its place.
pub fn file(path: &str) -> Option<PathBuf> {
    Some(PathBuf::from(path)).filter(|path| path.exists())
}

/// Open MPI's own headers, below the directory of its libraries.
pub fn openmpi_headers() -> Option<PathBuf> {
    library("openmpi/include/mpi.h")
}

/// The address sanitizer of the C compiler.
pub fn address_sanitizer() -> Option<PathBuf> {
    // gcc answers with the bare name where it has no such file.
    let output = Command::new("gcc").arg("-print-file-name=libasan.so").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    Some(path).filter(|path| path.is_absolute())
}

/// A busybox for the initramfs, where there is no C library.
pub fn static_busybox() -> Option<PathBuf> {
    let names = ["busybox", "busybox-static", "busybox.static"];
    names.into_iter().filter_map(program).find(|busybox| {
        // ldd fails for a program that has no dynamic section.
        let mut ldd = Command::new("ldd");
        let status = ldd.arg(busybox).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| !status.success())
    })
}
