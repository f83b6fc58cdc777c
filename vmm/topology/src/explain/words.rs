//! The words that explanations of topologies and of real machines share.

use std::fmt::Write as _;

use super::report::{Advice, Decision, Remark, Switches};

/// A map type by its ID.
pub(crate) fn map(id: &str) -> &str {
    match id {
        "bus-address" => "bus address",
        "through-host-bridge" => "through the host bridge",
        "not-supported" => "not supported",
        other => other,
    }
}

/// What the DMA address is, by its ID.
pub(crate) fn address(id: &str) -> &str {
    match id {
        "bus" => "bus address",
        "physical" => "CPU physical address",
        "iova" => "IOVA",
        "unknown" => "CPU physical address, or IOVA if the kernel uses an IOMMU",
        _ => "none, the DMA API refuses",
    }
}

/// The decision in a line.
pub(crate) fn decision(decision: &Decision) -> String {
    let Decision { map_type, kernel_name, distance, .. } = decision;
    format!("{} ({kernel_name}), distance {distance}", map(map_type))
}

/// What the decision turns into, with the address if the map type does not say it.
fn result(map_type: &str, address_id: &str) -> String {
    match address_id {
        "iova" | "physical" => format!("{}, by {}", map(map_type), address(address_id)),
        _ => map(map_type).to_owned(),
    }
}

/// A line for each warning.
pub(crate) fn warnings(text: &mut String, warnings: &[Remark], indent: &str) {
    for warning in warnings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{indent}Beware: {}.", warning.text);
    }
}

/// A line for each note.
pub(crate) fn notes<'r>(text: &mut String, notes: impl IntoIterator<Item = &'r Remark>) {
    for note in notes {
        let _ = writeln!(text, "Note: {}.", note.text);
    }
}

/// Each change with what it leads to, what it switches and what it costs.
pub(crate) fn advice(text: &mut String, advice: &[Advice]) {
    for Advice { change, map_type, address, given, switches, costs, .. } in advice {
        let _ = writeln!(text, "  {change}: {}", result(map_type, address));
        for given in given {
            let _ = writeln!(text, "      if {given}");
        }
        for one in switches {
            let _ = writeln!(text, "      switches {}", switched(one));
        }
        for cost in costs {
            let _ = writeln!(text, "      costs: {}", cost.text);
        }
    }
}

/// `SV UF on, RR CR off at 02:00.0, 02:01.0`.
fn switched(Switches { at, on, off }: &Switches) -> String {
    let part = |list: &[&str], word: &str| {
        (!list.is_empty()).then(|| format!("{} {word}", list.join(" ")))
    };
    let parts: Vec<_> = [part(on, "on"), part(off, "off")].into_iter().flatten().collect();
    format!("{} at {}", parts.join(", "), at.join(", "))
}

/// The functions whose ACS controls redirect, or that no bridge is above both; empty if the controls
/// on the way do not matter.
pub(crate) fn redirected(names: &[String], common: bool) -> String {
    match names {
        [] if common => String::new(),
        [] => "no bridge but the root complex is above both; ".to_owned(),
        list => format!("ACS redirects at {}; ", list.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_switched_reads_in_one_line() {
        let one = |on: &[&'static str], off: &[&'static str]| {
            let at = vec!["02:00.0".into(), "02:01.0".into()];
            switched(&Switches { at, on: on.to_vec(), off: off.to_vec() })
        };
        assert_eq!(one(&["SV", "UF"], &["RR"]), "SV UF on, RR off at 02:00.0, 02:01.0");
        assert_eq!(one(&[], &["RR", "CR"]), "RR CR off at 02:00.0, 02:01.0");
        assert_eq!(one(&["RR"], &[]), "RR on at 02:00.0, 02:01.0");
    }
}
