//! What is to be seen of a function when a guest has been frozen at a finding.

use super::System;
use crate::fabric::FunctionId;

/// Mappings that are shown, at most.
const MAPPINGS: usize = 6;

/// What is mapped for a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DmaMappings {
    /// By the guest's kernel, as its witness says; none without a witness.
    pub kernel: Option<Listed>,
    /// By the IOMMU; none where none translates for the function.
    pub iommu: Option<Listed>,
}

/// Some of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// In words, one each, by address.
    pub lines: Vec<String>,
    /// How many there are.
    pub all: usize,
}

impl System {
    /// The mappings for `function` that are nearest to `address` (without one, to 0), at most `most` of each kind.
    /// Nothing changes by that.
    pub fn dma_mappings(
        &mut self,
        function: FunctionId,
        address: Option<u64>,
        most: usize,
    ) -> DmaMappings {
        let requester = self.address_map().node(function).requester;
        let near = address.unwrap_or(0);
        let listed = |(lines, all)| Listed { lines, all };
        let kernel = self.fabric.witnessed_mappings(function, near, most).map(listed);
        let iommu = self.fabric.virtio_iommu();
        let iommu = iommu.and_then(|iommu| iommu.mappings_near(requester, near, most)).map(listed);
        DmaMappings { kernel, iommu }
    }

    /// The state of `function` and what is mapped for it near `address`, a line each; without an address any mapping.
    /// Nothing changes by that.
    pub fn scene(&mut self, function: FunctionId, address: Option<u64>) -> Vec<String> {
        let mut lines = self.function_state(function);
        lines.extend(self.mapping_lines(function, address, MAPPINGS));
        lines
    }

    /// What the address map has of `function`: bus mastering, decoding, power, BARs. A line each.
    pub fn function_state(&self, function: FunctionId) -> Vec<String> {
        let node = self.address_map().node(function);
        let on = |on: bool| if on { "on" } else { "off" };
        let mut lines = vec![format!(
            "{} ({}): Bus Master Enable {}, Memory Space Enable {}{}",
            node.name,
            node.requester,
            on(node.bus_master),
            on(node.memory_enabled),
            if node.operational { "" } else { ", in reset or not in D0" },
        )];
        for bar in &node.bars {
            let crate::AddressRange { first, last } = bar.range;
            lines.push(format!("  BAR {} at bus addresses {first:#x}..={last:#x}", bar.index));
        }
        lines
    }

    /// The same as [`System::dma_mappings`], a line each under a heading. Empty where nothing is known.
    pub fn mapping_lines(
        &mut self,
        function: FunctionId,
        address: Option<u64>,
        most: usize,
    ) -> Vec<String> {
        let name = self.address_map().node(function).name.to_string();
        let mut lines = Vec::new();
        let DmaMappings { kernel, iommu } = self.dma_mappings(function, address, most);
        list(&mut lines, &format!("the guest's kernel has mapped for {name}"), kernel);
        list(&mut lines, &format!("the IOMMU maps for {name}"), iommu);
        lines
    }

    /// The registers of the device behind `function`, by name; see [`Endpoint::named_registers`]. Empty for ports and for
    /// devices that name none.
    ///
    /// [`Endpoint::named_registers`]: crate::endpoint::Endpoint::named_registers
    pub fn named_registers(&mut self, function: FunctionId) -> Vec<(String, u64)> {
        let endpoint = self.states.get_mut(function.index()).and_then(|state| state.endpoint());
        endpoint.map(|endpoint| endpoint.named_registers()).unwrap_or_default()
    }

    /// What a read of `length` (1, 2 or 4) bytes at `offset` of the configuration space of `function` would find there,
    /// without being one: nothing is pushed or recorded, and no device model is asked.
    pub fn config_peek(&self, function: FunctionId, offset: u16, length: u8) -> u32 {
        self.states
            .get(function.index())
            .map_or(u32::MAX, |state| state.config.read(offset, length))
    }
}

/// Adds `mapped`, of which the second half says how many there are in all; none where nothing is known.
fn list(lines: &mut Vec<String>, what: &str, mapped: Option<Listed>) {
    let Some(Listed { lines: mapped, all }) = mapped else { return };
    match all {
        0 => lines.push(format!("{what}: nothing")),
        _ if mapped.len() < all => {
            lines.push(format!("{what}, the nearest {} of {all}:", mapped.len()));
        }
        _ => lines.push(format!("{what}:")),
    }
    lines.extend(mapped.into_iter().map(|line| format!("  {line}")));
}
