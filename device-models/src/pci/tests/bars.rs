//! Base address registers: sizing, programming, resizing (sections 7.5.1.2.1 and 7.8.6).

use super::*;

fn with_bar(size: u64, kind: BarKind) -> ConfigSpace {
    let bars = vec![BarDescription { index: 2, size, kind }];
    ConfigSpace::endpoint(&FunctionDescription { bars, ..Default::default() }).unwrap()
}

/// The size as software finds it: write ones, read back.
fn sized(config: &mut ConfigSpace, wide: bool) -> u64 {
    config.write(0x18, 4, u32::MAX);
    let low = config.read(0x18, 4) & !0xf;
    if !wide {
        return u64::from(!low) + 1;
    }
    config.write(0x1c, 4, u32::MAX);
    !(u64::from(config.read(0x1c, 4)) << 32 | u64::from(low)) + 1
}

#[test]
fn every_size_is_found_exactly() {
    for shift in 4..=31 {
        let mut config = with_bar(1 << shift, BarKind::Memory32);
        assert_eq!(sized(&mut config, false), 1 << shift);
        assert_eq!(config.read(0x1c, 4), 0, "the next register is none");
    }
    for shift in 4..=62 {
        for prefetchable in [false, true] {
            let mut config = with_bar(1 << shift, BarKind::Memory64 { prefetchable });
            assert_eq!(sized(&mut config, true), 1 << shift);
            assert_eq!(config.read(0x18, 1) & 0xf, if prefetchable { 0xc } else { 4 });
        }
    }
}

#[test]
fn a_programmed_address_is_decoded() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert_eq!(config.write(0x10, 4, 0xc000_4abc), ConfigEffects::DECODE);
    assert_eq!(config.write(0x10, 4, 0xc000_4def), ConfigEffects::empty(), "no bit changed");
    config.write(0x18, 4, 0x1234_5678);
    assert_eq!(config.write(0x1c, 4, 0x10), ConfigEffects::DECODE);
    let bars: Vec<_> = config.bars().collect();
    let bar =
        |index, address, size, prefetchable| DecodedBar { index, address, size, prefetchable };
    assert_eq!(
        bars,
        [
            bar(0, 0xc000_4000, 0x4000, false),
            bar(1, 0, 0x1000, false),
            bar(2, 0x10_1000_0000, 256 << 20, true)
        ]
    );
    assert_eq!(bars[2].range(), Some(0x10_1000_0000..=0x10_1fff_ffff));
    assert!(!config.memory_enabled());
    assert_eq!(config.write(4, 2, 2), ConfigEffects::DECODE);
    assert!(config.memory_enabled() && config.decodes_memory());
}

#[test]
fn a_bar_at_the_very_top_has_a_range_and_one_beyond_has_none() {
    let top = DecodedBar { index: 0, address: !0xfff, size: 0x1000, prefetchable: false };
    assert_eq!(top.range(), Some(!0xfff..=u64::MAX));
    assert_eq!(DecodedBar { size: 0x2000, ..top }.range(), None);
}

/// Section 7.8.6: the size moves the writable bits; one that is not on offer changes nothing.
#[test]
fn a_bar_is_resized() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let entry = find_extended(&config, 0x15) + 4;
    assert_eq!(config.read(entry, 4), 0x1ff0);
    assert_eq!(config.read(entry + 4, 4), 2 | 1 << 5 | 8 << 8);
    config.write(0x18, 4, u32::MAX);
    assert_eq!(config.read(0x18, 4), 0xf000_000c);
    assert_eq!(config.write(entry + 4, 4, 2 << 8), ConfigEffects::DECODE);
    let size = |config: &ConfigSpace| config.bars().nth(2).unwrap().size;
    assert_eq!(size(&config), 4 << 20);
    config.write(0x18, 4, u32::MAX);
    assert_eq!(config.read(0x18, 4), 0xffc0_000c);
    assert_eq!(config.write(entry + 4, 4, 30 << 8), ConfigEffects::empty());
    assert_eq!(config.read(entry + 4, 4), 2 | 1 << 5 | 2 << 8);
    assert_eq!(config.write(entry + 4, 4, 7 << 8), ConfigEffects::DECODE);
    assert_eq!(config.read(0x18, 4), 0xf800_000c, "bits below the new size are gone");
    config.reset(ResetKind::FunctionLevel);
    assert_eq!(size(&config), 256 << 20);
    assert_eq!(config.read(0x18, 4), 0xc);
}
