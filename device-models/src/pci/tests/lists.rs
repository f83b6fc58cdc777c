//! The lists of capabilities, walked as software walks them.

use super::*;

/// Sections 7.5.1.1.11 and 7.6.1: both lists end, entries are aligned and do not overlap.
#[test]
fn lists_are_well_formed() {
    for config in all_kinds() {
        let mut taken = vec![false; 0x1000];
        let mut claim = |at: u16, length: u16| {
            let range = usize::from(at)..usize::from(at + length);
            assert!(taken[range.clone()].iter().all(|taken| !taken), "overlap at {at:#x}");
            taken[range].fill(true);
        };
        let has_list = config.read(6, 2) & 0x10 != 0;
        assert_eq!(has_list, config.read(0x34, 1) != 0);
        let mut at = u16::try_from(config.read(0x34, 1)).unwrap();
        while at != 0 {
            assert!(at >= 0x40 && at % 4 == 0);
            let length = match config.read(at, 1) {
                0x01 | 0x0d => 8,
                0x05 => 0x18,
                0x09 => u16::try_from(config.read(at + 2, 1)).unwrap(),
                0x10 => 0x3c,
                0x11 => 12,
                id => panic!("unknown capability {id:#x}"),
            };
            claim(at, length);
            at = u16::try_from(config.read(at + 1, 1)).unwrap();
        }
        at = 0x100;
        while at != 0 {
            let header = config.read(at, 4);
            if header == 0 {
                assert_eq!(at, 0x100, "only an empty list begins with zeros");
                break;
            }
            assert!(at % 4 == 0 && at >= 0x100);
            let length = match header & 0xffff {
                0x0001 => 0x2c,
                0x0003 | 0x0015 => 12,
                0x000d => 8,
                0x0019 => 12 + 32,
                id => panic!("unknown extended capability {id:#x}"),
            };
            claim(at, length);
            at = u16::try_from(header >> 20).unwrap();
        }
    }
}

#[test]
fn an_endpoint_shows_what_it_was_described_with() {
    let config = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert_eq!(config.read(0x00, 4), 0x5678_1234);
    assert_eq!(config.read(0x08, 4), 0x0801_0003);
    assert_eq!(config.read(0x2c, 4), 0x2222_1111);
    assert_eq!(config.read(0x0e, 1), 0);
    assert_eq!(config.read(0x3d, 1), 0, "no INTx pin");
    let msix = find(&config, 0x11);
    assert_eq!(config.read(msix + 2, 2), 15);
    assert_eq!(config.read(msix + 4, 4), 1);
    assert_eq!(config.read(msix + 8, 4), 0x801);
    let serial = find_extended(&config, 3);
    assert_eq!(config.read(serial + 4, 4), 0xfe33_4455);
    assert_eq!(config.read(serial + 8, 4), 0x0011_22ff);
}

#[test]
fn vendor_capabilities_are_found_and_written() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let first = find(&config, 9);
    assert_eq!(config.read(first + 2, 4), 0x0302_0106);
    let second = u16::try_from(config.read(first + 1, 1)).unwrap();
    assert_eq!(config.vendor_register(second + 1), None);
    assert_eq!(config.vendor_register(second + 4), Some(VendorRegister { index: 1, offset: 2 }));
    assert_eq!(config.vendor_register(second + 7), None);
    assert_eq!(config.write(second + 4, 2, 0xabcd), ConfigEffects::VENDOR);
    assert_eq!(config.vendor_byte(1, 2), Some(0xcd));
    assert_eq!(config.vendor_byte(1, 3), Some(0x0b));
    config.set_vendor_byte(1, 4, 0x77);
    assert_eq!(config.read(second + 6, 1), 0x77);
    assert_eq!(config.vendor_byte(1, 5), None);
    assert_eq!(config.vendor_byte(2, 0), None);
}

#[test]
fn impossible_descriptions_are_refused() {
    let refused = |change: fn(&mut FunctionDescription)| {
        let mut description = endpoint();
        change(&mut description);
        ConfigSpace::endpoint(&description).expect_err("an impossible description")
    };
    assert_eq!(
        refused(|d| d.bars[0].size = 0x3000),
        DescriptionError::BarSize { index: 0, size: 0x3000 }
    );
    assert_eq!(
        refused(|d| d.bars[0].size = 1 << 32),
        DescriptionError::BarSize { index: 0, size: 1 << 32 }
    );
    assert_eq!(refused(|d| d.bars[0].index = 3), DescriptionError::BarIndex { index: 2 });
    assert_eq!(refused(|d| d.bars[2].index = 5), DescriptionError::BarIndex { index: 5 });
    assert_eq!(refused(|d| d.bars[0].index = 255), DescriptionError::BarIndex { index: 255 });
    assert!(matches!(refused(|d| d.msix_bar = 3), DescriptionError::MsixBar { bar: 3, .. }));
    assert!(matches!(refused(|d| d.msix_vectors = 2049), DescriptionError::MsixBar { .. }));
    assert_eq!(refused(|d| d.max_payload = 64), DescriptionError::MaxPayload(64));
    assert_eq!(
        refused(|d| d.resizable_bars[0].sizes = 0xff),
        DescriptionError::ResizableBar { bar: 2 }
    );
    assert_eq!(
        refused(|d| d.resizable_bars = vec![d.resizable_bars[0]; 7]),
        DescriptionError::ResizableBar { bar: 2 }
    );
    assert!(matches!(refused(|d| d.link.lanes = 3), DescriptionError::Link(_)));
    assert_eq!(refused(|d| d.pcie = None), DescriptionError::NeedsPcie("function level reset"));
    assert_eq!(
        refused(|d| d.vendor_capabilities[0].body[0] = 9),
        DescriptionError::VendorLength { index: 0, needed: 6 }
    );
    assert_eq!(
        refused(|d| d.vendor_capabilities = vec![vec![34; 32].into(); 4]),
        DescriptionError::NoRoom("PCI")
    );
}
