//! A descriptor in progress: where it stands.

use std::fmt::Debug;

use crate::fabric::CompletionStatus;

/// The most bytes that one access moves.
pub(in crate::endpoint) const CHUNK: usize = 64 << 10;

/// The next thing to do for a descriptor. `P` holds the phases that only one engine has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum Phase<P> {
    /// Read the descriptor.
    Fetch,
    /// Read a chunk of the source with this index.
    Source(usize),
    /// Write a chunk to the destination.
    Target,
    /// Write the completion record.
    Record,
    /// A phase of this engine alone.
    Extra(P),
}

/// Where the bytes of a read go, or those of a write come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum Buffer {
    /// The job's own 64 bytes: a descriptor or a record.
    Own,
    /// The channel's staging buffer, from this byte on.
    Staging(usize),
    /// The device's local memory, from this byte on.
    Local(u64),
}

/// The access that a phase makes. It may take several transactions.
#[derive(Debug, Clone, Copy)]
pub(in crate::endpoint) struct Access {
    /// The device's side of it.
    pub(in crate::endpoint) buffer: Buffer,
    /// Bytes of the access.
    pub(in crate::endpoint) length: usize,
    /// Bytes between the beginning of the descriptor's source or destination and the address of
    /// this access.
    pub(in crate::endpoint) before: u64,
}

/// What one engine adds to a [`Job`].
pub(in crate::endpoint) trait Task: Debug + Sized {
    /// The phases beside those of every engine.
    type Phase: Debug + Copy + Eq;

    /// The access of the job's present phase.
    fn access(job: &Job<Self>) -> Access;
}

/// The state of a descriptor in progress.
#[derive(Debug)]
pub(in crate::endpoint) struct Job<T: Task> {
    pub(in crate::endpoint) phase: Phase<T::Phase>,
    /// Bytes of the work that are complete.
    pub(in crate::endpoint) moved: u64,
    /// Bytes of the present chunk.
    pub(in crate::endpoint) chunk: usize,
    /// Bytes of the present access that are complete.
    pub(in crate::endpoint) done: usize,
    /// How the read that the job waited for ended, if it failed.
    pub(in crate::endpoint) failure: Option<CompletionStatus>,
    /// A descriptor or a record on its way.
    pub(in crate::endpoint) own: [u8; 64],
    /// What this engine needs to know.
    pub(in crate::endpoint) task: T,
}

impl<T: Task> Job<T> {
    /// A job whose descriptor has yet to be read.
    pub(in crate::endpoint) fn new(task: T) -> Self {
        Self { phase: Phase::Fetch, moved: 0, chunk: 0, done: 0, failure: None, own: [0; 64], task }
    }

    /// Begins a chunk of what is left of `length` bytes, at most `most`; `false` when nothing is
    /// left.
    pub(in crate::endpoint) fn begin_chunk(&mut self, length: u64, most: usize) -> bool {
        let left = length.saturating_sub(self.moved);
        self.chunk = usize::try_from(left).map_or(most, |left| left.min(most));
        self.done = 0;
        self.chunk > 0
    }

    /// The present chunk is complete.
    pub(in crate::endpoint) fn end_chunk(&mut self) {
        self.moved += self.chunk as u64;
        self.chunk = 0;
        self.done = 0;
    }
}
