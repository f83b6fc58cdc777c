//! Pictures of a topology: every function with its BDF, its IDs, its ACS state and its windows
//! after the firmware has run.

mod dot;
mod svg;
mod text;

use device_models::fabric::{AddressMap, InterruptSink, Node};
use device_models::pci::Bdf;
use device_models::system::System;
use serde::Serialize;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::description::PciId;
use super::explain::acs_label;
use super::linux::{self, Guest, View};
use super::plan::Kind;
use super::{Addresses, Plan, Topology};
use crate::assembly::{AssemblyError, IommuKind, SystemConfig};

/// In which form.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// A tree of lines
    #[default]
    Text,
    /// For Graphviz
    Dot,
    /// A picture for browsers
    Svg,
    /// The same tree, for programs
    Json,
    /// The description, ready to be changed and used
    Toml,
}

/// A function and what is below it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Branch {
    /// Number, name and IDs.
    pub title: String,
    /// What there is to know about it, a line each.
    pub details: Vec<String>,
    /// What is below.
    pub below: Vec<Branch>,
}

/// A topology, ready to be drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Drawing {
    name: String,
    description: String,
    host_bridges: Vec<Branch>,
    #[serde(skip)]
    source: Topology,
}

#[derive(Debug)]
struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

impl Drawing {
    /// Builds the devices that `topology` describes, whose plan is `plan`, and looks at it with the eyes of `guest`.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn new(topology: &Topology, plan: &Plan, guest: &Guest) -> Result<Self, AssemblyError> {
        let iommu = if guest.iommu.has_iommu() { IommuKind::Virtio } else { IommuKind::None };
        let config = SystemConfig { topology: topology.clone(), iommu, ..SystemConfig::default() };
        let mut system = config.trial(plan)?;
        let ids = ids(&mut system, plan);
        let map = system.address_map();
        let view = View::new(plan, guest);
        let host_bridges = plan.host_bridges.iter().map(|bridge| {
            let mut details =
                vec![format!("identity {}, {}", bridge.id, linux::trusted(plan.linux, bridge.id))];
            for (window, name) in bridge.windows.iter().zip(["memory", "prefetchable"]) {
                let seen = window.seen_by_cpu();
                let mut line = format!("{name} {:#x}-{:#x}", window.bus.first, window.bus.last);
                if window.offset != 0 {
                    line += &format!(", for CPUs {:#x}-{:#x}", seen.first, seen.last);
                }
                details.push(line);
            }
            Branch {
                title: format!(
                    "{} buses {:02x}-{:02x}",
                    bridge.name, bridge.buses.0, bridge.buses.1
                ),
                details,
                below: bridge.root.iter().map(|index| branch(&view, map, &ids, *index)).collect(),
            }
        });
        Ok(Self {
            name: topology.name.clone(),
            description: topology.description.clone(),
            host_bridges: host_bridges.collect(),
            source: topology.clone(),
        })
    }

    /// Its name and, if there is one, its description.
    fn headline(&self) -> String {
        match self.description.as_str() {
            "" => self.name.clone(),
            description => format!("{}: {description}", self.name),
        }
    }

    /// Draws it.
    pub fn to_text(&self, format: Format) -> String {
        match format {
            Format::Text => text::draw(self),
            Format::Dot => dot::draw(self),
            Format::Svg => svg::draw(self),
            // Strings, numbers and lists of them: neither can fail.
            Format::Json => serde_json::to_string_pretty(self).unwrap_or_default() + "\n",
            Format::Toml => toml::to_string(&self.source).unwrap_or_default(),
        }
    }
}

/// Vendor and device ID of every function of the plan, as software reads them.
fn ids(system: &mut System, plan: &Plan) -> Vec<PciId> {
    let mut id = |bdf: Bdf| {
        let [vendor_low, vendor_high, device_low, device_high] =
            system.config_read(bdf, 0, 4).to_le_bytes();
        PciId {
            vendor: u16::from_le_bytes([vendor_low, vendor_high]),
            device: u16::from_le_bytes([device_low, device_high]),
        }
    };
    plan.functions.iter().map(|function| id(function.bdf)).collect()
}

fn branch(view: &View<'_>, map: &AddressMap, ids: &[PciId], index: usize) -> Branch {
    let function = &view.plan.functions[index];
    let node = map.functions().map(|(_, node)| node).find(|node| *node.name == *function.name);
    let what = match function.kind {
        Kind::HostBridge | Kind::Iommu | Kind::Rng => "",
        Kind::RootPort => " root port",
        Kind::SwitchUpstream => " upstream port",
        Kind::SwitchDownstream => " downstream port",
        Kind::Peer(_) => " peer device",
        Kind::Endpoint(..) | Kind::Device(_) => " device",
        Kind::OtherBridge => " bridge",
    };
    let mut details = Vec::new();
    if matches!(function.kind, Kind::RootPort | Kind::SwitchDownstream) || function.acs.is_some() {
        details.push(acs_label(function, view.controls[index]));
    }
    if function.hot_plug {
        details.push("hot-plug slot".into());
    }
    if let Some((first, last)) = function.buses {
        details.push(format!("buses {first:02x}-{last:02x}"));
    }
    details.extend(node.map(addresses).unwrap_or_default());
    Branch {
        title: format!("{} {}{what} [{}]", function.bdf, function.name, ids[index]),
        details,
        below: function.children.iter().map(|child| branch(view, map, ids, *child)).collect(),
    }
}

/// Windows and BARs, with bus addresses.
fn addresses(node: &Node) -> Vec<String> {
    let windows =
        node.windows.iter().zip(["memory", "prefetchable"]).filter_map(|(window, name)| {
            window.map(|window| format!("{name} {:#x}-{:#x}", window.first, window.last))
        });
    let bars = node
        .bars
        .iter()
        .map(|bar| format!("BAR{} {:#x}-{:#x}", bar.index, bar.range.first, bar.range.last));
    windows.chain(bars).collect()
}

impl SystemConfig {
    /// The addresses that the firmware gives to the functions of the [`plan`](Self::plan): builds the
    /// devices and throws them away.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn layout(&self, plan: &Plan) -> Result<AddressMap, AssemblyError> {
        Ok(AddressMap::clone(self.trial(plan)?.address_map()))
    }

    /// The plan, and where the firmware puts BARs and windows.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn plan_with_addresses(&self) -> Result<Plan, AssemblyError> {
        let mut plan = self.plan()?;
        let addresses = Addresses::programmed(&plan, self.trial(&plan)?.address_map());
        plan.addresses = Some(addresses);
        Ok(plan)
    }

    /// A system to look at.
    fn trial(&self, plan: &Plan) -> Result<System, AssemblyError> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)])?;
        self.build_planned(plan, &ram, Box::new(NoInterrupts), std::io::empty())
    }
}
