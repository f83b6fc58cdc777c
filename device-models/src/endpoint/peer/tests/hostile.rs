//! A guest that writes anything anywhere: no panic, no unbounded step, and an ordinary driver works afterwards.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::super::regs::{Descriptor, channel, channel_control, device, layout_of_bars as layout};
use super::bench::{Bench, DATA, LOCAL_SIZE, NOWHERE, RAM_SIZE, TO_LOCAL, copy};

/// What a guest can do.
#[derive(Debug, Clone)]
enum Act {
    /// Write a dword (or less, or more) somewhere in the register BAR.
    Write { peer: u8, offset: u64, data: Vec<u8> },
    /// Write a register that exists.
    Register { peer: u8, channel: u8, offset: u64, value: u32 },
    /// Bring a channel up with its ring here.
    Open { peer: u8, channel: u8, ring: u64, records: u64, size: u32, tail: u32 },
    /// Put a descriptor where rings are.
    Descriptor { at: u64, descriptor: [u64; 8] },
    /// Change the command register.
    Command { peer: u8, value: u32 },
    /// Function level reset.
    Reset { peer: u8 },
    /// Let the devices work.
    Step(u8),
}

/// Addresses that lead somewhere, or nearly.
fn address() -> impl Strategy<Value = u64> {
    let bases = prop::sample::select(vec![
        0,
        0x1_0000,
        DATA,
        RAM_SIZE - 64,
        NOWHERE,
        Bench::registers(0),
        Bench::registers(1),
        Bench::register(0, 0, 0),
        Bench::register(1, 0, channel::TAIL),
        Bench::registers(1) + 0x8_0000,
        Bench::local(0),
        Bench::local(1) + LOCAL_SIZE - 64,
        0xfee0_0000,
        u64::MAX - 63,
        LOCAL_SIZE - 1,
    ]);
    (bases, prop::sample::select(vec![0, 0, 0, 1, 4, 32, 64, 4096]), any::<bool>()).prop_map(
        |(base, offset, minus)| {
            if minus { base.wrapping_sub(offset) } else { base.wrapping_add(offset) }
        },
    )
}

fn descriptor() -> impl Strategy<Value = [u64; 8]> {
    let length = prop_oneof![0u32..300, Just(65_536), Just(200_000), any::<u32>()];
    (0u8..7, 0u16..17, length, address(), address(), any::<u64>(), 0u64..40).prop_map(
        |(opcode, flags, length, source, destination, pattern, odd)| {
            let made = Descriptor {
                opcode,
                flags: flags.into(),
                length: length.into(),
                source: source.into(),
                destination: destination.into(),
                pattern: pattern.into(),
                reserved1: [u64::from(odd == 0).into(), 0.into(), 0.into()],
                ..Descriptor::default()
            };
            zerocopy::transmute!(made)
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let peer = 0u8..2;
    let registers = prop::sample::select(
        channel::TABLE.iter().map(|register| register.offset).collect::<Vec<_>>(),
    );
    let value = prop_oneof![0u32..16, Just(u32::MAX), any::<u32>()];
    prop_oneof![
        1 => (peer.clone(), 0..layout::BAR_REGISTERS_SIZE, prop::collection::vec(any::<u8>(), 1..=8))
            .prop_map(|(peer, offset, data)| Act::Write { peer, offset, data }),
        4 => (peer.clone(), 0u8..5, registers, value)
            .prop_map(|(peer, channel, offset, value)| Act::Register { peer, channel, offset, value }),
        3 => (peer.clone(), 0u8..4, address(), address(), 0u32..14, any::<u32>())
            .prop_map(|(peer, channel, ring, records, size, tail)| Act::Open {
                peer, channel, ring, records, size, tail
            }),
        5 => ((0u64..64).prop_map(|slot| 0x1_0000 + slot * 64), descriptor())
            .prop_map(|(at, descriptor)| Act::Descriptor { at, descriptor }),
        1 => (peer.clone(), 0u32..8).prop_map(|(peer, value)| Act::Command { peer, value }),
        1 => peer.prop_map(|peer| Act::Reset { peer }),
        6 => (1u8..40).prop_map(Act::Step),
    ]
}

fn perform(bench: &mut Bench, act: Act) {
    match act {
        Act::Write { peer, offset, data } => {
            bench.lab.mmio_write(Bench::registers(peer) + offset, &data)
        }
        Act::Register { peer, channel, offset, value } => {
            bench.write32(Bench::register(peer, channel, offset), value);
            bench.read32(Bench::register(peer, channel, offset));
        }
        Act::Open { peer, channel, ring, records, size, tail } => {
            let mut set = |offset, value: u64| {
                bench.write32(Bench::register(peer, channel, offset), value as u32)
            };
            set(channel::CTRL, channel_control::RESET.into());
            set(channel::RING_LO, ring & !63);
            set(channel::RING_HI, ring >> 32);
            set(channel::RECORD_LO, records & !31);
            set(channel::RECORD_HI, records >> 32);
            set(channel::RING_SIZE, size.into());
            set(channel::CTRL, channel_control::ENABLE.into());
            set(channel::TAIL, tail.into());
        }
        Act::Descriptor { at, descriptor } => bench.poke(at, descriptor.as_bytes()),
        Act::Command { peer, value } => bench.lab.config_write(Bench::bdf(peer), 4, 2, value),
        Act::Reset { peer } => {
            let express = bench.capability(peer, 0x10);
            bench.lab.config_write(Bench::bdf(peer), express + 8, 2, 0x8000);
            bench.lab.step();
            bench.assign_device(peer);
        }
        Act::Step(count) => {
            for _ in 0..count {
                let moved = |bench: &Bench| -> u64 {
                    let functions =
                        ["peer0", "peer1"].map(|name| bench.lab.function(name).unwrap());
                    let counters = functions.map(|function| *bench.lab.stats().of(function));
                    counters.iter().flat_map(|c| c.bytes_read.iter().chain(&c.bytes_written)).sum()
                };
                let before = moved(bench);
                bench.lab.step();
                // 64 KiB of the engine, and what messages brought.
                assert!(moved(bench) - before <= (64 << 10) + 64 * 4096, "a step is bounded");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn nothing_that_a_guest_does_breaks_the_device(acts in prop::collection::vec(act(), 1..60)) {
        let mut bench = Bench::new();
        for act in acts {
            perform(&mut bench, act);
        }
        // Reset both: an ordinary driver finds ordinary devices.
        for peer in 0..2 {
            perform(&mut bench, Act::Reset { peer });
            bench.write32(Bench::registers(peer) + device::CTRL, 1);
        }
        bench.run();
        bench.findings();
        bench.interrupts();
        let mut ring = bench.open(0, 0);
        bench.poke(DATA, b"still here");
        bench.succeed(&mut ring, copy(DATA, 0, 10, TO_LOCAL));
        prop_assert_eq!(bench.bytes(Bench::local(0), 10), b"still here".to_vec());
    }
}

#[test]
fn a_ring_in_the_devices_own_registers_ends() {
    let mut bench = Bench::new();
    for base in [Bench::registers(0), Bench::register(0, 0, 0), Bench::registers(0) + 0x8_0000] {
        perform(
            &mut bench,
            Act::Open { peer: 0, channel: 0, ring: base, records: base, size: 12, tail: 4095 },
        );
        bench.run();
        assert!(!bench.findings().is_empty());
    }
}
