//! A pair of a real machine's functions explained.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Case, RealMachine, Verdict, plan};
use crate::Report;
use crate::explain::map_id;
use crate::linux::{MapType, Reason};

/// What `explain --machine FILE --json` prints about a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairReport {
    /// `peerdma-explain-machine/1`.
    pub schema: &'static str,
    /// The map type, if nothing unknown decides; `unknown` otherwise.
    pub map_type: &'static str,
    /// One case, or one for each answer that what is unknown may lead to.
    pub cases: Vec<CaseReport>,
    /// IOMMU groups as the record has them.
    pub groups: Groups,
    /// What else to know.
    pub notes: Vec<String>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseReport {
    /// What it takes for granted.
    pub given: Vec<String>,
    /// The answer.
    pub explanation: Report,
}

/// IOMMU groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// The client's.
    pub client: Option<u32>,
    /// The provider's.
    pub provider: Option<u32>,
}

impl RealMachine<'_> {
    /// The pair as data.
    pub fn pair_report(&self, a: usize, b: usize) -> PairReport {
        let verdict = self.decide(a, b);
        let group = |at: usize| self.function(at).iommu_group;
        PairReport {
            schema: "peerdma-explain-machine/1",
            map_type: verdict.certain().map_or("unknown", map_id),
            cases: verdict
                .cases
                .iter()
                .map(|case| CaseReport {
                    given: case.given.clone(),
                    explanation: self.real_report(case, a, b),
                })
                .collect(),
            groups: Groups { client: group(a), provider: group(b) },
            notes: self.notes(&verdict, a, b),
        }
    }

    /// What the record cannot say is left out.
    fn real_report(&self, case: &Case, a: usize, b: usize) -> Report {
        let mut report = self.explain(case, a, b);
        let group = |at: usize| self.function(at).iommu_group.and_then(|it| it.try_into().ok());
        (report.groups.client, report.groups.provider) = (group(a), group(b));
        if self.machine.kernel.iommu_groups.is_none()
            && case.decision.map == MapType::ThroughHostBridge
        {
            report.decision.address = "unknown";
        }
        for bridge in &mut report.host_bridges {
            match bridge.id.as_str() {
                "ffff:0000" => (bridge.id, bridge.listed) = ("unknown".into(), "unknown"),
                "ffff:ffff" => bridge.id = "none".into(),
                _ => {}
            }
        }
        let reason_at = report.decision.reason_at.take();
        report.decision.reason_at = reason_at.filter(|id| !id.starts_with("ffff:"));
        for advice in &mut report.advice {
            advice.change = advice.change.replace("--append '", "kernel parameter '");
        }
        report
    }

    /// The pair for people.
    pub fn pair_text(&self, a: usize, b: usize) -> String {
        let verdict = self.decide(a, b);
        let mut text = String::new();
        let title = format!("{} -> {}", self.title(a), self.title(b));
        match verdict.cases.as_slice() {
            [only] => {
                let _ = writeln!(text, "{title}: {}", answer(only));
            }
            cases => {
                let _ = writeln!(text, "{title}: it depends on what the record does not have");
                for case in cases {
                    let _ = writeln!(text, "  if {}:", case.given.join(", and "));
                    let _ = writeln!(text, "      {}", answer(case));
                }
            }
        }
        text += "\nPath:\n";
        self.path(&mut text, a, b);
        text += "\n";
        for case in &verdict.cases {
            self.reasons(&mut text, case, a, b, verdict.cases.len() > 1);
        }
        for note in self.notes(&verdict, a, b) {
            let _ = writeln!(text, "Note: {note}.");
        }
        text
    }

    fn title(&self, index: usize) -> String {
        let address = self.function(index).address.to_string();
        match self.name(index) {
            name if name == address => address,
            name => format!("{name} ({address})"),
        }
    }

    fn path(&self, text: &mut String, a: usize, b: usize) {
        let plan = &self.plans[0];
        let up: Vec<_> = plan.path_up(a).collect();
        let below: Vec<_> = plan.path_up(b).collect();
        let common = up.iter().find(|at| below.contains(at)).copied();
        let end = |path: &[usize]| path.iter().take_while(|at| Some(**at) != common).count();
        for &at in &up[..end(&up)] {
            self.line(text, at, "");
        }
        match common {
            Some(at) => self.line(text, at, "  <- above both"),
            None => {
                let bridges = [a, b].map(|at| plan.functions[at].host_bridge);
                let name = |bridge: usize| {
                    let bridge = &plan.host_bridges[bridge];
                    let id = match bridge.id {
                        plan::UNKNOWN => "identity not known".to_owned(),
                        plan::NONE => "no function that Linux goes by".to_owned(),
                        id => id.to_string(),
                    };
                    format!("{} ({id})", bridge.name)
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
        }
        for &at in below[..end(&below)].iter().rev() {
            self.line(text, at, "");
        }
    }

    fn line(&self, text: &mut String, at: usize, mark: &str) {
        let function = self.function(at);
        let acs = match &function.acs {
            peerdma_capture::Acs::Unknown => "ACS not known".into(),
            peerdma_capture::Acs::Absent => "no ACS".into(),
            peerdma_capture::Acs::Present { control, .. } => {
                let sign = |value| match value {
                    Some(true) => '+',
                    Some(false) => '-',
                    None => '?',
                };
                let names = peerdma_capture::AcsFlags::NAMES.iter().zip(control.values());
                let all: Vec<_> =
                    names.map(|(name, value)| format!("{name}{}", sign(value))).collect();
                format!("ACS {}", all.join(" "))
            }
        };
        let id = match (function.vendor, function.device) {
            (Some(vendor), Some(device)) => format!("{vendor:04x}:{device:04x}"),
            _ => "?".into(),
        };
        let port = function.port.name();
        let _ = writeln!(text, "  {} {id:9}  {port:19}  {acs}{mark}", function.address);
    }

    fn reasons(&self, text: &mut String, case: &Case, a: usize, b: usize, several: bool) {
        let report = self.real_report(case, a, b);
        if several {
            let _ = writeln!(text, "If {}:", case.given.join(", and "));
        }
        let _ = writeln!(text, "Why: {}.", self.because(case));
        let names = |kind: &str| match kind {
            "bus" => "bus address",
            "physical" => "CPU physical address",
            "iova" => "IOVA",
            "unknown" => "CPU physical address, or IOVA if the kernel uses an IOMMU",
            _ => "none, the DMA API refuses",
        };
        let _ = writeln!(text, "DMA address of the memory: {}", names(report.decision.address));
        for warning in &report.warnings {
            let _ = writeln!(text, "Beware: {}.", warning.text);
        }
        for note in report
            .notes
            .iter()
            .filter(|note| !note.id.ends_with("-routes") && !note.id.ends_with("-route"))
        {
            let _ = writeln!(text, "Note: {}.", note.text);
        }
        if !report.advice.is_empty() {
            text.push_str("What would change it:\n");
        }
        for advice in &report.advice {
            let address = match advice.address {
                "iova" => ", by IOVA",
                "physical" => ", by CPU physical address",
                _ => "",
            };
            let map = match advice.map_type {
                "bus-address" => "bus address",
                "through-host-bridge" => "through the host bridge",
                other => other,
            };
            let _ = writeln!(text, "  {}: {map}{address}", advice.change);
            for cost in &advice.costs {
                let _ = writeln!(text, "      costs: {}", cost.text);
            }
        }
    }

    /// Why Linux decides so, in one line.
    pub(super) fn because(&self, case: &Case) -> String {
        let call = |at: usize| self.function(at).address.to_string();
        let redirected = match case.decision.redirects.as_slice() {
            [] if case.decision.common.is_some() => String::new(),
            [] => "no bridge is above both; ".to_owned(),
            list => {
                let names: Vec<_> = list.iter().map(|at| call(*at)).collect();
                format!("ACS redirects at {}; ", names.join(", "))
            }
        };
        let named = |id: crate::PciId| match id {
            plan::UNKNOWN => "the host bridge, whose identity is not known,".to_owned(),
            plan::NONE => "the root bus, without function 00.0 or a root port in its place,".into(),
            id => format!("the host bridge {id}"),
        };
        let rest = match case.decision.reason {
            Reason::CommonBridge(common) => format!(
                "both are below {}, and no ACS control between them redirects",
                call(common)
            ),
            Reason::Processor if self.cpu == Some(crate::Cpu::TrustedForPeerToPeer) => {
                "Linux trusts AMD's processors of family 0x17 and later, whatever the host bridge is"
                    .into()
            }
            Reason::Processor => "Linux trusts the processor or the host bridge".into(),
            Reason::Trusted(id) => format!("{} is on Linux's list", named(id)),
            Reason::SameBridgeOnly(id) => {
                format!("{} is on Linux's list inside one bridge only, and these are two", named(id))
            }
            Reason::NotListed(id) => format!("{} is not on Linux's list", named(id)),
        };
        redirected + &rest
    }

    fn notes(&self, verdict: &Verdict, a: usize, b: usize) -> Vec<String> {
        let mut notes = Vec::new();
        for at in self.unknown_acs(a, b) {
            notes.push(format!(
                "the ACS controls of {} are not known: read the machine as root (`lspci -vvv` or \
                 `peerdma machine capture`)",
                self.function(at).address
            ));
        }
        if verdict.cases.len() > 1 && self.cpu.is_none() {
            notes.push(
                "the processor is not known: the record lacks vendor and family (/proc/cpuinfo)"
                    .into(),
            );
        }
        let host = verdict.cases.iter().any(|case| {
            case.decision.map == MapType::ThroughHostBridge
                && !matches!(case.decision.reason, Reason::Processor)
        });
        if host {
            notes.push(
                "no register says whether the root complex really routes between its ports: Linux \
                 goes by its list"
                    .into(),
            );
        }
        if self.machine.kernel.p2pdma == Some(false) {
            notes.push(
                "this kernel was built without CONFIG_PCI_P2PDMA: it refuses every pair".into(),
            );
        }
        let groups = [a, b].map(|at| self.function(at).iommu_group);
        match groups {
            [Some(one), Some(other)] if one == other => notes.push(format!(
                "both are in IOMMU group {one}: they share their mappings, and vfio-pci cannot own \
                 one of them alone"
            )),
            [Some(one), Some(other)] => {
                notes.push(format!("they are in IOMMU groups {one} and {other}"));
            }
            _ => {}
        }
        notes
    }
}

/// The decision in a line.
fn answer(case: &Case) -> String {
    let distance = match case.decision.map {
        MapType::NotSupported => "-1".into(),
        _ => case.decision.distance.to_string(),
    };
    let map = case.decision.map;
    format!("{} ({}), distance {distance}", map.name(), map.kernel_name())
}
