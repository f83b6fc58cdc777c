//! The PVH boot protocol: 32-bit protected mode without paging, `ebx` points to `hvm_start_info`.

use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::elf::start_info::{
    hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info,
};
use vm_memory::GuestAddress;

use super::entry::Entry;
use super::memory_map::MemoryMap;
use super::{BootError, Placed};
use crate::layout;
use crate::memory::GuestRam;

/// `magic` of `hvm_start_info`.
const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;

pub(super) fn prepare(
    ram: &GuestRam,
    entry: u64,
    initramfs: Option<Placed>,
) -> Result<Entry, BootError> {
    let MemoryMap(map) = MemoryMap::new(ram.bytes());
    let memory_map: Vec<_> = map
        .into_iter()
        .map(|(range, kind)| hvm_memmap_table_entry {
            addr: range.start,
            size: range.end - range.start,
            type_: kind as u32,
            reserved: 0,
        })
        .collect();
    let start_info = hvm_start_info {
        magic: XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        flags: 0,
        nr_modules: u32::from(initramfs.is_some()),
        modlist_paddr: if initramfs.is_some() { layout::PVH_MODULE_LIST } else { 0 },
        cmdline_paddr: layout::COMMAND_LINE,
        rsdp_paddr: layout::ACPI_TABLES.start,
        memmap_paddr: layout::PVH_MEMORY_MAP,
        memmap_entries: u32::try_from(memory_map.len()).unwrap_or(u32::MAX),
        reserved: 0,
    };
    let mut params = BootParams::new(&start_info, GuestAddress(layout::PVH_START_INFO));
    params.set_sections(&memory_map, GuestAddress(layout::PVH_MEMORY_MAP));
    if let Some(placed) = initramfs {
        let module = hvm_modlist_entry {
            paddr: placed.address,
            size: placed.size,
            cmdline_paddr: 0,
            reserved: 0,
        };
        params.set_modules(&[module], GuestAddress(layout::PVH_MODULE_LIST));
    }
    PvhBootConfigurator::write_bootparams(&params, &**ram.memory()).map_err(|error| {
        BootError::Kernel { reason: format!("cannot be given its start information ({error})") }
    })?;
    Ok(Entry::protected_mode(entry, layout::PVH_START_INFO))
}
