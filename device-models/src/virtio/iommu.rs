//! The function through which the guest programs the virtio-iommu (virtio 1.3, 5.13).
//!
//! The IOMMU itself belongs to the fabric, which translates by it under the system's lock; here is
//! only what a driver sees of it. Linux waits for each request with interrupts off, so the function
//! is served in the exit of the notification.

use crate::checker::{Cause, FindingClass};
use crate::fabric::Port;
use crate::iommu::VirtioIommu;
use crate::iommu::virtio::{Features, VirtioIommuConfig, spec};

use super::chain::Chain;
use super::device::{DeviceKind, Reset, VirtioDevice};
use super::memory::{Failure, PortMemory};

/// What the guest did that waits for the next turn, in the order in which the IOMMU gets it. A
/// reset drops what came before it.
#[derive(Debug, Default)]
struct Deferred {
    reset: Option<Reset>,
    features: Option<u64>,
    bypass: Option<bool>,
}

/// The programming interface of the system's virtio-iommu.
#[derive(Debug)]
pub struct VirtioIommuFunction {
    config: VirtioIommuConfig,
    /// The configuration field, as the driver reads it.
    bypass: bool,
    features: Features,
    deferred: Deferred,
    /// How many faults there had been when a buffer for one was last looked for in vain.
    faults_seen: u64,
}

impl VirtioIommuFunction {
    /// The interface of an IOMMU made with the same `config`.
    #[must_use]
    pub fn new(config: VirtioIommuConfig) -> Self {
        Self {
            bypass: config.bypass,
            config,
            features: Features::empty(),
            deferred: Deferred::default(),
            faults_seen: 0,
        }
    }

    fn request(chain: &Chain, memory: &PortMemory<'_, '_>) -> Result<u32, Failure> {
        let readable = chain.readable().min(VirtioIommu::MAX_REQUEST as u64);
        let writable = chain.writable().min(VirtioIommu::MAX_REPLY as u64);
        let mut request = vec![0; usize::try_from(readable).unwrap_or_default()];
        let mut reply = vec![0; usize::try_from(writable).unwrap_or_default()];
        chain.read(memory, &mut request)?;
        let written = memory.with_port(|port| serve_request(port, &request, &mut reply));
        chain
            .write(memory, reply.get(..written).unwrap_or_default())
            .map_err(Failure::final_now)?;
        Ok(u32::try_from(written).unwrap_or_default())
    }

    fn event(&mut self, chain: &Chain, memory: &PortMemory<'_, '_>) -> Result<u32, Failure> {
        let room = chain.writable();
        let event = memory.with_port(|port| port.virtio_iommu().and_then(|iommu| iommu.event()));
        let Some(event) = event else { return Ok(0) };
        // There is no older, shorter format to fall back to (5.13.6.9.2).
        let written = if room < event.len() as u64 { 0 } else { event.len() };
        chain.write(memory, event.get(..written).unwrap_or_default())?;
        memory.with_port(|port| port.virtio_iommu().map(VirtioIommu::event_delivered));
        Ok(u32::try_from(written).unwrap_or_default())
    }
}

/// Serves a request, and reports one that was refused.
fn serve_request(port: &mut Port<'_>, request: &[u8], reply: &mut [u8]) -> usize {
    let Some(iommu) = port.virtio_iommu() else { return 0 };
    let written = iommu.request(request, reply);
    port.show_iommu_request(request);
    while let Some(refusal) = port.virtio_iommu().and_then(VirtioIommu::next_refusal) {
        let (request, status) = (refusal.request.request_type(), refusal.status as u8);
        let cause = Cause::Refused { request, status };
        port.report(FindingClass::RequestFailed, cause, refusal.to_string());
    }
    written
}

impl VirtioDevice for VirtioIommuFunction {
    fn kind(&self) -> DeviceKind {
        DeviceKind {
            id: spec::DEVICE_ID,
            // System peripheral, IOMMU.
            class: 0x08_0600,
            queues: &[256, 64],
            config_length: spec::CONFIG_LENGTH,
            // It translates for others; its own requests are not translated.
            behind_iommu: false,
            served_in_exit: true,
        }
    }

    fn features(&self) -> u64 {
        Features::all().bits()
    }

    fn accept_features(&mut self, features: u64) {
        self.features = Features::from_bits_truncate(features);
        self.deferred.features = Some(features);
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        self.config.read(self.bypass, offset, data);
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        if let Some(bypass) = self.config.written_bypass(self.features, offset, data) {
            self.bypass = bypass;
            self.deferred.bypass = Some(bypass);
        }
    }

    fn reset(&mut self, reset: Reset) {
        self.features = Features::empty();
        if reset == Reset::System {
            self.bypass = self.config.bypass;
        }
        let stronger = self.deferred.reset == Some(Reset::System);
        self.deferred = Deferred {
            reset: Some(if stronger { Reset::System } else { reset }),
            features: None,
            // `bypass` outlives a device reset (5.13.4.2).
            bypass: self.deferred.bypass.filter(|_| reset == Reset::Device),
        };
    }

    fn prepare(&mut self, port: &mut Port<'_>) -> bool {
        let Some(iommu) = port.virtio_iommu() else { return false };
        let Deferred { reset, features, bypass } = std::mem::take(&mut self.deferred);
        match reset {
            Some(Reset::System) => iommu.system_reset(),
            Some(Reset::Device) => iommu.device_reset(),
            None => {}
        }
        if let Some(features) = features {
            iommu.accept_features(features);
        }
        if let Some(bypass) = bypass {
            iommu.set_bypass(bypass);
        }
        reset.is_some() || features.is_some() || bypass.is_some()
    }

    fn wants(&mut self, queue: u16, notified: bool, port: &mut Port<'_>) -> bool {
        if queue == spec::REQUEST_QUEUE {
            return notified;
        }
        // A buffer of the event queue is taken only for an event. Linux fills the queue without a
        // notification, so each new fault is a reason to look.
        let Some(iommu) = port.virtio_iommu() else { return false };
        let seen = std::mem::replace(&mut self.faults_seen, iommu.reported_faults());
        iommu.has_event() && (notified || seen != self.faults_seen)
    }

    fn serve(
        &mut self,
        queue: u16,
        chain: &Chain,
        memory: &PortMemory<'_, '_>,
    ) -> Result<u32, Failure> {
        if queue == spec::REQUEST_QUEUE {
            Self::request(chain, memory)
        } else {
            self.event(chain, memory)
        }
    }
}
