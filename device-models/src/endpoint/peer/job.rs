//! A descriptor in progress: where it stands.

use zerocopy::IntoBytes;

use super::channel::Fault;
use super::descriptor::{BadDescriptor, Location, Operation, Work};
use super::regs::{Descriptor, Record, fault, status};
use crate::endpoint::dma::{self, Access, Buffer, CHUNK, Phase};
use crate::fabric::CompletionStatus;

/// Bytes that are compared at a time: half of the staging buffer for each side.
const COMPARE_CHUNK: usize = CHUNK / 2;

/// The phases beside those of every engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extra {
    /// Read the last byte of destination back.
    Flush,
    /// The write that nothing asked for.
    Stray,
    /// Raise the interrupt.
    Interrupt,
}

/// A descriptor in progress.
pub(super) type Job = dma::Job<Task>;

/// What this engine knows about a descriptor in progress.
#[derive(Debug)]
pub(super) struct Task {
    /// Index in both rings.
    pub(super) slot: u32,
    pub(super) descriptor: Descriptor,
    pub(super) work: Work,
    pub(super) fault: Fault,
    /// Status of the record; other than success, no further chunk is begun.
    pub(super) status: u16,
    pub(super) result: u64,
    /// The record has its sequence number.
    pub(super) numbered: bool,
    /// Steps of the engine that the record still has to wait.
    pub(super) delay: u32,
}

impl Task {
    /// The task for a descriptor that has still to be read.
    pub(super) fn new(slot: u32) -> Self {
        let descriptor = Descriptor::default();
        Self {
            slot,
            work: Work::nothing(&descriptor),
            descriptor,
            fault: Fault::default(),
            status: status::SUCCESS,
            result: 0,
            numbered: false,
            delay: 0,
        }
    }

    /// Bytes are staged between two remote places, and where they are to be corrupted.
    fn staged(&self) -> bool {
        let remote = |location| matches!(location, Location::Remote(_));
        remote(self.work.source) && remote(self.work.destination)
            || self.fault.kind == fault::CORRUPT_DATA
    }

    /// A copy out of local memory needs no source phase: the write takes its bytes from there.
    fn buffer_is_source(&self) -> bool {
        self.direct_copy() && matches!(self.work.destination, Location::Remote(_))
    }

    /// A copy into local memory needs no target phase: the read puts its bytes there.
    pub(super) fn buffer_is_target(&self) -> bool {
        self.direct_copy() && matches!(self.work.destination, Location::Local(_))
    }

    fn direct_copy(&self) -> bool {
        self.work.operation == Operation::Copy && !self.staged()
    }
}

impl dma::Task for Task {
    type Phase = Extra;

    fn access(job: &Job) -> Access {
        let Task { work, .. } = &job.task;
        let chunk = |buffer| Access { buffer, length: job.chunk, before: job.moved };
        let own = |length| Access { buffer: Buffer::Own, length, before: 0 };
        match job.phase {
            Phase::Fetch | Phase::Extra(Extra::Stray) => own(64),
            Phase::Source(0) => match work.destination.plus(job.moved) {
                Location::Local(offset) if job.task.buffer_is_target() => {
                    chunk(Buffer::Local(offset))
                }
                _ => chunk(Buffer::Staging(0)),
            },
            Phase::Source(_) => chunk(Buffer::Staging(COMPARE_CHUNK)),
            Phase::Target => match work.source.plus(job.moved) {
                Location::Local(offset) if job.task.buffer_is_source() => {
                    chunk(Buffer::Local(offset))
                }
                _ => chunk(Buffer::Staging(0)),
            },
            Phase::Extra(Extra::Flush) => {
                Access { before: work.length.saturating_sub(1), ..own(1) }
            }
            Phase::Record => own(32),
            Phase::Extra(Extra::Interrupt) => own(0),
        }
    }
}

impl Job {
    /// The descriptor has been read: checks it. What it asks for begins with
    /// [`next_chunk`](Self::next_chunk); if it is not valid, that is nothing, and the record says
    /// so.
    pub(super) fn begin(&mut self, fault: Fault, local_size: u64) -> Result<(), BadDescriptor> {
        self.task.descriptor = zerocopy::transmute!(self.own);
        self.task.fault = fault;
        self.task.work = Work::nothing(&self.task.descriptor);
        self.task.status = status::BAD_DESCRIPTOR;
        self.task.work = Work::parse(&self.task.descriptor, local_size)?;
        self.task.status = status::SUCCESS;
        if let Operation::Checksum(initial) = self.task.work.operation {
            self.task.result = initial.into();
        }
        Ok(())
    }

    /// Sets up the next chunk; `false` when there is none.
    pub(super) fn next_chunk(&mut self) -> bool {
        let most =
            if self.task.work.operation == Operation::Compare { COMPARE_CHUNK } else { CHUNK };
        if self.task.status != status::SUCCESS || !self.begin_chunk(self.task.work.length, most) {
            return false;
        }
        let no_source =
            matches!(self.task.work.operation, Operation::Fill(_)) || self.task.buffer_is_source();
        self.phase = if no_source { Phase::Target } else { Phase::Source(0) };
        true
    }

    /// A read of the present chunk failed: only what arrived before counts.
    pub(super) fn cut(&mut self, failure: CompletionStatus) {
        self.task.status = status_of(failure);
        self.chunk = self.done;
    }

    /// Ends the job where it stands.
    pub(super) fn abort(&mut self) {
        let delivering = self.phase == Phase::Target
            || self.phase == Phase::Source(0) && self.task.buffer_is_target();
        if delivering {
            self.moved += self.done as u64;
        }
        self.task.status = status::ABORTED;
        self.failure = None;
        self.begin_record();
    }

    /// All that was asked for is done: goes on to the record, by way of what was not asked for.
    pub(super) fn arrived(&mut self) {
        self.begin_record();
        if self.task.fault.kind == fault::STRAY_WRITE {
            self.phase = Phase::Extra(Extra::Stray);
            self.own = [self.task.fault.argument.to_le_bytes()[0]; 64];
        }
    }

    /// The present chunk is the last one, and is to stay in the device.
    pub(super) fn writes_back_later(&self) -> bool {
        self.task.fault.kind == fault::WRITE_BACK
            && self.moved.saturating_add(self.chunk as u64) >= self.task.work.length
    }

    /// Goes on to the completion record.
    pub(super) fn begin_record(&mut self) {
        self.done = 0;
        self.chunk = 0;
        self.phase = Phase::Record;
        if self.task.fault.kind == fault::DELAY_COMPLETION {
            self.task.delay = self.task.fault.argument.min(0xffff);
        }
    }

    /// Puts the record into the job's own buffer.
    pub(super) fn make_record(&mut self, sequence: u32) {
        let has_result = matches!(self.task.status, status::SUCCESS | status::MISMATCH);
        let inverted = if self.task.fault.kind == fault::CORRUPT_COOKIE { u64::MAX } else { 0 };
        let record = Record {
            cookie: (self.task.descriptor.cookie.get() ^ inverted).into(),
            bytes: self.moved.into(),
            result: if has_result { self.task.result } else { 0 }.into(),
            status: self.task.status.into(),
            reserved: 0.into(),
            sequence: sequence.into(),
        };
        self.own[..32].copy_from_slice(record.as_bytes());
    }

    /// Compares the two staged chunks: the offset of the first difference.
    pub(super) fn difference(&self, staging: &[u8]) -> Option<usize> {
        let (source, destination) = staging.split_at(COMPARE_CHUNK);
        let (source, destination) = (&source[..self.chunk], &destination[..self.chunk]);
        if source == destination {
            return None;
        }
        source.iter().zip(destination).position(|(a, b)| a != b)
    }
}

/// The record's status for a read that failed.
fn status_of(failure: CompletionStatus) -> u16 {
    match failure {
        CompletionStatus::Success => status::SUCCESS,
        CompletionStatus::UnsupportedRequest => status::UNSUPPORTED_REQUEST,
        CompletionStatus::CompleterAbort => status::COMPLETER_ABORT,
        CompletionStatus::Timeout => status::TIMEOUT,
    }
}
