//! A builder of work for a channel.

use crate::uapi::{self, Location, Submit};
use std::os::fd::{AsRawFd, BorrowedFd};

/// A piece of work: what the channel is asked for, and how.
#[derive(Clone, Copy, Debug)]
pub struct Work(Submit);

impl Work {
    fn new(operation: u32, source: Location, destination: Location, length: u64) -> Self {
        Self(Submit {
            operation,
            source,
            destination,
            length,
            in_fence: -1,
            out_fence: -1,
            ..Submit::default()
        })
    }

    /// Copies `length` bytes.
    pub fn copy(source: Location, destination: Location, length: u64) -> Self {
        Self::new(uapi::WORK_COPY, source, destination, length)
    }

    /// Repeats eight bytes over `length` bytes.
    pub fn fill(destination: Location, length: u64, pattern: u64) -> Self {
        let mut work = Self::new(uapi::WORK_FILL, Location::default(), destination, length);
        work.0.pattern = pattern;
        work
    }

    /// CRC-32C of `length` bytes.
    pub fn checksum(source: Location, length: u64) -> Self {
        Self::new(uapi::WORK_CHECKSUM, source, Location::default(), length)
    }

    /// Compares `length` bytes.
    pub fn compare(source: Location, destination: Location, length: u64) -> Self {
        Self::new(uapi::WORK_COMPARE, source, destination, length)
    }

    /// On this channel instead of number 0.
    #[must_use]
    pub fn on(mut self, channel: u32) -> Self {
        self.0.channel = channel;
        self
    }

    /// With these `SUBMIT_*` flags besides those it has.
    #[must_use]
    pub fn with(mut self, flags: u32) -> Self {
        self.0.flags |= flags;
        self
    }

    /// The device counts as dead for this work after so long, ms.
    #[must_use]
    pub fn within(mut self, timeout_ms: u32) -> Self {
        self.0.timeout_ms = timeout_ms;
        self
    }

    /// Starts when this `sync_file` has signalled.
    #[must_use]
    pub fn after(mut self, fence: BorrowedFd<'_>) -> Self {
        self.0.in_fence = fence.as_raw_fd();
        self.with(uapi::SUBMIT_IN_FENCE)
    }

    pub(super) fn argument(self) -> Submit {
        self.0
    }
}
