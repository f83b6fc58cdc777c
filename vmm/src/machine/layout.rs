//! Where everything lies in the guest's physical address space and I/O port space.
//!
//! One place on purpose: the memory map handed to the kernel, the ACPI tables, the exit dispatch and the
//! fabric of `device-models` must agree on every number here.

use std::ops::Range;

/// 4 KiB, the page size of x86 and the granularity of memory slots.
pub const PAGE_SIZE: u64 = 0x1000;

/// End of RAM below 4 GiB, and start of the hole that holds PCI windows, ECAM and interrupt controllers.
pub const LOW_RAM_END: u64 = 0xC000_0000;
/// Where RAM goes on above the hole.
pub const HIGH_RAM_START: u64 = 0x1_0000_0000;

/// Non-prefetchable window of the host bridge, below 4 GiB (registers, MSI-X tables).
pub const PCI_WINDOW_32: Range<u64> = 0xC000_0000..0xE000_0000;
/// Prefetchable window of the host bridge, above all RAM a guest can have; ends below 2^40, so that 40
/// physical address bits are enough.
pub const PCI_WINDOW_64: Range<u64> = 0x10_0000_0000..0x20_0000_0000;

/// Where windows of host bridges may lie above 4 GiB on the CPUs' side: [`PCI_WINDOW_64`], and behind it room for
/// bridges that translate addresses. Ends below 2^40, too.
pub const PCI_HIGH: Range<u64> = PCI_WINDOW_64.start..0x80_0000_0000;

/// Whether a host bridge may forward this physical address.
pub fn is_pci(address: u64) -> bool {
    PCI_WINDOW_32.contains(&address) || PCI_HIGH.contains(&address)
}

/// ECAM (PCIe Base 6.0, 7.2.2): 1 MiB of configuration space for each of 256 buses.
pub const ECAM: Range<u64> = 0xE000_0000..0xF000_0000;
/// Bytes of ECAM that belong to one bus.
pub const ECAM_BYTES_PER_BUS: u64 = 1 << 20;

/// Where ECAM has the 4 KiB of the function whose requester ID this is.
pub const fn config_space(function: u16) -> u64 {
    ECAM.start + function as u64 * PAGE_SIZE
}

/// Writes here are message-signalled interrupts (Intel SDM vol. 3, 12.11).
pub const INTERRUPT_WINDOW: Range<u64> = 0xFEE0_0000..0xFEF0_0000;
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
/// The same by a buffer in the guest's memory, see `lab_call`.
pub use guest_protocol::wire::CALL_PORT as LAB_CALL;
/// The text line between the guest's tests and the VMM.
pub use guest_protocol::wire::LINE_PORT as LAB_PORT;
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

/// Most RAM a guest can have, in bytes: what lies above 4 GiB must end below [`PCI_WINDOW_64`].
pub const MAX_RAM: u64 = LOW_RAM_END + (PCI_WINDOW_64.start - HIGH_RAM_START);

/// The ranges of guest physical addresses that hold `bytes` of RAM, in ascending order.
pub fn ram_ranges(bytes: u64) -> Vec<Range<u64>> {
    let low = bytes.min(LOW_RAM_END);
    let high = bytes - low;
    let low = (low > 0).then_some(0..low);
    let high = (high > 0).then_some(HIGH_RAM_START..HIGH_RAM_START.saturating_add(high));
    low.into_iter().chain(high).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_stays_clear_of_every_window() {
        for bytes in [1 << 20, LOW_RAM_END, LOW_RAM_END + PAGE_SIZE, MAX_RAM] {
            let ranges = ram_ranges(bytes);
            assert_eq!(ranges.iter().map(|r| r.end - r.start).sum::<u64>(), bytes);
            for range in ranges {
                for window in [PCI_WINDOW_32, PCI_HIGH, ECAM, INTERRUPT_WINDOW] {
                    assert!(
                        range.end <= window.start || range.start >= window.end,
                        "{range:x?} {window:x?}"
                    );
                }
            }
        }
    }

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
