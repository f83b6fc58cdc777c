//! The memory map the guest's kernel is given, common to both boot protocols.

use std::ops::Range;

use crate::layout;

/// What a range may be used for; the numbers are those of E820 and of PVH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MemoryKind {
    /// Free RAM.
    Ram = 1,
    /// Keep out.
    Reserved = 2,
    /// ACPI tables.
    Acpi = 3,
}

/// Ranges of guest physical addresses in ascending order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap(pub Vec<(Range<u64>, MemoryKind)>);

impl MemoryMap {
    /// The map of a machine with `ram_bytes` of RAM.
    pub fn new(ram_bytes: u64) -> Self {
        let mut map = vec![
            (layout::CONVENTIONAL_RAM, MemoryKind::Ram),
            (layout::ACPI_TABLES, MemoryKind::Acpi),
        ];
        for range in layout::ram_ranges(ram_bytes) {
            let start = range.start.max(layout::HIGH_MEMORY_START);
            if start < range.end {
                map.push((start..range.end, MemoryKind::Ram));
            }
        }
        // Linux only trusts an ECAM that the map reserves.
        map.push((layout::ECAM, MemoryKind::Reserved));
        map.push((
            layout::KVM_IDENTITY_MAP..layout::KVM_TSS + 3 * layout::PAGE_SIZE,
            MemoryKind::Reserved,
        ));
        map.sort_by_key(|(range, _)| range.start);
        Self(map)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_ascend_and_hold_all_ram_above_one_mib() {
        for bytes in [64 << 20, layout::LOW_RAM_END, 5 << 30] {
            let MemoryMap(map) = MemoryMap::new(bytes);
            assert!(map.windows(2).all(|pair| pair[0].0.end <= pair[1].0.start));
            let high: u64 = map
                .iter()
                .filter(|(range, kind)| {
                    *kind == MemoryKind::Ram && range.start >= layout::HIGH_MEMORY_START
                })
                .map(|(range, _)| range.end - range.start)
                .sum();
            assert_eq!(high, bytes - layout::HIGH_MEMORY_START);
        }
    }
}
