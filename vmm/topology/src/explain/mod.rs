//! Why Linux decides about a pair of functions as it does, what the hardware makes of it, and what
//! would change it.

mod advice;
mod costs;
mod report;
mod switches;
mod text;
mod warnings;
pub(crate) mod words;

use std::fmt;

use device_models::pci::AcsControl;

pub(crate) use report::Hop;
use report::{Acs as AcsReport, Decision, Function, Groups, HostBridge as HostBridgeReport, Leg};
pub use report::{Report, SCHEMA};

use super::acs::{list as acs_list, state as acs_state};
use super::linux::{AddressKind, Guest, MapDecision, MapType, Reason, Trust, View, trust_of};
use super::plan::{Kind, Plan, Planned};
use super::route::{Arrival, Route};
use super::{Client, acs_names};

/// A pair of functions explained; its text is for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    report: Report,
    text: String,
    prediction: Prediction,
}

/// What Linux will decide about a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prediction {
    /// What `pci_p2pdma_distance()` will return: -1 for a pair that it refuses.
    pub distance: i32,
    /// The kind of DMA address that the client will get.
    pub address: AddressKind,
    /// The two devices, client and owner of the memory, as a guest's tests name them: the owner by
    /// its index among the peer devices. None when no test asks about them.
    pub path: Option<(Client, u8)>,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Two functions between which there is nothing to explain.
#[derive(Debug, thiserror::Error)]
pub enum ExplainError {
    /// No function has this name.
    #[error("{name:?} is not a function of this topology; there are {known}")]
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
    /// A name that no function of a real machine has, or that several have.
    #[error(transparent)]
    Find(#[from] peerdma_capture::FindError),
    /// One function twice.
    #[error("both are {0}: a path has two ends, name two functions")]
    Same(String),
}

impl Explanation {
    /// Explains DMA by the function called `a`, a name or a BDF, into the memory of `b`.
    ///
    /// # Errors
    /// When there is no such function, `a` does no DMA or `b` has no memory.
    pub fn new(plan: &Plan, guest: &Guest, a: &str, b: &str) -> Result<Self, ExplainError> {
        let pair @ (a, b) = ends(plan, a, b)?;
        let view = View::new(plan, guest);
        let decision = view.decide(b, a);
        let report = report(&view, &decision, pair, Scope::Whole);
        let peers = plan.peers();
        let instance = |function: usize| {
            let at = peers.iter().position(|peer| *peer == function)?;
            u8::try_from(at).ok()
        };
        let client = match plan.functions[a].kind {
            Kind::Endpoint(..) => Some(Client::Function(plan.functions[a].bdf)),
            _ => instance(a).map(Client::Peer),
        };
        let prediction = Prediction {
            distance: report.decision.distance,
            address: view.dma_address(a, decision.map),
            path: client.zip(instance(b)),
        };
        let text = text::text(&view, &decision, &report, pair);
        Ok(Self { report, text, prediction })
    }

    /// What Linux will decide.
    pub fn prediction(&self) -> Prediction {
        self.prediction
    }

    /// The explanation as data.
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// The decision in one line, and a line for each warning; quicker than all of it.
    ///
    /// # Errors
    /// As of [`new`](Self::new).
    pub fn brief(plan: &Plan, guest: &Guest, a: &str, b: &str) -> Result<String, ExplainError> {
        let pair = ends(plan, a, b)?;
        let view = View::new(plan, guest);
        let decision = view.decide(pair.1, pair.0);
        let report = report(&view, &decision, pair, Scope::WithoutAdvice);
        Ok(text::brief(&view, &report, pair))
    }
}

/// The functions that are meant by two names.
fn ends(plan: &Plan, a: &str, b: &str) -> Result<(usize, usize), ExplainError> {
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
    Ok((a, b))
}

pub(crate) fn report(
    view: &View<'_>,
    decision: &MapDecision,
    (a, b): (usize, usize),
    scope: Scope,
) -> Report {
    let plan = view.plan;
    let bdf = |at: usize| address(plan, at);
    let function = |at: usize| Function { name: plan.functions[at].name.clone(), bdf: bdf(at) };
    let (reason, reason_at) = match decision.reason {
        Reason::CommonBridge(at) => ("common-bridge", Some(bdf(at))),
        Reason::Processor => ("processor", None),
        Reason::Trusted(id) => ("listed", Some(id.to_string())),
        Reason::SameBridgeOnly(id) => ("same-bridge-only", Some(id.to_string())),
        Reason::NotListed(id) => ("not-listed", Some(id.to_string())),
    };
    let distance = match decision.map {
        MapType::NotSupported => -1,
        _ => i32::try_from(decision.distance).unwrap_or(i32::MAX),
    };
    let kind = view.dma_address(a, decision.map);
    let routes = view.models_routes(a, b).then(|| view.routes_in_effect(a, b));
    let requests = routes.and_then(|routes| routes.by(kind));
    let completions = requests.and(routes).map(|routes| leg(plan, &routes.completions));
    let routes = routes.as_ref();
    let groups = view.groups();
    let mut bridges = vec![plan.functions[a].host_bridge, plan.functions[b].host_bridge];
    bridges.dedup();
    Report {
        schema: SCHEMA,
        client: function(a),
        provider: function(b),
        rules: plan.linux.to_string(),
        decision: Decision {
            map_type: map_id(decision.map),
            kernel_name: decision.map.kernel_name(),
            distance,
            address: address_id(kind),
            redirects: decision.redirects.iter().map(|at| bdf(*at)).collect(),
            reason,
            reason_at,
        },
        path: path(view, (a, b)),
        host_bridges: bridges
            .into_iter()
            .map(|index| &plan.host_bridges[index])
            .map(|bridge| HostBridgeReport {
                name: bridge.name.clone(),
                id: bridge.id.to_string(),
                listed: match trust_of(plan.linux, bridge.id) {
                    Trust::Everywhere => "everywhere",
                    Trust::SameBridge => "same-bridge",
                    Trust::Unknown => "unlisted",
                },
            })
            .collect(),
        requests: requests.map(|route| leg(plan, &route)),
        completions,
        groups: Groups { client: groups[a], provider: groups[b] },
        warnings: routes
            .map_or_else(Vec::new, |routes| warnings::warnings(view, decision, (a, b), routes)),
        notes: routes
            .map_or_else(Vec::new, |routes| warnings::notes(view, decision, (a, b), routes)),
        advice: match routes {
            Some(routes) if scope == Scope::Whole => advice::advice(view, decision, (a, b), routes),
            _ => Vec::new(),
        },
    }
}

/// How much of a report is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All of it.
    Whole,
    /// Everything but advice, which takes much longer than the rest.
    WithoutAdvice,
}

/// The functions from `a` to `b` in the order in which a request passes them, and the bridge above
/// both.
pub(crate) fn passed(view: &View<'_>, (a, b): (usize, usize)) -> (Vec<usize>, Option<usize>) {
    let (mut all, common) = view.between(a, b);
    let split = all
        .iter()
        .position(|at| Some(*at) == common)
        .map_or_else(|| view.plan.path_up(a).count(), |at| at + 1);
    all[split..].reverse();
    (all, common)
}

fn path(view: &View<'_>, pair: (usize, usize)) -> Vec<Hop> {
    let (all, common) = passed(view, pair);
    let hop = |at: usize| {
        let function = &view.plan.functions[at];
        Hop {
            name: function.name.clone(),
            bdf: address(view.plan, at),
            kind: kind_name(function.kind),
            acs_state: if function.acs.is_some() { "known" } else { "absent" },
            acs: function.acs.map(|capabilities| AcsReport {
                capabilities: acs_list(capabilities),
                enabled: acs_list(view.controls[at]),
                unknown: Vec::new(),
                without_effect: acs_list(function.acs_without_effect),
            }),
            redirects: view.redirects(at),
            common: Some(at) == common,
        }
    };
    all.into_iter().map(hop).collect()
}

fn leg(plan: &Plan, route: &Route) -> Leg {
    let bdf = |at: usize| address(plan, at);
    let (by, finding) = match route.arrival {
        Arrival::Switch => ("switch", None),
        Arrival::RootComplex => ("root-complex", None),
        Arrival::Refused(class) => ("refused", Some(class.name())),
        Arrival::Elsewhere => ("elsewhere", None),
    };
    Leg {
        arrives: route.arrives(),
        by,
        finding,
        at: route.at.map(bdf),
        instead: route.instead.map(bdf),
    }
}

pub(crate) fn map_id(map: MapType) -> &'static str {
    match map {
        MapType::BusAddress => "bus-address",
        MapType::ThroughHostBridge => "through-host-bridge",
        MapType::NotSupported => "not-supported",
    }
}

fn address_id(address: AddressKind) -> &'static str {
    match address {
        AddressKind::Bus => "bus",
        AddressKind::Physical => "physical",
        AddressKind::Iova => "iova",
        AddressKind::Refused => "none",
    }
}

/// Whether it does DMA because a driver wants it to; of a bridge only interrupts come.
fn is_device(function: &Planned) -> bool {
    matches!(
        function.kind,
        Kind::Peer(_) | Kind::Endpoint(..) | Kind::Device(_) | Kind::Rng | Kind::Iommu
    )
}

/// Address of a function: of a real machine, which may have several segments, with its segment.
fn address(plan: &Plan, function: usize) -> String {
    let planned = &plan.functions[function];
    match plan.real {
        true if planned.found.is_some_and(|found| found.missing) => planned.name.clone(),
        true => {
            let segment = plan.host_bridges[planned.host_bridge].segment;
            format!("{segment:04x}:{}", planned.bdf)
        }
        false => planned.bdf.to_string(),
    }
}

fn call(plan: &Plan, function: usize) -> String {
    let address = address(plan, function);
    match plan.functions[function].name.as_str() {
        name if name == address => address,
        name => format!("{name} ({address})"),
    }
}

fn name_of(plan: &Plan, function: usize) -> &str {
    &plan.functions[function].name
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::HostBridge => "host bridge",
        Kind::Iommu | Kind::Rng => "virtio function",
        Kind::RootPort => "root port",
        Kind::SwitchUpstream => "upstream port",
        Kind::SwitchDownstream => "downstream port",
        Kind::Peer(_) => "peer device",
        Kind::Endpoint(..) | Kind::Device(_) => "device",
        Kind::OtherBridge => "bridge",
    }
}

/// The ACS state of a function as a drawing shows it.
pub(super) fn acs_label(function: &Planned, on: AcsControl) -> String {
    let Some(capabilities) = function.acs else { return "no ACS".into() };
    let state = acs_state(capabilities, on);
    match function.acs_without_effect {
        none if none.is_empty() => format!("ACS {state}"),
        defects => format!("ACS {state} ({} without effect)", acs_names(defects)),
    }
}
