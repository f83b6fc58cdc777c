//! The registers of a channel and what writing them does. What the channel works on is a [`Job`].

use super::held::Held;
use super::job::{Extra, Job, Task};
use super::regs::layout_of_bars::RING_SIZE_MAX;
use super::regs::{
    DESCRIPTOR_SIZE, RECORD_SIZE, channel as reg, channel_control, channel_status, fault, halt,
    state,
};
use crate::checker::FindingClass;
use crate::endpoint::dma::{CHUNK, DataPath, Phase};

/// What the driver sets up before it enables the channel.
#[derive(Debug, Clone, Copy, Default)]
struct Setup {
    ring: u64,
    ring_size: u32,
    records: u64,
    vector: u32,
}

/// The lab-only verdict on the last descriptor's transactions.
#[derive(Debug, Clone, Copy, Default)]
struct Verdict {
    class: u32,
    count: u32,
    address: u64,
}

/// Misbehaviour that a test has asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fault {
    pub(super) kind: u32,
    pub(super) argument: u32,
    pub(super) address: u64,
}

/// One DMA channel.
#[derive(Debug)]
pub(super) struct Channel {
    setup: Setup,
    enabled: bool,
    halt: u32,
    head: u32,
    tail: u32,
    /// Number of the last record begun, refused ones included.
    sequence: u32,
    /// Number of the last record written.
    completed: u32,
    error: u64,
    verdict: Verdict,
    fault: Fault,
    /// The descriptor in progress and its accesses.
    pub(super) path: DataPath<Task>,
    /// Data that has not left the device.
    pub(super) held: Option<Held>,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self::with_path(DataPath::new(CHUNK))
    }

    fn with_path(path: DataPath<Task>) -> Self {
        Self {
            setup: Setup::default(),
            enabled: false,
            halt: halt::NONE,
            head: 0,
            tail: 0,
            sequence: 0,
            completed: 0,
            error: 0,
            verdict: Verdict::default(),
            fault: Fault::default(),
            path,
            held: None,
        }
    }

    /// Back to power-on. A read under way is abandoned.
    pub(super) fn reset(&mut self) {
        self.path.stop();
        let path = std::mem::replace(&mut self.path, DataPath::new(0));
        *self = Self::with_path(path);
    }

    /// Reads the register at `offset`; `None` where there is none.
    pub(super) fn read(&self, offset: u64) -> Option<u32> {
        Some(match offset {
            reg::CTRL => {
                if self.enabled {
                    channel_control::ENABLE
                } else {
                    0
                }
            }
            reg::STATUS => self.state() | self.halt << channel_status::HALT_SHIFT,
            reg::RING_LO => low(self.setup.ring),
            reg::RING_HI => high(self.setup.ring),
            reg::RING_SIZE => self.setup.ring_size,
            reg::HEAD => self.index(self.head),
            reg::TAIL => self.tail,
            reg::COMPLETED => self.completed,
            reg::RECORD_LO => low(self.setup.records),
            reg::RECORD_HI => high(self.setup.records),
            reg::VECTOR => self.setup.vector,
            reg::ERROR_LO => low(self.error),
            reg::ERROR_HI => high(self.error),
            reg::VERDICT => self.verdict.class,
            reg::VERDICT_COUNT => self.verdict.count,
            reg::VERDICT_LO => low(self.verdict.address),
            reg::VERDICT_HI => high(self.verdict.address),
            reg::FAULT => self.fault.kind,
            reg::FAULT_ARG => self.fault.argument,
            reg::FAULT_LO => low(self.fault.address),
            reg::FAULT_HI => high(self.fault.address),
            _ => return None,
        })
    }

    /// Writes those bits of the register at `offset` that are set in `mask`.
    pub(super) fn write(&mut self, offset: u64, value: u32, mask: u32) {
        let setup = (!self.enabled && !self.path.busy()).then_some(&mut self.setup);
        match (offset, setup) {
            (reg::CTRL, _) => self.control(value, mask),
            (reg::TAIL, _) => merge(&mut self.tail, value, mask),
            (reg::RING_LO, Some(setup)) => merge_low(&mut setup.ring, value, mask),
            (reg::RING_HI, Some(setup)) => merge_high(&mut setup.ring, value, mask),
            (reg::RING_SIZE, Some(setup)) => merge(&mut setup.ring_size, value, mask),
            (reg::RECORD_LO, Some(setup)) => merge_low(&mut setup.records, value, mask),
            (reg::RECORD_HI, Some(setup)) => merge_high(&mut setup.records, value, mask),
            (reg::VECTOR, Some(setup)) => merge(&mut setup.vector, value, mask),
            (reg::FAULT, _) => merge(&mut self.fault.kind, value, mask),
            (reg::FAULT_ARG, _) => merge(&mut self.fault.argument, value, mask),
            (reg::FAULT_LO, _) => merge_low(&mut self.fault.address, value, mask),
            (reg::FAULT_HI, _) => merge_high(&mut self.fault.address, value, mask),
            _ => {}
        }
    }

    fn control(&mut self, value: u32, mask: u32) {
        let set = value & mask;
        if set & channel_control::RESET != 0 {
            self.reset();
        } else if set & channel_control::ABORT != 0 {
            self.enabled = false;
            self.abort();
        } else if mask & channel_control::ENABLE != 0 {
            self.enable(set & channel_control::ENABLE != 0);
        }
    }

    fn enable(&mut self, on: bool) {
        if self.halt != halt::NONE {
            return;
        }
        match self.setup.fault().filter(|_| on && !self.enabled) {
            Some(address) => self.halt(halt::BAD_RING, address),
            None => self.enabled = on,
        }
    }

    fn abort(&mut self) {
        let Some(job) = &mut self.path.job else { return };
        match job.phase {
            // Not taken yet: it stays in the ring.
            Phase::Fetch => self.path.job = None,
            // Done: only the record or the interrupt is left.
            Phase::Record | Phase::Extra(Extra::Interrupt) => return,
            Phase::Source(_) | Phase::Target | Phase::Extra(Extra::Flush | Extra::Stray) => {
                job.abort()
            }
        }
        self.path.abandon_read();
    }

    fn state(&self) -> u32 {
        match () {
            () if self.halt != halt::NONE => state::HALTED,
            () if self.path.busy() => state::BUSY,
            () if self.enabled => state::IDLE,
            () => state::DISABLED,
        }
    }

    /// The ring index that a counter stands for.
    fn index(&self, counter: u32) -> u32 {
        let size = self.setup.ring_size.min(bits(RING_SIZE_MAX));
        counter & ((1 << size) - 1)
    }

    /// Stops until the driver resets the channel: something happened that no completion record can
    /// hold.
    pub(super) fn halt(&mut self, reason: u32, address: u64) {
        self.enabled = false;
        self.halt = reason;
        self.error = address;
        self.path.stop();
    }

    /// Begins with the next descriptor in the ring, if there is one.
    pub(super) fn next_job(&mut self) -> bool {
        if !self.path.busy() && self.enabled && self.index(self.head) != self.index(self.tail) {
            let slot = self.index(self.head);
            self.verdict = Verdict::default();
            self.path.job = Some(Job::new(Task::new(slot)));
            return true;
        }
        false
    }

    /// The descriptor in progress has been read: its slot is the driver's again, its fault armed no
    /// longer.
    pub(super) fn take_slot(&mut self) -> Fault {
        self.head = self.index(self.head).wrapping_add(1);
        let fault = self.fault;
        self.fault.kind = fault::NONE;
        fault
    }

    /// The sequence number of the record that comes now.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// The record with the last sequence number has been written.
    pub(super) fn record_written(&mut self) {
        self.completed = self.sequence;
    }

    /// DMA address of a descriptor. `enable` has checked that rings end inside the address space.
    pub(super) fn descriptor_address(&self, slot: u32) -> u64 {
        self.setup.ring.wrapping_add(u64::from(slot) * DESCRIPTOR_SIZE)
    }

    /// DMA address of a completion record.
    pub(super) fn record_address(&self, slot: u32) -> u64 {
        self.setup.records.wrapping_add(u64::from(slot) * RECORD_SIZE)
    }

    /// The MSI-X vector, unless it is a number no vector has.
    pub(super) fn vector(&self) -> Option<u16> {
        u16::try_from(self.setup.vector).ok()
    }

    /// Keeps where a read failed.
    pub(super) fn failed_at(&mut self, address: u64) {
        self.error = address;
    }

    /// Keeps what the checker found about an access to `address`.
    pub(super) fn note(&mut self, found: Option<FindingClass>, address: u64) {
        let Some(class) = found else { return };
        if self.verdict.count == 0 {
            self.verdict.class = class.code();
            self.verdict.address = address;
        }
        self.verdict.count = self.verdict.count.saturating_add(1);
    }
}

impl Setup {
    /// The address of the ring that cannot be used.
    fn fault(&self) -> Option<u64> {
        let sized = (1..=bits(RING_SIZE_MAX)).contains(&self.ring_size);
        let entries = 1u64 << self.ring_size.min(bits(RING_SIZE_MAX));
        let usable = |base: u64, entry: u64| {
            sized && base.is_multiple_of(entry) && base.checked_add(entries * entry - 1).is_some()
        };
        if usable(self.ring, DESCRIPTOR_SIZE) {
            (!usable(self.records, RECORD_SIZE)).then_some(self.records)
        } else {
            Some(self.ring)
        }
    }
}

/// A small constant of the register tables as a number of bits.
#[allow(clippy::cast_possible_truncation, reason = "the table holds a small constant")]
const fn bits(constant: u64) -> u32 {
    constant as u32
}

pub(super) fn merge(register: &mut u32, value: u32, mask: u32) {
    *register = *register & !mask | value & mask;
}

pub(super) fn merge_low(register: &mut u64, value: u32, mask: u32) {
    let mut half = low(*register);
    merge(&mut half, value, mask);
    *register = u64::from(high(*register)) << 32 | u64::from(half);
}

pub(super) fn merge_high(register: &mut u64, value: u32, mask: u32) {
    let mut half = high(*register);
    merge(&mut half, value, mask);
    *register = u64::from(half) << 32 | u64::from(low(*register));
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
pub(super) fn low(value: u64) -> u32 {
    value as u32
}

pub(super) fn high(value: u64) -> u32 {
    low(value >> 32)
}
