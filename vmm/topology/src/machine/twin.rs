//! A topology of the lab like a pair of a real machine's devices, to try in a guest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use device_models::pci::AcsControl;
use peerdma_capture::{Acs as Found, PortType};

use super::{RealMachine, plan};
use crate::assembly::IommuMode;
use crate::description::{HostBridge, PeerRouting, RootPort, Switch, SwitchPort};
use crate::linux::{Guest, View};
use crate::plan::Kind;
use crate::{Acs, Cpu, PciId, Peer, Plan, Topology};

/// A host bridge that is not on Linux's list, for one that Linux finds no function of.
const UNLISTED: PciId = PciId { vendor: 0x8086, device: 0x29c0 };
/// The first device number on a root bus that is free for ports.
const FIRST_DEVICE: u8 = 4;

/// Why there is no twin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinError {
    /// A bridge that topologies cannot describe.
    #[error(
        "{0} is a bridge to conventional PCI, or of a kind that the record does not show: a topology \
         cannot describe it"
    )]
    Bridge(String),
    /// More ports on a root bus than there are device numbers.
    #[error("there are more ports than a root bus has room for")]
    Full,
    /// The tree does not fit the format.
    #[error("{0}")]
    Topology(String),
}

struct Twin<'r, 'm> {
    real: &'r RealMachine<'m>,
    topology: Topology,
    /// Names in the topology, by function.
    names: BTreeMap<usize, String>,
    bridges: Vec<usize>,
    skipped: BTreeSet<usize>,
    comments: Vec<String>,
}

impl RealMachine<'_> {
    /// A topology file with `a` and `b` as peer devices, and what is above them.
    ///
    /// # Errors
    /// When something above them cannot be described.
    pub fn twin(&self, a: usize, b: usize) -> Result<String, TwinError> {
        let mut twin = Twin {
            real: self,
            topology: Topology {
                name: "twin".into(),
                description: String::new(),
                cpu: self.cpu.unwrap_or(Cpu::Neutral),
                host_bridges: Vec::new(),
                root_ports: Vec::new(),
                switches: Vec::new(),
                peers: Vec::new(),
                endpoints: Vec::new(),
            },
            names: BTreeMap::new(),
            bridges: Vec::new(),
            skipped: BTreeSet::new(),
            comments: Vec::new(),
        };
        twin.end(a, b)?;
        twin.end(b, a)?;
        twin.left_out();
        twin.text()
    }
}

impl Twin<'_, '_> {
    fn address(&self, at: usize) -> String {
        self.real.function(at).address.to_string()
    }

    /// Whether a bridge that the record does not describe can be left out: one above both ends, but
    /// not on the root bus, changes no decision.
    fn skips(&mut self, at: usize, other: usize) -> bool {
        let plan = &self.real.plans[0];
        let above_both = plan.path_up(other).any(|above| above == at);
        let skips = above_both
            && self.real.function(at).port == PortType::Unknown
            && plan.functions[at].parent.is_some();
        if skips && self.skipped.insert(at) {
            let address = self.address(at);
            self.comments.push(format!("{address}: left out, the record does not say what it is"));
        }
        skips
    }

    /// A device, with everything above it that is not there yet.
    fn end(&mut self, end: usize, other: usize) -> Result<(), TwinError> {
        let path: Vec<_> = self.real.plans[0].path_up(end).skip(1).collect();
        let mut above = self.host_bridge(end);
        for at in path.into_iter().rev() {
            if self.skips(at, other) {
                continue;
            }
            above = self.bridge(at, above)?;
        }
        let on_root = self.real.plans[0].functions[end].parent.is_none();
        let name = format!("peer{}", self.topology.peers.len());
        let beside = self.topology.peers.iter().filter(|peer| peer.below == above).count();
        let function = if on_root { 0 } else { u8::try_from(beside).unwrap_or(u8::MAX) };
        let device = if on_root { self.free_device(&above)? } else { 0 };
        self.comments.push(format!("{name}: {}", self.address(end)));
        self.topology.peers.push(Peer {
            name,
            below: above,
            device,
            function,
            acs: Acs::NONE,
            local_memory: None,
        });
        Ok(())
    }

    fn host_bridge(&mut self, end: usize) -> String {
        let index = self.real.plans[0].functions[end].host_bridge;
        let number = self.bridges.iter().position(|known| *known == index);
        let number = number.unwrap_or_else(|| {
            let bridge = &self.real.plans[0].host_bridges[index];
            let number = self.bridges.len();
            let (id, why) = match bridge.id {
                plan::UNKNOWN => {
                    (UNLISTED, " (its identity is not known: taken for an unlisted one)")
                }
                plan::NONE => {
                    (UNLISTED, " (Linux finds no function of it: taken for an unlisted one)")
                }
                id => (id, ""),
            };
            self.comments.push(format!("bridge{number}: {}{why}", bridge.name));
            self.topology.host_bridges.push(HostBridge {
                name: format!("bridge{number}"),
                id,
                first_bus: None,
                last_bus: None,
                translation: 0,
                memory: None,
                prefetchable: None,
                peer_routing: PeerRouting::Everywhere,
            });
            self.bridges.push(index);
            number
        });
        format!("bridge{number}")
    }

    fn free_device(&self, on: &str) -> Result<u8, TwinError> {
        let ports = self.topology.root_ports.iter().filter(|port| port.on == on).count();
        let peers = self.topology.peers.iter().filter(|peer| peer.below == on).count();
        let device = u8::try_from(ports + peers).ok().and_then(|it| it.checked_add(FIRST_DEVICE));
        device.filter(|device| *device < 32).ok_or(TwinError::Full)
    }

    /// A port; gives its name.
    fn bridge(&mut self, at: usize, above: String) -> Result<String, TwinError> {
        if let Some(known) = self.names.get(&at) {
            return Ok(known.clone());
        }
        let function = self.real.function(at);
        let short = format!(
            "{:02x}-{:02x}-{:x}",
            function.address.bus, function.address.device, function.address.function
        );
        let acs = match function.acs {
            Found::Present { .. } => Acs(self.real.plans[0].functions[at].acs),
            Found::Absent => Acs::NONE,
            Found::Unknown => {
                self.comments.push(format!("{}: ACS is not known: none here", function.address));
                Acs::NONE
            }
        };
        let planned = &self.real.plans[0].functions[at];
        // A bridge on a root bus, and above ports: the record just does not say that it is a root port.
        let assumed = planned.parent.is_none() && function.port == PortType::Unknown;
        if assumed {
            self.comments.push(format!("{}: taken for a root port", function.address));
        }
        let name = match planned.kind {
            Kind::OtherBridge if !assumed => {
                return Err(TwinError::Bridge(function.address.to_string()));
            }
            Kind::RootPort | Kind::OtherBridge => {
                let name = format!("root-{short}");
                let device = self.free_device(&above)?;
                self.topology.root_ports.push(RootPort {
                    name: name.clone(),
                    on: above,
                    device,
                    function: 0,
                    acs,
                    acs_without_effect: Acs::NONE,
                    hot_plug: false,
                });
                name
            }
            Kind::SwitchUpstream => {
                let name = format!("switch-{short}");
                let (below, ports) = (above, Vec::new());
                self.topology.switches.push(Switch { name: name.clone(), below, ports });
                name
            }
            Kind::SwitchDownstream => {
                let name = format!("down-{short}");
                let device = function.address.device;
                let switch = self.topology.switches.iter_mut().find(|it| it.name == above);
                let switch = switch.ok_or_else(|| TwinError::Bridge(above.clone()))?;
                switch.ports.push(SwitchPort {
                    name: name.clone(),
                    device,
                    acs,
                    acs_without_effect: Acs::NONE,
                    hot_plug: false,
                });
                name
            }
            _ => return Err(TwinError::Bridge(function.address.to_string())),
        };
        self.names.insert(at, name.clone());
        Ok(name)
    }

    /// What of the machine is not in the topology.
    fn left_out(&mut self) {
        let there = self.names.len() + 2;
        let all = self.real.machine.functions.len();
        self.comments.push(format!(
            "left out: {} other functions, function numbers of ports, BAR sizes, drivers",
            all.saturating_sub(there)
        ));
    }

    /// The kernel parameter that gives the ports the controls that were found; none if Linux gives
    /// them by itself.
    fn parameter(&self, plan: &Plan) -> Option<String> {
        let guest = Guest { iommu: IommuMode::Strict, cpu: Cpu::Neutral, parameters: Vec::new() };
        let view = View::new(plan, &guest);
        let mut rules = Vec::new();
        for (&at, name) in &self.names {
            let Some(index) = plan.find(name) else { continue };
            let found = self.real.plans[0].functions[at]
                .found
                .map_or(AcsControl::empty(), |found| found.controls);
            if plan.functions[index].acs.is_some() && view.controls[index] != found {
                let bits = found & AcsControl::all();
                let flags = format!("{:07b}", bits.bits());
                rules.push(format!("{flags}@{}", plan.functions[index].bdf));
            }
        }
        (!rules.is_empty()).then(|| format!("pci=config_acs={}", rules.join(";")))
    }

    fn text(self) -> Result<String, TwinError> {
        let plan = Plan::new(&self.topology, true);
        let plan = plan.map_err(|error| TwinError::Topology(error.to_string()))?;
        let parameter = self.parameter(&plan);
        let mut text = String::from(
            "# A twin of two devices of a real machine, for the lab.\n# Ask:  peerdma explain peer0 \
             peer1 --topology FILE",
        );
        let append =
            parameter.map_or(String::new(), |parameter| format!(" --append '{parameter}'"));
        text += &append;
        let _ =
            writeln!(text, "\n# Boot: peerdma test --topology FILE --scenario topology{append}\n#");
        for comment in &self.comments {
            let _ = writeln!(text, "# {comment}");
        }
        text.push('\n');
        let body = toml::to_string(&self.topology);
        Ok(text + &body.map_err(|error| TwinError::Topology(error.to_string()))?)
    }
}
