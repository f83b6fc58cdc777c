//! The state of a replayed system in words.

use device_models::fabric::{AddressMap, FunctionId, Node, NodeKind, PeerRouting};
use device_models::system::System;

/// Bytes of the configuration header that are shown.
const HEADER: u16 = 64;

/// All functions below their host bridges.
pub(super) fn topology(map: &AddressMap) -> Vec<String> {
    let mut lines = Vec::new();
    for (root, number) in map.roots.iter().zip(0..) {
        let routing = match root.peer_routing {
            PeerRouting::Everywhere => "everywhere",
            PeerRouting::SameBridge => "same-bridge",
            PeerRouting::Nowhere => "nowhere",
        };
        lines.push(format!("host bridge {number}, peer-routing {routing}"));
        let mut level: Vec<(FunctionId, usize)> =
            root.functions.iter().rev().map(|&function| (function, 1)).collect();
        while let Some((function, depth)) = level.pop() {
            let node = map.node(function);
            lines.push(format!("{}{}", "  ".repeat(depth), describe(node)));
            level.extend(node.children.iter().rev().map(|&child| (child, depth + 1)));
        }
    }
    lines
}

fn describe(node: &Node) -> String {
    let kind = match node.kind {
        NodeKind::Endpoint => "",
        NodeKind::RootPort => ", root port",
        NodeKind::SwitchUpstream => ", upstream port",
        NodeKind::SwitchDownstream => ", downstream port",
    };
    let mut text = format!("{} {}{kind}", node.requester, node.name);
    if let Some((first, last)) = node.buses {
        text += &format!(", buses {first:02x}-{last:02x}");
    }
    if node.kind != NodeKind::Endpoint && !node.acs.is_empty() {
        text += &format!(", ACS {}", peerdma_topology::Acs(Some(node.acs)));
    }
    let decodes = node.kind != NodeKind::Endpoint || !node.bars.is_empty();
    for (is, what) in [
        (node.link_down, ", link down"),
        // A host bridge's own function has neither.
        (!node.bus_master && decodes, ", Bus Master Enable off"),
        (!node.memory_enabled && decodes, ", Memory Space Enable off"),
        (!node.operational, ", in reset or not in D0"),
    ] {
        if is {
            text += what;
        }
    }
    text
}

/// A function's state and its configuration header.
pub(super) fn configuration(system: &System, function: FunctionId) -> Vec<String> {
    let mut lines = system.function_state(function);
    let node = system.address_map().node(function);
    lines.push(format!(
        "  Max_Payload_Size {}, Max_Read_Request_Size {}",
        node.max_payload, node.max_read_request
    ));
    for line in (0..HEADER).step_by(16) {
        let bytes = (line..line + 16).map(|offset| system.config_peek(function, offset, 1));
        let bytes: Vec<_> = bytes.map(|byte| format!("{byte:02x}")).collect();
        lines.push(format!("  {line:02x}: {}", bytes.join(" ")));
    }
    lines
}
