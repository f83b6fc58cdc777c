//! What a guest can do, with weights.

use super::RAM_SIZE;
use crate::endpoint::ioat::regs::{bars, channel, descriptor as bit, device};
use crate::endpoint::ioat::tests::{CHAIN, DATA, MSIX, NOWHERE, RECORD, REGISTERS, head};
use crate::endpoint::walk::Draw;

/// What a guest can do.
#[derive(Debug, Clone)]
pub(super) enum Act {
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
    /// What firmware and driver do with a device that they find.
    BringUp,
    /// Let the device work.
    Step(u8),
}

/// Addresses that lead somewhere, or nearly.
fn address(draw: &mut Draw<'_>) -> u64 {
    let base = draw.one_of(&[
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
    base.wrapping_add(draw.one_of(&[0, 0, 0, 0, 1, 8, 64, 4096]))
}

/// One of the places where chains are.
fn slot(draw: &mut Draw<'_>) -> u64 {
    CHAIN + draw.below(16) * 64
}

/// Of a descriptor: short, at a limit or just beyond, or anything.
fn length(draw: &mut Draw<'_>) -> u32 {
    match draw.below(24) {
        0..20 => draw.below(300) as u32,
        20..23 => draw.one_of(&[0, 4096, 4097, 65_536, 1 << 20, (1 << 20) + 1]),
        _ => draw.any() as u32,
    }
}

fn words(draw: &mut Draw<'_>) -> [u64; 8] {
    let operations = [bit::COPY, bit::COPY, bit::FILL, bit::XOR, bit::XOR_CHECK, 0x89, 0xff];
    let operation = draw.one_of(&operations);
    let head = head(length(draw), draw.below(512) as u32, operation);
    let next = if draw.below(7) < 6 { slot(draw) } else { address(draw) };
    let [one, two, three, target] = [(); 4].map(|()| address(draw));
    [head, one, target, next, two, three, one, two]
}

/// What a register is written with.
fn value(draw: &mut Draw<'_>) -> u64 {
    match draw.below(3) {
        0 => draw.below(64),
        1 => address(draw),
        _ => draw.any(),
    }
}

pub(super) fn act(draw: &mut Draw<'_>) -> Act {
    let registers = [
        channel::CONTROL,
        channel::COMMAND,
        channel::COUNT,
        channel::CHAIN,
        channel::COMPLETION,
        channel::ERROR,
        channel::ERROR_MASK,
        channel::CACHE_HINT,
    ];
    match draw.below(26) {
        0..7 => Act::Step(1 + draw.below(40) as u8),
        7..12 => Act::Descriptor { at: slot(draw), words: words(draw) },
        12..16 => Act::Start {
            channel: draw.below(4),
            chain: address(draw),
            record: address(draw),
            count: if draw.below(2) == 0 { draw.below(20) } else { draw.any() } as u16,
            control: draw.any() as u16,
        },
        16..20 => Act::Register {
            channel: draw.below(5),
            offset: draw.one_of(&registers),
            value: value(draw),
        },
        20 => Act::Write { offset: draw.below(bars::REGISTERS_SIZE), data: draw.bytes() },
        21 => Act::Write { offset: draw.below(0x10), data: draw.bytes() },
        22 => Act::Write {
            offset: device::LAB_FAULT,
            data: vec![draw.below(6) as u8, draw.below(2) as u8, 0, 0],
        },
        23 => Act::Command(draw.below(8) as u32),
        24 => Act::Reset,
        _ => Act::BringUp,
    }
}
