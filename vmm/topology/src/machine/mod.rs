//! What Linux decides on a real machine, from a record of it.
//!
//! What the record lacks is never guessed: where a decision depends on it, every answer is given,
//! with what it depends on.

mod html;
mod matrix;
mod plan;
mod text;
mod twin;

use device_models::pci::AcsControl;
use peerdma_capture::{Function, Machine};

pub use matrix::{Cell, Matrix, MatrixReport};
pub use text::PairReport;
pub use twin::TwinError;

use crate::assembly::IommuMode;
use crate::linux::{Guest, MapDecision, MapType, Trust, Version, View, trust_of};
use crate::plan::{Kind, Plan};
use crate::{Cpu, ExplainError, Report};

/// A machine, ready to be asked about pairs.
#[derive(Debug)]
pub struct RealMachine<'m> {
    machine: &'m Machine,
    /// The tree where no unknown ACS control redirects, and where all do.
    plans: [Plan; 2],
    /// What is known about the processor; none if nothing is.
    cpu: Option<Cpu>,
    iommu: IommuMode,
}

/// What Linux decides about a pair under one set of assumptions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// The decision.
    pub decision: MapDecision,
    /// What it takes for granted, in words; empty if nothing is unknown.
    pub given: Vec<String>,
    unknown_redirect: bool,
    cpu: Cpu,
}

/// All that Linux may decide about a pair: one case, or several that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The cases.
    pub cases: Vec<Case>,
}

impl Verdict {
    /// The map type, if it does not depend on anything unknown.
    pub fn certain(&self) -> Option<MapType> {
        match self.cases.as_slice() {
            [only] => Some(only.decision.map),
            _ => None,
        }
    }
}

impl<'m> RealMachine<'m> {
    /// Looks at a record with the eyes of the kernel that it names, or else of the newest one.
    pub fn new(machine: &'m Machine) -> Self {
        let release = machine.kernel.release.as_deref();
        let version = release.and_then(|release| Version::nearest(release).ok());
        Self::by_rules_of(version.map_or_else(Version::default, |(version, _)| version), machine)
    }

    /// Looks at a record with the eyes of a certain kernel.
    pub fn by_rules_of(version: Version, machine: &'m Machine) -> Self {
        let plans = [false, true].map(|redirect| plan::plan(machine, version, redirect));
        let iommu = match machine.kernel.iommu_groups {
            Some(true) if passthrough(machine) => IommuMode::Passthrough,
            Some(true) => IommuMode::Lazy,
            _ => IommuMode::None,
        };
        Self { machine, plans, cpu: cpu(machine), iommu }
    }

    /// The kernel by whose rules it decides.
    pub fn version(&self) -> Version {
        self.plans[0].linux
    }

    /// The record.
    pub fn machine(&self) -> &'m Machine {
        self.machine
    }

    /// The index of the function that a user calls `name`.
    ///
    /// # Errors
    /// When no function has the name, or several have.
    pub fn find(&self, name: &str) -> Result<usize, ExplainError> {
        let found = self.machine.find(name)?;
        let at = self.machine.functions.iter().position(|it| it.address == found.address);
        at.ok_or_else(|| ExplainError::Same(name.into()))
    }

    /// What people call a function: `gpu0`, or its address.
    pub fn name(&self, index: usize) -> &str {
        &self.plans[0].functions[index].name
    }

    fn function(&self, index: usize) -> &'m Function {
        &self.machine.functions[index]
    }

    fn guest(&self, cpu: Cpu) -> Guest {
        Guest { iommu: self.iommu, cpu, parameters: Vec::new() }
    }

    /// The functions between the two, as far as the record knows them, whose ACS controls are not
    /// known.
    fn unknown_acs(&self, a: usize, b: usize) -> Vec<usize> {
        let guest = self.guest(Cpu::Neutral);
        let (off, on) = (View::new(&self.plans[0], &guest), View::new(&self.plans[1], &guest));
        let (path, common) = off.between(b, a);
        let differs = |at: &usize| off.redirects(*at) != on.redirects(*at);
        path.into_iter().filter(|_| common.is_some()).filter(differs).collect()
    }

    /// What Linux decides for DMA by `a` into the memory of `b`.
    pub fn decide(&self, a: usize, b: usize) -> Verdict {
        let names: Vec<_> = self.unknown_acs(a, b).iter().map(|at| self.name(*at)).collect();
        let names = names.join(", ");
        let trust = self.trust(a, b);
        let case = |redirect: bool, cpu: Cpu| {
            let guest = self.guest(cpu);
            let decision = View::new(&self.plans[usize::from(redirect)], &guest).decide(b, a);
            Case { decision, given: Vec::new(), unknown_redirect: redirect, cpu }
        };
        let of = |redirect: bool| -> Vec<Case> {
            trust.iter().map(|(cpu, _)| case(redirect, *cpu)).collect()
        };
        let maps = |cases: &[Case]| -> Vec<_> { cases.iter().map(|it| it.decision.map).collect() };
        let (off, on) = (of(false), of(true));
        // What makes no difference is not mentioned.
        let acs_matters = maps(&off) != maps(&on);
        let rows = if acs_matters { vec![off, on] } else { vec![off] };
        let mut cases = Vec::new();
        for (row, given) in rows.into_iter().zip([
            format!("ACS does not redirect at {names}"),
            format!("ACS redirects at {names}, or at one of them"),
        ]) {
            let same = maps(&row).windows(2).all(|pair| pair[0] == pair[1]);
            let acs = acs_matters.then_some(given);
            for (mut case, (_, trusted)) in row.into_iter().zip(&trust) {
                case.given.extend(acs.clone());
                if !same {
                    case.given.extend(trusted.clone());
                }
                cases.push(case);
                if same {
                    break;
                }
            }
        }
        Verdict { cases }
    }

    /// What Linux may make of processor and host bridges, each with what is taken for granted.
    fn trust(&self, a: usize, b: usize) -> Vec<(Cpu, Option<String>)> {
        if self.cpu == Some(Cpu::TrustedForPeerToPeer) {
            return vec![(Cpu::TrustedForPeerToPeer, None)];
        }
        let plan = &self.plans[0];
        let mut bridges = vec![plan.functions[a].host_bridge, plan.functions[b].host_bridge];
        bridges.dedup();
        let bridges: Vec<_> = bridges.into_iter().map(|at| &plan.host_bridges[at]).collect();
        let unknown: Vec<_> = bridges
            .iter()
            .filter(|bridge| bridge.id == plan::UNKNOWN)
            .map(|bridge| bridge.name.as_str())
            .collect();
        // Both must be listed: one that is known not to be decides alone.
        let possible =
            bridges.iter().filter(|bridge| bridge.id != plan::UNKNOWN).all(
                |bridge| match trust_of(plan.linux, bridge.id) {
                    Trust::Everywhere => true,
                    Trust::SameBridge => bridges.len() == 1,
                    Trust::Unknown => false,
                },
            );
        let (mut yes, mut no) = (Vec::new(), Vec::new());
        if possible && !unknown.is_empty() {
            let names = unknown.join(" and ");
            let two = if bridges.len() == 2 { ", and not for one bridge only" } else { "" };
            let [is, is_not] = match unknown.len() {
                1 => [format!("the host bridge of {names} is"), "not".to_owned()],
                _ => [format!("the host bridges of {names} are"), "not both".to_owned()],
            };
            yes.push(format!("{is} on Linux's list{two}"));
            no.push(format!("{is} {is_not} on Linux's list{two}"));
        }
        if self.cpu.is_none() {
            yes.push("the processor is AMD's, of family 0x17 or later".into());
            no.push("the processor is not AMD's, of family 0x17 or later".into());
        }
        if yes.is_empty() {
            return vec![(Cpu::Neutral, None)];
        }
        vec![
            (Cpu::Neutral, Some(no.join(", and "))),
            (Cpu::TrustedForPeerToPeer, Some(yes.join(", or "))),
        ]
    }

    /// The devices that people do P2P with: GPUs, network and NVMe controllers, and what offers p2p
    /// memory.
    pub fn devices(&self) -> Vec<usize> {
        let counted = self.machine.counted();
        let wanted = |function: &Function| {
            function.p2p_memory.is_some()
                || counted.iter().any(|(_, it)| it.address == function.address)
        };
        let all = self.machine.functions.iter().enumerate();
        all.filter(|(_, function)| wanted(function)).map(|(index, _)| index).collect()
    }

    /// Everything that is not a bridge.
    pub fn endpoints(&self) -> Vec<usize> {
        let is_device = |index: &usize| {
            matches!(self.plans[0].functions[*index].kind, Kind::Device(_))
                && self.machine.functions[*index].class != Some(HOST_BRIDGE)
        };
        (0..self.machine.functions.len()).filter(is_device).collect()
    }

    /// The report about one case of a pair.
    fn explain(&self, case: &Case, a: usize, b: usize) -> Report {
        let guest = self.guest(case.cpu);
        let view = View::new(&self.plans[usize::from(case.unknown_redirect)], &guest);
        crate::explain::report(&view, &case.decision, (a, b))
    }
}

/// Class code of a host bridge's own function.
const HOST_BRIDGE: u16 = 0x0600;
/// ACS controls with which a function redirects.
const REDIRECT: AcsControl = AcsControl::P2P_REQUEST_REDIRECT;

/// What is known about the processor: from the record, or from the vendor of the host bridges.
fn cpu(machine: &Machine) -> Option<Cpu> {
    let known = machine.cpu.as_ref();
    match known.and_then(|cpu| cpu.vendor.as_deref()) {
        Some("AuthenticAMD") => {
            return known.and_then(|cpu| cpu.family).map(|family| match family >= 0x17 {
                true => Cpu::TrustedForPeerToPeer,
                false => Cpu::Neutral,
            });
        }
        Some(_) => return Some(Cpu::Neutral),
        None => {}
    }
    // Intel's host bridges are part of Intel's processors, or sit beside them.
    let first = machine.functions.first()?;
    let is_host_bridge =
        first.class == Some(0x0600) || (first.address.device, first.address.function) == (0, 0);
    (first.vendor == Some(0x8086) && is_host_bridge).then_some(Cpu::Neutral)
}

fn passthrough(machine: &Machine) -> bool {
    let line = machine.kernel.command_line.as_deref().unwrap_or_default();
    line.split_whitespace()
        .any(|word| matches!(word, "iommu=pt" | "iommu.passthrough=1" | "iommu.passthrough=on"))
}

#[cfg(test)]
mod tests;
