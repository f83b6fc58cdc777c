//! Loading the ELF kernel.

use std::io::{Read, Seek, SeekFrom};

use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Address, GuestAddress};

use super::{BootError, Image};
use crate::layout;
use crate::memory::GuestRam;

/// `e_machine` of x86-64.
const EM_X86_64: u16 = 62;
/// `EI_CLASS` of a 64-bit file.
const ELFCLASS64: u8 = 2;
/// `p_type` of a segment that is loaded.
const PT_LOAD: u32 = 1;
/// Size of a program header of a 64-bit file.
const PROGRAM_HEADER_SIZE: usize = 56;
/// More program headers than any kernel has (there are five).
const MAX_PROGRAM_HEADERS: u16 = 64;

/// A kernel in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadedKernel {
    /// Physical address of the 64-bit entry (`startup_64`).
    pub entry: u64,
    /// Physical address of the 32-bit PVH entry, if the kernel has one.
    pub pvh_entry: Option<u64>,
    /// First byte behind everything the kernel occupies, its zeroed part included.
    pub end: u64,
}

/// Loads the segments of an ELF kernel where it wants them.
pub(super) fn load(image: &mut Image, ram: &GuestRam) -> Result<LoadedKernel, BootError> {
    let end = check(image, ram)?;
    let loaded =
        Elf::load(&**ram.memory(), None, image, Some(GuestAddress(layout::HIGH_MEMORY_START)))
            .map_err(|error| BootError::Kernel { reason: format!("cannot be loaded ({error})") })?;
    let pvh_entry = match loaded.pvh_boot_cap {
        PvhBootCapability::PvhEntryPresent(address) => Some(address.raw_value()),
        _ => None,
    };
    Ok(LoadedKernel { entry: loaded.kernel_load.raw_value(), pvh_entry, end })
}

/// Sees that the file is for this machine and that each segment lies in RAM clear of the boot structures, which
/// the loader does not look at. Returns the end of the last segment.
fn check(image: &mut Image, ram: &GuestRam) -> Result<u64, BootError> {
    let bad = |reason: &str| BootError::Kernel { reason: reason.into() };
    let mut header = [0_u8; 64];
    image
        .seek(SeekFrom::Start(0))
        .map_err(|source| BootError::Read { what: "kernel image", source })?;
    image.read_exact(&mut header).map_err(|_| bad("is too short to be an ELF file"))?;
    if !header.starts_with(b"\x7fELF") {
        return Err(bad("is not an ELF file"));
    }
    let machine = u16_at(&header, 18);
    if header.get(4) != Some(&ELFCLASS64) || machine != EM_X86_64 {
        return Err(BootError::Kernel {
            reason: format!("is for another architecture (ELF machine {machine})"),
        });
    }
    let count = u16_at(&header, 56);
    if count == 0
        || count > MAX_PROGRAM_HEADERS
        || usize::from(u16_at(&header, 54)) != PROGRAM_HEADER_SIZE
    {
        return Err(bad("has no usable program headers"));
    }
    let truncated = || bad("is truncated");
    image.seek(SeekFrom::Start(u64_at(&header, 32))).map_err(|_| truncated())?;
    let mut end = 0;
    for _ in 0..count {
        let mut segment = [0_u8; PROGRAM_HEADER_SIZE];
        image.read_exact(&mut segment).map_err(|_| truncated())?;
        if u32_at(&segment, 0) != PT_LOAD {
            continue;
        }
        let (address, in_file, size) =
            (u64_at(&segment, 24), u64_at(&segment, 32), u64_at(&segment, 40));
        let segment_end =
            address.checked_add(size).filter(|_| in_file <= size).ok_or_else(truncated)?;
        if address < layout::HIGH_MEMORY_START {
            return Err(BootError::Kernel {
                reason: format!("wants to be loaded below 1 MiB, at {address:#x}"),
            });
        }
        if segment_end > ram.low_end() {
            let have = ram.low_end();
            return Err(BootError::NoRoom { what: "the kernel", need: segment_end, have });
        }
        end = end.max(segment_end);
    }
    if end == 0 {
        return Err(bad("has nothing to load"));
    }
    Ok(end)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes)
}
