//! A pair of a real machine's functions explained to people: the answer first, then the path, the
//! reason, and what would change it.

use std::fmt::Write as _;

use super::report::{AcsState, identity};
use super::{Case, RealMachine, Verdict};
use crate::Report;
use crate::explain::{Scope, passed, words};
use crate::linux::{MapType, redirects};

impl RealMachine<'_> {
    /// The pair for people.
    pub fn pair_text(&self, a: usize, b: usize) -> String {
        let verdict = self.decide(a, b);
        let mut text = String::new();
        let title = format!("{} -> {}", self.title(a), self.title(b));
        let several = verdict.cases.len() > 1;
        let reports: Vec<_> = verdict
            .cases
            .iter()
            .map(|case| {
                // What improves nothing is not computed.
                let scope = match several && case.decision.map == MapType::BusAddress {
                    true => Scope::WithoutAdvice,
                    false => Scope::Whole,
                };
                (case, self.real_report(case, (a, b), scope))
            })
            .collect();
        self.answers(&mut text, &title, &verdict, &reports);
        self.what_if(&mut text, a, b);
        for what in self.what_would_settle(&verdict, a, b) {
            let _ = writeln!(text, "  To know: {what}");
        }
        text += "\nPath:\n";
        self.path(&mut text, a, b);
        text += "\n";
        self.reasons(&mut text, &reports);
        self.changes(&mut text, &reports, a, b);
        for note in self.notes(&verdict, a, b) {
            let _ = writeln!(text, "Note: {note}.");
        }
        text
    }

    fn answers(
        &self,
        text: &mut String,
        title: &str,
        verdict: &Verdict,
        reports: &[(&Case, Report)],
    ) {
        if let ([(_, only)], Some(_)) = (reports, verdict.certain()) {
            let _ = writeln!(text, "{title}: {}", words::decision(&only.decision));
            return;
        }
        let _ = writeln!(text, "{title}: it depends on what the record does not have");
        for (case, report) in reports {
            let mut given = case.given.clone();
            if verdict.open {
                given.push("no bridge that the record lacks is above both".into());
            }
            let (answer, given) = (words::decision(&report.decision), given.join(", and "));
            let _ = writeln!(text, "  {answer}\n      if {given}");
        }
        if verdict.open {
            let _ = writeln!(
                text,
                "  bus address\n      if one is, and no ACS control below it redirects"
            );
        }
    }

    /// What the parameters that the kernel is asked to have change.
    fn what_if(&self, text: &mut String, a: usize, b: usize) {
        let Some(without) = self.without_appended(a, b) else { return };
        let with = self.appended.join(" ");
        let was = match without.certain() {
            Some(map) => map.name(),
            None => "it depends",
        };
        let _ = writeln!(text, "  That is with {with}; without: {was}");
    }

    fn title(&self, index: usize) -> String {
        let address = self.address(index);
        match self.name(index) {
            name if name == address => address,
            name => format!("{name} ({address})"),
        }
    }

    fn path(&self, text: &mut String, a: usize, b: usize) {
        let plan = &self.plans[0];
        let view = self.view(false, crate::Cpu::Neutral);
        let (path, common) = passed(&view, (a, b));
        let up = plan.path_up(a).count();
        for (index, at) in path.into_iter().enumerate() {
            if common.is_none() && index == up {
                let bridges = [a, b].map(|at| plan.functions[at].host_bridge);
                let name = |bridge: usize| {
                    let bridge = &plan.host_bridges[bridge];
                    format!("{} ({})", bridge.name, identity(bridge.id))
                };
                let _ = match bridges {
                    [one, other] if one == other => {
                        writeln!(text, "  root complex: {}", name(one))
                    }
                    [one, other] => {
                        writeln!(text, "  root complex: {} -> {}", name(one), name(other))
                    }
                };
            }
            self.line(text, at, if Some(at) == common { "  <- above both" } else { "" });
        }
    }

    fn line(&self, text: &mut String, at: usize, mark: &str) {
        let acs = match self.acs(at) {
            AcsState::Unknown => "ACS not known".into(),
            AcsState::Absent => "no ACS".into(),
            AcsState::Present(_, control) => {
                let sign = |value| match value {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => '?',
                };
                let names = peerdma_capture::AcsFlags::NAMES.iter().zip(control);
                let all: Vec<_> =
                    names.map(|(name, value)| format!("{name}{}", sign(value))).collect();
                format!("ACS {}", all.join(" "))
            }
        };
        let Some(function) = self.known(at) else {
            let name = self.address(at);
            let _ = writeln!(text, "  {name}, which the record lacks; {acs}{mark}");
            return;
        };
        let id = match (function.vendor, function.device) {
            (Some(vendor), Some(device)) => format!("{vendor:04x}:{device:04x}"),
            _ => "?".into(),
        };
        let [off, on] = [0, 1].map(|state| redirects(self.controls[state][at]));
        let redirects = match (off, on) {
            (true, true) => "  redirects",
            (false, true) => "  may redirect",
            _ => "",
        };
        let port = function.port.name();
        let _ = writeln!(text, "  {} {id:9}  {port:19}  {acs}{redirects}{mark}", function.address);
    }

    fn reasons(&self, text: &mut String, reports: &[(&Case, Report)]) {
        let several = reports.len() > 1;
        for (case, report) in reports {
            let label = match several {
                true => format!(", if {}", words::map(report.decision.map_type)),
                false => String::new(),
            };
            let _ = writeln!(text, "Why{label}: {}.", self.because(case));
            if case.decision.map == MapType::ThroughHostBridge {
                let address = words::address(report.decision.address);
                let _ = writeln!(text, "DMA address of the memory: {address}");
            }
            words::warnings(text, &report.warnings, "");
            // That the root complex routes is what is not known of a real machine.
            let certain = |id: &str| !id.ends_with("-routes") && !id.ends_with("-route");
            words::notes(text, report.notes.iter().filter(|note| certain(note.id)));
        }
    }

    fn changes(&self, text: &mut String, reports: &[(&Case, Report)], a: usize, b: usize) {
        let mut printed = Vec::new();
        for (_, report) in reports {
            if report.advice.is_empty() || printed.contains(&&report.advice) {
                continue;
            }
            let label = match reports.len() > 1 && printed.is_empty() && !same(reports) {
                true => format!(", if {}", words::map(report.decision.map_type)),
                false => String::new(),
            };
            let _ = writeln!(text, "What would change it{label}:");
            words::advice(text, &report.advice);
            printed.push(&report.advice);
        }
        let refused = reports.iter().any(|(case, _)| case.decision.map == MapType::NotSupported);
        if !printed.is_empty() || !refused {
            return;
        }
        let view = self.view(false, crate::Cpu::Neutral);
        let (path, common) = view.between(a, b);
        let common = common.is_some();
        if common && path.iter().any(|at| self.known(*at).is_none()) {
            *text += "What would change it: pci=disable_acs_redir= for the ports that redirect, which \
                      the record does not show\n";
            return;
        }
        *text += match (view.models_routes(a, b), common) {
            (false, true) => {
                "What would change it: not known here; the path has a bridge whose routing is not \
                 modelled\n"
            }
            (_, false) => {
                "What would change it: no kernel parameter; both devices below one switch that does \
                 not redirect, or another host bridge or processor\n"
            }
            (true, true) => {
                "What would change it: no kernel parameter that was tried lets data arrive\n"
            }
        };
    }
}

/// Whether all cases that have advice have the same.
fn same(reports: &[(&Case, Report)]) -> bool {
    let mut all = reports.iter().map(|(_, report)| &report.advice).filter(|it| !it.is_empty());
    let first = all.next();
    all.all(|other| Some(other) == first)
}
