//! How Linux lets one device reach another's memory (`calc_map_type_and_dist()`).

use device_models::pci::AcsControl;
use serde::{Deserialize, Serialize};

use super::View;
use super::trust::{self, Trust};
use crate::description::PciId;
use crate::plan::Kind;

/// The way, with Linux's three names for it (`enum pci_p2pdma_map_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MapType {
    /// A switch turns requests around by bus address.
    BusAddress,
    /// Requests go up to the root complex and down again.
    ThroughHostBridge,
    /// There is none.
    NotSupported,
}

impl MapType {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::BusAddress => "bus address",
            Self::ThroughHostBridge => "through the host bridge",
            Self::NotSupported => "not supported",
        }
    }

    /// The kernel's word.
    pub fn kernel_name(self) -> &'static str {
        match self {
            Self::BusAddress => "PCI_P2PDMA_MAP_BUS_ADDR",
            Self::ThroughHostBridge => "PCI_P2PDMA_MAP_THRU_HOST_BRIDGE",
            Self::NotSupported => "PCI_P2PDMA_MAP_NOT_SUPPORTED",
        }
    }
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// Both are below this function, and nothing between them redirects.
    CommonBridge(usize),
    /// The processor is one that Linux trusts.
    Processor,
    /// The host bridge, or both, are on Linux's list.
    Trusted(PciId),
    /// This host bridge is on the list for traffic inside one bridge only.
    SameBridgeOnly(PciId),
    /// This host bridge is not on the list.
    NotListed(PciId),
}

/// The decision for two functions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapDecision {
    /// The way.
    pub map: MapType,
    /// The hops (`pci_p2pdma_distance()`), whether there is a way or not.
    pub distance: u32,
    /// The bridge above both, if there is one: the function itself if it is one and the same.
    pub common: Option<usize>,
    /// The functions on the way whose ACS controls redirect.
    pub redirects: Vec<usize>,
    /// Why.
    pub reason: Reason,
}

/// `pci_bridge_has_acs_redir()`.
const REDIRECTS: AcsControl = AcsControl::P2P_REQUEST_REDIRECT
    .union(AcsControl::P2P_COMPLETION_REDIRECT)
    .union(AcsControl::P2P_EGRESS_CONTROL);

/// Whether Linux takes these ACS controls for redirection.
pub(crate) fn redirects(controls: AcsControl) -> bool {
    controls.intersects(REDIRECTS)
}

impl View<'_> {
    /// Whether Linux takes the ACS controls of a function for redirection.
    pub fn redirects(&self, function: usize) -> bool {
        redirects(self.controls[function])
    }

    /// The functions between the two, both and the common bridge included: first up from `a`, then up from `b`.
    pub fn between(&self, a: usize, b: usize) -> (Vec<usize>, Option<usize>) {
        let up_b: Vec<_> = self.plan.path_up(b).collect();
        let common = self.plan.path_up(a).find(|function| up_b.contains(function));
        let mut way: Vec<_> = self.plan.path_up(a).take_while(|at| Some(*at) != common).collect();
        way.extend(common);
        way.extend(up_b.into_iter().take_while(|at| Some(*at) != common));
        (way, common)
    }

    /// What a port does of what Linux switches on.
    pub(crate) fn in_effect(&self, function: usize) -> AcsControl {
        self.controls[function] - self.plan.functions[function].acs_without_effect
    }

    /// The redirections that Linux switches on at this port of a switch, and counts on, and that do nothing.
    pub fn redirects_in_vain(&self, function: usize) -> AcsControl {
        let planned = &self.plan.functions[function];
        match planned.kind {
            Kind::SwitchDownstream => {
                self.controls[function] & REDIRECTS & planned.acs_without_effect
            }
            // To the root complex everything goes anyway.
            _ => AcsControl::empty(),
        }
    }

    /// Decides for DMA by `client` into the memory of `provider`.
    pub fn decide(&self, provider: usize, client: usize) -> MapDecision {
        let (way, common) = self.between(provider, client);
        let distance = way.len() - usize::from(common.is_some());
        let distance = u32::try_from(distance).unwrap_or(u32::MAX);
        // Without a common bridge Linux looks at no ACS control: everything goes to the root complex anyway.
        let on_the_way = way.iter().copied().filter(|_| common.is_some());
        let redirects: Vec<_> = on_the_way.filter(|at| self.redirects(*at)).collect();
        let (map, reason) = match common {
            Some(common) if redirects.is_empty() => {
                (MapType::BusAddress, Reason::CommonBridge(common))
            }
            _ => self.through_host_bridge(provider, client),
        };
        MapDecision { map, distance, common, redirects, reason }
    }

    fn through_host_bridge(&self, provider: usize, client: usize) -> (MapType, Reason) {
        if trust::by_processor(self.guest.cpu) {
            return (MapType::ThroughHostBridge, Reason::Processor);
        }
        let bridge = |function: usize| self.plan.functions[function].host_bridge;
        let ids = [bridge(provider), bridge(client)].map(|index| self.plan.host_bridges[index].id);
        let same = bridge(provider) == bridge(client);
        for id in ids {
            match trust::of(self.plan.linux, id) {
                Trust::Everywhere => {}
                Trust::SameBridge if same => {}
                Trust::SameBridge => return (MapType::NotSupported, Reason::SameBridgeOnly(id)),
                Trust::Unknown => return (MapType::NotSupported, Reason::NotListed(id)),
            }
        }
        (MapType::ThroughHostBridge, Reason::Trusted(ids[0]))
    }
}
