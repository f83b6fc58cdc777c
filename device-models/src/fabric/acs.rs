//! Access Control Services (PCIe 6.0, 6.12): what a port does with requests and completions between
//! peers.
//!
//! Without address translation services no request is marked translated, so Translation Blocking
//! and Direct Translated P2P never come into play. Relaxed Ordering does not exist here either, so
//! Completion Redirect takes all completions.

use super::map::{AddressMap, Node, NodeKind};
use super::route::Refusal;
use super::{FunctionId, RouteKind};
use crate::checker::FindingClass;
use crate::pci::{AcsControl, egress_names};

/// What the port by which a request enters a switch or the root complex does with it, if it is for
/// a port beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerRequest {
    /// Send it there.
    Direct,
    /// Send it towards the root complex, whose IOMMU has its say.
    Redirect,
    /// Refuse it: an ACS violation.
    Violation,
}

/// How Request Redirect and Egress Control act together (6.12.3, table 6-11): Egress Control lets
/// through what its vector does not name, and what it names is redirected if redirection is on,
/// refused otherwise.
pub(super) fn peer_request(ingress: &Node, egress: &Node) -> PeerRequest {
    let redirect = ingress.acs.contains(AcsControl::P2P_REQUEST_REDIRECT);
    let named = egress_names(&ingress.egress, egress.port_number);
    match (ingress.acs.contains(AcsControl::P2P_EGRESS_CONTROL), redirect) {
        (false, false) => PeerRequest::Direct,
        (true, _) if !named => PeerRequest::Direct,
        (_, true) => PeerRequest::Redirect,
        (true, false) => PeerRequest::Violation,
    }
}

/// Whether the root complex may take a request of `requester` to a BAR of `owner` (6.12.1.1).
pub(super) fn through_root(
    map: &AddressMap,
    requester: FunctionId,
    owner: FunctionId,
) -> Result<(), Refusal> {
    if !map.routes_between(requester, owner) {
        return Err(Refusal::new(FindingClass::PeerToPeerRefused, None));
    }
    let (from, to) = (map.on_root_bus(requester), map.on_root_bus(owner));
    if map.node(from).kind != NodeKind::RootPort {
        return Ok(());
    }
    if from == to {
        // Back to where it came from: only with Upstream Forwarding, which treats it like a
        // redirected request.
        return match map.node(from).acs.contains(AcsControl::UPSTREAM_FORWARDING) {
            true => Ok(()),
            false => Err(Refusal::new(FindingClass::TurnedBack, Some(from))),
        };
    }
    // All requests take the route through the IOMMU here, redirected or not; what is left is the
    // violation.
    match peer_request(map.node(from), map.node(to)) {
        PeerRequest::Violation if map.node(to).kind == NodeKind::RootPort => {
            Err(Refusal::new(FindingClass::AcsViolation, Some(from)))
        }
        _ => Ok(()),
    }
}

/// The route by which the completions of a read come back from `completer` to `requester`: they are
/// routed by the requester ID and on their own account, whatever route the request took (2.2.4.2
/// and 6.12.1.1).
///
/// An error stands for completions that a port does not route: the requester waits for them in
/// vain.
pub(super) fn completion(
    map: &AddressMap,
    completer: FunctionId,
    requester: FunctionId,
) -> Result<RouteKind, Refusal> {
    let bus = map.node(requester).requester.bus();
    let leads_there = |node: &Node| node.leads_to(bus);
    for bridge in map.path_up(completer) {
        let port = map.node(bridge);
        if port.kind == NodeKind::SwitchUpstream {
            continue;
        }
        if leads_there(port) {
            // For the port's own side of the switch or root complex, from below: redirected by a
            // switch further down.
            if port.acs.contains(AcsControl::UPSTREAM_FORWARDING) {
                continue;
            }
            return Err(Refusal::new(FindingClass::CompletionTimeout, Some(bridge)));
        }
        let beside = port.parent.map(|parent| map.node(parent).children.as_slice());
        let mut beside = beside.unwrap_or_default().iter().map(|&sibling| map.node(sibling));
        if port.kind == NodeKind::SwitchDownstream
            && beside.any(leads_there)
            && !port.acs.contains(AcsControl::P2P_COMPLETION_REDIRECT)
        {
            return Ok(RouteKind::BusAddress);
        }
    }
    Ok(RouteKind::ThroughHostBridge)
}

/// Whether a completion is routed from the root complex down to `requester`: each bridge on it has
/// the bus of the requester ID behind it (2.2.4.2), unless software has taken the bus number away
/// since the request went up.
pub(super) fn completion_from_root(map: &AddressMap, requester: FunctionId) -> Result<(), Refusal> {
    let bus = map.node(requester).requester.bus();
    match map.path_up(requester).find(|bridge| !map.node(*bridge).leads_to(bus)) {
        None => Ok(()),
        Some(bridge) => Err(Refusal::new(FindingClass::CompletionTimeout, Some(bridge))),
    }
}
