//! A guest that writes anything anywhere: no panic, no unbounded step, and an ordinary driver works afterwards. And one
//! that writes what makes sense: memory holds exactly what its chain says.

use proptest::prelude::*;

use super::*;
use crate::endpoint::ioat::regs::{bars, command, descriptor as bit};

const RAM_SIZE: u64 = 8 << 20;

/// What a guest can do.
#[derive(Debug, Clone)]
enum Act {
    /// Write a byte, or up to eight, somewhere in the register BAR.
    Write { offset: u64, data: Vec<u8> },
    /// Write a register of a channel that exists, and read it.
    Register { channel: u64, offset: u64, value: u64 },
    /// Start a channel on this chain.
    Start { channel: u64, chain: u64, record: u64, count: u16, control: u16 },
    /// Put a descriptor where chains are.
    Descriptor { at: u64, words: [u64; 8] },
    /// Change the command register.
    Command(u32),
    /// Function level reset.
    Reset,
    /// Let the device work.
    Step(u8),
}

/// Addresses that lead somewhere, or nearly.
fn address() -> impl Strategy<Value = u64> {
    let bases = prop::sample::select(vec![
        0,
        CHAIN,
        CHAIN + 512,
        RECORD,
        DATA,
        RAM_SIZE - 64,
        NOWHERE,
        REGISTERS,
        REGISTERS + 0x80,
        REGISTERS + device::LAB_FAULT,
        MSIX,
        0xfee0_0000,
        u64::MAX - 63,
    ]);
    (bases, prop::sample::select(vec![0, 0, 0, 0, 1, 8, 64, 4096]))
        .prop_map(|(base, offset)| base.wrapping_add(offset))
}

fn words() -> impl Strategy<Value = [u64; 8]> {
    let operation = prop::sample::select(vec![
        bit::COPY,
        bit::COPY,
        bit::FILL,
        bit::XOR,
        bit::XOR_CHECK,
        0x89,
        0xff,
    ]);
    let length =
        prop_oneof![0u32..300, Just(65_536), Just(1 << 20), Just((1 << 20) + 1), any::<u32>()];
    let next = prop_oneof![
        6 => (0u64..16).prop_map(|slot| CHAIN + slot * 64),
        1 => address(),
    ];
    (operation, length, 0u32..512, next, [address(), address(), address(), address()]).prop_map(
        |(operation, length, control, next, [one, two, three, target])| {
            [head(length, control, operation), one, target, next, two, three, one, two]
        },
    )
}

fn act() -> impl Strategy<Value = Act> {
    let registers = prop::sample::select(vec![
        channel::CONTROL,
        channel::COMMAND,
        channel::COUNT,
        channel::CHAIN,
        channel::COMPLETION,
        channel::ERROR,
        channel::ERROR_MASK,
        channel::CACHE_HINT,
    ]);
    let value = prop_oneof![0u64..64, address(), any::<u64>()];
    let count = prop_oneof![0u16..20, any::<u16>()];
    prop_oneof![
        1 => (0..bars::REGISTERS_SIZE, prop::collection::vec(any::<u8>(), 1..=8))
            .prop_map(|(offset, data)| Act::Write { offset, data }),
        1 => (0..0x10u64, prop::collection::vec(any::<u8>(), 1..=8))
            .prop_map(|(offset, data)| Act::Write { offset, data }),
        1 => (0u8..6, any::<bool>()).prop_map(|(fault, sticky)| Act::Write {
            offset: device::LAB_FAULT, data: vec![fault, sticky.into(), 0, 0]
        }),
        4 => (0u64..5, registers, value)
            .prop_map(|(channel, offset, value)| Act::Register { channel, offset, value }),
        4 => (0u64..4, address(), address(), count, any::<u16>()).prop_map(
            |(channel, chain, record, count, control)| Act::Start {
                channel, chain, record, count, control
            }
        ),
        5 => ((0u64..16).prop_map(|slot| CHAIN + slot * 64), words())
            .prop_map(|(at, words)| Act::Descriptor { at, words }),
        1 => (0u32..8).prop_map(Act::Command),
        1 => Just(Act::Reset),
        6 => (1u8..40).prop_map(Act::Step),
    ]
}

impl Bench {
    fn put_bytes(&mut self, channel: u64, offset: u64, data: &[u8]) {
        self.lab.mmio_write(REGISTERS + (channel + 1) * bars::CHANNEL_STRIDE + offset, data);
    }

    fn moved(&self) -> u64 {
        let counters = *self.lab.stats().of(self.lab.function("ioat0").unwrap());
        counters.bytes_read.iter().chain(&counters.bytes_written).sum()
    }

    fn perform(&mut self, act: Act) {
        match act {
            Act::Write { offset, data } => self.lab.mmio_write(REGISTERS + offset, &data),
            Act::Register { channel, offset, value } => {
                self.put_bytes(channel, offset, &value.to_le_bytes());
                let mut data = [0; 8];
                self.lab.mmio_read(REGISTERS + (channel + 1) * 0x80 + offset, &mut data);
            }
            Act::Start { channel, chain, record, count, control } => {
                self.put_bytes(channel, channel::COMMAND, &[command::RESET]);
                self.put_bytes(channel, channel::ERROR, &[0xff; 4]);
                self.put_bytes(channel, channel::CONTROL, &control.to_le_bytes());
                self.put_bytes(channel, channel::COMPLETION, &record.to_le_bytes());
                self.put_bytes(channel, channel::CHAIN, &chain.to_le_bytes());
                self.put_bytes(channel, channel::COUNT, &count.to_le_bytes());
            }
            Act::Descriptor { at, words } => {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                self.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
            }
            Act::Command(value) => self.lab.config_write(BDF, 4, 2, value),
            Act::Reset => self.function_level_reset(),
            Act::Step(count) => {
                for _ in 0..count {
                    let before = self.moved();
                    self.lab.step();
                    // 64 KiB of data, and records and messages that do not count as such.
                    let moved = self.moved() - before;
                    assert!(moved <= (64 << 10) + 64 * 4096, "{moved} bytes in one step");
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn nothing_that_a_guest_does_breaks_the_device(acts in prop::collection::vec(act(), 1..60)) {
        let mut bench = Bench::new();
        for act in acts {
            bench.perform(act);
        }
        bench.function_level_reset();
        bench.run();
        bench.bring_up();
        bench.ram.write_slice(b"still here", GuestAddress(DATA)).unwrap();
        bench.put(&[copy(DATA, TARGET, 10)]);
        bench.start(1);
        bench.run();
        prop_assert_eq!(bench.bytes(TARGET, 10), b"still here".to_vec());
        prop_assert_eq!(bench.record(), CHAIN | status::DONE);
    }
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
        let mut bench = Bench::new();
        let control = control::REARM | control::ERROR_COMPLETION | control::ERROR_INTERRUPT;
        bench.perform(Act::Start { channel: 0, chain, record: chain, count: u16::MAX, control });
        bench.run();
    }
    // A copy onto its own doorbell: each round rings it once more, and resets end it.
    let mut bench = Bench::new();
    bench.ram.write_slice(&[0xff; 2], GuestAddress(DATA)).unwrap();
    let mut own = copy(DATA, REGISTERS + 0x80 + channel::COUNT, 2);
    own[3] = CHAIN;
    bench.put(&[own]);
    bench.start(1);
    for _ in 0..1000 {
        bench.perform(Act::Step(1));
    }
    bench.perform(Act::Reset);
    bench.run();
}
