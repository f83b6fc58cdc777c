//! Configuration accesses, and the address map that follows from them.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::function::FunctionState;
use super::{Root, System};
use crate::AddressRange;
use crate::fabric::{AddressMap, BarTarget, FunctionId, Input, MappedBar, Node};
use crate::memory::Memory;
use crate::pci::{Bdf, ConfigEffects, PowerState, VendorRegister};

impl System {
    /// A CPU's configuration read of 1, 2 or 4 bytes at `offset` (0 to 4095) of the function at
    /// `bdf`; all ones when no function is there (PCIe 6.0, 2.3.2).
    pub fn config_read(&mut self, bdf: Bdf, offset: u16, length: u8) -> u32 {
        let Some(function) = self.by_bdf(bdf) else { return all_ones(length) };
        let state = &mut self.states[function.index()];
        let mut value = state.config.read(offset, length);
        let vendor = state.config.vendor_register(offset);
        if let Some(VendorRegister { index, offset: register }) = vendor {
            let mut data = value.to_le_bytes();
            let part = &mut data[..usize::from(length.min(4))];
            let register = from_capability(register);
            let answered = state
                .endpoint()
                .and_then(|endpoint| endpoint.vendor_config_read(index, register, part));
            if answered.is_some() {
                value = u32::from_le_bytes(data);
            }
        }
        let pushes = self.fabric.cpu_read_pushes(function);
        if pushes || vendor.is_some() {
            self.input(&Input::ConfigRead { bdf, offset, length, value });
        }
        if pushes {
            self.fabric.completed_to_cpu(function);
            self.log_errors();
        }
        value
    }

    /// A CPU's configuration write of the low `length` (1, 2 or 4) bytes of `value`.
    pub fn config_write(&mut self, bdf: Bdf, offset: u16, length: u8, value: u32) {
        let Some(function) = self.by_bdf(bdf) else { return };
        self.input(&Input::ConfigWrite { bdf, offset, length, value });
        // Software that writes takes the reset as over. It is, unless a bridge holds the function
        // in it: that the last step waits for a turn is the system's affair. No other access comes
        // before such a write: after a reset no memory is enabled.
        self.finish_reset(function);
        let state = &mut self.states[function.index()];
        let renumbered = state.captured.replace(bdf).is_some_and(|before| before != bdf);
        let effects = state.config.write(offset, length, value);
        self.apply(function, effects);
        if renumbered {
            self.publish();
        }
        let state = &mut self.states[function.index()];
        if effects.contains(ConfigEffects::VENDOR)
            && let Some(VendorRegister { index, offset: register }) =
                state.config.vendor_register(offset)
            && let Some(endpoint) = state.endpoint()
        {
            let register = from_capability(register);
            let data = value.to_le_bytes();
            endpoint.vendor_config_write(index, register, &data[..usize::from(length.min(4))]);
            self.serve_in_exit(function);
        }
    }

    /// Lets the rest of the system follow what a configuration write changed.
    pub(super) fn apply(&mut self, function: FunctionId, effects: ConfigEffects) {
        let routing = ConfigEffects::DECODE
            | ConfigEffects::BUS_MASTER
            | ConfigEffects::POWER
            | ConfigEffects::ACS
            | ConfigEffects::LINK
            | ConfigEffects::PAYLOAD;
        if effects.contains(ConfigEffects::FLR) {
            self.begin_reset(function);
        }
        if effects.contains(ConfigEffects::SECONDARY_BUS_RESET) {
            self.reset_below(function);
        }
        if effects.contains(ConfigEffects::LINK) {
            self.follow_link(function);
        }
        if effects.intersects(routing | ConfigEffects::FLR | ConfigEffects::SECONDARY_BUS_RESET) {
            self.publish();
        }
        let interrupts = ConfigEffects::MSIX | ConfigEffects::MSI | ConfigEffects::FLR;
        if effects.intersects(interrupts) {
            self.follow_interrupt_enables(function);
        } else if effects.intersects(ConfigEffects::BUS_MASTER | ConfigEffects::POWER) {
            self.deliver_pending(function);
        }
        if effects.contains(ConfigEffects::INTERRUPT) {
            self.signal_port_interrupt(function);
        }
    }

    /// Publishes a new address map.
    pub(super) fn publish(&mut self) {
        let mut map = AddressMap {
            epoch: self.fabric.map().epoch + 1,
            roots: self.roots.iter().map(|root| root.routing.clone()).collect(),
            ram: self.ram.clone(),
            memories: self.fabric.map().memories[..self.ram.len()].to_vec(),
            ..AddressMap::default()
        };
        let addresses = self.bdfs();
        for (state, address) in self.states.iter_mut().zip(&addresses) {
            let node = node(state, *address, &mut map.memories);
            if node.memory_enabled {
                state.decoded = node.bars.iter().map(|bar| bar.range).collect();
            }
            map.nodes.push(node);
        }
        for (function, address) in (0u16..).map(FunctionId).zip(&addresses) {
            if let Some(address) = address {
                map.by_bdf.entry(*address).or_insert(function);
            }
        }
        let own = self.fabric.untranslated().and_then(|function| addresses[function.index()]);
        if let Some(iommu) = self.fabric.virtio_iommu() {
            for address in addresses.iter().flatten().filter(|address| Some(**address) != own) {
                iommu.add_endpoint(*address);
            }
        }
        self.fabric.publish(map);
        for (state, address) in self.states.iter_mut().zip(&addresses) {
            state.config.show(address.is_some());
        }
    }

    /// The BDF of every function that configuration requests reach under the present bus numbers;
    /// none for one below a bridge without any, or whose bus another bridge claims first, or lies
    /// outside those of the bridge above, or that is held in reset, or not there.
    fn bdfs(&self) -> Vec<Option<Bdf>> {
        let mut addresses = vec![None; self.states.len()];
        let mut claimed: BTreeSet<u8> = self.roots.iter().map(|root| root.first_bus).collect();
        let mut level: Vec<(FunctionId, u8, u8)> = Vec::new();
        for Root { first_bus, routing } in &self.roots {
            level.extend(routing.functions.iter().map(|&function| (function, *first_bus, u8::MAX)));
        }
        while let Some((function, bus, last)) = level.pop() {
            let state = &self.states[function.index()];
            addresses[function.index()] = Some(Bdf::new(bus, state.device, state.function));
            let Some(buses) = state.config.bridge_buses() else { continue };
            if state.config.holds_below_in_reset() || state.emptied {
                continue;
            }
            // Secondary bus 0 means that the bridge has no bus numbers yet.
            let last = buses.subordinate.min(last);
            if (bus.saturating_add(1)..=last).contains(&buses.secondary)
                && claimed.insert(buses.secondary)
            {
                level.extend(state.children.iter().map(|&child| (child, buses.secondary, last)));
            }
        }
        addresses
    }

    pub(super) fn by_bdf(&self, bdf: Bdf) -> Option<FunctionId> {
        self.fabric.map().by_bdf.get(&bdf).copied()
    }

    pub(super) fn input(&mut self, input: &Input<'_>) {
        self.fabric.observe_input(input);
    }
}

fn node(state: &FunctionState, address: Option<Bdf>, memories: &mut Vec<Memory>) -> Node {
    let config = &state.config;
    let windows = config.bridge_windows();
    let mut bars = Vec::new();
    for bar in config.bars() {
        let target = if let Some((_, memory)) =
            state.memories.iter().find(|(index, _)| *index == bar.index)
        {
            memories.push(memory.clone());
            BarTarget::Memory(memories.len() - 1)
        } else if state.msix_bar == Some(bar.index) {
            BarTarget::Msix
        } else {
            BarTarget::Registers
        };
        // A BAR at 0 has not been programmed; RAM stands there.
        if let Some(range) =
            AddressRange::new(bar.address, bar.size).filter(|range| range.first != 0)
        {
            bars.push(MappedBar { index: bar.index, range, target });
        }
    }
    let is_there = |range: &AddressRange| bars.iter().any(|bar| bar.range == *range);
    let lost = match config.memory_enabled() {
        true => Vec::new(),
        false => state.decoded.iter().filter(|range| !is_there(range)).copied().collect(),
    };
    Node {
        name: Arc::clone(&state.name),
        kind: state.kind(),
        parent: state.parent,
        children: state.children.clone(),
        // Before the first configuration write it has no bus number of its own; nor does it send
        // anything.
        requester: state.captured.or(address).unwrap_or_default(),
        bus_master: config.bus_master_enabled(),
        memory_enabled: config.memory_enabled(),
        operational: !state.resetting && config.power_state() == PowerState::D0,
        link_down: state.has_link_below() && config.link().is_none(),
        max_payload: u32::from(config.max_payload_size()),
        max_read_request: u32::from(config.max_read_request_size()),
        acs: config.acs_in_effect(),
        acs_without_effect: config.acs_control() - config.acs_in_effect(),
        port_number: state.port_number,
        egress: config.acs_egress_vector(),
        buses: config.bridge_buses().map(|buses| (buses.secondary, buses.subordinate)),
        windows: [windows.memory, windows.prefetchable].map(|window| {
            window.map(|range| AddressRange { first: *range.start(), last: *range.end() })
        }),
        bars,
        lost,
    }
}

/// The configuration space counts from the body of a vendor capability, endpoints from its first
/// byte: ID and next pointer lie between.
fn from_capability(body: usize) -> u8 {
    u8::try_from(body.saturating_add(2)).unwrap_or(u8::MAX)
}

fn all_ones(length: u8) -> u32 {
    match length {
        1 => 0xff,
        2 => 0xffff,
        _ => u32::MAX,
    }
}
