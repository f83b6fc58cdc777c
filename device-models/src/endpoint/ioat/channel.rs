//! The registers of a channel and what writing them does.

use super::descriptor::Work;
use super::regs::{channel as reg, command, control, error, fault, status};
use crate::endpoint::dma::{self, Access, Buffer, CHUNK, DataPath, Phase};

/// Whether a channel takes descriptors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    Halted,
    Suspended,
    Running,
}

/// The phase beside those of every engine: read the descriptor's second 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extend;

/// A descriptor in progress.
pub(super) type Job = dma::Job<Task>;

/// What this engine knows about a descriptor in progress.
#[derive(Debug)]
pub(super) struct Task {
    /// DMA address of the descriptor.
    pub(super) address: u64,
    pub(super) work: Work,
    /// The channel halts when this is over.
    pub(super) failed: bool,
    /// Misbehaviour asked for.
    pub(super) fault: u32,
}

impl Task {
    fn new(address: u64) -> Self {
        Self { address, work: Work::default(), failed: false, fault: fault::NONE }
    }
}

impl dma::Task for Task {
    type Phase = Extend;

    fn access(job: &Job) -> Access {
        let chunk =
            |from| Access { buffer: Buffer::Staging(from), length: job.chunk, before: job.moved };
        let own = |length| Access { buffer: Buffer::Own, length, before: 0 };
        match job.phase {
            Phase::Fetch | Phase::Extra(Extend) => own(64),
            Phase::Source(0) | Phase::Target => chunk(0),
            Phase::Source(_) => chunk(CHUNK),
            Phase::Record => own(8),
        }
    }
}

/// One DMA channel.
#[derive(Debug)]
pub(super) struct Channel {
    run: Run,
    suspending: bool,
    control: u16,
    /// An interrupt has been sent and not been acknowledged.
    interrupt_off: bool,
    /// An interrupt is wanted.
    pub(super) signal: bool,
    /// Steps until it is sent.
    pub(super) delay: u16,
    count: u16,
    processed: u16,
    chain: u64,
    next: u64,
    completed: u64,
    completion: u64,
    /// Misbehaviour: CHANSTS has lost sight of a descriptor that is done.
    hides_completion: bool,
    error: u32,
    error_mask: u32,
    cache_hint: u32,
    /// The descriptor in progress and its accesses. The first half of the staging buffer holds the
    /// XOR of what the reads of this chunk brought, or the pattern of a fill; the second half what
    /// the next read brings.
    pub(super) path: DataPath<Task>,
}

impl Channel {
    pub(super) fn new() -> Self {
        Self::with_path(DataPath::new(2 * CHUNK))
    }

    fn with_path(path: DataPath<Task>) -> Self {
        Self {
            run: Run::Halted,
            suspending: false,
            control: 0,
            interrupt_off: false,
            signal: false,
            delay: 0,
            count: 0,
            processed: 0,
            chain: 0,
            next: 0,
            completed: 0,
            completion: 0,
            hides_completion: false,
            error: 0,
            error_mask: 0,
            cache_hint: 0,
            path,
        }
    }

    /// Back to power-on.
    pub(super) fn reset(&mut self) {
        self.stop();
        let path = std::mem::replace(&mut self.path, DataPath::new(0));
        *self = Self::with_path(path);
    }

    /// What the command does: CHANCTRL, the error mask and errors not yet cleared survive it.
    fn reset_by_command(&mut self) {
        let Self { control, error, error_mask, cache_hint, .. } = *self;
        self.reset();
        (self.control, self.error) = (control, error);
        (self.error_mask, self.cache_hint) = (error_mask, cache_hint);
    }

    /// Forgets the descriptor in progress.
    fn stop(&mut self) {
        self.run = Run::Halted;
        self.suspending = false;
        self.path.stop();
    }

    fn pending(&self) -> u16 {
        self.count.wrapping_sub(self.processed)
    }

    /// CHANSTS.
    pub(super) fn status(&self) -> u64 {
        self.completed
            | match self.run {
                Run::Halted => status::HALTED,
                Run::Suspended => status::SUSPENDED,
                Run::Running if self.path.busy() || self.pending() > 0 || self.hides_completion => {
                    status::ACTIVE
                }
                Run::Running => status::DONE,
            }
    }

    /// The registers as bytes.
    pub(super) fn image(&self) -> [u8; 0x80] {
        let mut image = [0; 0x80];
        let mut put = |offset: u64, bytes: &[u8]| {
            let at = usize::try_from(offset).unwrap_or(0);
            image[at..at + bytes.len()].copy_from_slice(bytes);
        };
        let off = if self.interrupt_off { control::REARM } else { 0 };
        put(reg::CONTROL, &(self.control | off).to_le_bytes());
        put(reg::COMPATIBILITY, &2_u16.to_le_bytes());
        put(reg::COUNT, &self.count.to_le_bytes());
        put(reg::STATUS, &self.status().to_le_bytes());
        put(reg::CHAIN, &self.chain.to_le_bytes());
        put(reg::COMPLETION, &self.completion.to_le_bytes());
        let current = self.path.job.as_ref().map_or(self.completed, |job| job.task.address);
        put(reg::CURRENT, &current.to_le_bytes());
        put(reg::ERROR, &self.error.to_le_bytes());
        put(reg::ERROR_MASK, &self.error_mask.to_le_bytes());
        put(reg::CACHE_HINT, &self.cache_hint.to_le_bytes());
        image
    }

    /// Writes `data` at `offset` of the channel's registers; whatever part of a register it covers
    /// changes.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) {
        let before = self.image();
        let value = |register: u64, length: u64| merged(&before, register, length, offset, data);
        if let Some(value) = value(reg::CONTROL, 2) {
            let [low, high, ..] = value.to_le_bytes();
            self.control = u16::from_le_bytes([low, high]) & control::WRITABLE;
            // By what is written: it reads as 1 while it is off.
            if u16::from(written(offset, data, reg::CONTROL)) & control::REARM != 0 {
                self.interrupt_off = false;
            }
        }
        if let Some(value) = value(reg::CHAIN, 8) {
            self.set_chain(value);
        }
        if let Some(value) = value(reg::COMPLETION, 8) {
            self.completion = value & !7;
        }
        if value(reg::ERROR, 4).is_some() {
            for lane in 0..4 {
                let ones = u32::from(written(offset, data, reg::ERROR + lane));
                self.error &= !(ones << (8 * lane));
            }
        }
        if let Some(value) = value(reg::ERROR_MASK, 4) {
            self.error_mask = low(value);
        }
        if let Some(value) = value(reg::CACHE_HINT, 4) {
            self.cache_hint = low(value);
        }
        if let Some(value) = value(reg::COUNT, 2) {
            self.set_count(low(value));
        }
        if value(reg::COMMAND, 1).is_some() {
            self.command(written(offset, data, reg::COMMAND));
        }
    }

    /// A new chain: nothing of it has been processed, or asked for.
    fn set_chain(&mut self, address: u64) {
        self.chain = address;
        self.next = address;
        if !self.path.busy() {
            (self.count, self.processed, self.completed) = (0, 0, 0);
        }
    }

    fn set_count(&mut self, count: u32) {
        let [low, high, ..] = count.to_le_bytes();
        self.count = u16::from_le_bytes([low, high]);
        if self.error == 0 && self.run != Run::Running {
            self.run = Run::Running;
            self.suspending = false;
        }
    }

    fn command(&mut self, command: u8) {
        match command {
            0 | 1..=command::VERSION_1 => {}
            command::SUSPEND if self.run == Run::Running => {
                if self.path.busy() {
                    self.suspending = true;
                } else {
                    self.run = Run::Suspended;
                }
            }
            command::RESUME if self.run == Run::Suspended => self.run = Run::Running,
            command::RESUME => self.suspending = false,
            command::SUSPEND => {}
            command::ABORT => self.stop(),
            command::RESET => self.reset_by_command(),
            _ => self.fail(error::COMMAND),
        }
    }

    /// Sets bits of CHANERR. The descriptor in progress ends with a record, if the driver wants one
    /// of errors.
    pub(super) fn fail(&mut self, bits: u32) {
        self.error |= bits;
        self.path.abandon_read();
        let record = self.control & control::ERROR_COMPLETION != 0 && self.completion != 0;
        match &mut self.path.job {
            Some(job) if record && !job.task.failed => {
                job.task.failed = true;
                job.done = 0;
                job.failure = None;
                job.phase = Phase::Record;
            }
            _ => self.halt(),
        }
    }

    /// Stops because of an error.
    pub(super) fn halt(&mut self) {
        self.run = Run::Halted;
        self.path.job = None;
        if self.control & control::ERROR_INTERRUPT != 0 && self.error & !self.error_mask != 0 {
            self.want_interrupt();
        }
    }

    fn want_interrupt(&mut self) {
        self.signal = true;
    }

    /// Whether an interrupt is wanted and may be sent.
    pub(super) fn due(&self) -> bool {
        self.signal && !self.interrupt_off
    }

    /// The interrupt has been sent: no other until the driver asks for it.
    pub(super) fn sent(&mut self) {
        self.signal = false;
        self.interrupt_off = true;
    }

    /// Begins with the next descriptor, if there is one.
    pub(super) fn next_job(&mut self) -> bool {
        if self.path.busy() || self.run != Run::Running || self.pending() == 0 {
            return false;
        }
        self.path.job = Some(Job::new(Task::new(self.next)));
        if !self.next.is_multiple_of(64) {
            let first = self.next == self.chain;
            self.fail(if first { error::CHAIN_ADDRESS } else { error::NEXT_ALIGNMENT });
        }
        true
    }

    /// Where completion records go.
    pub(super) fn record_address(&self) -> u64 {
        self.completion
    }

    /// The completion record of the present descriptor.
    pub(super) fn record(&self, job: &Job) -> u64 {
        let last = self.pending() <= job.task.work.places;
        match job.task.failed {
            true => self.completed | status::HALTED,
            false if last => job.task.address | status::DONE,
            false => job.task.address | status::ACTIVE,
        }
    }

    /// The present descriptor is over.
    pub(super) fn conclude(&mut self) {
        let Some(job) = self.path.job.take() else { return };
        if job.task.failed {
            self.halt();
            return;
        }
        self.processed = self.processed.wrapping_add(job.task.work.places.min(self.pending()));
        if job.task.fault == fault::HIDE_COMPLETION {
            self.hides_completion = true;
        } else {
            self.completed = job.task.address;
        }
        self.next = job.task.work.next;
        if job.task.work.interrupt && job.task.fault != fault::DROP_INTERRUPT {
            self.want_interrupt();
        }
        if std::mem::take(&mut self.suspending) {
            self.run = Run::Suspended;
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the low half is what is wanted")]
fn low(value: u64) -> u32 {
    value as u32
}

/// The byte that a write of `data` at `offset` puts to `at`; 0 where it puts none.
fn written(offset: u64, data: &[u8], at: u64) -> u8 {
    at.checked_sub(offset)
        .and_then(|index| usize::try_from(index).ok())
        .and_then(|index| data.get(index).copied())
        .unwrap_or(0)
}

/// Whether a write asks for work: it sets the number of descriptors, or resumes the channel.
pub(super) fn asks_for_work(offset: u64, data: &[u8]) -> bool {
    let end = offset.saturating_add(data.len() as u64);
    let counts = offset < reg::COUNT + 2 && end > reg::COUNT;
    counts || written(offset, data, reg::COMMAND) == command::RESUME
}

/// What a register of `length` bytes holds after a write; none if that leaves it alone.
fn merged(
    before: &[u8; 0x80],
    register: u64,
    length: u64,
    offset: u64,
    data: &[u8],
) -> Option<u64> {
    let mut bytes = [0; 8];
    let mut is_touched = false;
    for lane in 0..length {
        let at = register + lane;
        let index = usize::try_from(lane).unwrap_or(0);
        let covered = at >= offset && at - offset < data.len() as u64;
        bytes[index] = if covered {
            is_touched = true;
            written(offset, data, at)
        } else {
            usize::try_from(at).ok().and_then(|at| before.get(at).copied()).unwrap_or(0)
        };
    }
    is_touched.then(|| u64::from_le_bytes(bytes))
}
