//! The guest's physical address space: RAM, the host bridges' windows, ECAM and the interrupt window.
//!
//! The memory map handed to the kernel, the ACPI tables, the VMM's exit dispatch and the fabric of
//! `device-models` must agree on every number here.

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
}
