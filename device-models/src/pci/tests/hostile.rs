//! Software that writes anything anywhere.

use proptest::prelude::*;

use super::*;
use crate::pci::spec::{msi, pcie};

/// Registers that the function itself changes in answer to a write: MSI Pending, Link Status and
/// Slot Status.
fn own_registers(config: &ConfigSpace) -> Vec<std::ops::Range<u16>> {
    let msi = config.layout().msi.map(|at| at + msi::PENDING..at + msi::LENGTH);
    let pcie = config.layout().pcie.map(|at| {
        [pcie::LINK_STATUS, pcie::SLOT_STATUS].map(|register| at + register..at + register + 2)
    });
    msi.into_iter().chain(pcie.into_iter().flatten()).collect()
}

fn write() -> impl Strategy<Value = (u16, u8, u32)> {
    let offset = prop_oneof![0u16..0x400, 0u16..0x1010, any::<u16>()];
    let value = prop_oneof![Just(u32::MAX), Just(0), any::<u32>()];
    (offset, prop_oneof![4 => 1u8..=4, 1 => any::<u8>()], value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Section 7.4: no write changes a bit that is read-only, and none panics.
    #[test]
    fn read_only_bits_stay(writes in prop::collection::vec(write(), 1..100), kind in 0usize..6) {
        let mut config = all_kinds().swap_remove(kind);
        let own = own_registers(&config);
        for (offset, len, value) in writes {
            let before = config.clone();
            config.write(offset, len, value);
            let resized = resized(&before, &config);
            for dword in (0..0x1000u16).step_by(4) {
                if before.read(dword, 4) == config.read(dword, 4) {
                    continue;
                }
                for at in (dword..dword + 4).filter(|at| !own.iter().any(|range| range.contains(at))) {
                    let changed = before.read(at, 1) ^ config.read(at, 1);
                    let written = resized || (offset..=offset.saturating_add(3)).contains(&at);
                    let changeable = u32::from(before.registers().changeable(at));
                    let allowed = if written { changeable } else { 0 };
                    prop_assert_eq!(changed & !allowed, 0, "{:#x} by {:#x}/{}", at, offset, len);
                }
            }
        }
        let _ = (config.bridge_windows(), config.bridge_buses(), config.power_state());
        let _ = (config.max_payload_size(), config.max_read_request_size(), config.link());
        let _ = (config.acs_control(), config.msi(), config.bars().filter_map(|bar| bar.range()).count());
    }

    /// Section 6.6: after a cold reset everything is as after power-on, whatever was written.
    #[test]
    fn cold_reset_forgets(writes in prop::collection::vec(write(), 1..100), kind in 0usize..6) {
        let fresh = all_kinds().swap_remove(kind);
        let mut config = fresh.clone();
        for (offset, len, value) in writes {
            config.write(offset, len, value);
        }
        config.reset(ResetKind::Cold);
        for at in (0..0x1000).step_by(4) {
            prop_assert_eq!(config.read(at, 4), fresh.read(at, 4), "{:#x}", at);
        }
    }

    /// A dword is the same whether it is written at once or byte by byte.
    #[test]
    fn byte_enables_are_honoured(at in (0u16..0x400).prop_map(|at| at & !3), value: u32, kind in 0usize..6) {
        let mut whole = all_kinds().swap_remove(kind);
        let mut bytes = whole.clone();
        // A power state and a BAR size are one register each: half of one is another value.
        let power = whole.layout().power.map(|power| power + 4);
        let resizable = whole.layout().resizable.map(|(offset, _)| offset + 8);
        prop_assume!(Some(at) != power && Some(at) != resizable);
        whole.write(at, 4, value);
        for (i, byte) in (0..).zip(value.to_le_bytes()) {
            bytes.write(at + i, 1, byte.into());
        }
        prop_assert_eq!(whole.read(at, 4), bytes.read(at, 4));
    }

    /// The table behind a BAR takes anything too, and its entries hold what was written last.
    #[test]
    fn msix_table_survives(accesses in prop::collection::vec((any::<u16>(), 0usize..10, any::<u64>()), 1..100), vectors in 0u16..70) {
        let mut table = MsixTable::new(vectors);
        let function = MsixFunction { enabled: true, masked: false };
        for (offset, len, value) in accesses {
            let data = [value.to_le_bytes(), value.to_le_bytes()].concat();
            table.write(offset.into(), &data[..len]);
            table.write(u64::MAX - u64::from(offset), &data[..len]);
            table.read(u64::MAX - u64::from(offset), &mut [0; 9][..len]);
            table.raise(offset, function);
            table.take_pending(function);
        }
    }
}

/// Whether a BAR changed its size, which clears address bits elsewhere.
fn resized(before: &ConfigSpace, after: &ConfigSpace) -> bool {
    let sizes = |config: &ConfigSpace| config.bars().map(|bar| bar.size).collect::<Vec<_>>();
    sizes(before) != sizes(after)
}
