//! Answers of a guest, for people.

use std::fmt::Write;

use peerdma_suite::control::message::{
    Findings, Function, FunctionMappings, Listed, Machine, Registers, Status, Traffic,
};

/// `12.3 s`.
fn seconds(milliseconds: u64) -> String {
    format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100)
}

pub(super) fn status(status: &Status) -> String {
    let Status { scenario, state, reason, milliseconds, processors, .. } = status;
    let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!(
        "{scenario}: {state}{why}\n{} since its start, {processors} processors, {} transactions, {} findings, {} mappings \
         in the IOMMU\n",
        seconds(*milliseconds),
        status.transactions,
        status.findings,
        status.iommu_mappings
    )
}

pub(super) fn topology(machine: &Machine) -> String {
    let mut text = String::new();
    for root in machine.functions.iter().filter(|of| of.parent.is_none()) {
        below(&mut text, machine, root, 0);
    }
    text
}

/// A function and what is below it.
fn below(text: &mut String, machine: &Machine, function: &Function, level: usize) {
    let indent = "  ".repeat(level);
    let mut line = format!("{indent}{} {} ({})", function.requester, function.name, function.kind);
    for (is, word) in [
        (function.link_down, "link down"),
        (!function.operational, "in reset or not in D0"),
        (!function.bus_master, "Bus Master Enable off"),
        (!function.memory_space, "Memory Space Enable off"),
    ] {
        if is {
            let _ = write!(line, ", {word}");
        }
    }
    if !function.acs.is_empty() {
        let _ = write!(line, ", ACS {}", function.acs.join(" "));
    }
    text.push_str(&line);
    text.push('\n');
    for bar in &function.bars {
        let _ = writeln!(
            text,
            "{indent}    BAR {} {} {}..={}",
            bar.index, bar.kind, bar.first, bar.last
        );
    }
    // An answer that names a function as its own ancestor would never end.
    if level < machine.functions.len() {
        let children = machine
            .functions
            .iter()
            .filter(|of| of.parent.as_deref() == Some(function.name.as_str()));
        children.for_each(|child| below(text, machine, child, level + 1));
    }
}

pub(super) fn traffic(traffic: &Traffic) -> String {
    let mut text = String::new();
    for of in &traffic.functions {
        let _ = writeln!(
            text,
            "{} ({}): {} TLPs, {} interrupts, {} findings{}",
            of.name,
            of.requester,
            of.tlps,
            of.interrupts,
            of.findings,
            of.mappings.map(|count| format!(", {count} mappings")).unwrap_or_default()
        );
        for (word, bytes) in [
            ("read", &of.read),
            ("written", &of.written),
            ("read from", &of.read_from),
            ("written to", &of.written_to),
        ] {
            let parts: Vec<_> =
                bytes.iter().map(|(name, bytes)| format!("{name} {bytes}")).collect();
            if !parts.is_empty() {
                let _ = writeln!(text, "  bytes {word}: {}", parts.join(", "));
            }
        }
    }
    if traffic.functions.is_empty() {
        text.push_str("no function has issued a request yet\n");
    }
    let _ = writeln!(
        text,
        "IOMMU: {} requests, {} mappings, {} faults",
        traffic.iommu_requests, traffic.iommu_mappings, traffic.iommu_faults
    );
    text
}

pub(super) fn mappings(mappings: &FunctionMappings) -> String {
    let mut text = format!("{} ({})\n", mappings.function, mappings.requester);
    list(&mut text, "mapped by the guest's kernel", mappings.kernel.as_ref(), "not known");
    list(&mut text, "mapped by the IOMMU", mappings.iommu.as_ref(), "it does not translate");
    text
}

fn list(text: &mut String, what: &str, listed: Option<&Listed>, otherwise: &str) {
    let Some(Listed { all, lines }) = listed else {
        let _ = writeln!(text, "{what}: {otherwise}");
        return;
    };
    let shown = match lines.len() {
        _ if *all == 0 => ": nothing".to_owned(),
        shown if shown < *all => format!(", {shown} of {all}:"),
        _ => ":".to_owned(),
    };
    let _ = writeln!(text, "{what}{shown}");
    lines.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
}

pub(super) fn registers(of: &Registers) -> String {
    let mut text = format!("{} ({})\n", of.function, of.requester);
    of.configuration.iter().for_each(|line| text.push_str(&format!("  {line}\n")));
    if of.registers.is_empty() {
        text.push_str("its model names no registers\n");
    }
    let width = of.registers.iter().map(|register| register.name.len()).max().unwrap_or(0);
    for register in &of.registers {
        let _ = writeln!(text, "  {:width$}  {}", register.name, register.value);
    }
    text
}

pub(super) fn findings(findings: &Findings) -> String {
    let mut text = String::new();
    for found in &findings.findings {
        let (number, severity, class) = (found.number, &found.severity, &found.class);
        let name = &found.function;
        let _ = writeln!(text, "#{number} {severity}, {name}: {class}: {}", found.message);
        if found.count > 1 {
            let _ = writeln!(text, "    {} times, {} bytes", found.count, found.bytes);
        }
        found.before.iter().for_each(|event| text.push_str(&format!("    before: {event}\n")));
    }
    if findings.findings.is_empty() {
        text.push_str("no findings\n");
    }
    text
}
