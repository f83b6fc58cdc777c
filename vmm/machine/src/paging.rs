//! The guest's page tables in long mode (Intel SDM vol. 3, 5.5; AMD APM vol. 2, 5.3).
//!
//! `KVM_TRANSLATE` would follow them, too, but as an access of CPL 0. On a processor with SMAP that is refused for every
//! page that a program may use, which is all of what a program's addresses mean.

use std::sync::atomic::Ordering;

use kvm_bindings::kvm_sregs;
use vm_memory::{Bytes, GuestAddress};

use super::memory::GuestRam;

const CR0_PG: u64 = 1 << 31;
const CR4_LA57: u64 = 1 << 12;
const EFER_LMA: u64 = 1 << 10;

const PRESENT: u64 = 1 << 0;
/// In a table of the second or third level: the entry maps a page, and has no table below.
const LARGE: u64 = 1 << 7;
/// The address in CR3 and in entries: bits 12 to 51.
const ADDRESS: u64 = 0x000F_FFFF_FFFF_F000;
/// Bits of an address that select an entry of a table, and those that select a byte of the smallest page.
const INDEX_BITS: u32 = 9;
const OFFSET_BITS: u32 = 12;

/// The page tables that a vCPU uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PageTables {
    root: u64,
    /// 4 or 5.
    levels: u32,
}

impl PageTables {
    /// `None` when the vCPU is not in long mode.
    pub(super) fn in_use(registers: &kvm_sregs) -> Option<Self> {
        let long = registers.cr0 & CR0_PG != 0 && registers.efer & EFER_LMA != 0;
        let levels = if registers.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
        long.then_some(Self { root: registers.cr3 & ADDRESS, levels })
    }

    /// The physical address of the byte at `linear`, regardless of permissions; `None` when nothing
    /// is mapped there, the address is not canonical, or a table does not lie in RAM.
    pub(super) fn translate(self, ram: &GuestRam, linear: u64) -> Option<GuestAddress> {
        let unused = u64::BITS - OFFSET_BITS - INDEX_BITS * self.levels;
        let canonical = (linear.cast_signed() << unused >> unused).cast_unsigned();
        if canonical != linear {
            return None;
        }
        let mut table = self.root;
        for level in (1..=self.levels).rev() {
            let shift = OFFSET_BITS + INDEX_BITS * (level - 1);
            let index = linear >> shift & ((1 << INDEX_BITS) - 1);
            let entry: u64 =
                ram.memory().load(GuestAddress(table + index * 8), Ordering::Acquire).ok()?;
            if entry & PRESENT == 0 {
                return None;
            }
            if level == 1 || (level <= 3 && entry & LARGE != 0) {
                // In an entry of a large page the lowest bits of the address mean something else.
                let within = (1 << shift) - 1;
                return Some(GuestAddress((entry & ADDRESS & !within) | (linear & within)));
            }
            table = entry & ADDRESS;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    /// What a program's page has besides: writable, for CPL 3, accessed, dirty, not executable.
    const USER: u64 = 1 << 63 | 0x67;

    /// Tables at 0x1000, one for each level in the order in which they are walked, linked by entry `index` of each.
    fn tables(levels: u32, index: u64) -> (GuestRam, PageTables) {
        let ram = GuestRam::new(4).unwrap();
        for level in 1..u64::from(levels) {
            put(&ram, level, index, ((level + 1) * 0x1000) | USER);
        }
        (ram, PageTables { root: 0x1000, levels })
    }

    /// Entry `index` of the table at `number` pages.
    fn put(ram: &GuestRam, number: u64, index: u64, entry: u64) {
        ram.memory().write_obj(entry, GuestAddress(number * 0x1000 + index * 8)).unwrap();
    }

    fn at(tables: PageTables, ram: &GuestRam, linear: u64) -> Option<u64> {
        tables.translate(ram, linear).map(|address| address.0)
    }

    #[test]
    fn pages_of_each_size_are_found() {
        let (ram, four) = tables(4, 1);
        put(&ram, 4, 1, 0x12_3000 | USER);
        let linear = 1 << 39 | 1 << 30 | 1 << 21 | 1 << 12;
        assert_eq!(at(four, &ram, linear + 0xABC), Some(0x12_3ABC));
        assert_eq!(at(four, &ram, linear + 0x1000), None, "the next page is not mapped");
        assert_eq!(at(four, &ram, linear - 1), None, "nor is the one before");
        // 2 MiB and 1 GiB, with the bit that is PAT there.
        put(&ram, 3, 1, (6 * MIB) | (1 << 12) | LARGE | USER);
        assert_eq!(at(four, &ram, linear + 0xABC), Some(6 * MIB + 0x1ABC));
        put(&ram, 2, 1, 3 << 30 | 1 << 12 | LARGE | USER);
        assert_eq!(at(four, &ram, linear + 0xABC), Some((3 << 30) + 2 * MIB + 0x1ABC));
    }

    #[test]
    fn the_bit_that_makes_pages_large_does_not_above_1_gib() {
        let (ram, four) = tables(4, 0);
        put(&ram, 4, 0, 0x12_3000 | LARGE | USER);
        put(&ram, 1, 0, 0x2000 | LARGE | USER);
        assert_eq!(at(four, &ram, 7), Some(0x12_3007));
    }

    #[test]
    fn five_levels_reach_further_than_four() {
        let (ram, five) = tables(5, 0);
        put(&ram, 1, 1, 0x2000 | USER);
        put(&ram, 5, 0, 0x5_0000 | USER);
        assert_eq!(at(five, &ram, 1 << 48 | 5), Some(0x5_0005));
        assert_eq!(at(PageTables { levels: 4, ..five }, &ram, 1 << 48 | 5), None);
        // The upper half, whose addresses begin with ones.
        let (ram, four) = tables(4, 511);
        put(&ram, 4, 511, 0x5_0000 | USER);
        assert_eq!(at(four, &ram, u64::MAX), Some(0x5_0FFF));
        assert_eq!(at(four, &ram, u64::MAX >> 16), None, "not canonical");
    }

    #[test]
    fn what_leads_nowhere_is_not_a_page() {
        let (ram, four) = tables(4, 0);
        put(&ram, 4, 0, 0x5_0000 | USER & !PRESENT);
        assert_eq!(at(four, &ram, 0), None, "not present");
        put(&ram, 2, 0, (1 << 40) | USER);
        assert_eq!(at(four, &ram, 0), None, "a table outside of RAM");
        // Tables that lead to themselves come to an end.
        put(&ram, 1, 0, 0x1000 | USER);
        assert_eq!(at(four, &ram, 0x7), Some(0x1007));
        assert_eq!(at(PageTables { root: ADDRESS, levels: 5 }, &ram, 0), None);
    }

    #[test]
    fn only_long_mode_has_them() {
        let long = kvm_sregs {
            cr0: CR0_PG,
            efer: EFER_LMA,
            cr3: 0x8000_0000_0000_5018,
            ..Default::default()
        };
        assert_eq!(PageTables::in_use(&long), Some(PageTables { root: 0x5000, levels: 4 }));
        let five = kvm_sregs { cr4: CR4_LA57, ..long };
        assert_eq!(PageTables::in_use(&five).unwrap().levels, 5);
        assert_eq!(PageTables::in_use(&kvm_sregs { cr0: 0, ..long }), None);
        assert_eq!(PageTables::in_use(&kvm_sregs { efer: 0, ..long }), None);
    }
}
