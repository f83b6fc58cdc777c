//! The address map: everything that decides where a request goes, as one immutable value.
//!
//! Configuration writes that change decoding publish a new map with a new epoch; a request sees a
//! change in whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{FunctionId, RootComplex};
use crate::AddressRange;
use crate::memory::Memory;
use crate::pci::{AcsControl, Bdf};

/// What stands behind a BAR.
#[derive(Debug, Clone)]
pub enum BarTarget {
    /// Memory, reached in place: the index into [`AddressMap::memories`].
    Memory(usize),
    /// Registers of the model, reached by message.
    Registers,
    /// The MSI-X table and pending bit array.
    Msix,
}

/// A BAR as programmed.
#[derive(Debug, Clone)]
pub struct MappedBar {
    /// BAR number, 0 to 5; the lower one of a 64-bit pair.
    pub index: u8,
    /// Bus address as programmed.
    pub range: AddressRange,
    /// What it leads to.
    pub target: BarTarget,
}

/// What a function is for routing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Takes and issues requests.
    Endpoint,
    /// A root port: below a host bridge, above one link.
    RootPort,
    /// The upstream port of a switch.
    SwitchUpstream,
    /// A downstream port of a switch.
    SwitchDownstream,
}

/// One function of the topology.
#[derive(Debug, Clone)]
pub struct Node {
    /// Name for people, for example `peer0`.
    pub name: Arc<str>,
    /// Endpoint or which kind of bridge.
    pub kind: NodeKind,
    /// The bridge above; none on a root bus.
    pub parent: Option<FunctionId>,
    /// The functions on the bus below a bridge.
    pub children: Vec<FunctionId>,
    /// Requester ID under the present bus numbers.
    pub requester: Bdf,
    /// Bus Master Enable.
    pub bus_master: bool,
    /// Memory Space Enable.
    pub memory_enabled: bool,
    /// In D0 and not in reset.
    pub operational: bool,
    /// A root port or downstream port whose link is down: nothing below can be reached.
    pub link_down: bool,
    /// Max_Payload_Size in bytes.
    pub max_payload: u32,
    /// Max_Read_Request_Size in bytes.
    pub max_read_request: u32,
    /// ACS controls that are on, and in effect; empty without the capability.
    pub acs: AcsControl,
    /// ACS controls that are on, and without effect: a defect of the port's.
    pub acs_without_effect: AcsControl,
    /// Port Number of a bridge.
    pub port_number: u8,
    /// Egress control vector: by [`Node::port_number`], whether a sibling may not be reached
    /// directly.
    pub egress: [u32; 8],
    /// Secondary and subordinate bus number of a bridge.
    pub buses: Option<(u8, u8)>,
    /// The memory and the prefetchable memory window of a bridge, as far as they are open.
    pub windows: [Option<AddressRange>; 2],
    /// The BARs, whether decoded or not.
    pub bars: Vec<MappedBar>,
    /// With Memory Space Enable clear: where BARs were decoded when it was set last, and are no
    /// more.
    pub lost: Vec<AddressRange>,
}

impl Node {
    /// Whether `bus` is behind this bridge.
    pub(super) fn leads_to(&self, bus: u8) -> bool {
        self.buses.is_some_and(|(first, last)| (first..=last).contains(&bus))
    }

    /// Whether one of the windows of this bridge holds `address`, and until where it does.
    pub(super) fn window_at(&self, address: u64) -> Option<AddressRange> {
        self.windows.iter().flatten().copied().find(|window| window.contains(address))
    }

    /// The BAR that holds `address`.
    pub(super) fn bar_at(&self, address: u64) -> Option<&MappedBar> {
        self.bars.iter().find(|bar| bar.range.contains(address))
    }
}

/// A memory BAR that the CPUs can reach: what a VMM maps into the guest.
#[derive(Debug, Clone)]
pub struct GuestMapping {
    /// Guest physical address of its first byte.
    pub guest_address: u64,
    /// The memory, from its first byte.
    pub memory: Memory,
    /// Bytes to map: the size of the BAR, which software may have made smaller (PCIe 6.0, 7.8.6).
    pub length: u64,
    /// The function that owns the BAR.
    pub function: FunctionId,
    /// Index of the BAR, 0 to 5.
    pub bar: u8,
}

/// One address map.
#[derive(Debug, Clone, Default)]
pub struct AddressMap {
    /// Grows by one with each published map.
    pub epoch: u64,
    /// All functions, by [`FunctionId::index`].
    pub nodes: Vec<Node>,
    /// The host bridges with the functions on their root buses.
    pub roots: Vec<RootComplex>,
    /// Guest RAM: the first entries of `memories`, in this order.
    pub ram: Vec<AddressRange>,
    /// RAM regions, then the memories behind BARs.
    pub memories: Vec<Memory>,
    /// The functions that configuration requests reach, by requester ID.
    pub by_bdf: BTreeMap<Bdf, FunctionId>,
}

impl AddressMap {
    /// The node of `function`.
    pub fn node(&self, function: FunctionId) -> &Node {
        &self.nodes[function.index()]
    }

    /// The RAM region at a physical address: its index in `memories` and its range.
    pub(super) fn ram_at(&self, address: u64) -> Option<(usize, AddressRange)> {
        self.ram.iter().copied().enumerate().find(|(_, range)| range.contains(address))
    }

    /// The bridges above `function`, from the nearest to the one on the root bus.
    pub fn path_up(&self, function: FunctionId) -> impl Iterator<Item = FunctionId> + '_ {
        std::iter::successors(self.node(function).parent, |&bridge| self.node(bridge).parent)
    }

    /// The function on the root bus that `function` hangs below: a root port, or itself.
    pub fn on_root_bus(&self, function: FunctionId) -> FunctionId {
        self.path_up(function).last().unwrap_or(function)
    }

    /// The host bridge that `function` hangs below.
    pub fn root_of(&self, function: FunctionId) -> Option<&RootComplex> {
        let top = self.on_root_bus(function);
        self.roots.iter().find(|root| root.functions.contains(&top))
    }

    /// The memory BARs that the CPUs reach in full, for the VMM to map into the guest.
    pub fn guest_mappings(&self) -> Vec<GuestMapping> {
        let mut mappings = Vec::new();
        for (function, node) in
            self.functions().filter(|(_, node)| node.memory_enabled && node.operational)
        {
            for bar in &node.bars {
                let BarTarget::Memory(memory) = bar.target else { continue };
                let open = self.path_up(function).all(|bridge| {
                    let bridge = self.node(bridge);
                    let window = bridge.window_at(bar.range.first);
                    bridge.memory_enabled
                        && bridge.operational
                        && window.is_some_and(|window| window.last >= bar.range.last)
                });
                let Some(memory) = self.memories.get(memory).filter(|_| open) else { continue };
                let Some(range) =
                    self.root_of(function).and_then(|root| root.seen_by_cpu(&bar.range))
                else {
                    continue;
                };
                let taken = self.ram.iter().any(|ram| ram.overlaps(&range))
                    || mappings.iter().any(|other: &GuestMapping| {
                        AddressRange::new(other.guest_address, other.length)
                            .is_some_and(|other| other.overlaps(&range))
                    });
                if !taken {
                    mappings.push(GuestMapping {
                        guest_address: range.first,
                        memory: memory.clone(),
                        length: (bar.range.last - bar.range.first)
                            .saturating_add(1)
                            .min(memory.len()),
                        function,
                        bar: bar.index,
                    });
                }
            }
        }
        mappings
    }

    /// All functions with their BDFs.
    pub fn functions(&self) -> impl Iterator<Item = (FunctionId, &Node)> {
        self.nodes.iter().zip(0u16..).map(|(node, index)| (FunctionId(index), node))
    }
}
