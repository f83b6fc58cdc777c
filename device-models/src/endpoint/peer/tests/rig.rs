//! A device on a fabric that answers as the test says: what a system does only now and then.

use std::collections::VecDeque;

use vm_memory::VolatileSlice;
use zerocopy::{FromBytes, IntoBytes};

use super::super::engine;
use super::super::regs::{Descriptor, Record, channel, channel_control, layout_of_bars as layout};
use super::super::{PeerConfig, PeerDevice};
use crate::checker::{Cause, FindingClass};
use crate::endpoint::dma::Bus;
use crate::endpoint::{Endpoint, Progress, ReadCompletion};
use crate::fabric::{CompletionStatus, Purpose, ReadOutcome, Tag, WriteOutcome};

const MEMORY: usize = 4 << 20;
pub(super) const RECORDS: u64 = 0x8_0000;
pub(super) const DATA: u64 = 0x10_0000;

/// An answer other than "done".
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    /// As usual.
    Done,
    /// Held back after n bytes.
    Retry(u64),
    /// A read that completes later, after n bytes.
    Pending(u32, u64),
    /// A read that fails after n bytes.
    Fail(CompletionStatus, u64),
    /// Bus mastering is off.
    NotEmitted,
}

/// An access as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) write: bool,
    pub(super) purpose: Purpose,
    pub(super) address: u64,
    pub(super) length: usize,
}

#[derive(Debug)]
pub(super) struct Script {
    pub(super) memory: Vec<u8>,
    pub(super) replies: VecDeque<Reply>,
    pub(super) calls: Vec<Call>,
    pub(super) abandoned: Vec<Tag>,
}

impl Script {
    fn reply(&mut self, write: bool, purpose: Purpose, address: u64, length: usize) -> Reply {
        self.calls.push(Call { write, purpose, address, length });
        self.replies.pop_front().unwrap_or(Reply::Done)
    }

    fn move_bytes(&mut self, write: bool, address: u64, slice: &VolatileSlice<'_>, count: u64) {
        let (start, count) = (address as usize, count as usize);
        let part = slice.subslice(0, count).unwrap();
        let memory = &mut self.memory[start..start + count];
        if write {
            part.copy_to(memory);
        } else {
            part.copy_from(memory);
        }
    }
}

impl Bus for Script {
    fn read(
        &mut self,
        purpose: Purpose,
        _: u64,
        address: u64,
        into: &VolatileSlice<'_>,
    ) -> ReadOutcome {
        let length = into.len() as u64;
        let (bytes, outcome) = match self.reply(false, purpose, address, into.len()) {
            Reply::Done => {
                let status = CompletionStatus::Success;
                (length, ReadOutcome::Done { status, bytes: length, verdict: None })
            }
            Reply::Retry(bytes) => (bytes, ReadOutcome::Retry { bytes, verdict: None }),
            Reply::Pending(tag, bytes) => {
                (bytes, ReadOutcome::Pending { tag: Tag(tag), bytes, verdict: None })
            }
            Reply::Fail(status, bytes) => {
                (bytes, ReadOutcome::Done { status, bytes, verdict: Some(FindingClass::Unmapped) })
            }
            Reply::NotEmitted => (0, ReadOutcome::NotEmitted),
        };
        self.move_bytes(false, address, into, bytes);
        outcome
    }

    fn write(
        &mut self,
        purpose: Purpose,
        _: u64,
        address: u64,
        from: &VolatileSlice<'_>,
    ) -> WriteOutcome {
        let verdict = None;
        let (bytes, outcome) = match self.reply(true, purpose, address, from.len()) {
            Reply::Retry(bytes) => (bytes, WriteOutcome::Retry { bytes, verdict }),
            Reply::NotEmitted => (0, WriteOutcome::NotEmitted),
            _ => (from.len() as u64, WriteOutcome::Posted { verdict }),
        };
        self.move_bytes(true, address, from, bytes);
        outcome
    }

    fn raise(&mut self, vector: u16) -> WriteOutcome {
        match self.reply(true, Purpose::Interrupt, vector.into(), 4) {
            Reply::Retry(bytes) => WriteOutcome::Retry { bytes, verdict: None },
            Reply::NotEmitted => WriteOutcome::NotEmitted,
            _ => WriteOutcome::Posted { verdict: None },
        }
    }

    fn outside_input(&mut self, _: &mut [u8]) {}

    fn report(&mut self, _: FindingClass, _: Cause, _: String) {}

    fn abandon(&mut self, tag: Tag) {
        self.abandoned.push(tag);
    }
}

pub(super) struct Rig {
    pub(super) device: PeerDevice,
    pub(super) bus: Script,
    tails: [u32; 4],
}

impl Rig {
    /// Channels 0 to 3 enabled, rings of 16 at 64 KiB per channel.
    pub(super) fn new() -> Self {
        let config = PeerConfig { local_size: 1 << 20, ..PeerConfig::new("rig", 1) };
        let device = PeerDevice::new(&config).unwrap();
        let bus = Script {
            memory: vec![0; MEMORY],
            replies: VecDeque::new(),
            calls: Vec::new(),
            abandoned: Vec::new(),
        };
        let mut rig = Self { device, bus, tails: [0; 4] };
        for channel in 0..4 {
            rig.open(channel);
        }
        rig
    }

    pub(super) fn open(&mut self, channel: usize) {
        self.tails[channel] = 0;
        let base = channel as u32 * 0x1_0000;
        self.write(channel, channel::RING_LO, base);
        self.write(channel, channel::RECORD_LO, RECORDS as u32 + base);
        self.write(channel, channel::RING_SIZE, 4);
        self.write(channel, channel::CTRL, channel_control::ENABLE);
    }

    pub(super) fn write(&mut self, channel: usize, offset: u64, value: u32) {
        let offset = layout::CHANNEL_BASE + channel as u64 * layout::CHANNEL_STRIDE + offset;
        self.device.register_write(0, offset, &value.to_le_bytes());
    }

    pub(super) fn read(&mut self, channel: usize, offset: u64) -> u32 {
        let mut data = [0xff; 4];
        let offset = layout::CHANNEL_BASE + channel as u64 * layout::CHANNEL_STRIDE + offset;
        self.device.register_read(0, offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(super) fn submit(&mut self, channel: usize, descriptor: Descriptor) {
        let at = channel * 0x1_0000 + self.tails[channel] as usize * 64;
        self.bus.memory[at..at + 64].copy_from_slice(descriptor.as_bytes());
        self.tails[channel] = (self.tails[channel] + 1) % 16;
        self.write(channel, channel::TAIL, self.tails[channel]);
    }

    pub(super) fn step(&mut self) -> Progress {
        let PeerDevice { channels, first, local, .. } = &mut self.device;
        engine::step(channels, first, local, &mut self.bus)
    }

    pub(super) fn run(&mut self) {
        for _ in 0..10_000 {
            if self.step() == Progress::Idle {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    pub(super) fn record(&self, channel: usize, slot: usize) -> Record {
        let at = RECORDS as usize + channel * 0x1_0000 + slot * 32;
        Record::read_from_bytes(&self.bus.memory[at..at + 32]).unwrap()
    }

    pub(super) fn complete(&mut self, tag: u32, status: CompletionStatus, data: &[u8]) {
        self.device.completion(Tag(tag), ReadCompletion { status, data });
    }
}
