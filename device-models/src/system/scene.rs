//! What is to be seen of a function when a guest has been frozen at a finding.

use super::System;
use crate::fabric::FunctionId;

/// Mappings that are shown, at most.
const MAPPINGS: usize = 6;

impl System {
    /// The state of `function` and what is mapped for it near `address`, a line each; without an address any mapping.
    /// Nothing changes by that.
    pub fn scene(&mut self, function: FunctionId, address: Option<u64>) -> Vec<String> {
        let map = self.address_map();
        let node = map.node(function);
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
        let requester = node.requester;
        let name = node.name.to_string();
        let near = address.unwrap_or(0);
        let mapped = self.fabric.witnessed_mappings(function, near, MAPPINGS);
        list(&mut lines, &format!("the guest's kernel has mapped for {name}"), mapped);
        if let Some(iommu) = self.fabric.virtio_iommu() {
            let mapped = iommu.mappings_near(requester, near, MAPPINGS);
            list(&mut lines, &format!("the IOMMU maps for {name}"), mapped);
        }
        lines
    }
}

/// Adds `mapped`, of which the second half says how many there are in all; none where nothing is known.
fn list(lines: &mut Vec<String>, what: &str, mapped: Option<(Vec<String>, usize)>) {
    let Some((mapped, all)) = mapped else { return };
    match all {
        0 => lines.push(format!("{what}: nothing")),
        _ if mapped.len() < all => {
            lines.push(format!("{what}, the nearest {} of {all}:", mapped.len()));
        }
        _ => lines.push(format!("{what}:")),
    }
    lines.extend(mapped.into_iter().map(|line| format!("  {line}")));
}
