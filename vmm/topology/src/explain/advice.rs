//! What would change the decision. Each change is applied to the model and judged by the routes
//! that result: it is offered only if data arrives, requests and completions.

use device_models::pci::AcsControl;

use super::costs;
use super::report::Advice;
use super::{address_id, map_id, switches};
use crate::assembly::IommuMode;
use crate::linux::{
    AddressKind, CONFIGURE, DISABLE_REDIRECTION, Guest, MapDecision, MapType, View, kept_entries,
};
use crate::plan::{Kind, Plan};
use crate::route::Routes;
use crate::{Acs, Cpu, PeerRouting};

/// The identity of a host bridge that Linux trusts without reserve.
const TRUSTED: &str = "8086:2020";

/// Something to change.
struct Change {
    /// As a user would write it.
    text: String,
    kind: &'static str,
    plan: Option<Plan>,
    guest: Option<Guest>,
}

/// What changes the decision about `a` and the memory of `b`, or makes data arrive.
pub(super) fn advice(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
    routes: &Routes,
) -> Vec<Advice> {
    let mut found: Vec<Advice> = Vec::new();
    let now = (decision.map, view.dma_address(a, decision.map));
    let arrives = routes.carry(now.1);
    let mut offer = |change: Change| {
        let plan = change.plan.as_ref().unwrap_or(view.plan);
        let guest = change.guest.as_ref().unwrap_or(view.guest);
        let after = View::new(plan, guest);
        let map = after.decide(b, a).map;
        let address = after.dma_address(a, map);
        if !after.routes_in_effect(a, b).carry(address) || arrives && (map, address) == now {
            return false;
        }
        found.push(Advice {
            change: change.text,
            kind: change.kind,
            map_type: map_id(map),
            address: address_id(address),
            given: Vec::new(),
            parameter: match change.kind {
                "add-parameter" => guest.parameters.last().cloned(),
                _ => None,
            },
            switches: match change.kind {
                "add-parameter" | "remove-parameter" => switches::switches(view, &after),
                _ => Vec::new(),
            },
            costs: costs::costs(view, &after, (a, b), address),
        });
        true
    };
    if view.plan.real {
        parameters(view, decision, (a, b), &mut offer);
        return found;
    }
    for mode in [IommuMode::Strict, IommuMode::Passthrough, IommuMode::None] {
        if mode != view.guest.iommu {
            let guest = Guest { iommu: mode, ..view.guest.clone() };
            offer(with_guest(format!("--iommu {}", mode.name()), "iommu", guest));
        }
    }
    for index in 0..view.guest.parameters.len() {
        let mut guest = view.guest.clone();
        let parameter = guest.parameters.remove(index);
        let text = format!("without kernel parameter {parameter}");
        offer(with_guest(text, "remove-parameter", guest));
    }
    parameters(view, decision, (a, b), &mut offer);
    for acs in [Acs::standard(), Acs::NONE] {
        for ports in port_sets(view, (a, b)) {
            if port_acs(view.plan, acs, &ports).is_some_and(&mut offer) {
                break;
            }
        }
    }
    for change in trust(view.plan, view.guest, (a, b)) {
        offer(change);
    }
    found
}

/// Kernel parameters for the ports of the path.
fn parameters(
    view: &View<'_>,
    decision: &MapDecision,
    pair: (usize, usize),
    offer: &mut impl FnMut(Change) -> bool,
) {
    for alternatives in acs_parameters(view, decision, pair) {
        // Those of one kind differ in what else they switch: the first that works will do.
        for parameter in alternatives {
            if offer(add_parameter(view.guest, &parameter)) {
                break;
            }
        }
    }
}

fn with_guest(text: String, kind: &'static str, guest: Guest) -> Change {
    Change { text, kind, plan: None, guest: Some(guest) }
}

fn add_parameter(guest: &Guest, parameter: &str) -> Change {
    let mut guest = guest.clone();
    let replaces = match guest.parameters.iter().any(|own| takes_its_place(own, parameter)) {
        true => " in place of the one that is there",
        false => "",
    };
    guest.parameters.push(parameter.to_owned());
    with_guest(format!("--append '{parameter}'{replaces}"), "add-parameter", guest)
}

/// Whether Linux, which takes the last of them, would take `new` instead of `old`.
fn takes_its_place(old: &str, new: &str) -> bool {
    let name = new.split_inclusive('=').take(2).collect::<String>();
    let name = name.strip_prefix("pci=").unwrap_or(&name);
    let options = old.strip_prefix("pci=").unwrap_or_default();
    options.split(',').any(|option| option.starts_with(name))
}

/// Kernel parameters for the ports on the path: what takes their redirection away, with all other
/// controls or alone, and what gives it to those that can, which Linux does by itself only for an
/// IOMMU's sake.
fn acs_parameters(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
) -> Vec<Vec<String>> {
    let rules = |functions: &[usize], flags: &str| {
        let mut functions = functions.to_vec();
        functions.sort_by_key(|at| (segment(view.plan, *at), view.plan.functions[*at].bdf));
        functions.dedup();
        let rule = |at: &usize| {
            let bdf = view.plan.functions[*at].bdf;
            match segment(view.plan, *at) {
                0 => format!("{flags}{bdf}"),
                segment => format!("{flags}{segment:04x}:{bdf}"),
            }
        };
        functions.iter().map(rule).collect::<Vec<_>>().join(";")
    };
    // What a parameter that is there does elsewhere stays, if that is possible.
    let with_own = |option: &str, functions: &[usize], rules: String| {
        let kept = kept_entries(&view.guest.parameters, option, view.plan, functions);
        let whole = (!kept.is_empty()).then(|| format!("pci={option}{rules};{}", kept.join(";")));
        whole.into_iter().chain([format!("pci={option}{rules}")])
    };
    let configure = |functions: &[usize], flags: &str| -> Vec<String> {
        with_own(CONFIGURE, functions, rules(functions, &format!("{flags}@"))).collect()
    };
    let redirecting = &decision.redirects;
    if !redirecting.is_empty() {
        let disable = with_own(DISABLE_REDIRECTION, redirecting, rules(redirecting, "")).collect();
        // Of five flags, from the left: UF, CR, RR, TB, SV. A kernel without the parameter changes
        // nothing by it, and so it is not offered.
        let configure = [configure(redirecting, "100x1"), configure(redirecting, "000x1")].concat();
        return vec![disable, configure];
    }
    let (mut path, common) = view.between(a, b);
    // What is redirected has to turn around further up.
    path.extend(common.iter().flat_map(|common| view.plan.path_up(*common).skip(1)));
    path.retain(|at| {
        let acs = view.plan.functions[*at].acs;
        acs.is_some_and(|acs| acs.contains(AcsControl::P2P_REQUEST_REDIRECT))
    });
    if path.is_empty() { Vec::new() } else { vec![configure(&path, "111x1")] }
}

/// PCI segment of a function.
fn segment(plan: &Plan, function: usize) -> u32 {
    plan.host_bridges[plan.functions[function].host_bridge].segment
}

/// Ports of which the topology file could say something else: those of switches on the path; all
/// on the path, and above.
fn port_sets(view: &View<'_>, (a, b): (usize, usize)) -> [Vec<usize>; 2] {
    let kind = |at: &usize| view.plan.functions[*at].kind;
    let (path, common) = view.between(a, b);
    let of_switches: Vec<_> =
        path.iter().copied().filter(|at| kind(at) == Kind::SwitchDownstream).collect();
    let above = common.into_iter().flat_map(|common| view.plan.path_up(common).skip(1));
    let mut all: Vec<_> = path.iter().copied().chain(above).collect();
    all.retain(|at| matches!(kind(at), Kind::SwitchDownstream | Kind::RootPort));
    [of_switches, all]
}

/// `acs` at those of the ports that have something else.
fn port_acs(plan: &Plan, acs: Acs, ports: &[usize]) -> Option<Change> {
    let mut changed = plan.clone();
    let (mut names, mut defects) = (Vec::new(), Vec::new());
    for &port in ports {
        let function = &mut changed.functions[port];
        if function.acs != acs.0 || !function.acs_without_effect.is_empty() {
            names.push(function.name.clone());
            if !function.acs_without_effect.is_empty() {
                defects.push(function.name.clone());
            }
            function.acs = acs.0;
            function.acs_without_effect = AcsControl::empty();
        }
    }
    names.sort();
    defects.sort();
    let mut text = format!("acs = \"{acs}\" at {}", names.join(", "));
    if !defects.is_empty() {
        text += &format!("; acs-without-effect = \"none\" at {}", defects.join(", "));
    }
    let change = Change { text, kind: "acs", plan: Some(changed), guest: None };
    (!names.is_empty()).then_some(change)
}

/// Host bridges of the pair, or a processor, that Linux trusts.
fn trust(plan: &Plan, guest: &Guest, (a, b): (usize, usize)) -> [Change; 2] {
    let mut own = vec![plan.functions[a].host_bridge, plan.functions[b].host_bridge];
    own.sort_unstable();
    own.dedup();
    let name = |at: &usize| plan.host_bridges[*at].name.as_str();
    let names = |which: &dyn Fn(&usize) -> bool| {
        own.iter().filter(|at| which(at)).map(name).collect::<Vec<_>>().join(", ")
    };
    let mut routing = plan.clone();
    let mut listed = plan.clone();
    let trusted = TRUSTED.parse().ok();
    for &at in &own {
        // Linux's trust alone routes nothing.
        routing.host_bridges[at].peer_routing = PeerRouting::Everywhere;
        listed.host_bridges[at].peer_routing = PeerRouting::Everywhere;
        listed.host_bridges[at].id = trusted.unwrap_or(listed.host_bridges[at].id);
    }
    let stops = names(&|at| plan.host_bridges[*at].peer_routing != PeerRouting::Everywhere);
    let besides = match stops.as_str() {
        "" => String::new(),
        names => format!("; peer-routing = \"everywhere\" at {names}"),
    };
    let others = names(&|at| Some(plan.host_bridges[*at].id) != trusted);
    let id = match others.as_str() {
        // Listed already: what is left is the routing.
        "" => besides.trim_start_matches("; ").to_owned(),
        names => format!("host bridge id = \"{TRUSTED}\" at {names}{besides}"),
    };
    [
        Change { text: id, kind: "host-bridge", plan: Some(listed), guest: None },
        Change {
            text: format!("cpu = \"trusted-for-peer-to-peer\"{besides}"),
            kind: "cpu",
            plan: Some(routing),
            guest: Some(Guest { cpu: Cpu::TrustedForPeerToPeer, ..guest.clone() }),
        },
    ]
}

/// Whether `address` bypasses the IOMMU.
pub(super) fn bypasses(view: &View<'_>, map: MapType, address: AddressKind) -> bool {
    view.guest.iommu.has_iommu() && map == MapType::BusAddress && address == AddressKind::Bus
}
