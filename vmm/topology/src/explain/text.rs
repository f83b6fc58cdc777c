//! An explanation for people.

use std::fmt::Write as _;

use super::report::{Advice, Hop, Remark, Report};
use super::{acs_label, call};
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
    let mut text = format!(
        "{} -> {}: {} ({}), distance {}\n\nPath:\n",
        call(plan, a),
        call(plan, b),
        decision.map.name(),
        decision.map.kernel_name(),
        report.decision.distance,
    );
    let turn = plan.path_up(a).count();
    for (index, hop) in report.path.iter().enumerate() {
        if decision.common.is_none() && index == turn {
            text += &root_complex(plan, (a, b));
        }
        text += &line(view, hop);
    }
    // Writing to a string does not fail.
    let _ = writeln!(text, "\nWhy: {}.", because(view, decision));
    for Remark { text: warning, .. } in &report.warnings {
        let _ = writeln!(text, "Beware: {warning}.");
    }
    for note in report.notes.iter().filter(|note| note.id != "groups-not-isolated") {
        let _ = writeln!(text, "Note: {}.", note.text);
    }
    let _ = writeln!(text, "Host bridge on Linux's list: {}", listed(view, (a, b)));
    let address = view.dma_address(a, decision.map);
    let _ = writeln!(text, "DMA address of the memory: {}", address.name());
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
        format!("{} {}: {}", bridge.name, bridge.id, trusted(view.plan.linux, bridge.id))
    };
    let mut words: Vec<_> = bridges.into_iter().map(word).collect();
    if view.guest.cpu == Cpu::TrustedForPeerToPeer {
        words.push("the processor overrides the list".into());
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
    for Advice { change, map_type, address, costs, .. } in &report.advice {
        let map = match *map_type {
            "bus-address" => "bus address",
            "through-host-bridge" => "through the host bridge",
            other => other,
        };
        let address = match *address {
            "iova" => ", by IOVA",
            "physical" => ", by CPU physical address",
            _ => "",
        };
        let _ = writeln!(text, "  {change}: {map}{address}");
        for cost in costs {
            let _ = writeln!(text, "      costs: {}", cost.text);
        }
    }
}
