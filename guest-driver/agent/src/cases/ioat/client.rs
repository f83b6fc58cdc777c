//! The client of the kernel's DMA engines, `peerdma_dma.ko`: one copy at a time on a chosen
//! channel.

use crate::cases::Stop;
use crate::uapi;
use rustix::io::Errno;
use std::fmt;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// How long a copy may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// Its device.
pub(super) const PATH: &str = "/dev/peerdma-dma";

/// Where the bytes are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Location<'a> {
    /// At an offset into a dma-buf.
    Buffer(&'a OwnedFd, u64),
    /// At a DMA address, whatever the IOMMU thinks of it.
    Address(u64),
}

impl fmt::Display for Location<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Buffer(_, offset) => write!(f, "offset {offset:#x} of a dma-buf"),
            Self::Address(address) => write!(f, "DMA address {address:#x}"),
        }
    }
}

impl Location<'_> {
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

    /// The name as the calls have it.
    fn field(&self) -> [u8; uapi::DMA_NAME as usize] {
        let mut field = [0; uapi::DMA_NAME as usize];
        // Its last byte stays 0.
        let room = field.len() - 1;
        for (to, from) in field[..room].iter_mut().zip(self.name.bytes()) {
            *to = from;
        }
        field
    }

    /// The DMA address by which the channel's device reaches the first byte of a dma-buf.
    ///
    /// # Errors
    /// The kernel's; what the exporter says is among them.
    pub(super) fn address(&self, buffer: &OwnedFd) -> Result<u64, Errno> {
        let mut argument = uapi::DmaAddress {
            channel: self.field(),
            fd: buffer.as_raw_fd(),
            ..uapi::DmaAddress::default()
        };
        uapi::dma_address(&self.file, &mut argument)?;
        Ok(argument.address)
    }

    /// Copies; gives what the engine's driver says, one of `DMA_*`, or the kernel's reason for not even trying.
    pub(super) fn attempt(
        &self,
        source: Location<'_>,
        target: Location<'_>,
        length: u32,
    ) -> Result<u32, Errno> {
        let patience = u32::try_from(PATIENCE.as_millis()).unwrap_or(u32::MAX);
        self.attempt_within(patience, source, target, length)
    }

    /// The same, with a limit in milliseconds.
    pub(super) fn attempt_within(
        &self,
        timeout_ms: u32,
        source: Location<'_>,
        target: Location<'_>,
        length: u32,
    ) -> Result<u32, Errno> {
        let (source_fd, source) = source.parts();
        let (target_fd, target) = target.parts();
        let mut copy = uapi::DmaCopy {
            channel: self.field(),
            source_fd,
            source,
            target_fd,
            target,
            length,
            timeout_ms,
            ..uapi::DmaCopy::default()
        };
        uapi::dma_copy(&self.file, &mut copy)?;
        Ok(copy.result)
    }

    /// Copies, and must at least be allowed to.
    pub(super) fn copy(
        &self,
        source: Location<'_>,
        target: Location<'_>,
        length: u32,
    ) -> Result<u32, Stop> {
        self.attempt(source, target, length).map_err(|error| {
            Stop::Fail(format!(
                "{}: a copy of {length} bytes from {source} to {target}: {error}",
                self.name
            ))
        })
    }

    /// Copies, and nothing may go wrong.
    pub(super) fn must(
        &self,
        source: Location<'_>,
        target: Location<'_>,
        length: u32,
    ) -> Result<(), Stop> {
        match self.copy(source, target, length)? {
            uapi::DMA_DONE => Ok(()),
            other => Err(Stop::Fail(format!(
                "{}: a copy of {length} bytes from {source} to {target} ended with {other}",
                self.name
            ))),
        }
    }
}
