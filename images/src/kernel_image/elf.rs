//! Looking into an ELF kernel: for the right machine, whole, and with a PVH entry or without.

use std::fs::File;
use std::io::Seek;
use std::path::Path;

use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader, ProgramHeader};
use object::read::{ReadCache, ReadRef};

use super::ImageError;

/// What every ELF file begins with.
pub(super) const MAGIC: [u8; 4] = *b"\x7fELF";
/// The note that gives the 32-bit PVH entry point (`XEN_ELFNOTE_PHYS32_ENTRY`, owner `Xen`).
const XEN_ELFNOTE_PHYS32_ENTRY: u32 = 18;
/// A kernel's notes take a few hundred bytes.
const NOTES_LIMIT: u64 = 1 << 20;

/// Fails unless the file is a whole kernel for 64-bit x86; returns whether it has a PVH entry. The
/// file is at its beginning then.
pub(super) fn inspect(file: &mut File, path: &Path) -> Result<bool, ImageError> {
    let has_pvh = look(file, path)?;
    file.rewind().map_err(ImageError::io("Reading", path))?;
    Ok(has_pvh)
}

fn look(file: &File, path: &Path) -> Result<bool, ImageError> {
    let not = |why| ImageError::NotAKernel { path: path.to_owned(), why };
    let actual = file.metadata().map_err(ImageError::io("Reading", path))?.len();
    let cache = ReadCache::new(file);
    let data = &cache;

    let ident = data.read_bytes_at(0, 20).map_err(|()| not("its ELF header is cut off"))?;
    if ident.first_chunk() != Some(&MAGIC) {
        return Err(not("what is packed in it is not an ELF file"));
    }
    let wide = ident[4] == 2;
    let machine = match ident[5] {
        1 => u16::from_le_bytes([ident[18], ident[19]]),
        _ => u16::from_be_bytes([ident[18], ident[19]]),
    };
    if !wide || machine != elf::EM_X86_64.0 {
        return Err(ImageError::WrongArchitecture {
            path: path.to_owned(),
            found: machine_name(machine, wide),
        });
    }
    let header =
        FileHeader64::<Endianness>::parse(data).map_err(|_| not("its ELF header is damaged"))?;
    let endian = header.endian().map_err(|_| not("its ELF header is damaged"))?;
    if header.e_type(endian) == elf::ET_REL {
        return Err(not("it is a kernel module or an object file (`--module` loads a module)"));
    }
    let needed = header
        .e_phoff(endian)
        .saturating_add(u64::from(header.e_phentsize(endian)) * u64::from(header.e_phnum(endian)));
    if needed > actual {
        let path = path.to_owned();
        return Err(ImageError::Truncated { path, part: "table of segments", needed, actual });
    }
    let segments = header
        .program_headers(endian, data)
        .map_err(|_| not("its table of segments is damaged"))?;

    let (mut loadable, mut has_pvh) = (false, false);
    for segment in segments {
        let kind = segment.p_type(endian);
        let needed = segment.p_offset(endian).saturating_add(segment.p_filesz(endian));
        if kind == elf::PT_INTERP {
            return Err(not("it is a program for Linux"));
        }
        if kind != elf::PT_LOAD && kind != elf::PT_NOTE {
            continue;
        }
        if needed > actual {
            return Err(ImageError::Truncated {
                path: path.to_owned(),
                part: "last segment",
                needed,
                actual,
            });
        }
        loadable |= kind == elf::PT_LOAD;
        if kind == elf::PT_NOTE && segment.p_filesz(endian) <= NOTES_LIMIT {
            has_pvh |= has_pvh_note(segment, endian, data);
        }
    }
    if loadable { Ok(has_pvh) } else { Err(not("no segment of it is to be loaded")) }
}

/// Looks for the PVH entry among a segment's notes; damaged notes are as good as none.
fn has_pvh_note<'data>(
    segment: &elf::ProgramHeader64<Endianness>,
    endian: Endianness,
    data: impl ReadRef<'data>,
) -> bool {
    let Ok(Some(mut notes)) = segment.notes(endian, data) else { return false };
    while let Ok(Some(note)) = notes.next() {
        if note.name() == b"Xen" && note.n_type(endian).0 == XEN_ELFNOTE_PHYS32_ENTRY {
            return true;
        }
    }
    false
}

fn machine_name(machine: u16, wide: bool) -> String {
    let name = match machine {
        3 => "32-bit x86",
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "s390",
        40 => "32-bit ARM",
        62 => "x86 with 32-bit addresses (x32)",
        183 => "AArch64",
        243 => "RISC-V",
        258 => "LoongArch",
        other => return format!("machine {other} of ELF ({} bits)", if wide { 64 } else { 32 }),
    };
    name.to_owned()
}
