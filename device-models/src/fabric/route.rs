//! Where a request goes: switches and ACS on the route up, the root complex, bridges and BARs on
//! the route down.
//!
//! Pure functions of an [`AddressMap`]. Every answer holds for a number of bytes, which it
//! gives, so that a run of TLPs is routed once and is still exact at each edge.

use super::acs::{self, PeerRequest};
use super::map::{AddressMap, BarTarget, MappedBar, NodeKind};
use super::{CompletionStatus, FunctionId, RouteKind};
use crate::AddressRange;
use crate::checker::FindingClass;
use crate::pci::AcsControl;

/// What stands at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Bytes of [`AddressMap::memories`]`[memory]` from `offset`; `function` owns them unless they
    /// are RAM.
    Memory {
        /// Index into the map's memories.
        memory: usize,
        /// Byte offset into that memory.
        offset: u64,
        /// The function whose BAR it is; none for RAM.
        function: Option<FunctionId>,
    },
    /// A register BAR.
    Registers {
        /// The function that owns the BAR.
        function: FunctionId,
        /// Which.
        bar: u8,
        /// Byte offset into it.
        offset: u64,
        /// Whether the offset is one of the MSI-X table or pending bit array.
        msix: bool,
    },
}

impl Target {
    /// The function whose BAR it is; none for RAM.
    pub(crate) fn owner(&self) -> Option<FunctionId> {
        match *self {
            Self::Memory { function, .. } => function,
            Self::Registers { function, .. } => Some(function),
        }
    }
}

/// Why a request was not delivered, and which function detects the error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The class of the finding.
    pub class: FindingClass,
    /// The function that detects the error; none when the root complex itself does.
    pub detector: Option<FunctionId>,
    /// The function that would have taken it: its decoding is off, or its BAR ends just before.
    pub near: Option<FunctionId>,
    /// The function that it was for, where that is known; it is not [`near`](Self::near), which
    /// would not take it.
    pub target: Option<FunctionId>,
    /// The physical address that the IOMMU translated the request's to; none if it did not.
    pub physical: Option<u64>,
    /// The MAP request of the first piece of the mapping that the IOMMU used.
    pub mapping: Option<u64>,
}

impl Refusal {
    /// A refusal without a near miss.
    pub(super) fn new(class: FindingClass, detector: Option<FunctionId>) -> Self {
        Self { class, detector, near: None, target: None, physical: None, mapping: None }
    }

    /// How a read that meets it ends (PCIe 6.0, 2.3.1 and 6.12.5).
    pub(super) fn status(&self) -> CompletionStatus {
        match self.class {
            FindingClass::AcsViolation => CompletionStatus::CompleterAbort,
            FindingClass::CompletionTimeout => CompletionStatus::Timeout,
            _ => CompletionStatus::UnsupportedRequest,
        }
    }
}

/// Where a request goes, and the number of bytes from its address on for which that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed<T> {
    /// Where.
    pub outcome: Result<T, Refusal>,
    /// Bytes, at least one.
    pub length: u64,
}

impl<T> Routed<T> {
    fn refuse(class: FindingClass, detector: Option<FunctionId>, length: u64) -> Self {
        Self { outcome: Err(Refusal::new(class, detector)), length }
    }
}

/// The route up, as far as the requester's own hierarchy decides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Upward {
    /// A switch delivers it to a sibling port's hierarchy by bus address: the IOMMU never sees it.
    Direct(Target),
    /// It reaches the root complex.
    RootComplex,
}

/// Routes a request with an untranslated address upwards from `requester` (PCIe 6.0, 2.2.4.1 and
/// 6.12).
pub(super) fn upward(
    map: &AddressMap,
    requester: FunctionId,
    address: u64,
    length: u64,
) -> Routed<Upward> {
    let mut length = length;
    let mut redirected = false;
    let source = map.node(requester).requester;
    for bridge in map.path_up(requester) {
        let port = map.node(bridge);
        if !port.bus_master || !port.operational {
            let class =
                if port.operational { FindingClass::BusMasterOff } else { FindingClass::NotInD0 };
            return Routed::refuse(class, Some(bridge), length);
        }
        match port.kind {
            NodeKind::RootPort | NodeKind::SwitchDownstream => {
                let below =
                    port.buses.is_some_and(|(first, last)| (first..=last).contains(&source.bus()));
                if port.acs.contains(AcsControl::SOURCE_VALIDATION) && !below {
                    return Routed::refuse(FindingClass::AcsViolation, Some(bridge), length);
                }
            }
            NodeKind::SwitchUpstream if !redirected && port.memory_enabled => {
                // For the link below, and no downstream port claimed it: the switch has no route.
                if let Some(window) = port.window_at(address) {
                    let length = window.clip(address, length);
                    return Routed::refuse(FindingClass::NoTarget, Some(bridge), length);
                }
            }
            NodeKind::SwitchUpstream | NodeKind::Endpoint => {}
        }
        if port.kind == NodeKind::SwitchDownstream {
            let siblings =
                port.parent.map(|parent| map.node(parent).children.as_slice()).unwrap_or_default();
            for &sibling in siblings.iter().filter(|&&sibling| sibling != bridge) {
                let other = map.node(sibling);
                if !(other.memory_enabled && other.operational) {
                    continue;
                }
                for window in other.windows.iter().flatten() {
                    if window.contains(address) {
                        length = window.clip(address, length);
                        match acs::peer_request(port, other) {
                            PeerRequest::Direct => {
                                return descend(map, sibling, address, length).map(Upward::Direct);
                            }
                            PeerRequest::Redirect => redirected = true,
                            PeerRequest::Violation => {
                                let class = FindingClass::AcsViolation;
                                return Routed::refuse(class, Some(bridge), length);
                            }
                        }
                    } else if window.first > address {
                        length = length.min(window.first - address);
                    }
                }
            }
            // Back into the window of the port it came from: with Upstream Forwarding it passes on
            // upwards, whatever its requester (6.12.1.1); without, the switch has no route for it.
            if let Some(window) = port.window_at(address).filter(|_| port.memory_enabled) {
                length = window.clip(address, length);
                if !port.acs.contains(AcsControl::UPSTREAM_FORWARDING) {
                    return Routed::refuse(FindingClass::TurnedBack, Some(bridge), length);
                }
                redirected = true;
            }
        }
        length = clip_before(port.windows.iter().flatten(), address, length);
    }
    Routed { outcome: Ok(Upward::RootComplex), length }
}

/// Decodes a physical address at the root complex for a request that came up from `requester`.
pub(super) fn at_root(
    map: &AddressMap,
    requester: FunctionId,
    address: u64,
    length: u64,
) -> Routed<Target> {
    if let Some(ram) = ram(map, address, length) {
        return ram;
    }
    let decision = down_from_root(map, address, length);
    let Ok(target) = decision.outcome else { return decision };
    let Some(owner) = target.owner() else { return decision };
    let refused = |refusal| Refusal { target: Some(owner), ..refusal };
    let outcome = acs::through_root(map, requester, owner).map(|()| target).map_err(refused);
    Routed { outcome, length: decision.length }
}

/// Decodes a physical address for a CPU.
pub fn for_cpu(map: &AddressMap, address: u64, length: u64) -> Routed<Target> {
    down_from_root(map, address, length)
}

/// The root port (or root-bus function) above `function`.
pub(super) fn port_of(map: &AddressMap, function: FunctionId) -> Option<FunctionId> {
    map.path_up(function).last()
}

/// How the bytes of a delivered request travelled.
pub(super) fn kind_of(direct: bool, target: &Target) -> RouteKind {
    match (direct, target) {
        (true, _) => RouteKind::BusAddress,
        (false, Target::Memory { function: None, .. }) => RouteKind::Memory,
        (false, _) => RouteKind::ThroughHostBridge,
    }
}

fn ram(map: &AddressMap, address: u64, length: u64) -> Option<Routed<Target>> {
    let (memory, range) = map.ram_at(address)?;
    let target = Target::Memory { memory, offset: address - range.first, function: None };
    Some(Routed { outcome: Ok(target), length: range.clip(address, length) })
}

fn down_from_root(map: &AddressMap, address: u64, length: u64) -> Routed<Target> {
    let mut length = clip_before(map.ram.iter(), address, length);
    for root in &map.roots {
        if let Some((bus_address, length)) = root.to_bus(address, length) {
            return among(map, &root.functions, bus_address, length, None);
        }
        length = root.clip_before_windows(address, length);
    }
    Routed::refuse(FindingClass::NoTarget, None, length)
}

/// Delivers downwards into the hierarchy below `bridge`, whose window holds `address`.
fn descend(map: &AddressMap, bridge: FunctionId, address: u64, length: u64) -> Routed<Target> {
    if map.node(bridge).link_down {
        return Routed::refuse(FindingClass::LinkDown, Some(bridge), length);
    }
    among(map, &map.node(bridge).children, address, length, Some(bridge))
}

/// Finds the function on one bus that claims `address`; `above` is the bridge that put the request
/// on that bus.
fn among(
    map: &AddressMap,
    functions: &[FunctionId],
    address: u64,
    length: u64,
    above: Option<FunctionId>,
) -> Routed<Target> {
    let mut length = length;
    let mut near_miss = None;
    for &function in functions {
        let node = map.node(function);
        let decodes = node.memory_enabled && node.operational;
        let silent =
            if node.memory_enabled { FindingClass::NotInD0 } else { FindingClass::MemoryDecodeOff };
        if let Some(bar) = node.bar_at(address) {
            length = bar.range.clip(address, length);
            if decodes {
                return Routed { outcome: Ok(bar_target(function, bar, address)), length };
            }
            near_miss = Some((silent, function));
        }
        if let Some(range) = node.lost.iter().find(|range| range.contains(address)) {
            length = range.clip(address, length);
            near_miss = near_miss.or(Some((FindingClass::MemoryDecodeOff, function)));
        }
        if let Some(window) = node.window_at(address) {
            length = window.clip(address, length);
            if decodes {
                return descend(map, function, address, length);
            }
            near_miss = Some((silent, function));
        }
        let bars = node.bars.iter().map(|bar| &bar.range);
        let edges = bars.chain(node.windows.iter().flatten()).chain(&node.lost);
        length = clip_before(edges, address, length);
    }
    let near_miss = near_miss.or_else(|| {
        let ends_here = |bar: &MappedBar| bar.range.last.checked_add(1) == Some(address);
        let (owner, _) = map.functions().find(|(_, node)| node.bars.iter().any(ends_here))?;
        Some((FindingClass::BarEdge, owner))
    });
    let (class, near) =
        near_miss.map_or((FindingClass::NoTarget, None), |(class, owner)| (class, Some(owner)));
    // On a link the device at its far end receives the request and finds that it is not for it; on
    // the root bus the root complex does.
    let on_this_bus = near.filter(|near| functions.contains(near));
    let detector = above.and(on_this_bus.or_else(|| functions.first().copied()));
    let refusal = Refusal { near, ..Refusal::new(class, detector.or(above)) };
    Routed { outcome: Err(refusal), length }
}

fn bar_target(function: FunctionId, bar: &MappedBar, address: u64) -> Target {
    let offset = address - bar.range.first;
    match bar.target {
        BarTarget::Memory(memory) => Target::Memory { memory, offset, function: Some(function) },
        BarTarget::Registers => Target::Registers { function, bar: bar.index, offset, msix: false },
        BarTarget::Msix => Target::Registers { function, bar: bar.index, offset, msix: true },
    }
}

/// Shortens `length` so that it ends before the next of `ranges` that begins after `address`.
pub(super) fn clip_before<'a>(
    ranges: impl Iterator<Item = &'a AddressRange>,
    address: u64,
    length: u64,
) -> u64 {
    ranges
        .filter(|range| range.first > address)
        .fold(length, |length, range| length.min(range.first - address))
}

impl Routed<Target> {
    fn map<U>(self, wrap: impl FnOnce(Target) -> U) -> Routed<U> {
        Routed { outcome: self.outcome.map(wrap), length: self.length }
    }
}
