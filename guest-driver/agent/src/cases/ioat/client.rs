//! The client of the kernel's DMA engines, `peerdma_dma.ko`: one copy at a time by a channel of our choice.

use crate::cases::Stop;
use crate::uapi;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};

/// Its device.
pub(super) const PATH: &str = "/dev/peerdma-dma";

/// Where the bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// At an offset into a dma-buf.
    Buffer(&'a OwnedFd, u64),
    /// At a DMA address, whatever the IOMMU thinks of it.
    Address(u64),
}

impl Place<'_> {
    fn parts(self) -> (i32, u64) {
        match self {
            Self::Buffer(fd, offset) => (fd.as_raw_fd(), offset),
            Self::Address(address) => (-1, address),
        }
    }
}

/// A channel, held until this is dropped.
#[derive(Debug)]
pub(super) struct Channel {
    file: File,
    name: String,
}

impl Channel {
    /// The channel of this name, as in `/sys/class/dma`; taken with the first copy.
    pub(super) fn new(name: &str) -> Result<Self, Stop> {
        let file = File::options().read(true).write(true).open(PATH)?;
        Ok(Self { file, name: name.to_owned() })
    }

    /// Copies; gives what the engine's driver says, one of `DMA_*`.
    pub(super) fn copy(
        &self,
        source: Place<'_>,
        target: Place<'_>,
        length: u32,
    ) -> Result<u32, Stop> {
        let mut copy = uapi::DmaCopy { length, timeout_ms: 30_000, ..uapi::DmaCopy::default() };
        for (to, from) in copy.channel.iter_mut().zip(self.name.bytes()) {
            *to = from;
        }
        (copy.source_fd, copy.source) = source.parts();
        (copy.target_fd, copy.target) = target.parts();
        match uapi::dma_copy(&self.file, &mut copy) {
            Ok(()) => Ok(copy.result),
            Err(error) => Err(Stop::Fail(format!(
                "{}: a copy of {length} bytes from {source:?} to {target:?}: {error}",
                self.name
            ))),
        }
    }

    /// Copies, and nothing may go wrong.
    pub(super) fn must(
        &self,
        source: Place<'_>,
        target: Place<'_>,
        length: u32,
    ) -> Result<(), Stop> {
        match self.copy(source, target, length)? {
            uapi::DMA_DONE => Ok(()),
            other => Err(Stop::Fail(format!(
                "{}: a copy of {length} bytes from {source:?} to {target:?} ended with {other}",
                self.name
            ))),
        }
    }
}
