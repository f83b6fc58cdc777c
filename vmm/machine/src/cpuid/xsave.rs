//! Leaf 0xD: which processor state XSAVE handles and how much room it takes.
//!
//! Linux panics, or quietly loses AVX, when the sizes do not add up; so they are computed from the components that
//! are really shown.

use super::leaf::Table;

/// Leaf 1 `ecx`: XSAVE.
const XSAVE: u32 = 1 << 26;
/// AMX tile configuration and data: kept from the guest.
const AMX: u64 = 1 << 17 | 1 << 18;
/// x87 and SSE state are always there and have no subleaf.
const LEGACY: u64 = 0b11;
/// Legacy region and header (Intel SDM vol. 1, 13.4).
const LEGACY_AREA: u32 = 512 + 64;
/// Subleaf `ecx`: a supervisor state, found in IA32_XSS and only in the compacted format.
const SUPERVISOR: u32 = 1 << 0;
/// Subleaf `ecx`: aligned to 64 bytes in the compacted format.
const ALIGNED: u32 = 1 << 1;

pub(super) fn apply(table: &mut Table) {
    let present = table.get(0x1).is_some_and(|entry| entry.ecx & XSAVE != 0);
    let Some(main) = table.get_sub(0xD, 0).filter(|_| present).copied() else {
        table.retain(|entry| entry.function != 0xD);
        return;
    };
    let user = (u64::from(main.edx) << 32 | u64::from(main.eax)) & !AMX;
    let supervisor =
        table.get_sub(0xD, 1).map_or(0, |entry| u64::from(entry.edx) << 32 | u64::from(entry.ecx));
    let shown = user | supervisor;
    table.retain(|entry| {
        let component = 1_u64.checked_shl(entry.index).unwrap_or(0);
        entry.function != 0xD || entry.index < 2 || shown & component & !LEGACY != 0
    });

    let mut standard = LEGACY_AREA;
    let mut compacted = LEGACY_AREA;
    for component in 2..63 {
        let Some(entry) = table.get_sub(0xD, component) else { continue };
        if entry.ecx & SUPERVISOR == 0 {
            standard = standard.max(entry.ebx.saturating_add(entry.eax));
        }
        if entry.ecx & ALIGNED != 0 {
            compacted = compacted.checked_next_multiple_of(64).unwrap_or(u32::MAX);
        }
        compacted = compacted.saturating_add(entry.eax);
    }
    let [low, high] = [user & 0xFFFF_FFFF, user >> 32].map(|half| u32::try_from(half).unwrap_or(0));
    table.edit_sub(0xD, 0, |entry| {
        // `ebx` is for the features that XCR0 enables, which after reset is x87 alone; KVM keeps it current.
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (low, LEGACY_AREA, standard, high);
    });
    table.edit_sub(0xD, 1, |entry| {
        if entry.ebx != 0 {
            entry.ebx = compacted;
        }
    });
}
