//! What would have become of recorded transactions if ports, host bridges or the use of the IOMMU
//! had been set differently. Only what leaves functions' numbers and BAR addresses alone can be
//! asked; the requests stay those that were recorded.

use std::str::FromStr;

use device_models::checker::FindingClass;
use device_models::fabric::{
    CompletionStatus, Fate, FunctionId, MapChange, NodeKind, PeerRouting, RouteKind,
};
use device_models::pci::AcsControl;
use device_models::system::System;
use peerdma_topology::Acs;
use peerdma_topology::assembly::IommuKind;

use super::event::Header;

/// What is set differently.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    text: String,
    what: Setting,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Setting {
    /// ACS controls of a port that are switched on, and off.
    Acs { port: String, on: AcsControl, off: AcsControl },
    /// ACS controls of a port that have no effect; all others have.
    WithoutEffect { port: String, controls: AcsControl },
    /// How far a host bridge takes peer-to-peer requests.
    PeerRouting { bridge: String, routing: PeerRouting },
    /// What the kernel has unmapped the IOMMU does not translate any more.
    Strict,
}

/// A change that cannot be asked about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadChange {
    change: String,
    reason: String,
}

impl BadChange {
    /// The change, as it was asked for.
    pub fn change(&self) -> &str {
        &self.change
    }
}

impl FromStr for Change {
    type Err = BadChange;

    fn from_str(text: &str) -> Result<Self, BadChange> {
        let bad = |reason: String| BadChange { change: text.to_owned(), reason };
        if text == "strict" {
            return Ok(Self { text: text.to_owned(), what: Setting::Strict });
        }
        let (place, value) = text.split_once('=').unwrap_or((text, ""));
        let (name, key) = place.rsplit_once('.').unwrap_or(("", place));
        let name = name.to_owned();
        let what = match key {
            "acs" if !name.is_empty() => {
                let (on, off) = controls(value).map_err(bad)?;
                Setting::Acs { port: name, on, off }
            }
            "acs-without-effect" if !name.is_empty() => {
                let controls = listed(value).map_err(bad)?;
                Setting::WithoutEffect { port: name, controls }
            }
            "peer-routing" if !name.is_empty() => {
                let routing = match value {
                    "everywhere" => PeerRouting::Everywhere,
                    "same-bridge" => PeerRouting::SameBridge,
                    "nowhere" => PeerRouting::Nowhere,
                    _ => {
                        return Err(bad(
                            "a host bridge routes everywhere, same-bridge or nowhere".into()
                        ));
                    }
                };
                Setting::PeerRouting { bridge: name, routing }
            }
            _ => {
                return Err(bad("not a change that a trace can answer for. Those are PORT.acs=..., \
                     PORT.acs-without-effect=..., BRIDGE.peer-routing=... and strict: with them the recorded requests stay \
                     what they were. With anything else functions would have other numbers or addresses, or the guest's \
                     kernel would have done something else: record that"
                    .into()));
            }
        };
        Ok(Self { text: text.to_owned(), what })
    }
}

/// Controls by their names, separated by commas or blanks.
fn listed(text: &str) -> Result<AcsControl, String> {
    let text = text.replace(',', " ");
    match text.trim() {
        "" => Err("no ACS control is named".to_owned()),
        "none" => Ok(AcsControl::empty()),
        names => match names.parse::<Acs>() {
            Ok(acs) => Ok(acs.0.unwrap_or_default()),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Controls that are on, and off: a list of those that are on, or of `+RR` and `-CR`.
fn controls(text: &str) -> Result<(AcsControl, AcsControl), String> {
    let (mut on, mut off) = (AcsControl::empty(), AcsControl::empty());
    if !text.starts_with(['+', '-']) {
        on = listed(text)?;
        return Ok((on, AcsControl::all() - on));
    }
    for word in text.split([',', ' ']) {
        let (set, name) = match (word.strip_prefix('+'), word.strip_prefix('-')) {
            (Some(name), _) => (&mut on, name),
            (None, Some(name)) => (&mut off, name),
            _ => return Err(format!("{word:?} is neither switched on (+) nor off (-)")),
        };
        *set |= listed(name)?;
    }
    match on & off {
        both if both.is_empty() => Ok((on, off)),
        _ => Err("a control is switched on and off".to_owned()),
    }
}

/// Several changes, ready to be applied to the address maps of a replay.
pub(crate) struct Question {
    pub(crate) change: Option<MapChange>,
    pub(crate) strict: bool,
}

/// Makes one question of all changes.
///
/// # Errors
/// The first that cannot be asked about this trace.
pub(crate) fn question(
    changes: &[Change],
    header: &Header,
    system: &System,
) -> Result<Question, BadChange> {
    let bridges = header
        .system
        .plan()
        .map(|plan| plan.host_bridges.iter().map(|bridge| bridge.name.clone()).collect::<Vec<_>>());
    let bridges = bridges.unwrap_or_default();
    let map = system.address_map();
    let mut strict = false;
    let mut all: Vec<MapChange> = Vec::new();
    for Change { text, what } in changes {
        let bad = |reason: String| BadChange { change: text.clone(), reason };
        let port = |name: &str| match map.functions().find(|(_, node)| *node.name == *name) {
            Some((_, node)) if node.kind == NodeKind::Endpoint => Err(bad(format!(
                "{name} is an endpoint: name the root port or downstream port above it, whose ACS controls decide"
            ))),
            Some((id, _)) => Ok(id),
            None => {
                let ports = map.functions().filter(|(_, node)| node.kind != NodeKind::Endpoint);
                let ports: Vec<_> = ports.map(|(_, node)| node.name.to_string()).collect();
                Err(bad(format!("the trace has no port {name}; it has {}", ports.join(", "))))
            }
        };
        match what {
            Setting::Acs { port: name, on, off } => {
                let (id, on, off) = (port(name)?.index(), *on, *off);
                all.push(Box::new(move |map| {
                    if let Some(node) = map.nodes.get_mut(id) {
                        let defective = node.acs_without_effect;
                        node.acs = (node.acs - off) | (on - defective);
                    }
                }));
            }
            Setting::WithoutEffect { port: name, controls } => {
                let (id, controls) = (port(name)?.index(), *controls);
                all.push(Box::new(move |map| {
                    if let Some(node) = map.nodes.get_mut(id) {
                        let switched_on = node.acs | node.acs_without_effect;
                        node.acs = switched_on - controls;
                        node.acs_without_effect = switched_on & controls;
                    }
                }));
            }
            Setting::PeerRouting { bridge, routing } => {
                let index = bridges.iter().position(|name| name == bridge);
                let index = index.ok_or_else(|| {
                    bad(format!(
                        "the trace has no host bridge {bridge}; it has {}",
                        bridges.join(", ")
                    ))
                })?;
                let routing = *routing;
                all.push(Box::new(move |map| {
                    if let Some(root) = map.roots.get_mut(index) {
                        root.peer_routing = routing;
                    }
                }));
            }
            Setting::Strict if header.system.iommu == IommuKind::None => {
                return Err(bad("the recorded system has no IOMMU that translates".to_owned()));
            }
            Setting::Strict => strict = true,
        }
    }
    let change: MapChange = Box::new(move |map| all.iter().for_each(|change| change(map)));
    Ok(Question {
        change: changes.iter().any(|it| it.what != Setting::Strict).then_some(change),
        strict,
    })
}

/// Without a witness it is not known what the kernel had unmapped.
pub(crate) fn no_witness() -> BadChange {
    let reason = "the guest had no witness, so the trace does not say when its kernel unmapped what; record it with the witness on";
    BadChange { change: "strict".to_owned(), reason: reason.to_owned() }
}

/// What a strict IOMMU makes of a request to an address that the kernel has unmapped.
pub(crate) const STRICT: Fate =
    Fate::Failed { status: CompletionStatus::UnsupportedRequest, class: FindingClass::Stale };

/// Whether a request took a route on which the IOMMU translates.
pub(crate) fn is_translated(route: RouteKind) -> bool {
    matches!(route, RouteKind::Memory | RouteKind::ThroughHostBridge)
}

/// How a part of a transaction ends, in a few words.
pub(crate) fn words(fate: &Fate, name: impl Fn(FunctionId) -> String) -> String {
    match fate {
        Fate::Delivered { route, owner: Some(owner) } => {
            format!("{} to {}", route.name(), name(*owner))
        }
        Fate::Delivered { route, owner: None } => route.name().to_owned(),
        Fate::Failed { status, class } => format!("{} ({class})", status.name()),
    }
}

#[cfg(test)]
mod tests;
