//! Takes the kernel out of Debian's self-extracting boot image.
//!
//! Unpacking itself takes a guest without KVM up to three seconds at every
//! boot; this machine does it once, and QEMU starts the result directly.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::command::Run;
use crate::host::find;

/// How a compressed stream begins, and the program that undoes it.
const FORMATS: &[(&[u8], &str)] = &[(XZ, "xz"), (b"\x28\xb5\x2f\xfd", "zstd")];
const XZ: &[u8] = b"\xfd7zXZ\0";

/// Writes the kernel in `image` to `kernel`. Does nothing if it is compressed
/// in a way not known here, or by a program that this machine lacks, since
/// QEMU boots the image too, only later.
pub fn extract(image: &Path, kernel: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let Some(payload) = payload(&bytes) else {
        return Ok(());
    };
    let format = FORMATS.iter().find(|(start, _)| payload.starts_with(start));
    let Some(program) = format.and_then(|(_, name)| find::program(name)) else {
        return Ok(());
    };
    let compressed = kernel.with_extension("compressed");
    fs::write(&compressed, payload)?;
    let input = File::open(&compressed)?;
    let file =
        File::create(kernel).with_context(|| format!("cannot create {}", kernel.display()))?;
    Command::new(program).arg("-dc").stdin(Stdio::from(input)).stdout(file).run()?;
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
