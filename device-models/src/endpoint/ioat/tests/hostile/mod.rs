//! A guest that writes anything anywhere: no panic, no unbounded step, and an ordinary driver works
//! afterwards. And one that writes what makes sense: memory holds exactly what its chain says.

mod acts;
mod ledger;
mod watched;

use proptest::prelude::*;

use super::*;
use crate::endpoint::ioat::regs::descriptor as bit;
use crate::endpoint::walk::{self, Draw, drawn};
use acts::{Act, act};
use watched::Watched;

const RAM_SIZE: u64 = 8 << 20;

fn config(draw: &mut Draw<'_>) -> IoatConfig {
    // With one channel it is certain which descriptor an access belongs to.
    let channels = draw.one_of(&[1, 1, 2, 4]);
    let transfer_capacity = draw.one_of(&[12, 16, 20]);
    IoatConfig { channels, transfer_capacity, ..IoatConfig::default() }
}

proptest! {
    #[test]
    fn nothing_that_a_guest_does_breaks_the_device(
        config in drawn(config),
        acts in prop::collection::vec(drawn(act), 1..60),
    ) {
        let mut watched = Watched::new(config);
        for act in acts {
            watched.perform(act);
        }
        watched.serves_an_ordinary_driver();
    }
}

#[test]
fn nor_do_ten_million_steps() {
    walk::for_steps(10_000_000, |draw| {
        let mut watched = Watched::new(config(draw));
        for _ in 0..draw.below(2000) {
            watched.perform(act(draw));
        }
        watched.serves_an_ordinary_driver();
        watched.steps()
    });
}

/// A descriptor that makes sense: operation, length, sources and target as offsets into the data.
type Sane = (u8, u32, [u16; 3], u16);

const AREA: usize = 0x2_0000;

fn sane() -> impl Strategy<Value = Sane> {
    let operation = prop::sample::select(vec![bit::COPY, bit::FILL, bit::XOR]);
    (operation, 1u32..5000, any::<[u16; 3]>(), any::<u16>())
}

proptest! {
    #[test]
    fn memory_holds_exactly_what_the_chain_says(chain in prop::collection::vec(sane(), 1..16)) {
        let mut bench = Bench::new();
        let mut expected: Vec<u8> = (0..AREA).map(|index| (index * 7 % 251) as u8).collect();
        bench.ram.write_slice(&expected, GuestAddress(DATA)).unwrap();
        let mut descriptors = Vec::new();
        for (slot, &(operation, length, sources, target)) in (1..).zip(&chain) {
            let at = |offset: u16| DATA + u64::from(offset);
            let control = if operation == bit::XOR { TELL | 1 << bit::SOURCES_SHIFT } else { TELL };
            let pattern = 0x0123_4567_89ab_cdef;
            let first = if operation == bit::FILL { pattern } else { at(sources[0]) };
            let next = CHAIN + slot * 64;
            descriptors.push([
                head(length, control, operation), first, at(target), next,
                at(sources[1]), at(sources[2]), 0, 0,
            ]);
            let length = length as usize;
            let bytes: Vec<u8> = (0..length).map(|index| match operation {
                bit::FILL => pattern.to_le_bytes()[index % 8],
                bit::COPY => expected[usize::from(sources[0]) + index],
                _ => sources.iter().fold(0, |sum, source| sum ^ expected[usize::from(*source) + index]),
            }).collect();
            expected[usize::from(target)..usize::from(target) + length].copy_from_slice(&bytes);
        }
        bench.put(&descriptors);
        bench.start(descriptors.len() as u16);
        bench.run();
        prop_assert_eq!(bench.error(), 0);
        prop_assert!(bench.bytes(DATA, AREA) == expected, "the data differs");
        let rest = bench.bytes(DATA + AREA as u64, (RAM_SIZE - DATA) as usize - AREA);
        prop_assert!(rest.iter().all(|byte| *byte == 0), "something was written beside it");
    }
}

#[test]
fn a_chain_in_the_devices_own_registers_ends() {
    for chain in [REGISTERS, REGISTERS + 0x80, REGISTERS + 0x3fc0, MSIX, 0xfee0_0000] {
        let mut watched = Watched::new(IoatConfig::default());
        let control = control::REARM | control::ERROR_COMPLETION | control::ERROR_INTERRUPT;
        watched.perform(Act::Start { channel: 0, chain, record: chain, count: u16::MAX, control });
        watched.bench.run();
    }
    // A copy onto its own doorbell: each round rings it once more, and resets end it.
    let mut watched = Watched::new(IoatConfig::default());
    watched.bench.ram.write_slice(&[0xff; 2], GuestAddress(DATA)).unwrap();
    let mut own = copy(DATA, REGISTERS + 0x80 + channel::COUNT, 2);
    own[3] = CHAIN;
    watched.bench.put(&[own]);
    watched.bench.start(1);
    for _ in 0..1000 {
        watched.perform(Act::Step(1));
    }
    watched.perform(Act::Reset);
    watched.bench.run();
}
