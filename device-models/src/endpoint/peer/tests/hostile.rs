//! A guest that writes anything anywhere: no panic, no unbounded step, and an ordinary driver works
//! afterwards.

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::super::regs::{Descriptor, channel, channel_control, device, layout_of_bars as layout};
use super::bench::{Bench, DATA, LOCAL_SIZE, NOWHERE, RAM_SIZE, TO_LOCAL, copy};
use crate::endpoint::Progress;
use crate::endpoint::walk::{self, Draw, drawn};

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
fn address(draw: &mut Draw<'_>) -> u64 {
    let base = draw.one_of(&[
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
    let offset = draw.one_of(&[0, 0, 0, 1, 4, 32, 64, 4096]);
    if draw.below(2) == 0 { base.wrapping_add(offset) } else { base.wrapping_sub(offset) }
}

fn descriptor(draw: &mut Draw<'_>) -> [u64; 8] {
    let length = match draw.below(24) {
        0..20 => draw.below(300),
        20 | 21 => 65_536,
        22 => 200_000,
        _ => draw.any(),
    };
    let made = Descriptor {
        opcode: draw.below(7) as u8,
        flags: (draw.below(17) as u16).into(),
        length: (length as u32).into(),
        source: address(draw).into(),
        destination: address(draw).into(),
        pattern: draw.any().into(),
        reserved1: [u64::from(draw.below(40) == 0).into(), 0.into(), 0.into()],
        ..Descriptor::default()
    };
    zerocopy::transmute!(made)
}

fn act(draw: &mut Draw<'_>) -> Act {
    let peer = draw.below(2) as u8;
    match draw.below(21) {
        0..6 => Act::Step(1 + draw.below(40) as u8),
        6..11 => {
            Act::Descriptor { at: 0x1_0000 + draw.below(64) * 64, descriptor: descriptor(draw) }
        }
        11..15 => Act::Register {
            peer,
            channel: draw.below(5) as u8,
            offset: draw.one_of(channel::TABLE).offset,
            value: match draw.below(3) {
                0 => draw.below(16) as u32,
                1 => u32::MAX,
                _ => draw.any() as u32,
            },
        },
        15..18 => Act::Open {
            peer,
            channel: draw.below(4) as u8,
            ring: address(draw),
            records: address(draw),
            size: draw.below(14) as u32,
            tail: draw.any() as u32,
        },
        18 => {
            Act::Write { peer, offset: draw.below(layout::BAR_REGISTERS_SIZE), data: draw.bytes() }
        }
        19 => Act::Command { peer, value: draw.below(8) as u32 },
        _ => Act::Reset { peer },
    }
}

/// Does it; in how many steps something was done.
fn perform(bench: &mut Bench, act: Act) -> u64 {
    match act {
        Act::Write { peer, offset, data } => {
            bench.system.mmio_write(Bench::registers(peer) + offset, &data);
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
        Act::Command { peer, value } => bench.system.config_write(Bench::bdf(peer), 4, 2, value),
        Act::Reset { peer } => {
            let express = bench.capability(peer, 0x10);
            bench.system.config_write(Bench::bdf(peer), express + 8, 2, 0x8000);
            bench.system.step();
            bench.assign_device(peer);
        }
        Act::Step(count) => {
            for step in 0..count {
                let before = issued(bench);
                if bench.system.step() == Progress::Idle {
                    return step.into();
                }
                let [bytes, tlps] = issued(bench);
                // 64 KiB of the engine, and what messages brought.
                assert!(bytes - before[0] <= (64 << 10) + 64 * 4096, "a step is bounded");
                // 64 accesses, data in TLPs of 128 bytes, and the answers to messages.
                assert!(tlps - before[1] <= 2 * 64 + 512 + 64, "a step has few transactions");
            }
            return count.into();
        }
    }
    0
}

/// Bytes and TLPs of both devices.
fn issued(bench: &Bench) -> [u64; 2] {
    let functions = ["peer0", "peer1"].map(|name| bench.system.function(name).unwrap());
    let counters = functions.map(|function| *bench.system.stats().of(function));
    let bytes = counters.iter().flat_map(|c| c.bytes_read.iter().chain(&c.bytes_written)).sum();
    [bytes, counters.iter().map(|c| c.tlps).sum()]
}

/// Resets both: an ordinary driver finds ordinary devices.
fn serves_an_ordinary_driver(bench: &mut Bench) {
    for peer in 0..2 {
        perform(bench, Act::Reset { peer });
        bench.write32(Bench::registers(peer) + device::CTRL, 1);
    }
    bench.run();
    bench.findings();
    bench.interrupts();
    let mut ring = bench.open(0, 0);
    bench.poke(DATA, b"still here");
    bench.succeed(&mut ring, copy(DATA, 0, 10, TO_LOCAL));
    assert_eq!(bench.bytes(Bench::local(0), 10), b"still here");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn nothing_that_a_guest_does_breaks_the_device(
        acts in prop::collection::vec(drawn(act), 1..60),
    ) {
        let mut bench = Bench::new();
        for act in acts {
            perform(&mut bench, act);
        }
        serves_an_ordinary_driver(&mut bench);
    }
}

#[test]
fn nor_do_two_million_steps() {
    walk::for_steps(2_000_000, |draw| {
        let mut bench = Bench::new();
        let mut steps = 0;
        for _ in 0..draw.below(2000) {
            steps += perform(&mut bench, act(draw));
        }
        serves_an_ordinary_driver(&mut bench);
        steps
    });
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
