//! A descriptor chain, fetched once and validated before use (virtio 1.3, 2.7.4
//! and 2.7.5).

use virtio_queue::DescriptorChain;

use super::memory::{Failure, PortMemory};

/// A buffer of a chain.
#[derive(Clone, Copy, Debug)]
struct Buffer {
    address: u64,
    length: u32,
}

/// A descriptor chain: first what the device may read, then what it may write.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    readable: Vec<Buffer>,
    writable: Vec<Buffer>,
}

impl Chain {
    /// Fetches every descriptor of a chain, each once.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`] for a chain that no driver may make: longer than `limit`, the size of
    /// the queue (2.7.5.3.1), or longer than 4 GiB (2.7.5.2), with a loop, with an index outside
    /// its table, without a descriptor, nested tables, or something to read behind something to
    /// write (2.7.4.2).
    pub(crate) fn fetch(
        descriptors: DescriptorChain<&PortMemory<'_, '_>>,
        memory: &PortMemory<'_, '_>,
        limit: u16,
    ) -> Result<Self, Failure> {
        let mut chain =
            Self { head: descriptors.head_index(), readable: Vec::new(), writable: Vec::new() };
        let mut unfinished = true;
        for descriptor in descriptors.take(usize::from(limit) + 1) {
            if chain.readable.len() + chain.writable.len() >= usize::from(limit) {
                return Err(Failure::Broken("a descriptor chain is longer than its queue"));
            }
            let buffer = Buffer { address: descriptor.addr().0, length: descriptor.len() };
            if descriptor.is_write_only() {
                chain.writable.push(buffer);
            } else if chain.writable.is_empty() {
                chain.readable.push(buffer);
            } else {
                return Err(Failure::Broken("a descriptor to read follows one to write"));
            }
            unfinished = descriptor.has_next();
        }
        // The iterator ends silently, be it at the end of the chain, at a failed read or at
        // nonsense.
        memory.flush()?;
        if unfinished {
            return Err(Failure::Broken(
                "a descriptor chain loops, leaves its table or has no descriptor",
            ));
        }
        Ok(chain)
    }

    /// The index of the first descriptor, by which the driver knows the chain.
    pub fn head(&self) -> u16 {
        self.head
    }

    /// How many bytes the device may read.
    pub fn readable(&self) -> u64 {
        total(&self.readable)
    }

    /// How many bytes the device may write.
    pub fn writable(&self) -> u64 {
        total(&self.writable)
    }

    /// Reads the first `data.len()` readable bytes.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`] if there are not as many, or the failure of the access.
    pub fn read(&self, memory: &PortMemory<'_, '_>, mut data: &mut [u8]) -> Result<(), Failure> {
        for buffer in &self.readable {
            let count = data.len().min(usize::try_from(buffer.length).unwrap_or(usize::MAX));
            if count == 0 {
                continue;
            }
            let (part, rest) = data.split_at_mut(count);
            memory.read_buffer(buffer.address, part)?;
            data = rest;
        }
        if data.is_empty() { Ok(()) } else { Err(Failure::Broken("a buffer is too short")) }
    }

    /// Writes `data` to the start of what is writable.
    ///
    /// # Errors
    ///
    /// [`Failure::Broken`] if it does not fit, or the failure of the access.
    pub fn write(&self, memory: &PortMemory<'_, '_>, mut data: &[u8]) -> Result<(), Failure> {
        for buffer in &self.writable {
            let count = data.len().min(usize::try_from(buffer.length).unwrap_or(usize::MAX));
            if count == 0 {
                continue;
            }
            let (part, rest) = data.split_at(count);
            memory.write_buffer(buffer.address, part)?;
            data = rest;
        }
        if data.is_empty() { Ok(()) } else { Err(Failure::Broken("a buffer is too short")) }
    }
}

fn total(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| u64::from(buffer.length)).sum()
}
