//! An explanation for people.

use std::fmt::Write as _;

use super::report::{Hop, Report};
use super::{acs_label, call, words};
use crate::Cpu;
use crate::linux::{MapDecision, Reason, View, trusted};
use crate::plan::Plan;

pub(super) fn text(
    view: &View<'_>,
    decision: &MapDecision,
    report: &Report,
    (a, b): (usize, usize),
) -> String {
    let plan = view.plan;
    let mut text = title(plan, report, (a, b)) + "\n\nPath:\n";
    let turn = plan.path_up(a).count();
    for (index, hop) in report.path.iter().enumerate() {
        if decision.common.is_none() && index == turn {
            text += &root_complex(plan, (a, b));
        }
        text += &line(view, hop);
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nWhy: {}.", because(view, decision));
    words::warnings(&mut text, &report.warnings, "");
    words::notes(&mut text, report.notes.iter().filter(|note| note.id != "groups-not-isolated"));
    let _ = writeln!(text, "Host bridge: {}", listed(view, (a, b)));
    let address = words::address(report.decision.address);
    let _ = writeln!(text, "DMA address of the memory: {address}");
    let _ = writeln!(text, "IOMMU groups: {}", groups(report));
    advice(&mut text, report);
    text
}

fn root_complex(plan: &Plan, (a, b): (usize, usize)) -> String {
    let [from, to] = [a, b].map(|at| plan.functions[at].host_bridge);
    let name = |bridge: usize| {
        let bridge = &plan.host_bridges[bridge];
        format!("{} {}", bridge.name, bridge.id)
    };
    match from == to {
        true => format!("  root complex: {}\n", name(from)),
        false => format!("  root complex: {} -> {}\n", name(from), name(to)),
    }
}

fn line(view: &View<'_>, hop: &Hop) -> String {
    let index = view.plan.find(&hop.name);
    let acs = index.map(|at| acs_label(&view.plan.functions[at], view.controls[at]));
    let common = if hop.common { "  <- above both" } else { "" };
    let redirects = if hop.redirects { "  redirects" } else { "" };
    let Hop { bdf, name, kind, .. } = hop;
    let acs = acs.unwrap_or_default();
    format!("  {bdf} {name:14} {kind:15}  {acs}{redirects}{common}\n")
}

fn because(view: &View<'_>, decision: &MapDecision) -> String {
    let names: Vec<_> = decision.redirects.iter().map(|at| call(view.plan, *at)).collect();
    let redirected = words::redirected(&names, decision.common.is_some());
    let rest = match &decision.reason {
        Reason::CommonBridge(common) => format!(
            "both are below {}, and no ACS control between them redirects, so Linux takes it to \
             turn requests around by bus address, past the IOMMU",
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
    let word = |index: usize| {
        let bridge = &view.plan.host_bridges[index];
        format!("{} {}, {}", bridge.name, bridge.id, trusted(view.plan.linux, bridge.id))
    };
    let mut words: Vec<_> = bridges.into_iter().map(word).collect();
    if view.guest.cpu == Cpu::TrustedForPeerToPeer {
        words.push("the processor is trusted, whatever the list says".into());
    }
    words.join("; ")
}

fn groups(report: &Report) -> String {
    let open = report.notes.iter().find(|note| note.id == "groups-not-isolated");
    match (report.groups.client, report.groups.provider) {
        (Some(one), Some(other)) if one == other => {
            "one and the same; they share their mappings, and vfio-pci cannot own one of them alone"
                .into()
        }
        (Some(_), Some(_)) => match open {
            None => "two, each with mappings of its own".into(),
            Some(note) => format!("two, not isolated: {}", note.text),
        },
        (None, Some(_)) => "the client has none: the IOMMU does not translate for itself".into(),
        _ => "none".into(),
    }
}

fn advice(text: &mut String, report: &Report) {
    if report.advice.is_empty() {
        *text += "What would change it: another place in the tree, or several changes at once\n";
        return;
    }
    *text += "What would change it:\n";
    words::advice(text, &report.advice);
}

/// The decision in a line, and one for each warning.
pub(super) fn brief(view: &View<'_>, report: &Report, pair: (usize, usize)) -> String {
    let mut text = title(view.plan, report, pair);
    text.push('\n');
    words::warnings(&mut text, &report.warnings, "    ");
    text
}

fn title(plan: &Plan, report: &Report, (a, b): (usize, usize)) -> String {
    format!("{} -> {}: {}", call(plan, a), call(plan, b), words::decision(&report.decision))
}
