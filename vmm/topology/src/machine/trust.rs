//! What Linux may make of processor and host bridges.

use peerdma_capture::Machine;

use super::{HOST_BRIDGE, RealMachine, plan};
use crate::Cpu;
use crate::linux::{Trust, trust_of};

/// One possibility.
#[derive(Debug, Clone)]
pub(super) struct Assumed {
    /// The processor that stands for it: one that is trusted stands for a host bridge that is
    /// listed, too.
    pub(super) cpu: Cpu,
    /// What is taken for granted; none if all is known.
    pub(super) words: Option<String>,
    /// The reason if Linux allows it for what is taken for granted.
    pub(super) allowed_by: Option<&'static str>,
}

impl RealMachine<'_> {
    /// What Linux may make of processor and host bridges, each with what is taken for granted.
    pub(super) fn trust(&self, a: usize, b: usize) -> Vec<Assumed> {
        let known = |cpu| vec![Assumed { cpu, words: None, allowed_by: None }];
        if self.cpu == Some(Cpu::TrustedForPeerToPeer) {
            return known(Cpu::TrustedForPeerToPeer);
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
                1 => [format!("the host bridge above {names} is"), "not".to_owned()],
                _ => [format!("the host bridges above {names} are"), "not both".to_owned()],
            };
            yes.push(format!("{is} on Linux's list{two}"));
            no.push(format!("{is} {is_not} on Linux's list{two}"));
        }
        if self.cpu.is_none() {
            yes.push("the processor is AMD's of family 0x17 or later".into());
            no.push("the processor is not AMD's of family 0x17 or later".into());
        }
        let allowed_by = match (yes.len(), self.cpu.is_none()) {
            (0, _) => return known(Cpu::Neutral),
            (1, true) => "processor",
            (1, false) => "listed",
            _ => "listed-or-processor",
        };
        let assumed = |cpu, words: &[String], by: &str, allowed_by| Assumed {
            cpu,
            words: Some(words.join(by)),
            allowed_by,
        };
        vec![
            assumed(Cpu::Neutral, &no, ", and ", None),
            assumed(Cpu::TrustedForPeerToPeer, &yes, ", or ", Some(allowed_by)),
        ]
    }
}

/// What is known about the processor: from the record, or from the vendor of the host bridges.
pub(super) fn cpu(machine: &Machine) -> Option<Cpu> {
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
    let is_host_bridge = first.class == Some(HOST_BRIDGE)
        || (first.address.device, first.address.function) == (0, 0);
    (first.vendor == Some(0x8086) && is_host_bridge).then_some(Cpu::Neutral)
}
