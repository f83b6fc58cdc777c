//! A pair of a real machine's functions as data.

use serde::Serialize;

use super::{Case, RealMachine, plan};
use crate::Report;
use crate::acs::list;
use crate::explain::{Scope, map_id, passed};
use crate::linux::{MapType, Version, View, acs_mask};
use device_models::pci::AcsControl;
use peerdma_capture::Acs;

/// What `explain --machine FILE --json` prints about a pair.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PairReport {
    /// `peerdma-explain-machine/1`.
    pub schema: &'static str,
    /// The kernel.
    pub kernel: Kernel,
    /// What to know before anything else.
    pub warnings: Vec<String>,
    /// The map type, if nothing unknown decides; `unknown` otherwise.
    pub map_type: &'static str,
    /// The map type without the kernel parameters that were added to the record's; none if there are none.
    pub map_type_without: Option<&'static str>,
    /// One case, or one for each answer that what is unknown may lead to.
    pub cases: Vec<CaseReport>,
    /// IOMMU groups as the record has them.
    pub groups: Groups,
    /// What would settle it, where the answer is unknown.
    pub unknown: Vec<String>,
    /// What else to know.
    pub notes: Vec<String>,
}

/// A kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kernel {
    /// The record's, if it is known.
    pub release: Option<String>,
    /// The one by whose rules it is decided.
    pub rules: String,
    /// Whether these are the rules of the record's own series.
    pub exact: bool,
    /// Whether the record's was built with `CONFIG_PCI_P2PDMA`, if that is known.
    pub p2pdma: Option<bool>,
    /// Parameters that it is asked to have, too (`--append`).
    pub appended: Vec<String>,
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

/// What is known of a function's ACS, with the parameters that the kernel is asked to have.
pub(super) enum AcsState {
    Absent,
    Unknown,
    /// Capabilities, and the controls in the order of their bits, as far as they are known.
    Present([Option<bool>; 7], [Option<bool>; 7]),
}

impl RealMachine<'_> {
    /// The pair as data.
    pub fn pair_report(&self, a: usize, b: usize) -> PairReport {
        let verdict = self.decide(a, b);
        let group = |at: usize| self.function(at).iommu_group;
        let certain = |map: Option<MapType>| map.map_or("unknown", map_id);
        PairReport {
            schema: "peerdma-explain-machine/1",
            kernel: self.kernel(),
            warnings: self.warnings.clone(),
            map_type: certain(verdict.certain()),
            map_type_without: self.without_appended(a, b).map(|it| certain(it.certain())),
            cases: verdict
                .cases
                .iter()
                .map(|case| CaseReport {
                    given: case.given.clone(),
                    explanation: self.real_report(case, (a, b), Scope::Whole),
                })
                .collect(),
            groups: Groups { client: group(a), provider: group(b) },
            unknown: self.what_would_settle(&verdict, a, b),
            notes: self.notes(&verdict, a, b),
        }
    }

    pub(super) fn kernel(&self) -> Kernel {
        let kernel = &self.machine.kernel;
        let version = self.version();
        let nearest = kernel.release.as_deref().map(Version::nearest);
        Kernel {
            release: kernel.release.clone(),
            rules: version.to_string(),
            exact: nearest == Some(Ok((version, true))),
            p2pdma: kernel.p2pdma,
            appended: self.appended.clone(),
        }
    }

    /// The verdict without the parameters that the kernel is asked to have; none if there are none.
    pub(super) fn without_appended(&self, a: usize, b: usize) -> Option<super::Verdict> {
        let now = || RealMachine::by_rules_of(self.version(), self.machine);
        (!self.appended.is_empty()).then(|| now().decide(a, b))
    }

    /// What the record cannot say is left out.
    pub(super) fn real_report(&self, case: &Case, (a, b): (usize, usize), scope: Scope) -> Report {
        let mut report = self.explain(case, a, b, scope);
        let group = |at: usize| self.function(at).iommu_group.and_then(|it| it.try_into().ok());
        (report.groups.client, report.groups.provider) = (group(a), group(b));
        let has_groups = self.machine.kernel.iommu_groups;
        if has_groups.is_none() && case.decision.map == MapType::ThroughHostBridge {
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
        if let (MapType::ThroughHostBridge, Some(by)) = (case.decision.map, case.allowed_by) {
            (report.decision.reason, report.decision.reason_at) = (by, None);
        }
        let (path, _) = passed(&self.view(case.unknown_redirect, case.cpu), (a, b));
        for (hop, at) in report.path.iter_mut().zip(path) {
            self.settle(hop, at);
        }
        for advice in &mut report.advice {
            advice.change = advice.change.replace("--append '", "kernel parameter '");
            advice.given = self.still_unknown(advice.parameter.as_deref(), (a, b));
            if has_groups == Some(false) {
                let isolation = ["bypasses-iommu", "groups-may-merge"];
                advice.costs.retain(|cost| !isolation.contains(&cost.id));
            }
        }
        report
    }

    /// What still decides with one parameter more.
    fn still_unknown(&self, parameter: Option<&str>, (a, b): (usize, usize)) -> Vec<String> {
        let Some(parameter) = parameter else { return Vec::new() };
        let mut guest = self.guests[0].clone();
        guest.parameters.push(parameter.to_owned());
        let [off, on] = [0, 1].map(|state| View::new(&self.plans[state], &guest));
        let differs = |at: &usize| !off.redirects(*at) && on.redirects(*at);
        let (path, common) = off.between(b, a);
        let redirects_anyway = path.iter().any(|at| off.redirects(*at));
        let unknown: Vec<_> = path.into_iter().filter(differs).map(|at| self.address(at)).collect();
        match unknown.as_slice() {
            [] => Vec::new(),
            _ if common.is_none() || redirects_anyway => Vec::new(),
            [only] => vec![format!("ACS does not redirect at {only}")],
            all => vec![format!("ACS redirects at none of {}", all.join(", "))],
        }
    }

    /// ACS of a function on the path, as far as it is known.
    fn settle(&self, hop: &mut crate::explain::Hop, at: usize) {
        let flags = |values: &[Option<bool>; 7], wanted: Option<bool>| {
            let bit = |index: usize| AcsControl::from_bits_truncate(1 << index);
            let all = (0..7).filter(|index| values[*index] == wanted);
            list(all.fold(AcsControl::empty(), |all, index| all | bit(index)))
        };
        match self.acs(at) {
            AcsState::Absent => (hop.acs_state, hop.acs) = ("absent", None),
            AcsState::Unknown => (hop.acs_state, hop.acs) = ("unknown", None),
            AcsState::Present(capabilities, control) => {
                let whole = capabilities.iter().chain(&control).all(Option::is_some);
                hop.acs_state = if whole { "known" } else { "partly" };
                if let Some(acs) = &mut hop.acs {
                    acs.capabilities = flags(&capabilities, Some(true));
                    acs.enabled = flags(&control, Some(true));
                    acs.unknown = flags(&control, None);
                }
            }
        }
    }

    /// What is known of a function's ACS.
    pub(super) fn acs(&self, at: usize) -> AcsState {
        let Some(function) = self.known(at) else { return AcsState::Unknown };
        let guest = &self.guests[0];
        let mask = acs_mask(&self.plans[0], at, &guest.parameters);
        let (capabilities, found) = match &function.acs {
            Acs::Absent => return AcsState::Absent,
            Acs::Unknown if mask.is_none() => return AcsState::Unknown,
            Acs::Unknown => ([None; 7], [None; 7]),
            Acs::Present { capabilities, control, .. } => (capabilities.values(), control.values()),
        };
        let Some(mask) = mask else { return AcsState::Present(capabilities, found) };
        let [off, on] = [0, 1].map(|state| self.controls[state][at]);
        let mut control = [None; 7];
        for (index, value) in control.iter_mut().enumerate() {
            let bit = AcsControl::from_bits_truncate(1 << index);
            let settled = match (mask.contains(bit), capabilities[index], found[index]) {
                // What goes off is off, whatever the capability is.
                (true, None, _) => !on.contains(bit),
                (true, Some(_), _) | (false, _, Some(_)) => true,
                (false, _, None) => false,
            };
            let same = off.contains(bit) == on.contains(bit);
            *value = (settled && same).then(|| off.contains(bit));
        }
        AcsState::Present(capabilities, control)
    }
}

/// Names of host bridges that are not a function's identity.
pub(super) fn identity(id: crate::PciId) -> String {
    match id {
        plan::UNKNOWN => "identity not known".to_owned(),
        plan::NONE => "no function that Linux goes by".to_owned(),
        id => id.to_string(),
    }
}
