//! Takes the kernel out of Debian's self-extracting boot image.
//!
//! The image is compressed with xz, which a guest without KVM takes three
//! seconds to undo at every boot; this machine does it once, and QEMU starts
//! the result directly.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::Run;

/// How an xz stream begins.
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Writes the kernel in `image` to `kernel`. Does nothing if it is not
/// compressed with xz, since QEMU boots the image too, only later.
pub fn extract(image: &Path, kernel: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let Some(payload) = payload(&bytes).filter(|payload| payload.starts_with(XZ)) else {
        return Ok(());
    };
    let compressed = kernel.with_extension("xz");
    fs::write(&compressed, payload)?;
    let file =
        File::create(kernel).with_context(|| format!("cannot create {}", kernel.display()))?;
    Command::new("xz").arg("-dc").arg(&compressed).stdin(Stdio::null()).stdout(file).run()?;
    fs::remove_file(compressed)?;
    Ok(())
}

/// The compressed kernel, found as the x86 boot protocol (2.08) tells.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| -> Option<usize> {
        let bytes = image.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(bytes)).ok()
    };
    let sectors = usize::from(*image.get(0x1f1)?) + 1;
    let start = sectors * 512 + word(0x248)?;
    // Its last four bytes are the size when unpacked.
    image.get(start..start + word(0x24c)?.checked_sub(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_is_where_the_header_says() {
        let mut image = vec![0; 4096];
        image[0x1f1] = 3;
        image[0x248] = 100;
        image[0x24c] = 12;
        image[2148..2154].copy_from_slice(XZ);
        assert_eq!(payload(&image), Some(&image[2148..2156]));
    }

    #[test]
    fn what_is_no_kernel_has_no_payload() {
        assert_eq!(payload(b"short"), None);
        assert_eq!(payload(&[0xff; 1024]), None);
    }
}
