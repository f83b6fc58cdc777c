//! What Linux decides on a real machine, from a record of it.
//!
//! What the record lacks is never guessed: where a decision depends on it, every answer is given,
//! with what it depends on.

mod html;
mod matrix;
mod plan;
mod reason;
mod report;
mod text;
mod trust;
mod twin;

use device_models::pci::AcsControl;
use peerdma_capture::{Function, Machine};

pub use matrix::{Cell, Matrix, MatrixReport};
pub use report::PairReport;
pub use twin::TwinError;

use crate::assembly::IommuMode;
use crate::explain::Scope;
use crate::linux::{Guest, MapDecision, MapType, Version, View, remarks};
use crate::plan::{Kind, Plan};
use crate::{Cpu, ExplainError, Report};

/// A machine, ready to be asked about pairs.
#[derive(Debug)]
pub struct RealMachine<'m> {
    machine: &'m Machine,
    /// The tree where no unknown ACS control redirects, and where all do.
    plans: [Plan; 2],
    /// The ACS controls of each.
    controls: [Vec<AcsControl>; 2],
    /// With a processor that Linux does not trust, and with one that it does.
    guests: [Guest; 2],
    /// What is known about the processor; none if nothing is.
    cpu: Option<Cpu>,
    /// Kernel parameters that the record's kernel does not have.
    appended: Vec<String>,
    warnings: Vec<String>,
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
    /// What allows it, where something that is not known does.
    allowed_by: Option<&'static str>,
}

/// All that Linux may decide about a pair: one case, or several that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The cases.
    pub cases: Vec<Case>,
    /// Whether a bridge that the record lacks may be above both, which would make another case.
    pub open: bool,
}

impl Verdict {
    /// The map type, if it does not depend on anything unknown.
    pub fn certain(&self) -> Option<MapType> {
        match self.cases.as_slice() {
            [only] if !self.open || only.decision.map == MapType::BusAddress => {
                Some(only.decision.map)
            }
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
        let none = || Guest { iommu: IommuMode::None, cpu: Cpu::Neutral, parameters: Vec::new() };
        let real = Self {
            machine,
            plans,
            controls: [Vec::new(), Vec::new()],
            guests: [none(), none()],
            cpu: trust::cpu(machine),
            appended: Vec::new(),
            warnings: Vec::new(),
        };
        real.booted_with(Vec::new())
    }

    /// The same machine, if its kernel were booted with these parameters, one each, behind those
    /// that it has.
    #[must_use]
    pub fn booted_with(mut self, appended: Vec<String>) -> Self {
        let mut parameters = plan::words(self.machine);
        parameters.extend(appended.iter().cloned());
        let iommu = match self.machine.kernel.iommu_groups {
            Some(true) if passthrough(&parameters) => IommuMode::Passthrough,
            Some(true) => IommuMode::Lazy,
            _ => IommuMode::None,
        };
        self.warnings
            .extend(remarks(&appended, &self.plans[0]).into_iter().map(|remark| remark.text));
        self.appended = appended;
        self.guests = [Cpu::Neutral, Cpu::TrustedForPeerToPeer].map(|cpu| Guest {
            iommu,
            cpu,
            parameters: parameters.clone(),
        });
        let controls = |plan: &Plan| View::new(plan, &self.guests[0]).controls;
        self.controls = [controls(&self.plans[0]), controls(&self.plans[1])];
        self
    }

    /// Something to know before the answers.
    #[must_use]
    pub fn warned(mut self, warning: String) -> Self {
        self.warnings.push(warning);
        self
    }

    /// What to know before the answers: rules of another kernel, parameters that do not do what they
    /// seem to.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
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

    /// A function of the record; none for a bridge that it lacks.
    fn known(&self, index: usize) -> Option<&'m Function> {
        self.machine.functions.get(index)
    }

    fn function(&self, index: usize) -> &'m Function {
        &self.machine.functions[index]
    }

    /// Its address; of a bridge that the record lacks, where it is.
    fn address(&self, index: usize) -> String {
        match self.known(index) {
            Some(function) => function.address.to_string(),
            None => self.name(index).to_owned(),
        }
    }

    /// The tree, with what is unknown in a certain state.
    fn view(&self, redirect: bool, cpu: Cpu) -> View<'_> {
        let redirect = usize::from(redirect);
        View {
            plan: &self.plans[redirect],
            guest: &self.guests[usize::from(cpu == Cpu::TrustedForPeerToPeer)],
            controls: self.controls[redirect].clone(),
        }
    }

    /// The functions between the two, as far as the record knows them, whose ACS controls are not
    /// known.
    fn unknown_acs(&self, a: usize, b: usize) -> Vec<usize> {
        let (off, on) = (self.view(false, Cpu::Neutral), self.view(true, Cpu::Neutral));
        let (path, common) = off.between(b, a);
        let differs = |at: &usize| off.redirects(*at) != on.redirects(*at);
        path.into_iter().filter(|_| common.is_some()).filter(differs).collect()
    }

    /// Whether a bridge that the record lacks may be above both.
    fn open(&self, a: usize, b: usize) -> bool {
        let plan = &self.plans[0];
        let top = |at: usize| plan.path_up(at).last().unwrap_or(at);
        let (one, other) = (top(a), top(b));
        let segment = |at: usize| plan.host_bridges[plan.functions[at].host_bridge].segment;
        let lacks = |at: usize| {
            // Linux takes a virtual function's bridge from its physical function.
            let known = self.known(at).map(|it| it.physical_function.unwrap_or(it.address));
            let own = known.and_then(|address| self.machine.at(address));
            own.is_none_or(|own| own.parent == peerdma_capture::Parent::Unknown)
        };
        one != other && segment(one) == segment(other) && lacks(one) && lacks(other)
    }

    /// What Linux decides for DMA by `a` into the memory of `b`.
    pub fn decide(&self, a: usize, b: usize) -> Verdict {
        let unknown: Vec<_> = self.unknown_acs(a, b).iter().map(|at| self.address(*at)).collect();
        let trust = self.trust(a, b);
        let of = |redirect: bool| -> Vec<Case> {
            let case = |trust: &trust::Assumed| Case {
                decision: self.view(redirect, trust.cpu).decide(b, a),
                given: Vec::new(),
                unknown_redirect: redirect,
                cpu: trust.cpu,
                allowed_by: trust.allowed_by,
            };
            trust.iter().map(case).collect()
        };
        let maps = |cases: &[Case]| -> Vec<_> { cases.iter().map(|it| it.decision.map).collect() };
        let (off, on) = (of(false), of(true));
        // What makes no difference is not mentioned.
        let acs_matters = maps(&off) != maps(&on);
        let rows = if acs_matters { vec![off, on] } else { vec![off] };
        let [none, any] = match unknown.as_slice() {
            [only] => {
                [format!("ACS does not redirect at {only}"), format!("ACS redirects at {only}")]
            }
            all => ["none", "any"].map(|of| format!("ACS redirects at {of} of {}", all.join(", "))),
        };
        let mut cases = Vec::new();
        for (row, given) in rows.into_iter().zip([none, any]) {
            let same = maps(&row).windows(2).all(|pair| pair[0] == pair[1]);
            let acs = acs_matters.then_some(given);
            for (mut case, trusted) in row.into_iter().zip(&trust) {
                case.given.extend(acs.clone());
                if !same {
                    case.given.extend(trusted.words.clone());
                }
                cases.push(case);
                if same {
                    break;
                }
            }
        }
        Verdict { cases, open: self.open(a, b) }
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
    fn explain(&self, case: &Case, a: usize, b: usize, scope: Scope) -> Report {
        let view = self.view(case.unknown_redirect, case.cpu);
        crate::explain::report(&view, &case.decision, (a, b), scope)
    }
}

/// Class code of a host bridge's own function.
const HOST_BRIDGE: u16 = 0x0600;
/// ACS controls with which a function redirects.
const REDIRECT: AcsControl = AcsControl::P2P_REQUEST_REDIRECT;

/// Whether the IOMMU lets the kernel's drivers through untranslated (`iommu=pt`): the last word
/// counts.
fn passthrough(parameters: &[String]) -> bool {
    let mode = |word: &String| match word.as_str() {
        "iommu=pt" | "iommu.passthrough=1" | "iommu.passthrough=on" | "iommu.passthrough=y" => {
            Some(true)
        }
        "iommu=nopt" | "iommu.passthrough=0" | "iommu.passthrough=off" | "iommu.passthrough=n" => {
            Some(false)
        }
        _ => None,
    };
    parameters.iter().filter_map(mode).next_back().unwrap_or(false)
}

#[cfg(test)]
mod tests;
