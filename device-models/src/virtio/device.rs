//! What a virtio device is to its transport.

use std::fmt;

use crate::fabric::Port;

use super::chain::Chain;
use super::memory::{Failure, PortMemory};

/// What does not change about a kind of device.
#[derive(Clone, Copy, Debug)]
pub struct DeviceKind {
    /// The virtio device ID (virtio 1.3, chapter 5).
    pub id: u16,
    /// PCI class code: base class, sub-class, programming interface.
    pub class: u32,
    /// The largest size of each queue in descriptors, powers of two.
    pub queues: &'static [u16],
    /// Bytes of device configuration; none, and there is no such capability.
    pub config_length: u32,
    /// Whether its addresses are subject to the platform's IOMMU (`VIRTIO_F_ACCESS_PLATFORM`).
    pub behind_iommu: bool,
    /// Whether a notification is served before the CPU that gave it goes on.
    pub served_in_exit: bool,
}

/// How much a reset forgets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// The driver wrote 0 to the device status, or a function level reset (2.4).
    Device,
    /// The whole machine starts anew.
    System,
}

/// A virtio device behind [`VirtioPci`](super::VirtioPci): configuration and what is done with a
/// chain. Queues, negotiation and interrupts are the transport's.
///
/// Register accesses change state only; what needs the fabric waits for [`prepare`](Self::prepare).
pub trait VirtioDevice: Send + fmt::Debug {
    /// What it is. Constant.
    fn kind(&self) -> DeviceKind;

    /// The device-specific feature bits on offer.
    fn features(&self) -> u64 {
        0
    }

    /// The driver's choice, a subset of what was offered, transport's bits included.
    fn accept_features(&mut self, features: u64) {
        let _ = features;
    }

    /// Reads device configuration. `data` comes zeroed.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let _ = (offset, data);
    }

    /// Writes device configuration.
    fn write_config(&mut self, offset: u64, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Forgets.
    fn reset(&mut self, reset: Reset) {
        let _ = reset;
    }

    /// Called once a step, before the queues. Whether there was anything to do.
    fn prepare(&mut self, port: &mut Port<'_>) -> bool {
        let _ = port;
        false
    }

    /// Whether a chain of `queue` would be of use now. With `notified` there may be one: the
    /// driver has spoken of the queue since it was found empty.
    fn wants(&mut self, queue: u16, notified: bool, port: &mut Port<'_>) -> bool {
        let _ = (queue, port);
        notified
    }

    /// Uses up a chain; gives the bytes written from the start of its writable part.
    ///
    /// # Errors
    ///
    /// A failed access. After [`Failure::Later`] and [`Failure::Silent`] the chain is given again,
    /// so nothing may have been done for it yet that cannot be done twice.
    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        memory: &PortMemory<'_, '_>,
    ) -> Result<u32, Failure>;
}
