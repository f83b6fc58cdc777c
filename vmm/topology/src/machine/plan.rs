//! From a record to the tree that the decision is made on.

use device_models::AddressRange;
use device_models::fabric::HostWindow;
use device_models::pci::{AcsControl, Bdf};
use peerdma_capture::{Acs, Address, Function, Header, Machine, Parent, PortType};

use super::REDIRECT;
use crate::linux::{Version, found_acs};
use crate::plan::{Found, Kind, Plan, Planned, PlannedBridge};
use crate::{Item, PciId, PeerRouting};

/// The identity of a host bridge where Linux finds no function to go by.
pub(super) const NONE: PciId = PciId { vendor: u16::MAX, device: u16::MAX };
/// The identity of a host bridge that the record does not show.
pub(super) const UNKNOWN: PciId = PciId { vendor: u16::MAX, device: 0 };

/// The tree, function by function in the record's order. `redirect`: ACS controls that are not known
/// redirect.
pub(super) fn plan(machine: &Machine, version: Version, redirect: bool) -> Plan {
    let index = |address: Address| {
        machine.functions.binary_search_by_key(&address, |function| function.address).ok()
    };
    let counted = machine.counted();
    let mut plan = Plan {
        name: machine.source.clone(),
        functions: Vec::with_capacity(machine.functions.len()),
        host_bridges: Vec::new(),
        linux: version,
        real: true,
        found_with: words(machine),
        addresses: None,
    };
    for function in &machine.functions {
        // Linux takes a virtual function's bridge from its physical function.
        let own = function.physical_function.and_then(|at| machine.at(at)).unwrap_or(function);
        let parent = match own.parent {
            Parent::Below(above) => index(above),
            Parent::Root | Parent::Unknown => None,
        };
        let host_bridge = host_bridge(machine, &mut plan, own);
        let name = counted.iter().find(|(_, it)| it.address == function.address);
        let name = name.map_or_else(|| function.address.to_string(), |(name, _)| name.clone());
        let (capabilities, found) = acs(&function.acs, redirect);
        plan.functions.push(Planned {
            name,
            kind: kind(function),
            parent,
            children: Vec::new(),
            host_bridge,
            bdf: Bdf::new(function.address.bus, function.address.device, function.address.function),
            buses: None,
            acs: capabilities,
            acs_without_effect: AcsControl::empty(),
            hot_plug: false,
            has_memory: true,
            multi_function: function.multi_function.unwrap_or(false),
            item: Item::Whole,
            found: Some(Found {
                controls: found,
                default: found,
                firmware: found,
                missing: false,
                ids: [
                    function.vendor,
                    function.device,
                    function.subsystem_vendor,
                    function.subsystem_device,
                ],
            }),
        });
    }
    missing_bridges(machine, &mut plan, redirect);
    for child in 0..plan.functions.len() {
        match plan.functions[child].parent {
            Some(above) => plan.functions[above].children.push(child),
            None => {
                let bridge = plan.functions[child].host_bridge;
                plan.host_bridges[bridge].root.push(child);
            }
        }
    }
    let request = machine.kernel.iommu_groups;
    for at in 0..plan.functions.len() {
        let Some(mut found) = plan.functions[at].found else { continue };
        let (default, firmware) = found_acs(&plan, at, found.controls, (request, redirect));
        (found.default, found.firmware) = (default, firmware);
        plan.functions[at].found = Some(found);
    }
    plan
}

/// The parameters of the record's kernel, one each.
pub(super) fn words(machine: &Machine) -> Vec<String> {
    let line = machine.kernel.command_line.as_deref().unwrap_or_default();
    line.split_whitespace().map(str::to_owned).collect()
}

/// Bridges that the record lacks, but that must be there: above what is never on a root bus. They
/// stand behind the record's functions.
fn missing_bridges(machine: &Machine, plan: &mut Plan, redirect: bool) {
    for index in 0..machine.functions.len() {
        let function = &machine.functions[index];
        let own = function.physical_function.and_then(|at| machine.at(at)).unwrap_or(function);
        let below = matches!(
            own.port,
            PortType::Endpoint
                | PortType::LegacyEndpoint
                | PortType::Upstream
                | PortType::Downstream
        );
        if own.parent != Parent::Unknown || !below {
            continue;
        }
        let (segment, bus) = (own.address.segment, own.address.bus);
        let name = format!("the bridge above bus {segment:04x}:{bus:02x}");
        let known = plan.functions.iter().position(|planned| planned.name == name);
        plan.functions[index].parent = Some(known.unwrap_or(plan.functions.len()));
        if known.is_some() {
            continue;
        }
        let assumed = if redirect { REDIRECT } else { AcsControl::empty() };
        let kind = match own.port {
            PortType::Downstream => Kind::SwitchUpstream,
            _ => Kind::OtherBridge,
        };
        plan.functions.push(Planned {
            name,
            kind,
            parent: None,
            children: Vec::new(),
            host_bridge: plan.functions[index].host_bridge,
            bdf: Bdf::new(bus, 0, 0),
            buses: None,
            acs: Some(assumed),
            acs_without_effect: AcsControl::empty(),
            hot_plug: false,
            has_memory: false,
            multi_function: false,
            item: Item::Whole,
            found: Some(Found {
                controls: assumed,
                default: assumed,
                firmware: assumed,
                missing: true,
                ids: [None; 4],
            }),
        });
    }
}

/// What it is for routing.
fn kind(function: &Function) -> Kind {
    let id = PciId {
        vendor: function.vendor.unwrap_or(u16::MAX),
        device: function.device.unwrap_or(u16::MAX),
    };
    match (function.port, function.header) {
        (PortType::RootPort, _) => Kind::RootPort,
        (PortType::Upstream, _) => Kind::SwitchUpstream,
        (PortType::Downstream, _) => Kind::SwitchDownstream,
        (PortType::PcieToPci | PortType::PciToPcie, _) | (_, Header::Bridge | Header::CardBus) => {
            Kind::OtherBridge
        }
        (PortType::Unknown, _) if function.bridge.is_some() => Kind::OtherBridge,
        _ => Kind::Device(id),
    }
}

/// Capabilities, and the controls that are on.
fn acs(acs: &Acs, redirect: bool) -> (Option<AcsControl>, AcsControl) {
    let assumed = if redirect { REDIRECT } else { AcsControl::empty() };
    match acs {
        Acs::Absent => (None, AcsControl::empty()),
        Acs::Unknown => (Some(assumed), assumed),
        Acs::Present { capabilities, control, .. } => {
            let bits = |flags: [Option<bool>; 7], unknown: AcsControl| {
                (0..7_u16).zip(flags).fold(AcsControl::empty(), |all, (bit, flag)| {
                    let control = AcsControl::from_bits_truncate(1 << bit);
                    all | match flag {
                        Some(true) => control,
                        Some(false) => AcsControl::empty(),
                        None => control & unknown,
                    }
                })
            };
            let on = bits(control.values(), assumed);
            (Some(bits(capabilities.values(), AcsControl::all()) | on), on)
        }
    }
}

/// The host bridge above a function: one for each root bus.
fn host_bridge(machine: &Machine, plan: &mut Plan, function: &Function) -> usize {
    let mut top = function;
    // The record has no circle; its paths are no longer than there are buses.
    for _ in 0..256 {
        let Parent::Below(above) = top.parent else { break };
        let Some(next) = machine.at(above) else { break };
        top = next;
    }
    let (segment, bus) = (top.address.segment, top.address.bus);
    let name = format!("bus {segment:04x}:{bus:02x}");
    if let Some(known) = plan.host_bridges.iter().position(|bridge| bridge.name == name) {
        return known;
    }
    let nothing = AddressRange { first: u64::MAX, last: 0 };
    plan.host_bridges.push(PlannedBridge {
        name,
        id: identity(machine, top),
        segment,
        buses: (bus, bus),
        windows: [HostWindow { bus: nothing, offset: 0 }; 2],
        // Only the machine's maker knows; Linux goes by its list.
        peer_routing: PeerRouting::Everywhere,
        root: Vec::new(),
    });
    plan.host_bridges.len() - 1
}

/// The identity that Linux looks up in its list (`pci_host_bridge_dev()`).
fn identity(machine: &Machine, top: &Function) -> PciId {
    if top.parent != Parent::Root {
        return UNKNOWN;
    }
    let same_bus = |function: &&Function| {
        (function.address.segment, function.address.bus) == (top.address.segment, top.address.bus)
    };
    let Some(first) = machine.functions.iter().find(same_bus) else { return UNKNOWN };
    let is_first = (first.address.device, first.address.function) == (0, 0);
    // Text may be an extract: only sysfs and the script are known to have every function of a bus.
    let whole = ["sysfs", "script"].iter().any(|source| machine.source.contains(source));
    if !is_first && !whole {
        return UNKNOWN;
    }
    if !is_first && first.port == PortType::Unknown {
        return UNKNOWN;
    }
    if !is_first && first.port != PortType::RootPort {
        return NONE;
    }
    match (first.vendor, first.device) {
        (Some(vendor), Some(device)) => PciId { vendor, device },
        _ => UNKNOWN,
    }
}
