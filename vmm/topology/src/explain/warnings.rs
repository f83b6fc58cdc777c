//! Where Linux's decision and the hardware's route differ.

use device_models::checker::FindingClass;
use device_models::pci::AcsControl;

use super::report::Remark;
use super::{address, call, name_of};
use crate::acs_names;
use crate::linux::{AddressKind, MapDecision, MapType, View};
use crate::route::{Arrival, Route, Routes};

/// Everything there is to warn of, for requests of `a` to the memory of `b`, worst first.
pub(super) fn warnings(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
    routes: &Routes,
) -> Vec<Remark> {
    let mut found = Vec::new();
    let kind = view.dma_address(a, decision.map);
    let Some(requests) = routes.by(kind) else { return found };
    found.extend(lost(view, decision, (a, b), kind, &requests));
    if requests.arrives() {
        found.extend(lost_completions(view, routes));
        if decision.map == MapType::ThroughHostBridge {
            found.extend(
                straight(view, decision, a, routes, kind).filter(|_| counted_on(view, decision)),
            );
            found.extend(in_vain(view, decision));
        }
    }
    found
}

/// Whether a control on the path redirects requests, as far as its name goes.
fn counted_on(view: &View<'_>, decision: &MapDecision) -> bool {
    let requests = AcsControl::P2P_REQUEST_REDIRECT | AcsControl::P2P_EGRESS_CONTROL;
    decision.redirects.iter().any(|port| view.controls[*port].intersects(requests))
}

/// What is worth knowing, and harmless.
pub(super) fn notes(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
    routes: &Routes,
) -> Vec<Remark> {
    let mut found = Vec::new();
    if decision.map == MapType::NotSupported {
        let back = routes.completions.arrives();
        // Drivers that do not ask get what the DMA API gives; VFIO has a domain of its own.
        let drivers = if view.translates(a) { routes.by_iova } else { routes.by_cpu_address };
        let has_iommu = view.guest.iommu.has_iommu();
        let vfio = if has_iommu { routes.by_iova } else { drivers };
        let through = match (drivers.arrives() && back, vfio.arrives() && back) {
            (true, true) => Some((
                "hardware-routes",
                "VFIO, and drivers that map a BAR without asking p2pdma, get through",
            )),
            (true, false) => Some((
                "drivers-route",
                "drivers that map a BAR without asking p2pdma get through; VFIO does not",
            )),
            (false, true) => Some((
                "vfio-routes",
                "VFIO gets through; drivers that map a BAR without asking p2pdma do not",
            )),
            (false, false) => None,
        };
        if let Some((id, bridge)) = through {
            let text = format!("the hardware would route it; Linux alone refuses. {bridge}");
            found.push(Remark { id, at: None, text });
        }
    }
    let kind = view.dma_address(a, decision.map);
    if decision.map == MapType::ThroughHostBridge && !counted_on(view, decision) {
        found.extend(straight(view, decision, a, routes, kind));
    }
    found.extend(groups_reached(view, (a, b), routes));
    found
}

fn remark(id: &'static str, view: &View<'_>, at: Option<usize>, text: String) -> Remark {
    Remark { id, at: at.map(|at| address(view.plan, at)), text }
}

/// Requests that do not arrive.
fn lost(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
    kind: AddressKind,
    route: &Route,
) -> Option<Remark> {
    let plan = view.plan;
    let class = match route.arrival {
        Arrival::Switch | Arrival::RootComplex => return None,
        Arrival::Elsewhere => return Some(elsewhere(view, (a, b), kind, route)),
        Arrival::Refused(class) => class,
    };
    let at = route.at.map(|at| call(plan, at));
    if let Some(other) = route.meant {
        let text = format!(
            "at the root complex the {} of {}'s memory is that of {}, and requests to it are \
             refused: they are lost",
            kind.name(),
            name_of(plan, b),
            call(plan, other)
        );
        return Some(remark("address-of-another", view, Some(other), text));
    }
    let (id, text) = match (class, at) {
        (FindingClass::PeerToPeerRefused, _) => (
            "root-complex-does-not-route",
            "the root complex does not route between the two (peer-routing), which Linux cannot \
             know: the requests are refused"
                .into(),
        ),
        (FindingClass::TurnedBack | FindingClass::NoTarget, Some(port))
            if route.at.is_some_and(|at| !plan.path_up(b).any(|above| above == at)) =>
        {
            let owner = name_of(plan, b);
            let bridge = &plan.host_bridges[plan.functions[a].host_bridge].name;
            let kind = match kind {
                AddressKind::Physical => "the CPUs' address",
                _ => "the bus address",
            };
            let text = format!(
                "{kind} of {owner}'s memory lies, below {bridge}, among the bus addresses behind \
                 {port}, which does not send the requests on: they are lost"
            );
            ("address-of-another", text)
        }
        (FindingClass::TurnedBack, Some(port))
            if decision.map == MapType::BusAddress && plan.real =>
        {
            let text = format!(
                "both are functions of one device below {port}, which does not send requests back \
                 to where they came from. Linux does not look at that; unless functions reach each \
                 other inside the device, which only its maker knows, the requests are lost"
            );
            ("turned-back", text)
        }
        (FindingClass::TurnedBack, Some(port)) if decision.map == MapType::BusAddress => (
            "turned-back",
            format!(
                "both are functions of one device below {port}, which would have to send requests \
                 back to where they came from: functions of a device do not reach each other \
                 inside it here. Linux does not look at that; the requests are lost"
            ),
        ),
        (FindingClass::TurnedBack, Some(port)) => (
            "turned-back",
            format!(
                "ACS Upstream Forwarding is {} at {port}, where the requests would have to turn \
                 around. Linux does not look at that; the requests are lost",
                off(view, route.at)
            ),
        ),
        (FindingClass::Unmapped, Some(port)) if kind == AddressKind::Bus => (
            "bus-address-at-iommu",
            format!(
                "{port} forwards the requests upstream, to the IOMMU, where a bus address is not \
                 an IOVA. Linux does not look at that; the requests fault"
            ),
        ),
        (FindingClass::Unmapped, None) if kind == AddressKind::Bus => {
            let below = decision.common.map_or(String::new(), |at| {
                format!("nothing below {} sends the requests back: ", call(plan, at))
            });
            let text = format!(
                "{below}they go up to the IOMMU, where a bus address is not an IOVA. Linux does \
                 not look at that; the requests fault"
            );
            ("bus-address-at-iommu", text)
        }
        (class, at) => {
            let at = at.map_or(String::new(), |at| format!(" at {at}"));
            ("lost", format!("the requests are lost{at}: {}", class.name()))
        }
    };
    Some(remark(id, view, route.at, text))
}

fn elsewhere(view: &View<'_>, (a, b): (usize, usize), kind: AddressKind, route: &Route) -> Remark {
    let plan = view.plan;
    let owner = name_of(plan, b);
    let bridge = &plan.host_bridges[plan.functions[a].host_bridge].name;
    let kind = match kind {
        AddressKind::Physical => format!("the CPUs' address of {owner}'s memory"),
        _ => format!("the bus address of {owner}'s memory"),
    };
    let text = match route.instead {
        Some(other) => format!(
            "{kind} is, below {bridge}, the bus address of {}: requests go there, not to {owner}",
            call(plan, other)
        ),
        None => format!(
            "{kind} lies, below {bridge}, among the bus addresses of other devices: requests may \
             go there, not to {owner}"
        ),
    };
    remark("address-of-another", view, route.instead, text)
}

fn lost_completions(view: &View<'_>, routes: &Routes) -> Option<Remark> {
    let route = routes.completions;
    let port = route.at.filter(|_| !route.arrives())?;
    let text = format!(
        "ACS Upstream Forwarding is {} at {}, where the completions of reads would have to turn \
         around. Linux does not look at that; they are lost",
        off(view, Some(port)),
        call(view.plan, port)
    );
    Some(remark("completions-lost", view, Some(port), text))
}

/// Requests that a switch turns around although Linux, which takes any redirection for all of it,
/// means them to go through the root complex.
fn straight(
    view: &View<'_>,
    decision: &MapDecision,
    a: usize,
    routes: &Routes,
    kind: AddressKind,
) -> Option<Remark> {
    let route = routes.by(kind)?;
    if route.arrival != Arrival::Switch {
        return None;
    }
    let egress = AcsControl::P2P_EGRESS_CONTROL | AcsControl::P2P_REQUEST_REDIRECT;
    let mut ports = view.plan.path_up(a).skip(1);
    let why = match ports.find(|port| view.controls[*port].contains(egress)) {
        Some(port) => format!(
            "{} has Egress Control on beside Request Redirect, and its vector names no port, so \
             that it lets requests through",
            call(view.plan, port)
        ),
        None if !counted_on(view, decision) => "no port redirects requests".into(),
        None => format!(
            "the port by which requests of {} enter the switch does not redirect them",
            name_of(view.plan, a)
        ),
    };
    let past = if view.guest.iommu.has_iommu() { ", past the IOMMU" } else { "" };
    let text = format!(
        "{why}, and the address is one that the switch knows: they go straight to the other \
         side{past}. Linux takes any redirection for all of it"
    );
    Some(remark("goes-straight", view, None, text))
}

/// Redirections that Linux counts on, and that do nothing.
fn in_vain(view: &View<'_>, decision: &MapDecision) -> Vec<Remark> {
    let completions = AcsControl::P2P_COMPLETION_REDIRECT;
    let mut found = Vec::new();
    for &port in &decision.redirects {
        let controls = view.redirects_in_vain(port);
        for (controls, what) in [
            (controls - completions, "requests that the switch finds their address for go"),
            (controls & completions, "the data of reads goes"),
        ] {
            if !controls.is_empty() {
                let text = format!(
                    "{} without effect at {}, which Linux cannot know: {what} straight to the \
                     other side, past the IOMMU",
                    acs_names(controls),
                    call(view.plan, port)
                );
                found.push(remark("redirect-without-effect", view, Some(port), text));
            }
        }
    }
    found
}

/// Groups that the kernel keeps apart, and between which requests pass the IOMMU by.
fn groups_reached(view: &View<'_>, (a, b): (usize, usize), routes: &Routes) -> Option<Remark> {
    let groups = view.groups();
    let two = groups[a].zip(groups[b]).is_some_and(|(one, other)| one != other);
    let reached = routes.by_bus_address.arrival == Arrival::Switch;
    (two && reached).then(|| {
        let text = format!(
            "the kernel puts them into two IOMMU groups, but requests by bus address go from {} to \
             {} past the IOMMU: a driver that controls one reaches the other",
            name_of(view.plan, a),
            name_of(view.plan, b)
        );
        remark("groups-not-isolated", view, None, text)
    })
}

fn off(view: &View<'_>, port: Option<usize>) -> &'static str {
    let defect = port.map(|port| view.plan.functions[port].acs_without_effect);
    match defect.is_some_and(|it| it.contains(AcsControl::UPSTREAM_FORWARDING)) {
        true => "without effect",
        false => "off",
    }
}
