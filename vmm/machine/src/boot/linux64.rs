//! The 64-bit boot protocol (`Documentation/arch/x86/boot.rst`): long mode with an identity mapping, `rsi`
//! points to `boot_params`.

use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::GuestAddress;

use super::entry::{self, Entry};
use super::memory_map::MemoryMap;
use super::{BootError, Placed};
use crate::layout;
use crate::memory::GuestRam;

/// `boot_flag`: the mark at the end of a boot sector.
const BOOT_FLAG: u16 = 0xAA55;
/// `header`: "HdrS".
const HEADER_MAGIC: u32 = 0x5372_6448;
/// `type_of_loader`: one that has no number of its own.
const LOADER_UNKNOWN: u8 = 0xFF;
/// `version` 2.15 of the protocol.
const PROTOCOL_VERSION: u16 = 0x020F;
/// `loadflags`: the protected-mode code lies above 1 MiB.
const LOADED_HIGH: u8 = 1;

pub(super) fn prepare(
    ram: &GuestRam,
    entry: u64,
    initramfs: Option<Placed>,
) -> Result<Entry, BootError> {
    let mut params = boot_params::default();
    params.hdr.boot_flag = BOOT_FLAG;
    params.hdr.header = HEADER_MAGIC;
    params.hdr.version = PROTOCOL_VERSION;
    params.hdr.type_of_loader = LOADER_UNKNOWN;
    params.hdr.loadflags = LOADED_HIGH;
    params.hdr.cmd_line_ptr = low_word(layout::COMMAND_LINE);
    params.hdr.cmdline_size = u32::try_from(layout::COMMAND_LINE_CAPACITY - 1).unwrap_or(0);
    if let Some(placed) = initramfs {
        // Both lie below 4 GiB: the initramfs is placed in low RAM.
        params.hdr.ramdisk_image = low_word(placed.address);
        params.hdr.ramdisk_size = low_word(placed.size);
    }
    params.acpi_rsdp_addr = layout::ACPI_TABLES.start;
    let MemoryMap(map) = MemoryMap::new(ram.bytes());
    for (slot, (range, kind)) in params.e820_table.iter_mut().zip(&map) {
        *slot = boot_e820_entry {
            addr: range.start,
            size: range.end - range.start,
            r#type: *kind as u32,
        };
        params.e820_entries += 1;
    }
    let params = BootParams::new(&params, GuestAddress(layout::ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, &**ram.memory()).map_err(|error| {
        BootError::Kernel { reason: format!("cannot be given its boot parameters ({error})") }
    })?;
    entry::write_long_mode_tables(ram.memory())?;
    Ok(Entry::long_mode(entry, 0).with_rsi(layout::ZERO_PAGE))
}

fn low_word(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
