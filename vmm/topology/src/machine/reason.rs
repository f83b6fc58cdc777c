//! Why Linux decides so on a real machine, and what else to know, in words.

use super::{Case, RealMachine, Verdict, plan};
use crate::Cpu;
use crate::explain::words;
use crate::linux::{MapType, Reason};

impl RealMachine<'_> {
    /// Why Linux decides so, in one line.
    pub(super) fn because(&self, case: &Case) -> String {
        let redirects = &case.decision.redirects;
        let names: Vec<_> = redirects.iter().map(|at| self.address(*at)).collect();
        let redirected = words::redirected(&names, case.decision.common.is_some());
        redirected + &self.rule(case)
    }

    /// The rule that decides, without what ACS does before.
    pub(super) fn rule(&self, case: &Case) -> String {
        const ZEN: &str =
            "Linux trusts AMD's processors of family 0x17 and later, whatever the host bridge is";
        let named = |id: crate::PciId| match id {
            plan::UNKNOWN => "the host bridge, whose identity is not known,".to_owned(),
            plan::NONE => "the root bus, without function 00.0 or a root port in its place,".into(),
            id => format!("the host bridge {id}"),
        };
        match case.decision.reason {
            Reason::CommonBridge(common) => format!(
                "both are below {}, and no ACS control between them redirects",
                self.address(common)
            ),
            Reason::Processor if self.cpu == Some(Cpu::TrustedForPeerToPeer) => ZEN.into(),
            Reason::Processor => match case.allowed_by {
                Some("listed") => "the host bridge is on Linux's list".into(),
                Some("processor") => ZEN.into(),
                _ => "the host bridge is on Linux's list, or Linux trusts the processor".into(),
            },
            Reason::Trusted(id) => format!("{} is on Linux's list", named(id)),
            Reason::SameBridgeOnly(id) => {
                format!(
                    "{} is on Linux's list inside one bridge only, and these are two",
                    named(id)
                )
            }
            Reason::NotListed(id) if self.cpu.is_none() => {
                format!("{} is not on Linux's list, nor is the processor trusted", named(id))
            }
            Reason::NotListed(id) => format!("{} is not on Linux's list", named(id)),
        }
    }

    /// What to read on the machine, where the answer depends on what the record lacks.
    pub(super) fn what_would_settle(&self, verdict: &Verdict, a: usize, b: usize) -> Vec<String> {
        let all = self.all_doubts(verdict, a, b).into_iter();
        all.map(|(what, how)| format!("{what} ({how})")).collect()
    }

    /// What the answer depends on.
    pub(super) fn doubts(&self, verdict: &Verdict, a: usize, b: usize) -> Vec<String> {
        self.all_doubts(verdict, a, b).into_iter().map(|(what, _)| what).collect()
    }

    /// What the record lacks, and how to find it out.
    fn all_doubts(&self, verdict: &Verdict, a: usize, b: usize) -> Vec<(String, &'static str)> {
        let mut found = Vec::new();
        if verdict.certain().is_some() {
            return found;
        }
        if verdict.open {
            found.push(("the bridges above both".into(), "all of `lspci -vvv`, as root"));
        }
        let of_firmware = |at: &usize| {
            let acs = self.known(*at).map(|function| &function.acs);
            matches!(acs, Some(peerdma_capture::Acs::Present { control, .. })
                if [control.rr, control.cr, control.ec].iter().all(Option::is_some))
        };
        let matters = verdict.cases.iter().any(|case| case.unknown_redirect);
        let unknown = if matters { self.unknown_acs(a, b) } else { Vec::new() };
        let (firmware, unread): (Vec<_>, Vec<_>) = unknown.into_iter().partition(of_firmware);
        let list =
            |all: &[usize]| all.iter().map(|at| self.address(*at)).collect::<Vec<_>>().join(", ");
        if !unread.is_empty() {
            let how = "`lspci -vvv` or `peerdma machine capture`, as root";
            found.push((format!("the ACS controls of {}", list(&unread)), how));
        }
        if !firmware.is_empty() {
            let how = "boot with the IOMMU off, or say 0 or 1 instead of x";
            found.push((format!("what the firmware sets of ACS at {}", list(&firmware)), how));
        }
        let allowed = |wanted: &str| {
            let mut all = verdict.cases.iter().filter_map(|case| case.allowed_by);
            all.any(|by| by.contains(wanted))
        };
        if allowed("listed") {
            let plan = &self.plans[0];
            let mut buses = [a, b].map(|at| plan.functions[at].host_bridge).to_vec();
            buses.dedup();
            let names = buses.into_iter().map(|at| &plan.host_bridges[at]);
            let names = names.filter(|bridge| bridge.id == plan::UNKNOWN);
            let names: Vec<_> = names.map(|bridge| bridge.name.as_str()).collect();
            let what = format!("the host bridge above {}", names.join(" and "));
            found.push((what, "`lspci -nn`"));
        }
        if allowed("processor") {
            found.push(("vendor and family of the processor".into(), "/proc/cpuinfo"));
        }
        found
    }

    pub(super) fn notes(&self, verdict: &Verdict, a: usize, b: usize) -> Vec<String> {
        let mut notes = Vec::new();
        if self.machine.kernel.p2pdma == Some(false) {
            notes.push(
                "this kernel was built without CONFIG_PCI_P2PDMA: it refuses every pair".into(),
            );
        }
        let host = verdict.cases.iter().any(|case| {
            case.decision.map == MapType::ThroughHostBridge
                && self.cpu != Some(Cpu::TrustedForPeerToPeer)
        });
        if host {
            notes.push(
                "no register tells whether the root complex really routes between its ports: Linux \
                 goes by its list"
                    .into(),
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
