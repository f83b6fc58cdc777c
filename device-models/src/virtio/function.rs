//! A virtio device as a PCI function (virtio 1.3, 4.1).

use crate::checker::{Cause, FindingClass};
use crate::endpoint::{Endpoint, Progress, ResetKind};
use crate::fabric::{Port, WriteOutcome};
use crate::pci::{BarDescription, BarKind, FunctionDescription, MsixTable, PcieKind};
use virtio_queue::QueueT;

use super::common::{Common, Event};
use super::device::{DeviceKind, Reset, VirtioDevice};
use super::memory::{Arena, Failure};
use super::queue::{Served, VirtQueue};
use super::spec::{DEVICE_BASE, Isr, NO_VECTOR, Status, TransportFeatures, VENDOR};
use super::window::{self, Structure, Window};

/// Why a virtio function cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum VirtioError {
    /// The host has no memory for copies of ring data.
    #[error("the host did not give 16 KiB for copies of virtqueue data: {0}")]
    Arena(#[from] vm_memory::mmap::MmapRegionError),
    /// A device describes a queue that cannot be.
    #[error("a device wants a queue whose size is not a power of two up to 32768: {0}")]
    Queue(#[from] virtio_queue::Error),
}

/// A virtio device behind the modern PCI transport, split virtqueues, MSI-X.
///
/// Register accesses only change state. All queue work is done in [`Endpoint::step`], one
/// descriptor chain a step, through the function's handle on the fabric.
#[derive(Debug)]
pub struct VirtioPci<D> {
    device: D,
    kind: DeviceKind,
    common: Common,
    queues: Vec<VirtQueue>,
    isr: Isr,
    window: Window,
    /// A configuration change notification has not been sent yet.
    config_interrupt_due: bool,
    /// Which queue is looked at first in the next step, so that none starves.
    turn: usize,
    arena: Arena,
}

impl<D: VirtioDevice> VirtioPci<D> {
    /// Puts `device` behind the transport.
    ///
    /// # Errors
    ///
    /// When the host is out of memory, or the device describes impossible queues.
    pub fn new(device: D) -> Result<Self, VirtioError> {
        let kind = device.kind();
        let queues: Vec<_> =
            kind.queues.iter().map(|size| VirtQueue::new(*size)).collect::<Result<_, _>>()?;
        let mut transport = TransportFeatures::VERSION_1 | TransportFeatures::RING_RESET;
        transport.set(TransportFeatures::ACCESS_PLATFORM, kind.behind_iommu);
        Ok(Self {
            common: Common::new(device.features() | transport.bits(), vectors(&kind)),
            device,
            kind,
            queues,
            isr: Isr::empty(),
            window: Window::default(),
            config_interrupt_due: false,
            turn: 0,
            arena: Arena::new()?,
        })
    }

    /// The device behind the transport.
    pub fn device(&self) -> &D {
        &self.device
    }

    fn forget(&mut self, reset: Reset) {
        self.common.reset();
        self.queues.iter_mut().for_each(VirtQueue::reset);
        self.isr = Isr::empty();
        self.config_interrupt_due = false;
        self.turn = 0;
        self.device.reset(reset);
    }

    fn notify(&mut self, offset: u64) {
        // The offset of the write selects the queue: VIRTIO_F_NOTIFICATION_DATA is not offered
        // (4.1.5.2).
        let index =
            usize::try_from(offset / u64::from(window::NOTIFY_MULTIPLIER)).unwrap_or(usize::MAX);
        if let Some(queue) = self.queues.get_mut(index) {
            queue.notified = true;
        }
    }

    /// The device has met something from which only the driver's reset recovers (2.1.2).
    fn give_up(&mut self, why: &str, queue: u16, port: &mut Port<'_>) {
        self.common.status |= Status::NEEDS_RESET;
        self.isr |= Isr::CONFIGURATION;
        self.config_interrupt_due = true;
        port.report(
            FindingClass::BadQueue,
            Cause::Function,
            format!("queue {queue}: {why}; the device needs a reset"),
        );
    }

    fn send_config_interrupt(&mut self, port: &mut Port<'_>) -> bool {
        let due = self.config_interrupt_due;
        self.config_interrupt_due = due
            && self.common.config_vector != NO_VECTOR
            && matches!(port.raise(self.common.config_vector), WriteOutcome::Retry { .. });
        due
    }

    /// Serves a chain of queue `index`, if there is one of use. Whether anything happened.
    fn serve(&mut self, index: usize, port: &mut Port<'_>) -> bool {
        let Some((queue, number)) = self.queues.get_mut(index).zip(u16::try_from(index).ok())
        else {
            return false;
        };
        if queue.interrupt_late(port) {
            return true;
        }
        if !queue.ring.ready() || !self.device.wants(number, queue.notified, port) {
            return false;
        }
        match queue.serve(number, &mut self.device, port, &self.arena) {
            Ok(Served::One { notify, more }) => {
                self.isr |= Isr::QUEUE;
                // About one that is there already the driver need not speak.
                queue.notified = more;
                if notify {
                    queue.interrupt(port);
                }
                true
            }
            Ok(Served::None) | Err(Failure::Silent) => {
                queue.notified = false;
                false
            }
            Err(Failure::Later) => true,
            Err(Failure::Broken(why)) => {
                self.give_up(why, number, port);
                true
            }
        }
    }
}

/// One vector for the configuration and one for each queue.
fn vectors(kind: &DeviceKind) -> u16 {
    u16::try_from(kind.queues.len()).unwrap_or(u16::MAX).saturating_add(1)
}

impl<D: VirtioDevice> Endpoint for VirtioPci<D> {
    fn description(&self) -> FunctionDescription {
        let vectors = vectors(&self.kind);
        FunctionDescription {
            vendor: VENDOR,
            device: DEVICE_BASE + self.kind.id,
            // 1 or higher for a function without a legacy interface (4.1.2.1).
            revision: 1,
            class: self.kind.class,
            subsystem_vendor: VENDOR,
            // 0x40 or higher, for the same reason.
            subsystem_id: DEVICE_BASE + self.kind.id,
            bars: vec![
                BarDescription {
                    index: window::REGISTERS,
                    size: window::SIZE,
                    kind: BarKind::Memory32,
                },
                BarDescription {
                    index: window::MSIX,
                    size: MsixTable::bar_size(vectors),
                    kind: BarKind::Memory32,
                },
            ],
            msix_vectors: vectors,
            msix_bar: window::MSIX,
            pcie: Some(PcieKind::RootComplexIntegratedEndpoint),
            flr: true,
            vendor_capabilities: window::capabilities(
                u32::from(vectors - 1),
                self.kind.config_length,
            ),
            ..FunctionDescription::default()
        }
    }

    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if bar != window::REGISTERS {
            return;
        }
        let Some((structure, offset)) = Structure::at(offset) else { return };
        data.fill(0);
        match structure {
            Structure::Common => self.common.read(offset, data, &self.queues),
            Structure::Device => self.device.read_config(offset, data),
            Structure::Isr => {
                if let (0, Some(first)) = (offset, data.first_mut()) {
                    // Reading clears (4.1.4.5).
                    *first = std::mem::take(&mut self.isr).bits();
                }
            }
            Structure::Notify => {}
        }
    }

    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if bar != window::REGISTERS {
            return;
        }
        match Structure::at(offset) {
            Some((Structure::Common, offset)) => {
                match self.common.write(offset, data, &mut self.queues) {
                    Some(Event::Reset) => self.forget(Reset::Device),
                    Some(Event::Features(features)) => self.device.accept_features(features),
                    None => {}
                }
            }
            Some((Structure::Device, offset)) => self.device.write_config(offset, data),
            Some((Structure::Notify, offset)) => self.notify(offset),
            Some((Structure::Isr, _)) | None => {}
        }
    }

    fn step(&mut self, port: &mut Port<'_>) -> Progress {
        let mut worked = self.device.prepare(port);
        worked |= self.send_config_interrupt(port);
        let count = self.queues.len();
        for offset in 0..count {
            if !self.common.running() {
                break;
            }
            let index = (self.turn + offset) % count;
            if self.serve(index, port) {
                // Only then: a replay repeats the steps that did something, and no others.
                self.turn = (index + 1) % count;
                worked = true;
                break;
            }
        }
        if worked { Progress::Worked } else { Progress::Idle }
    }

    fn reset(&mut self, kind: ResetKind) {
        self.window = Window::default();
        self.forget(match kind {
            ResetKind::FunctionLevel => Reset::Device,
            ResetKind::Hot | ResetKind::Cold => Reset::System,
        });
    }

    fn takes_physical_addresses(&self) -> bool {
        !self.kind.behind_iommu
    }

    fn served_in_exit(&self) -> bool {
        self.kind.served_in_exit
    }

    fn vendor_config_read(&mut self, capability: usize, offset: u8, data: &mut [u8]) -> Option<()> {
        if capability + 1 != self.capability_count() {
            return None;
        }
        let (offset, length) = self.window.access(offset, data.len())?;
        data.fill(0);
        self.register_read(window::REGISTERS, offset, data.get_mut(..length)?);
        Some(())
    }

    fn vendor_config_write(&mut self, capability: usize, offset: u8, data: &[u8]) {
        if capability + 1 != self.capability_count() {
            return;
        }
        if let Some((at, length)) = self.window.access(offset, data.len())
            && let Some(data) = data.get(..length)
        {
            self.register_write(window::REGISTERS, at, data);
        }
        self.window.record(offset, data);
    }
}

impl<D> VirtioPci<D> {
    /// How many vendor-specific capabilities there are; the last is the window.
    fn capability_count(&self) -> usize {
        4 + usize::from(self.kind.config_length != 0)
    }
}
