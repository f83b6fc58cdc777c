//! Why Linux decides about a path as it does, in words.

use std::fmt::{self, Write as _};

use device_models::pci::AcsControl;

use super::linux::{AddressKind, Guest, MapDecision, MapType, Reason, View};
use super::plan::{Kind, Plan, Planned};
use super::problem::Problem;
use super::{Acs, Client, Cpu, PeerRouting, Topology, acs_names, acs_state};
use crate::assembly::IommuMode;

/// The identity of a host bridge that Linux trusts without reserve.
const TRUSTED: &str = "8086:2020";

/// A path explained; its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    text: String,
    prediction: Prediction,
}

/// What Linux will decide about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// What `pci_p2pdma_distance()` will say: -1 when there is no way.
    pub distance: i32,
    /// The kind of DMA address that the client will get.
    pub address: AddressKind,
    /// The two devices, client and owner of the memory, as a guest's tests name them: the owner by its number among the
    /// peer devices. None when no test asks about them.
    pub path: Option<(Client, u8)>,
}

impl Explanation {
    /// What it comes to.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two functions between which there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// The name is nobody's.
    #[error("{name:?} is no function of this topology; there are {known}")]
    Unknown {
        /// The name.
        name: String,
        /// All names.
        known: String,
    },
    /// The first one does no DMA.
    #[error("{name} ({what}) does no DMA; the first device is the one that does: {known}")]
    NoDma {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
        /// The devices that do.
        known: String,
    },
    /// The second one has no memory.
    #[error(
        "{name} ({what}) has no memory; the second device is the exporter, an endpoint with memory: {known}"
    )]
    NoMemory {
        /// Its name.
        name: String,
        /// What it is.
        what: &'static str,
        /// The endpoints that have memory.
        known: String,
    },
    /// One function twice.
    #[error("both are {0}: a path has two ends, name two functions")]
    Same(String),
    /// The topology.
    #[error(transparent)]
    Topology(#[from] Problem),
}

impl Explanation {
    /// Explains DMA by the function called `a`, a name or a number, into the memory of `b`.
    ///
    /// # Errors
    /// When there is no such function, `a` does no DMA or `b` has no memory.
    pub fn new(topology: &Topology, guest: &Guest, a: &str, b: &str) -> Result<Self, ExplainError> {
        let plan = Plan::new(topology, guest.iommu.has_iommu())?;
        let find = |name: &str| {
            plan.find(name).ok_or_else(|| ExplainError::Unknown {
                name: name.to_owned(),
                known: plan
                    .functions
                    .iter()
                    .map(|function| function.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        let (a, b) = (find(a)?, find(b)?);
        if a == b {
            return Err(ExplainError::Same(plan.functions[a].name.clone()));
        }
        let names = |wanted: fn(&Planned) -> bool| {
            let wanted = plan.functions.iter().filter(|function| wanted(function));
            let names: Vec<_> = wanted.map(|function| function.name.as_str()).collect();
            if names.is_empty() { "there is none here".into() } else { names.join(", ") }
        };
        let (name, what) = (plan.functions[a].name.clone(), kind_name(plan.functions[a].kind));
        if !is_device(&plan.functions[a]) {
            return Err(ExplainError::NoDma { name, what, known: names(is_device) });
        }
        let (name, what) = (plan.functions[b].name.clone(), kind_name(plan.functions[b].kind));
        if !plan.functions[b].has_memory {
            let known = names(|function| function.has_memory);
            return Err(ExplainError::NoMemory { name, what, known });
        }
        let view = View::new(&plan, guest);
        let decision = view.decide(b, a);
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write(&mut text, &view, &decision, (a, b));
        let _ = knobs(&mut text, topology, guest, &view, &decision, (a, b));
        let distance = match decision.map {
            MapType::NotSupported => -1,
            _ => i32::try_from(decision.distance).unwrap_or(i32::MAX),
        };
        let peers = plan.peers();
        let number = |function: usize| {
            let at = peers.iter().position(|peer| *peer == function)?;
            u8::try_from(at).ok()
        };
        let client = match plan.functions[a].kind {
            Kind::Endpoint(..) => Some(Client::Function(plan.functions[a].bdf)),
            _ => number(a).map(Client::Peer),
        };
        let prediction = Prediction {
            distance,
            address: view.address_kind(decision.map),
            path: client.zip(number(b)),
        };
        Ok(Self { text, prediction })
    }
}

/// Whether it does DMA because a driver wants it to; of a bridge only interrupts come.
fn is_device(function: &Planned) -> bool {
    matches!(function.kind, Kind::Peer(_) | Kind::Endpoint(..) | Kind::Rng | Kind::Iommu)
}

fn call(plan: &Plan, function: usize) -> String {
    let function = &plan.functions[function];
    format!("{} ({})", function.name, function.bdf)
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HostBridge => "host bridge",
        Kind::Iommu | Kind::Rng => "virtio function",
        Kind::RootPort => "root port",
        Kind::SwitchUpstream => "upstream port",
        Kind::SwitchDownstream => "downstream port",
        Kind::Peer(_) => "peer device",
        Kind::Endpoint(..) => "device",
    }
}

fn write(
    text: &mut String,
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
) -> fmt::Result {
    let plan = view.plan;
    writeln!(
        text,
        "{} -> {}: {} ({}), distance {}",
        call(plan, a),
        call(plan, b),
        decision.map.name(),
        decision.map.kernel_name(),
        if decision.map == MapType::NotSupported {
            "-1".into()
        } else {
            decision.distance.to_string()
        },
    )?;
    writeln!(text, "\nThe way:")?;
    let (way, common) = view.between(a, b);
    // Down from the common bridge in the order of travel.
    let split = way
        .iter()
        .position(|at| Some(*at) == common)
        .map_or_else(|| plan.path_up(a).count(), |at| at + 1);
    let (up, down) = way.split_at(split);
    for &at in up {
        line(text, view, at, common)?;
    }
    if common.is_none() {
        let bridges = [a, b].map(|function| plan.functions[function].host_bridge);
        writeln!(text, "  {}", bridge_line(plan, bridges))?;
    }
    for &at in down.iter().rev() {
        line(text, view, at, common)?;
    }
    writeln!(text, "\nWhy: {}.", because(view, decision))?;
    if decision.map == MapType::ThroughHostBridge {
        if !view.root_complex_routes(b, a) {
            writeln!(
                text,
                "Beware: the root complex does not route between the two (peer-routing), which Linux cannot know: the \
                 requests are refused."
            )?;
        }
        if view.goes_straight(b, a, decision.map) {
            writeln!(
                text,
                "Beware: the port by which requests of {} enter the switch does not redirect them, and the address is one \
                 that the switch knows: they go straight to the other side. Linux takes any redirection for all of it.",
                plan.functions[a].name
            )?;
        }
        for port in view.dead_ends(b, a) {
            let defect = plan.functions[port].acs_without_effect;
            let why = if defect.contains(AcsControl::UPSTREAM_FORWARDING) {
                "without effect"
            } else {
                "off"
            };
            writeln!(
                text,
                "Beware: ACS Upstream Forwarding is {why} at {}, and all of it would have to turn around there or \
                 above. Linux does not look at that; the requests or their completions are lost.",
                call(plan, port)
            )?;
        }
        for &port in &decision.redirects {
            let completions = AcsControl::P2P_COMPLETION_REDIRECT;
            let in_vain = view.redirects_in_vain(port);
            for (controls, what) in [
                (in_vain - completions, "requests that the switch finds their address for go"),
                (in_vain & completions, "the data of reads goes"),
            ] {
                if !controls.is_empty() {
                    writeln!(
                        text,
                        "Beware: {} without effect at {}, which Linux cannot know: {what} straight to the other side, \
                         past the IOMMU.",
                        acs_names(controls),
                        call(plan, port)
                    )?;
                }
            }
        }
    }
    if let Some(port) = view.turned_back(decision) {
        writeln!(
            text,
            "Beware: {} is the port of one device that both are functions of, and would have to send requests back to \
             where they came from; here functions of a device do not reach each other inside it. The requests are lost.",
            call(plan, port)
        )?;
    }
    writeln!(text, "Host bridge on Linux's list: {}", listed(view, (a, b)))?;
    writeln!(text, "DMA address of the memory: {}", view.address_kind(decision.map).name())?;
    let groups = view.groups();
    match (groups[a], groups[b]) {
        (Some(one), Some(other)) if one == other => writeln!(
            text,
            "IOMMU groups: one and the same; they share their mappings, and vfio-pci cannot own one of them alone"
        ),
        (Some(_), Some(_)) => writeln!(text, "IOMMU groups: two, each with mappings of its own"),
        _ => writeln!(text, "IOMMU groups: none"),
    }
}

fn line(text: &mut String, view: &View<'_>, at: usize, common: Option<usize>) -> fmt::Result {
    let function = &view.plan.functions[at];
    let acs = acs_label(function, view.controls[at]);
    let common = if Some(at) == common { "  <- above both" } else { "" };
    let redirects = if view.redirects(at) { "  redirects" } else { "" };
    writeln!(
        text,
        "  {} {:14} {:15}  {acs}{redirects}{common}",
        function.bdf,
        function.name,
        kind_name(function.kind)
    )
}

fn bridge_line(plan: &Plan, bridges: [usize; 2]) -> String {
    let describe = |index: usize| {
        let bridge = &plan.host_bridges[index];
        format!("{} {}", bridge.name, bridge.id)
    };
    match bridges {
        [one, other] if one == other => format!("root complex: {}", describe(one)),
        [one, other] => format!("root complex: {} -> {}", describe(one), describe(other)),
    }
}

fn because(view: &View<'_>, decision: &MapDecision) -> String {
    let redirected = match decision.redirects.as_slice() {
        [] if decision.common.is_some() => String::new(),
        [] => "no bridge but the root complex is above both; ".to_owned(),
        list => {
            let names: Vec<_> = list.iter().map(|at| call(view.plan, *at)).collect();
            format!("ACS redirects at {}; ", names.join(", "))
        }
    };
    let rest = match &decision.reason {
        Reason::CommonBridge(common) => format!(
            "both are below {}, and no ACS control between them redirects, so it turns requests around by bus address, \
             past the IOMMU",
            call(view.plan, *common)
        ),
        Reason::Processor => {
            "the processor is one that Linux trusts whatever the host bridge is".into()
        }
        Reason::Trusted(id) => {
            format!("Linux trusts the host bridge {id} to route between its ports")
        }
        Reason::SameBridgeOnly(id) => {
            format!("Linux trusts the host bridge {id} inside one bridge only, and these are two")
        }
        Reason::NotListed(id) => format!("the host bridge {id} is not on Linux's list"),
    };
    redirected + &rest
}

fn listed(view: &View<'_>, (a, b): (usize, usize)) -> String {
    let mut bridges = vec![view.plan.functions[a].host_bridge, view.plan.functions[b].host_bridge];
    bridges.dedup();
    let mut words: Vec<_> = bridges
        .into_iter()
        .map(|index| {
            let bridge = &view.plan.host_bridges[index];
            format!("{} {}: {}", bridge.name, bridge.id, super::linux::trusted(bridge.id))
        })
        .collect();
    if view.guest.cpu == Cpu::TrustedForPeerToPeer {
        words.push("the processor overrides the list".into());
    }
    words.join("; ")
}

/// What would change the decision: tried out, and named if it does.
fn knobs(
    text: &mut String,
    topology: &Topology,
    guest: &Guest,
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
) -> fmt::Result {
    let names = [a, b].map(|function| view.plan.functions[function].name.clone());
    let mut found = Vec::new();
    let mut attempt = |knob: String, topology: &Topology, guest: &Guest| {
        let Some(Outcome { map, address, arrives }) = outcome(topology, guest, &names) else {
            return;
        };
        if arrives && (map, address) != (decision.map, view.address_kind(decision.map)) {
            let address = match address {
                AddressKind::Refused | AddressKind::Bus => String::new(),
                other => format!(", by {}", other.name()),
            };
            found.push(format!("{knob}: {}{address}", map.name()));
        }
    };
    for mode in [IommuMode::Strict, IommuMode::Passthrough, IommuMode::None] {
        let name = format!("--iommu {}", mode.name());
        attempt(name, topology, &Guest { iommu: mode, ..guest.clone() });
    }
    for (index, parameter) in guest.parameters.iter().enumerate() {
        let mut changed = guest.clone();
        changed.parameters.remove(index);
        attempt(format!("without kernel parameter {parameter}"), topology, &changed);
    }
    for parameter in acs_parameters(view, decision, (a, b)) {
        let mut changed = guest.clone();
        let replaces = match changed.parameters.iter().any(|own| takes_its_place(own, &parameter)) {
            true => " in place of the one that is there",
            false => "",
        };
        changed.parameters.push(parameter.clone());
        attempt(format!("--append '{parameter}'{replaces}"), topology, &changed);
    }
    for (acs, what) in [(Acs::standard(), "standard"), (Acs::NONE, "none")] {
        let mut changed = topology.clone();
        let ports = changed.switches.iter_mut().flat_map(|switch| &mut switch.ports);
        let on_the_way = |name: &str| {
            let (way, _) = view.between(a, b);
            way.iter().any(|at| view.plan.functions[*at].name == name)
        };
        let mut touched = Vec::new();
        for port in ports.filter(|port| on_the_way(&port.name)) {
            touched.push(port.name.clone());
            (port.acs, port.acs_without_effect) = (acs, Acs::NONE);
        }
        if !touched.is_empty() {
            attempt(format!("acs = \"{what}\" at {}", touched.join(", ")), &changed, guest);
        }
    }
    let mut changed = topology.clone();
    for bridge in &mut changed.host_bridges {
        bridge.id = TRUSTED.parse().unwrap_or(bridge.id);
        bridge.peer_routing = PeerRouting::Everywhere;
    }
    // Linux's trust alone routes nothing.
    let routes = topology.host_bridges.iter().all(|b| b.peer_routing == PeerRouting::Everywhere);
    let besides = if routes { "" } else { " and peer-routing = \"everywhere\"" };
    attempt(format!("host bridge id = \"{TRUSTED}\"{besides}"), &changed, guest);
    let trusted = Guest { cpu: Cpu::TrustedForPeerToPeer, ..guest.clone() };
    let mut changed = topology.clone();
    for bridge in &mut changed.host_bridges {
        bridge.peer_routing = PeerRouting::Everywhere;
    }
    attempt(format!("cpu = \"trusted-for-peer-to-peer\"{besides}"), &changed, &trusted);
    if found.is_empty() {
        return writeln!(text, "What would change it: another place in the tree");
    }
    writeln!(text, "What would change it:")?;
    found.iter().try_for_each(|knob| writeln!(text, "  {knob}"))
}

/// Whether Linux, which takes the last of them, would take `new` instead of `old`.
fn takes_its_place(old: &str, new: &str) -> bool {
    let name = new.split_inclusive('=').take(2).collect::<String>();
    let name = name.strip_prefix("pci=").unwrap_or(&name);
    let options = old.strip_prefix("pci=").unwrap_or_default();
    options.split(',').any(|option| option.starts_with(name))
}

/// Kernel parameters for the ports on the way: what takes their redirection away, with all other controls or alone, and
/// what gives it to those that can, which Linux does by itself only for an IOMMU's sake.
fn acs_parameters(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
) -> impl Iterator<Item = String> {
    let rules = |functions: &[usize], flags: &str| {
        let rule = |at: &usize| format!("{flags}{}", view.plan.functions[*at].bdf);
        functions.iter().map(rule).collect::<Vec<_>>().join(";")
    };
    let redirecting = &decision.redirects;
    let taken = (!redirecting.is_empty()).then(|| {
        [
            format!("pci=disable_acs_redir={}", rules(redirecting, "")),
            format!("pci=config_acs={}", rules(redirecting, "100x1@")),
        ]
    });
    let (mut way, common) = view.between(a, b);
    // What is redirected has to turn around further up.
    way.extend(common.iter().flat_map(|common| view.plan.path_up(*common)));
    let able = |at: &usize| {
        let acs = view.plan.functions[*at].acs;
        acs.is_some_and(|acs| acs.contains(AcsControl::P2P_REQUEST_REDIRECT))
    };
    let able: Vec<_> = way.into_iter().filter(able).collect();
    let given = (redirecting.is_empty() && !able.is_empty())
        .then(|| format!("pci=config_acs={}", rules(&able, "111x1@")));
    taken.into_iter().flatten().chain(given)
}

/// What Linux would decide, and whether that works: nobody is sent where traffic is lost.
struct Outcome {
    map: MapType,
    address: AddressKind,
    arrives: bool,
}

fn outcome(topology: &Topology, guest: &Guest, names: &[String; 2]) -> Option<Outcome> {
    let plan = Plan::new(topology, guest.iommu.has_iommu()).ok()?;
    let [a, b] = [plan.find(&names[0])?, plan.find(&names[1])?];
    let view = View::new(&plan, guest);
    let decision = view.decide(b, a);
    let turns = decision.map != MapType::ThroughHostBridge
        || view.dead_ends(b, a).is_empty() && view.root_complex_routes(b, a);
    let arrives = turns && view.turned_back(&decision).is_none();
    Some(Outcome { map: decision.map, address: view.address_kind(decision.map), arrives })
}

/// The ACS state of a function as a drawing shows it; nothing for a function without the capability.
pub(super) fn acs_label(function: &Planned, on: AcsControl) -> String {
    let Some(capabilities) = function.acs else { return "no ACS".into() };
    let state = acs_state(capabilities, on);
    match function.acs_without_effect {
        none if none.is_empty() => format!("ACS {state}"),
        defects => format!("ACS {state} ({} without effect)", acs_names(defects)),
    }
}
