//! virtio-rng: entropy (virtio 1.3, 5.4).

use std::io::Read;

use super::chain::Chain;
use super::device::{DeviceKind, VirtioDevice};
use super::memory::{Failure, PortMemory};

/// Bytes that one chain gets at most. A driver may be given less than it asked for (5.4.6.2), and a
/// step is short.
const MOST: usize = 4096;

/// A source of entropy for the guest.
#[derive(Debug)]
pub struct VirtioRng<S> {
    source: S,
}

impl<S: Read + Send + std::fmt::Debug> VirtioRng<S> {
    /// A device that gives out what `source` does, for example `/dev/urandom` opened as a file.
    /// Where recorded bytes take the place of the source's, in a replay, any endless source will
    /// do.
    pub fn new(source: S) -> Self {
        Self { source }
    }
}

impl<S: Read + Send + std::fmt::Debug> VirtioDevice for VirtioRng<S> {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: 4,
            // "Other system peripheral": PCI has no class for a source of entropy.
            class: 0x08_8000,
            queues: &[64],
            config_length: 0,
            behind_iommu: true,
            served_in_exit: false,
        }
    }

    fn serve(
        &mut self,
        _: u16,
        chain: &Chain,
        memory: &PortMemory<'_, '_>,
    ) -> Result<u32, Failure> {
        let wanted = usize::try_from(chain.writable()).unwrap_or(usize::MAX).min(MOST);
        if wanted == 0 {
            // "The driver MUST NOT place driver-readable buffers into the queue" (5.4.6.1): nothing
            // can be given.
            return Err(Failure::Broken("a request for entropy has no room for any"));
        }
        let mut bytes = vec![0; wanted];
        self.source
            .read_exact(&mut bytes)
            .map_err(|_| Failure::Broken("the host's source of entropy has failed"))?;
        // A replay has no such source: it gives what was recorded.
        memory.with_port(|port| port.outside_input(&mut bytes));
        chain.write(memory, &bytes)?;
        Ok(u32::try_from(wanted).unwrap_or(u32::MAX))
    }
}
