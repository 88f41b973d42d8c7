//! Whether this machine itself is a place where everything can run.

use std::fs;
use std::path::Path;

/// True where the kernel module is loaded and there is an RDMA device: then a
/// guest would show less than this machine does.
pub fn is_ready() -> bool {
    Path::new("/dev/ummunotify").exists()
        && fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some())
}
