//! Where everything lies in the guest's physical address space and I/O port space.
//!
//! What devices and firmware need to know of it stands in [`peerdma_topology::address_space`]; here is
//! the rest of a PC: what the kernel is handed at boot, ports, and interrupt controllers.

use std::ops::Range;

pub use peerdma_topology::address_space::*;

/// Registers of each vCPU's local APIC.
pub const LOCAL_APIC: u64 = 0xFEE0_0000;
/// Registers of KVM's in-kernel I/O APIC, whose 24 pins are GSI 0 to 23.
pub const IO_APIC: u64 = 0xFEC0_0000;

/// One page that Intel's KVM wants for real mode without unrestricted guest support.
pub const KVM_IDENTITY_MAP: u64 = 0xFFFB_C000;
/// Three pages that Intel's KVM wants for the task state segment of virtual-8086 mode.
pub const KVM_TSS: u64 = 0xFFFB_D000;

/// Global descriptor table of the 64-bit boot protocol and of flat programs.
pub const GDT: u64 = 0x500;
/// `hvm_start_info` of the PVH boot protocol, and right behind it the module list.
pub const PVH_START_INFO: u64 = 0x6000;
/// The one entry of the PVH module list: the initramfs.
pub const PVH_MODULE_LIST: u64 = 0x6040;
/// Memory map of the PVH boot protocol.
pub const PVH_MEMORY_MAP: u64 = 0x7000;
/// `boot_params` of the 64-bit boot protocol.
pub const ZERO_PAGE: u64 = 0x8000;
/// Page tables of the 64-bit boot protocol: one PML4, one PDPT, four page directories.
pub const PAGE_TABLES: u64 = 0x9000;
/// First byte behind [`PAGE_TABLES`].
pub const PAGE_TABLES_END: u64 = PAGE_TABLES + 6 * PAGE_SIZE;
/// The kernel's command line, terminated by a zero byte.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Bytes that may be used at [`COMMAND_LINE`], the terminating zero included. Linux takes 2048.
pub const COMMAND_LINE_CAPACITY: usize = 2048;

/// Conventional memory that the guest may use; the trampoline that starts further vCPUs lives there.
pub const CONVENTIONAL_RAM: Range<u64> = 0..0x9_F000;
/// ACPI tables, in the BIOS area so that a kernel that scans for the RSDP finds it too.
pub const ACPI_TABLES: Range<u64> = 0xE_0000..0x10_0000;
/// Everything a kernel image or an initramfs occupies lies above this.
pub const HIGH_MEMORY_START: u64 = 0x10_0000;

/// COM1, an 8250 family UART.
pub const COM1: Range<u16> = 0x3F8..0x400;
/// Interrupt line of [`COM1`] at the I/O APIC.
pub const COM1_GSI: u32 = 4;
/// The same by a buffer in the guest's memory, see `protocol_call`.
pub use guest_protocol::wire::CALL_PORT as LAB_CALL;
/// The text line between the guest's tests and the VMM.
pub use guest_protocol::wire::LINE_PORT as PROTOCOL_PORT;
/// Where the guest's DMA witness says that it is there.
pub use guest_protocol::witness::ATTACH_PORT as WITNESS_ATTACH;
/// Where the witness asks for its rings to be emptied.
pub use guest_protocol::witness::DRAIN_PORT as WITNESS_DRAIN;
/// Reset register named by the FADT (ACPI 6.5, 4.8.3.6).
pub const RESET_REGISTER: u16 = 0x0CF9;
/// The value that resets when it is written to [`RESET_REGISTER`].
pub const RESET_VALUE: u8 = 0x0E;
/// Sleep control register of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).
pub const SLEEP_CONTROL: u16 = 0x0600;
/// Sleep status register of hardware-reduced ACPI (ACPI 6.5, 4.8.3.7).
pub const SLEEP_STATUS: u16 = 0x0601;
/// `SLP_TYP` of S5, soft off, as `\_S5` in the DSDT says it.
pub const SLEEP_TYPE_S5: u8 = 5;
/// Command register of the keyboard controller: the way of last resort to reset a PC.
pub const KEYBOARD_COMMAND: u16 = 0x64;
/// Pulses the reset line when written to [`KEYBOARD_COMMAND`].
pub const KEYBOARD_RESET: u8 = 0xFE;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_structures_do_not_overlap() {
        let mut places = [
            GDT..GDT + 0x100,
            PVH_START_INFO..PVH_MODULE_LIST,
            PVH_MODULE_LIST..PVH_MEMORY_MAP,
            PVH_MEMORY_MAP..ZERO_PAGE,
            ZERO_PAGE..PAGE_TABLES,
            PAGE_TABLES..PAGE_TABLES_END,
            COMMAND_LINE..COMMAND_LINE + COMMAND_LINE_CAPACITY as u64,
            ACPI_TABLES,
        ];
        places.sort_by_key(|place| place.start);
        assert!(places.windows(2).all(|pair| pair[0].end <= pair[1].start));
    }
}
