//! virtio-iommu: the semantics of virtio 1.3, section 5.13, without a transport.
//!
//! [`VirtioIommu`] answers requests as byte slices ([`VirtioIommu::request`]) or typed
//! ([`VirtioIommu::map`] and so on), translates for the fabric ([`Iommu`](super::Iommu)), and holds
//! fault reports until the transport fetches them for the event queue. The transport is not part of
//! it: it moves the bytes and reports feature negotiation and reset.
//!
//! Mappings are kept exactly as they were made, so that an UNMAP can refuse to split one.
//! Everything that happened is dated by the number of the request that did it, counted from 1 and
//! never reset: no clock, so a replay gives the same results.

use std::collections::{BTreeMap, VecDeque};
use std::ops::RangeInclusive;

use super::Fault;
use crate::AddressRange;
use crate::pci::Bdf;

mod config_space;
mod domain;
mod events;
mod inquiry;
mod refusal;
mod request;
pub mod spec;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod translate;

pub use inquiry::Piece;
pub use refusal::{Refusal, Request};
pub use spec::{AttachFlags, Features, MapFlags, Status};

use domain::Domain;
use table::Table;

/// What a virtio-iommu offers. The defaults suit an x86 guest.
#[derive(Clone, Debug)]
pub struct VirtioIommuConfig {
    /// `page_size_mask`: page sizes in bytes, as bits. The lowest is the granularity of mappings.
    /// Must not be 0.
    pub page_size_mask: u64,
    /// `input_range`: the addresses that can be mapped.
    pub input_range: RangeInclusive<u64>,
    /// `domain_range`: the valid domain numbers.
    pub domain_range: RangeInclusive<u32>,
    /// The addresses that reach the interrupt controller untranslated, reported by PROBE.
    pub msi_window: Option<RangeInclusive<u64>>,
    /// `bypass` at power-on: whether endpoints may use guest physical addresses while they are not
    /// attached.
    pub bypass: bool,
    /// How many mappings may exist in all domains together; a MAP beyond them is answered
    /// `S_NOMEM`.
    pub max_mappings: usize,
    /// How many fault reports wait for the guest at most; later ones are counted and dropped.
    pub max_pending_faults: usize,
}

impl Default for VirtioIommuConfig {
    fn default() -> Self {
        Self {
            page_size_mask: !0xfff,
            input_range: 0..=(1 << 48) - 1,
            domain_range: 0..=0xffff,
            msi_window: Some(0xfee0_0000..=0xfeef_ffff),
            bypass: false,
            max_mappings: 1 << 20,
            max_pending_faults: 256,
        }
    }
}

/// An endpoint that the IOMMU serves.
#[derive(Clone, Copy, Debug, Default)]
struct Endpoint {
    domain: Option<u32>,
    /// The request that detached it last.
    detached: Option<u64>,
}

/// The IOMMU. See the [module](self).
#[derive(Debug)]
pub struct VirtioIommu {
    config: VirtioIommuConfig,
    /// What the driver accepted, of [`Features::all`].
    features: Features,
    bypass: bool,
    endpoints: BTreeMap<Bdf, Endpoint>,
    domains: BTreeMap<u32, Domain>,
    live_mappings: usize,
    /// Requests so far; the number of the request in progress while there is one.
    requests: u64,
    epoch: u64,
    faults: VecDeque<Fault>,
    reported_faults: u64,
    dropped_faults: u64,
    refusals: VecDeque<Refusal>,
    dropped_refusals: u64,
    notes_unmaps: bool,
    unmapped: Vec<(u32, AddressRange)>,
}

impl VirtioIommu {
    /// An IOMMU that serves no endpoint yet.
    #[must_use]
    pub fn new(config: VirtioIommuConfig) -> Self {
        Self {
            features: Features::empty(),
            bypass: config.bypass,
            config,
            endpoints: BTreeMap::new(),
            domains: BTreeMap::new(),
            live_mappings: 0,
            requests: 0,
            epoch: 0,
            faults: VecDeque::new(),
            reported_faults: 0,
            dropped_faults: 0,
            refusals: VecDeque::new(),
            dropped_refusals: 0,
            notes_unmaps: false,
            unmapped: Vec::new(),
        }
    }

    /// Starts to serve an endpoint. Its endpoint ID is its requester ID, as the guest's VIOT must
    /// say too. Serving it already changes nothing. An endpoint whose bus number the guest takes
    /// away for a while stays: its driver still takes it for attached.
    pub fn add_endpoint(&mut self, endpoint: Bdf) {
        self.endpoints.entry(endpoint).or_default();
    }

    /// Stops serving an endpoint, as when it is unplugged: it is detached.
    pub fn remove_endpoint(&mut self, endpoint: Bdf) {
        self.leave_domain(endpoint);
        self.endpoints.remove(&endpoint);
        self.invalidate();
    }

    /// The endpoints that are served, in the order of their IDs, and the domain of each.
    pub fn endpoints(&self) -> impl Iterator<Item = (Bdf, Option<u32>)> {
        self.endpoints.iter().map(|(bdf, endpoint)| (*bdf, endpoint.domain))
    }

    /// How many mappings are in force, in all domains together.
    #[must_use]
    pub fn live_mappings(&self) -> usize {
        self.live_mappings
    }

    /// The mappings in force in `domain`, as input addresses, first guest physical address, and
    /// flags, in no particular order.
    pub fn mappings(&self, domain: u32) -> impl Iterator<Item = (AddressRange, u64, MapFlags)> {
        let table = self.domains.get(&domain).map(|domain| &domain.table);
        table
            .into_iter()
            .flat_map(Table::iter)
            .map(|mapping| (mapping.range, mapping.target, mapping.flags()))
    }

    /// How many requests there have been.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// The features the transport offers to the driver.
    #[must_use]
    pub fn offered_features(&self) -> Features {
        Features::all()
    }

    /// The driver has negotiated its features. Bits that were not offered are ignored.
    pub fn accept_features(&mut self, features: u64) {
        self.features = Features::from_bits_truncate(features);
    }

    /// Device reset (2.4): nothing is attached any more. `bypass` stays as it is (5.13.4.2).
    pub fn device_reset(&mut self) {
        for endpoint in self.endpoints.values_mut() {
            if endpoint.domain.take().is_some() {
                endpoint.detached = Some(self.requests);
            }
        }
        self.domains.clear();
        self.live_mappings = 0;
        self.features = Features::empty();
        self.faults.clear();
        self.invalidate();
    }

    /// System reset: a device reset, and `bypass` is what it was at power-on.
    pub fn system_reset(&mut self) {
        self.device_reset();
        self.bypass = self.config.bypass;
    }

    /// No translation given so far may be used any longer.
    fn invalidate(&mut self) {
        self.epoch += 1;
    }

    fn msi_window(&self) -> Option<AddressRange> {
        self.config
            .msi_window
            .as_ref()
            .map(|window| AddressRange { first: *window.start(), last: *window.end() })
    }
}
