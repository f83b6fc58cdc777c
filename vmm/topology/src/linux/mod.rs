//! What Linux 7.3 makes of a topology: ACS controls, the map type of peer-to-peer DMA, IOMMU
//! groups.
//!
//! A second account of what the kernel does, made from its source, so that a test can compare the two. The kernel's
//! own functions are named where they are followed.

mod acs;
mod groups;
mod map_type;
mod parameters;
mod pci_options;
mod remarks;
mod scan;
mod trust;
mod version;

use device_models::pci::AcsControl;
use serde::{Deserialize, Serialize};

pub(crate) use acs::found as found_acs;
pub(crate) use map_type::redirects;
pub use map_type::{MapDecision, MapType, Reason};
pub(crate) use parameters::{CONFIGURE, DISABLE_REDIRECTION, acs_mask, kept_entries};
pub use remarks::{Remark, remarks};
pub use trust::{Trust, of as trust_of};
pub use version::{Version, VersionError};

use super::description::{Cpu, PciId};
use super::plan::{Kind, Plan};
use crate::assembly::IommuMode;

/// The guest, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// The IOMMU and how the guest uses it.
    pub iommu: IommuMode,
    /// The processor.
    pub cpu: Cpu,
    /// Kernel parameters, one each.
    pub parameters: Vec<String>,
}

/// What the DMA addresses of device memory are, where the kernel maps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// Addresses on the bus: what stands in the BAR.
    Bus,
    /// The CPUs' physical addresses.
    Physical,
    /// What the IOMMU translates.
    Iova,
    /// None: the DMA API refuses to map it (swiotlb=force would have to bounce it, and cannot).
    Refused,
}

impl AddressKind {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bus => "bus address",
            Self::Physical => "CPU physical address",
            Self::Iova => "IOVA",
            Self::Refused => "none, the DMA API refuses",
        }
    }
}

/// Whether a host bridge is on Linux's list, in words.
pub fn trusted(version: Version, id: PciId) -> &'static str {
    match trust_of(version, id) {
        Trust::Everywhere => "on Linux's list",
        Trust::SameBridge => "on Linux's list for traffic inside one host bridge",
        Trust::Unknown => "not on Linux's list",
    }
}

/// The topology as Linux sees it after boot.
#[derive(Debug)]
pub struct View<'p> {
    /// The tree.
    pub plan: &'p Plan,
    /// The guest.
    pub guest: &'p Guest,
    /// The ACS controls that are on, by function.
    pub controls: Vec<AcsControl>,
}

impl<'p> View<'p> {
    /// Looks at `plan` with the eyes of `guest`.
    pub fn new(plan: &'p Plan, guest: &'p Guest) -> Self {
        let request = guest.iommu.has_iommu();
        let parameters = parameters::AcsParameters::read(&guest.parameters);
        let controls = (0..plan.functions.len())
            .map(|index| acs::controls(plan, index, request, &parameters))
            .collect();
        Self { plan, guest, controls }
    }

    /// Whether the IOMMU translates what this function emits: it never does for itself.
    pub fn translates(&self, function: usize) -> bool {
        self.guest.iommu.translates() && self.plan.functions[function].kind != Kind::Iommu
    }

    /// What kind of address the DMA API gives `client` for device memory on a path of this kind.
    pub fn dma_address(&self, client: usize, map: MapType) -> AddressKind {
        match self.address_kind(map) {
            AddressKind::Iova if !self.translates(client) => AddressKind::Physical,
            kind => kind,
        }
    }

    /// The same for any function but the IOMMU's own.
    pub fn address_kind(&self, map: MapType) -> AddressKind {
        match map {
            MapType::BusAddress => AddressKind::Bus,
            MapType::NotSupported => AddressKind::Refused,
            MapType::ThroughHostBridge if self.guest.iommu.translates() => AddressKind::Iova,
            MapType::ThroughHostBridge if parameters::bounces(&self.guest.parameters) => {
                AddressKind::Refused
            }
            MapType::ThroughHostBridge => AddressKind::Physical,
        }
    }
}
