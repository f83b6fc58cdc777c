//! A descriptor in progress: where it stands.

use vm_memory::VolatileSlice;
use zerocopy::IntoBytes;

use super::channel::{CHUNK, Fault};
use super::descriptor::{BadDescriptor, Operation, Place, Work};
use super::regs::{Descriptor, Record, fault, status};
use crate::fabric::CompletionStatus;
use crate::memory::Memory;

/// Bytes that are compared at a time: half of the staging buffer for each side.
const COMPARE_CHUNK: usize = CHUNK / 2;

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Read the descriptor.
    Fetch,
    /// Get a chunk of source: into the staging buffer, or straight into local memory.
    Source,
    /// Get a chunk of destination to compare with.
    Second,
    /// Put a chunk to destination: from the staging buffer, or straight from local memory.
    Target,
    /// Read the last byte of destination back.
    Flush,
    /// The write that nobody asked for.
    Stray,
    /// Write the completion record.
    Record,
    /// Raise the interrupt.
    Interrupt,
}

/// Where the bytes of a read go, or those of a write come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Buffer {
    /// The job's own 64 bytes: descriptor, record, stray data.
    Own,
    /// The channel's staging buffer, from here.
    Staging(usize),
    /// Local memory, from here.
    Local(u64),
}

/// The state of a descriptor in progress.
#[derive(Debug)]
pub(super) struct Job {
    /// Index in both rings.
    pub(super) slot: u32,
    pub(super) phase: Phase,
    pub(super) descriptor: Descriptor,
    pub(super) work: Work,
    pub(super) fault: Fault,
    /// Bytes of the work that are over and done with.
    pub(super) moved: u64,
    /// Bytes of the present chunk.
    pub(super) chunk: usize,
    /// Bytes of the present access that are through; it may take several calls.
    pub(super) done: usize,
    /// How the read that the job waited for ended, if it failed.
    pub(super) failure: Option<CompletionStatus>,
    /// Status of the record; other than success, no further chunk is begun.
    pub(super) status: u16,
    pub(super) result: u64,
    /// The record has its sequence number.
    pub(super) numbered: bool,
    /// Steps of the engine that the record still has to wait.
    pub(super) delay: u32,
    pub(super) own: [u8; 64],
}

impl Job {
    /// A job whose descriptor has still to be read.
    pub(super) fn new(slot: u32) -> Self {
        let descriptor = Descriptor::default();
        Self {
            slot,
            phase: Phase::Fetch,
            work: Work::nothing(&descriptor),
            descriptor,
            fault: Fault::default(),
            moved: 0,
            chunk: 0,
            done: 0,
            failure: None,
            status: status::SUCCESS,
            result: 0,
            numbered: false,
            delay: 0,
            own: [0; 64],
        }
    }

    /// The descriptor is here: checks it. What it asks for begins with [`next_chunk`](Self::next_chunk); if it is not
    /// valid, that is nothing, and the record says so.
    pub(super) fn begin(&mut self, fault: Fault, local_size: u64) -> Result<(), BadDescriptor> {
        self.descriptor = zerocopy::transmute!(self.own);
        self.fault = fault;
        self.work = Work::nothing(&self.descriptor);
        self.status = status::BAD_DESCRIPTOR;
        self.work = Work::parse(&self.descriptor, local_size)?;
        self.status = status::SUCCESS;
        if let Operation::Checksum(initial) = self.work.operation {
            self.result = initial.into();
        }
        Ok(())
    }

    /// Sets up the next chunk; `false` when there is none.
    pub(super) fn next_chunk(&mut self) -> bool {
        let most = if self.work.operation == Operation::Compare { COMPARE_CHUNK } else { CHUNK };
        let left = usize::try_from(self.work.length - self.moved).unwrap_or(most);
        if left == 0 || self.status != status::SUCCESS {
            return false;
        }
        self.chunk = left.min(most);
        self.done = 0;
        let no_source =
            matches!(self.work.operation, Operation::Fill(_)) || self.buffer_is_source();
        self.phase = if no_source { Phase::Target } else { Phase::Source };
        true
    }

    /// The present chunk is through.
    pub(super) fn chunk_over(&mut self) {
        self.moved += self.chunk as u64;
        self.chunk = 0;
        self.done = 0;
    }

    /// Where the addresses begin that the present access, from `address` on, is a part of: those of a descriptor's source
    /// or destination, of which it moves a chunk.
    pub(super) fn begun(&self, address: u64) -> u64 {
        let before = match self.phase {
            Phase::Source | Phase::Second | Phase::Target => self.moved,
            Phase::Flush => self.work.length.saturating_sub(1),
            Phase::Fetch | Phase::Stray | Phase::Record | Phase::Interrupt => 0,
        };
        address.saturating_sub(before)
    }

    /// A read of the present chunk failed: only what arrived before counts.
    pub(super) fn cut(&mut self, failure: CompletionStatus) {
        self.status = status_of(failure);
        self.chunk = self.done;
    }

    /// Ends the job where it stands.
    pub(super) fn abort(&mut self) {
        let delivering =
            self.phase == Phase::Target || self.phase == Phase::Source && self.buffer_is_target();
        if delivering {
            self.moved += self.done as u64;
        }
        self.status = status::ABORTED;
        self.failure = None;
        self.tell();
    }

    /// All that was asked for is done: goes on to the record, by way of what was not asked for.
    pub(super) fn arrived(&mut self) {
        self.tell();
        if self.fault.kind == fault::STRAY_WRITE {
            self.phase = Phase::Stray;
            self.own = [self.fault.argument.to_le_bytes()[0]; 64];
        }
    }

    /// The present chunk is the last one, and is to stay in the device.
    pub(super) fn writes_back_later(&self) -> bool {
        self.fault.kind == fault::WRITE_BACK
            && self.moved.saturating_add(self.chunk as u64) >= self.work.length
    }

    /// Goes on to the completion record.
    pub(super) fn tell(&mut self) {
        self.done = 0;
        self.chunk = 0;
        self.phase = Phase::Record;
        if self.fault.kind == fault::DELAY_COMPLETION {
            self.delay = self.fault.argument.min(0xffff);
        }
    }

    /// Puts the record into the job's own buffer.
    pub(super) fn make_record(&mut self, sequence: u32) {
        let has_result = matches!(self.status, status::SUCCESS | status::MISMATCH);
        let inverted = if self.fault.kind == fault::CORRUPT_COOKIE { u64::MAX } else { 0 };
        let record = Record {
            cookie: (self.descriptor.cookie.get() ^ inverted).into(),
            bytes: self.moved.into(),
            result: if has_result { self.result } else { 0 }.into(),
            status: self.status.into(),
            reserved: 0.into(),
            sequence: sequence.into(),
        };
        self.own[..32].copy_from_slice(record.as_bytes());
    }

    /// Bytes are staged between two remote places, and where they are to be corrupted.
    fn staged(&self) -> bool {
        let remote = |place| matches!(place, Place::Remote(_));
        remote(self.work.source) && remote(self.work.destination)
            || self.fault.kind == fault::CORRUPT_DATA
    }

    /// A copy out of local memory needs no source phase: the write takes its bytes from there.
    fn buffer_is_source(&self) -> bool {
        self.direct_copy() && matches!(self.work.destination, Place::Remote(_))
    }

    /// A copy into local memory needs no target phase: the read puts its bytes there.
    pub(super) fn buffer_is_target(&self) -> bool {
        self.direct_copy() && matches!(self.work.destination, Place::Local(_))
    }

    fn direct_copy(&self) -> bool {
        self.work.operation == Operation::Copy && !self.staged()
    }

    /// The buffer of the present phase.
    pub(super) fn buffer(&self) -> Buffer {
        match self.phase {
            Phase::Source => match self.work.destination.plus(self.moved) {
                Place::Local(offset) if self.buffer_is_target() => Buffer::Local(offset),
                _ => Buffer::Staging(0),
            },
            Phase::Second => Buffer::Staging(COMPARE_CHUNK),
            Phase::Target => match self.work.source.plus(self.moved) {
                Place::Local(offset) if self.buffer_is_source() => Buffer::Local(offset),
                _ => Buffer::Staging(0),
            },
            Phase::Fetch | Phase::Flush | Phase::Stray | Phase::Record | Phase::Interrupt => {
                Buffer::Own
            }
        }
    }

    /// Bytes of the present phase's access.
    pub(super) fn access_length(&self) -> usize {
        match self.phase {
            Phase::Fetch | Phase::Stray => 64,
            Phase::Source | Phase::Second | Phase::Target => self.chunk,
            Phase::Flush => 1,
            Phase::Record => 32,
            Phase::Interrupt => 0,
        }
    }

    /// `length` bytes of the present phase's buffer, after the `done` ones that are through.
    pub(super) fn slice<'a>(
        &'a mut self,
        length: usize,
        staging: &'a mut [u8],
        local: &'a Memory,
    ) -> Option<VolatileSlice<'a>> {
        let rest = self.done..length;
        match self.buffer() {
            Buffer::Own => self.own.get_mut(rest).map(VolatileSlice::from),
            Buffer::Staging(from) => {
                staging.get_mut(from..)?.get_mut(rest).map(VolatileSlice::from)
            }
            Buffer::Local(from) => local.slice(from.checked_add(self.done as u64)?, rest.len()),
        }
    }

    /// Fills the staging buffer with the pattern of a fill, once for all chunks: a chunk is a multiple of it.
    pub(super) fn stage_pattern(&self, staging: &mut [u8]) {
        if let Operation::Fill(pattern) = self.work.operation {
            let length =
                usize::try_from(self.work.length).map_or(CHUNK, |length| length.min(CHUNK));
            for piece in staging[..length].chunks_mut(8) {
                piece.copy_from_slice(&pattern[..piece.len()]);
            }
        }
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

/// What the record says of a read that failed.
fn status_of(failure: CompletionStatus) -> u16 {
    match failure {
        CompletionStatus::Success => status::SUCCESS,
        CompletionStatus::UnsupportedRequest => status::UNSUPPORTED_REQUEST,
        CompletionStatus::CompleterAbort => status::COMPLETER_ABORT,
        CompletionStatus::Timeout => status::TIMEOUT,
    }
}
