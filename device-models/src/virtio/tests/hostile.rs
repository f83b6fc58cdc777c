//! Whatever a guest writes: no panic, no hang.

use proptest::prelude::*;

use super::driver::{Driver, IOMMU, Machine, RNG};

#[derive(Clone, Debug)]
enum Act {
    Register { function: bool, structure: u64, offset: u64, length: usize, value: u64 },
    Memory { offset: u64, data: Vec<u8> },
    Config { offset: u16, value: u32 },
    Run,
}

fn act() -> impl Strategy<Value = Act> {
    let value =
        prop_oneof![Just(0_u64), Just(1), Just(16), Just(0x10_0000), Just(u64::MAX), any::<u64>()];
    prop_oneof![
        4 => (any::<bool>(), 0..4_u64, 0..64_u64, 1..9_usize, value).prop_map(
            |(function, structure, offset, length, value)| Act::Register { function, structure, offset, length, value }
        ),
        4 => (0..0x900_u64, prop::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(3), any::<u8>()], 1..32))
            .prop_map(|(offset, data)| Act::Memory { offset, data }),
        1 => (0x40..0x100_u16, any::<u32>()).prop_map(|(offset, value)| Act::Config { offset: offset & !3, value }),
        1 => Just(Act::Run),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn nothing_a_guest_writes_stops_the_lab(acts in prop::collection::vec(act(), 1..120)) {
        let mut machine = Machine::new();
        let drivers = [IOMMU, RNG].map(|function| Driver::probe(&mut machine, function));
        let rings = drivers.map(|driver| driver.start(&mut machine));
        machine.iommu().set_bypass(true);
        for act in acts {
            match act {
                Act::Register { function, structure, offset, length, value } => {
                    let base = drivers[usize::from(function)].common;
                    machine.system.mmio_write(base + structure * 0x1000 + offset, &value.to_le_bytes()[..length]);
                    machine.system.mmio_read(base + structure * 0x1000 + offset, &mut [0; 8][..length]);
                }
                Act::Memory { offset, data } => {
                    for ring in rings.iter().flatten() {
                        machine.poke(ring.base + offset, &data);
                        ring.kick(&mut machine);
                    }
                }
                Act::Config { offset, value } => {
                    machine.system.config_write(IOMMU, offset, 4, value);
                    machine.system.config_read(IOMMU, offset, 4);
                }
                Act::Run => machine.run(),
            }
        }
        machine.run();
    }
}
