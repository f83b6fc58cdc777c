//! Unpacking a bzImage's payload with whatever Kbuild packed it.
//!
//! Except for gzip, Kbuild appends the unpacked size in four bytes; unpackers stop at the end of their own format.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::ImageError;

/// No kernel is larger than this when unpacked; a file that claims to be is not unpacked to the end of memory.
const UNPACKED_LIMIT: u64 = 1 << 30;
/// Dictionaries larger than this (KiB) are refused: Kbuild's largest is 128 MiB.
const MEMORY_LIMIT_KIB: u32 = 192 << 10;
/// A block of the old LZ4 format holds this much at most.
const LZ4_BLOCK: usize = 8 << 20;

/// Compression methods that Kbuild offers on x86.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Gzip,
    Bzip2,
    Lzma,
    Xz,
    Lzo,
    Lz4,
    Zstd,
    None,
}

impl Method {
    /// Recognises the method by its first bytes.
    pub(super) fn recognise(packed: &[u8]) -> Option<Self> {
        let magic: [(&[u8], Self); 8] = [
            (&[0x1f, 0x8b], Self::Gzip),
            (b"BZh", Self::Bzip2),
            (&[0x5d, 0x00, 0x00], Self::Lzma),
            (b"\xfd7zXZ\0", Self::Xz),
            (b"\x89LZO", Self::Lzo),
            (&[0x02, 0x21, 0x4c, 0x18], Self::Lz4),
            (&[0x28, 0xb5, 0x2f, 0xfd], Self::Zstd),
            (&super::elf::MAGIC, Self::None),
        ];
        magic.iter().find(|(magic, _)| packed.starts_with(magic)).map(|(_, method)| *method)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Bzip2 => "bzip2",
            Self::Lzma => "lzma",
            Self::Xz => "xz",
            Self::Lzo => "lzo",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::None => "nothing",
        }
    }
}

/// Unpacks into a file of memory.
pub(super) fn unpack(packed: &[u8], method: Method, path: &Path) -> Result<File, ImageError> {
    let name = method.name();
    let corrupt = |source| ImageError::Corrupt { path: path.to_owned(), method: name, source };
    let memory = rustix::fs::memfd_create("vmlinux", rustix::fs::MemfdFlags::CLOEXEC);
    let mut target = memory
        .map(File::from)
        .map_err(|errno| ImageError::io("Making a file of memory for", path)(errno.into()))?;
    let copied = match method {
        Method::None => copy(packed, &mut target),
        Method::Gzip => copy(flate2::read::GzDecoder::new(packed), &mut target),
        Method::Bzip2 => copy(bzip2::read::BzDecoder::new(packed), &mut target),
        Method::Xz => {
            copy(lzma_rust2::XzReader::new_mem_limit(packed, false, MEMORY_LIMIT_KIB), &mut target)
        }
        Method::Lzma => lzma_rust2::LzmaReader::new_mem_limit(packed, MEMORY_LIMIT_KIB, None)
            .and_then(|reader| copy(reader, &mut target)),
        Method::Zstd => zstd_reader(packed).and_then(|reader| copy(reader, &mut target)),
        Method::Lz4 => lz4(packed, &mut target),
        Method::Lzo => return Err(ImageError::Compression { path: path.to_owned(), method: name }),
    };
    copied.map_err(corrupt)?;
    Ok(target)
}

fn copy(reader: impl Read, target: &mut File) -> io::Result<()> {
    let count = io::copy(&mut reader.take(UNPACKED_LIMIT + 1), target)?;
    if count > UNPACKED_LIMIT { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "more than 1 GiB comes out of it")
}

fn zstd_reader(packed: &[u8]) -> io::Result<impl Read> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(packed)?.single_frame();
    // `zstd -22 --ultra`, as Kbuild calls it, uses the largest window there is.
    reader.window_log_max(27)?;
    Ok(reader)
}

/// The old LZ4 format of `lz4 -l`: a magic number, then blocks of a size and as many bytes. It has no end mark; the
/// unpacked size that Kbuild appends shows where the blocks end.
fn lz4(packed: &[u8], target: &mut File) -> io::Result<()> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let dword = |bytes: &[u8]| bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    let body = packed.get(4..packed.len().saturating_sub(4)).unwrap_or_default();
    let size = packed.last_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap_or_default();
    if u64::from(size) > UNPACKED_LIMIT {
        return Err(too_large());
    }
    let (mut rest, mut total) = (body, 0_u64);
    while !rest.is_empty() {
        let length = dword(rest).and_then(|length| usize::try_from(length).ok());
        let end = length
            .and_then(|length| length.checked_add(4))
            .ok_or_else(|| invalid("a block has no size"))?;
        let block = rest.get(4..end).ok_or_else(|| invalid("a block is cut off"))?;
        let plain = lz4_flex::block::decompress(block, LZ4_BLOCK)
            .map_err(|error| invalid(&error.to_string()))?;
        target.write_all(&plain)?;
        total = total.saturating_add(plain.len() as u64);
        rest = &rest[end..];
    }
    if total == u64::from(size) {
        Ok(())
    } else {
        Err(invalid("it does not have the size that it claims"))
    }
}
