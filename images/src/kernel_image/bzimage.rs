//! The header of a bzImage (the x86 boot protocol, `Documentation/arch/x86/boot.rst`), and where its payload lies.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::ImageError;
use super::payload::{self, Method};

/// Bytes at the beginning in which the whole header lies.
pub(super) const HEAD: usize = 0x268;
/// A payload larger than this is none.
const PAYLOAD_LIMIT: u64 = 512 << 20;
/// The first protocol that says where the payload is.
const PROTOCOL_WITH_PAYLOAD: u16 = 0x0208;
/// `xloadflags`: the kernel has a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;

fn word(head: &[u8], offset: usize) -> u16 {
    head.get(offset..offset + 2).map_or(0, |bytes| u16::from_le_bytes([bytes[0], bytes[1]]))
}

fn dword(head: &[u8], offset: usize) -> u32 {
    u32::from(word(head, offset)) | (u32::from(word(head, offset + 2)) << 16)
}

/// True when the file begins as a bzImage does: `boot_flag` and `header`.
pub(super) fn is_bzimage(head: &[u8]) -> bool {
    word(head, 0x1fe) == 0xaa55 && head.get(0x202..).is_some_and(|rest| rest.starts_with(b"HdrS"))
}

/// Takes the kernel out of a bzImage, into a file of memory. The second result is its release.
pub(super) fn unpack(
    file: &mut File,
    head: &[u8],
    path: &Path,
) -> Result<(File, Option<String>), ImageError> {
    let not = |why| ImageError::NotAKernel { path: path.to_owned(), why };
    if word(head, 0x206) < PROTOCOL_WITH_PAYLOAD {
        return Err(not("its boot protocol is older than 2.08, from before Linux 2.6.26"));
    }
    if word(head, 0x206) >= 0x020c && word(head, 0x236) & XLF_KERNEL_64 == 0 {
        return Err(ImageError::WrongArchitecture {
            path: path.to_owned(),
            found: "32-bit x86".to_owned(),
        });
    }
    // `setup_sects` of 0 means 4, for old boot loaders' sake; the boot sector itself comes on top.
    let setup = match head.get(0x1f1).copied() {
        None | Some(0) => 5 * 512,
        Some(sectors) => (u64::from(sectors) + 1) * 512,
    };
    let (offset, length) = (u64::from(dword(head, 0x248)), u64::from(dword(head, 0x24c)));
    let begin = setup.saturating_add(offset);
    let needed = begin.saturating_add(length);
    let actual = file.metadata().map_err(ImageError::io("Reading", path))?.len();
    if needed > actual {
        return Err(ImageError::Truncated {
            path: path.to_owned(),
            part: "payload",
            needed,
            actual,
        });
    }
    if !(16..=PAYLOAD_LIMIT).contains(&length) {
        return Err(not("its header gives a payload of an impossible size"));
    }
    let read = |error| ImageError::io("Reading", path)(error);
    let release = release(file, head).map_err(read)?;
    let mut packed = Vec::new();
    file.seek(SeekFrom::Start(begin)).map_err(read)?;
    file.take(length).read_to_end(&mut packed).map_err(read)?;
    let method = Method::recognise(&packed)
        .ok_or_else(|| not("its payload is compressed in no known way"))?;
    Ok((payload::unpack(&packed, method, path)?, release))
}

/// The text that `kernel_version` points to begins with the release.
fn release(file: &mut File, head: &[u8]) -> std::io::Result<Option<String>> {
    let offset = word(head, 0x20e);
    if offset == 0 {
        return Ok(None);
    }
    file.seek(SeekFrom::Start(u64::from(offset) + 0x200))?;
    let mut text = Vec::new();
    file.take(256).read_to_end(&mut text)?;
    let end = text.iter().position(|byte| !byte.is_ascii_graphic()).unwrap_or(text.len());
    text.truncate(end);
    Ok(String::from_utf8(text).ok().filter(|text| !text.is_empty()))
}
