//! From a topology and what else can be chosen to a system whose firmware has run, and to what the machine's ACPI tables
//! say about it. The default machine:
//!
//! ```text
//! 00:00.0 host bridge (Linux trusts it with peer-to-peer traffic)
//! 00:01.0 virtio-iommu
//! 00:02.0 virtio-rng
//! 00:04.0 root port ─ 01:00.0 peer0
//! 00:05.0 root port ─ 02:00.0 peer1
//! ```

use std::io::Read;

use device_models::endpoint::peer::{PeerConfig, PeerDevice, PeerError};
use device_models::fabric::{InterruptPolicy, InterruptSink, PeerRouting};
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{Iommu, NoIommu, VirtioIommu};
use device_models::pci::firmware::{FirmwareError, WindowKind};
use device_models::pci::{
    AcsCapabilities, BridgeDescription, HostBridgeDescription, PcieKind, PortKind,
};
use device_models::system::{BuildError, Function, HostBridge, System, Topology as Tree};
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use crate::{IOMMU, Item, Kind, Plan, PlannedBridge, Problem, RNG, Topology};
use device_models::virtio::{VirtioError, VirtioIommuFunction, VirtioPci, VirtioRng};

/// Vendor and device ID of every port: Red Hat's generic root port, an identity that Linux drives with its port driver
/// and nothing else.
pub const PORT_IDS: (u16, u16) = (0x1b36, 0x000c);
/// Vendor and device ID of the peer devices.
pub const PEER_IDS: (u16, u16) = (0x1af4, 0x10f0);

/// Which IOMMU stands at the root complex.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum IommuKind {
    /// A virtio-iommu (virtio 1.3, 5.13).
    #[default]
    Virtio,
    /// None: bus addresses are physical addresses.
    None,
}

/// The IOMMU and how the guest's kernel uses it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IommuMode {
    /// It translates; a freed address is invalid before the unmapping call returns
    #[default]
    Strict,
    /// It translates; freed addresses become invalid some time later, as Linux does by itself
    Lazy,
    /// It is there, but the kernel's own drivers are let through untranslated
    Passthrough,
    /// There is none
    None,
}

impl IommuMode {
    /// The kernel parameters for it.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Strict => &["iommu.strict=1"],
            Self::Lazy => &["iommu.strict=0"],
            Self::Passthrough => &["iommu.passthrough=1"],
            Self::None => &[],
        }
    }

    /// Its name, as on the command line and in scenarios.
    pub fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lazy => "lazy",
            Self::Passthrough => "passthrough",
            Self::None => "none",
        }
    }

    /// Whether there is an IOMMU at all: Linux switches ACS on then, whatever it does with it.
    pub fn has_iommu(self) -> bool {
        self != Self::None
    }

    /// Whether the kernel's own drivers get translated addresses.
    pub fn translates(self) -> bool {
        matches!(self, Self::Strict | Self::Lazy)
    }

    /// What stands at the root complex.
    pub fn kind(self) -> IommuKind {
        if self.has_iommu() { IommuKind::Virtio } else { IommuKind::None }
    }
}

/// What happens to a write into the interrupt window that does not match a vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrayInterrupts {
    /// It is an interrupt all the same, as on hardware without interrupt remapping.
    #[default]
    Deliver,
    /// It is dropped. The finding is the same.
    Block,
}

/// What can be chosen about the machine's devices. Part of every trace, so that a replay builds the same system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SystemConfig {
    /// The devices and how they hang together.
    pub topology: Topology,
    /// Local memory of each peer device, in bytes: a power of two from 1 MiB to 64 GiB.
    pub local_memory: u64,
    /// DMA channels of each.
    pub channels: u8,
    /// The IOMMU.
    pub iommu: IommuKind,
    /// Interrupt writes that match no vector.
    pub stray_interrupts: StrayInterrupts,
}

impl Default for SystemConfig {
    fn default() -> Self {
        let peer = PeerConfig::new("", 0);
        Self {
            topology: Topology::default(),
            local_memory: peer.local_size,
            channels: peer.channels,
            iommu: IommuKind::default(),
            stray_interrupts: StrayInterrupts::default(),
        }
    }
}

/// Why a system cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// The host gives no memory to lay the system out in.
    #[error(transparent)]
    Ram(#[from] vm_memory::mmap::FromRangesError),
    /// The topology cannot be.
    #[error(transparent)]
    Topology(#[from] Problem),
    /// A peer device.
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// A virtio function.
    #[error(transparent)]
    Virtio(#[from] VirtioError),
    /// The topology.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The addresses.
    #[error(transparent)]
    Firmware(#[from] FirmwareError),
}

impl AssemblyError {
    /// Whether it is this machine that lacks something; otherwise it is the topology that cannot be.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Ram(_) | Self::Virtio(_) | Self::Peer(PeerError::Memory(_)) => true,
            Self::Topology(_) | Self::Peer(_) | Self::Build(_) | Self::Firmware(_) => false,
        }
    }
}

impl SystemConfig {
    /// The tree that will be built.
    ///
    /// # Errors
    /// What is wrong with the topology.
    pub fn plan(&self) -> Result<Plan, Problem> {
        Plan::new(&self.topology, self.iommu == IommuKind::Virtio)
    }

    /// Plans the tree, builds the devices around `ram` and runs their firmware. `entropy` feeds the
    /// guest's virtio-rng.
    ///
    /// # Errors
    /// When the configuration is out of range, or the host lacks memory.
    pub fn build(
        &self,
        ram: &GuestMemoryMmap<()>,
        sink: Box<dyn InterruptSink>,
        entropy: impl Read + Send + std::fmt::Debug + 'static,
    ) -> Result<System, AssemblyError> {
        self.build_planned(&self.plan()?, ram, sink, entropy)
    }

    /// As [`build`](Self::build), from the [`plan`](Self::plan) of this configuration.
    ///
    /// # Errors
    /// When the configuration is out of range, or the host lacks memory.
    pub fn build_planned(
        &self,
        plan: &Plan,
        ram: &GuestMemoryMmap<()>,
        sink: Box<dyn InterruptSink>,
        entropy: impl Read + Send + std::fmt::Debug + 'static,
    ) -> Result<System, AssemblyError> {
        let iommu_config = VirtioIommuConfig::default();
        let mut own = Vec::new();
        let iommu: Box<dyn Iommu> = match self.iommu {
            IommuKind::Virtio => {
                let function = VirtioPci::new(VirtioIommuFunction::new(iommu_config.clone()))?;
                own.push(Function::endpoint(IOMMU.device(), "virtio-iommu", function));
                Box::new(VirtioIommu::new(iommu_config))
            }
            IommuKind::None => Box::new(NoIommu),
        };
        let rng = VirtioPci::new(VirtioRng::new(entropy))?;
        own.push(Function::endpoint(RNG.device(), "virtio-rng", rng));
        let mut host_bridges = Vec::new();
        for bridge in &plan.host_bridges {
            let mut root = std::mem::take(&mut own);
            root.extend(self.places(plan, &bridge.root)?);
            host_bridges.push(host_bridge(bridge, root));
        }
        let mut system = System::new(Tree { host_bridges }, ram, iommu, sink)?;
        system.set_interrupt_policy(match self.stray_interrupts {
            StrayInterrupts::Deliver => InterruptPolicy::Deliver,
            StrayInterrupts::Block => InterruptPolicy::Block,
        });
        for bridge in &plan.host_bridges {
            system.run_firmware(&bridge.resources()).map_err(|error| self.no_room(plan, error))?;
        }
        Ok(system)
    }

    /// The functions of one bus with all that is below them; the virtio functions are left out.
    fn places(&self, plan: &Plan, bus: &[usize]) -> Result<Vec<Function>, AssemblyError> {
        let mut places = Vec::new();
        for &index in bus {
            let function = &plan.functions[index];
            let name = function.name.clone();
            let mut place = match function.kind {
                // A real machine's functions are not built.
                Kind::HostBridge
                | Kind::Iommu
                | Kind::Rng
                | Kind::Device(_)
                | Kind::OtherBridge => continue,
                Kind::Peer(entry) => Function::endpoint(0, name, self.peer(plan, index, entry)?),
                Kind::Endpoint(entry, _) => {
                    let entry = &self.topology.endpoints[entry];
                    Function::boxed(0, name, entry.make(function.parent.is_some(), function.item)?)
                }
                Kind::RootPort | Kind::SwitchUpstream | Kind::SwitchDownstream => {
                    let below = self.places(plan, &function.children)?;
                    Function::bridge(0, name, port(plan, index, bus), below)
                }
            };
            (place.device, place.function) = (function.bdf.device(), function.bdf.function());
            places.push(place);
        }
        Ok(places)
    }

    /// The peer device of the function at `index` of the plan, which is the one at `entry` of the description.
    fn peer(&self, plan: &Plan, index: usize, entry: usize) -> Result<PeerDevice, AssemblyError> {
        let peer = &self.topology.peers[entry];
        let serial = 0x5045_4552_0000_0000 | entry as u64;
        let attachment = match plan.functions[index].parent {
            Some(_) => PcieKind::Endpoint,
            None => PcieKind::RootComplexIntegratedEndpoint,
        };
        let device = PeerDevice::new(&PeerConfig {
            local_size: peer.local_memory.unwrap_or(self.local_memory),
            channels: self.channels,
            attachment,
            acs: peer.acs.capabilities(),
            ..PeerConfig::new(&peer.name, serial)
        });
        device.map_err(|error| match error {
            PeerError::LocalSize { .. } if peer.local_memory.is_some() => {
                let (item, what) = (plan.functions[index].item, error.to_string());
                Problem::new(item, "local-memory", what).into()
            }
            error => error.into(),
        })
    }

    /// The firmware knows functions by their BDFs; the topology's author knows what stands in the
    /// file. To blame is the size of its memory, or else the window, or else the presence of the
    /// device.
    fn no_room(&self, plan: &Plan, error: FirmwareError) -> AssemblyError {
        let FirmwareError::NoSpace { function, index, size, window, range } = &error else {
            return error.into();
        };
        let Some(planned) = plan.functions.iter().find(|planned| planned.bdf == *function) else {
            return error.into();
        };
        let bridge = planned.host_bridge;
        let (chosen, window_key) = match (window, self.topology.host_bridges.get(bridge)) {
            (WindowKind::Memory, described) => (described.and_then(|it| it.memory), "memory"),
            (WindowKind::Prefetchable, described) => {
                (described.and_then(|it| it.prefetchable), "prefetchable")
            }
        };
        let own_size = match planned.item {
            Item::Peer(entry) => self.topology.peers.get(entry).and_then(|it| it.local_memory),
            _ => None,
        };
        let (item, key) = if own_size.is_some_and(|own| own == *size) {
            (planned.item, "local-memory")
        } else if chosen.is_some() || planned.item == Item::Whole {
            (Item::HostBridge(bridge), window_key)
        } else {
            (planned.item, "name")
        };
        let what = format!(
            "BAR{index} of {} ({size:#x} bytes) does not fit into the {window} window {:#x}-{:#x} of its host bridge \
             together with the other devices",
            planned.name,
            range.start(),
            range.end()
        );
        Problem::new(item, key, what).into()
    }
}

fn host_bridge(bridge: &PlannedBridge, root: Vec<Function>) -> HostBridge {
    HostBridge {
        name: bridge.name.clone(),
        description: HostBridgeDescription {
            vendor: bridge.id.vendor,
            device: bridge.id.device,
            subsystem_vendor: bridge.id.vendor,
            subsystem_id: bridge.id.device,
            ..HostBridgeDescription::default()
        },
        first_bus: bridge.buses.0,
        windows: bridge.windows.to_vec(),
        peer_routing: match bridge.peer_routing {
            crate::PeerRouting::Everywhere => PeerRouting::Everywhere,
            crate::PeerRouting::SameBridge => PeerRouting::SameBridge,
            crate::PeerRouting::Nowhere => PeerRouting::Nowhere,
        },
        root,
    }
}

/// The port `index` of the plan, which is one of those on `bus`.
fn port(plan: &Plan, index: usize, bus: &[usize]) -> BridgeDescription {
    let function = &plan.functions[index];
    let beside = |kind: Kind| {
        let before = bus.iter().take_while(|other| **other != index);
        before.filter(|other| plan.functions[**other].kind == kind).count()
    };
    let (kind, number) = match function.kind {
        Kind::RootPort => (PortKind::RootPort, beside(Kind::RootPort) + 1),
        Kind::SwitchDownstream => {
            (PortKind::SwitchDownstream, usize::from(function.bdf.device()) + 1)
        }
        _ => (PortKind::SwitchUpstream, 0),
    };
    BridgeDescription {
        vendor: PORT_IDS.0,
        device: PORT_IDS.1,
        subsystem_vendor: PORT_IDS.0,
        // One number for each slot of the chassis: that of the port in the plan, counted from 1.
        slot_number: if function.hot_plug { u16::try_from(index).unwrap_or(0) + 1 } else { 0 },
        hot_plug: function.hot_plug,
        port_number: u8::try_from(number).unwrap_or(u8::MAX),
        acs: crate::Acs(function.acs)
            .capabilities()
            .map(|acs| AcsCapabilities { without_effect: function.acs_without_effect, ..acs }),
        ..BridgeDescription::new(kind)
    }
}

#[cfg(test)]
mod tests {
    use device_models::pci::Bdf;
    use vm_memory::GuestAddress;

    use super::*;

    #[derive(Debug)]
    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    fn build(config: &SystemConfig) -> Result<System, AssemblyError> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        config.build(&ram, Box::new(NoInterrupts), std::io::empty())
    }

    #[test]
    fn the_default_machine_is_the_one_in_the_picture() {
        let system = build(&SystemConfig::default()).unwrap();
        let map = system.address_map();
        let functions: Vec<_> =
            map.functions().map(|(_, node)| format!("{} {}", node.requester, node.name)).collect();
        assert_eq!(
            functions,
            [
                "00:00.0 host-bridge",
                "00:01.0 virtio-iommu",
                "00:02.0 virtio-rng",
                "00:04.0 port0",
                "01:00.0 peer0",
                "00:05.0 port1",
                "02:00.0 peer1",
            ]
        );
    }

    #[test]
    fn without_an_iommu_there_is_no_function_for_it() {
        let mut system =
            build(&SystemConfig { iommu: IommuKind::None, ..SystemConfig::default() }).unwrap();
        assert_eq!(system.config_read(IOMMU, 0, 4), u32::MAX);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let crowd = Topology::root_ports(17);
        let error =
            build(&SystemConfig { topology: crowd, ..SystemConfig::default() }).unwrap_err();
        assert!(error.to_string().contains("room for 16"));
        let huge = SystemConfig { local_memory: 1 << 36, ..SystemConfig::default() };
        let error = build(&huge).unwrap_err().to_string();
        assert!(error.contains("BAR2 of peer1") && error.contains("does not fit"), "{error}");
        let error =
            build(&SystemConfig { local_memory: 3, ..SystemConfig::default() }).unwrap_err();
        assert!(error.to_string().contains("power of two"));
    }

    #[test]
    fn each_hot_plug_slot_of_a_chassis_has_a_number_of_its_own() {
        const CAPABILITIES: u16 = 0x14;
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let topology = Topology::load("hot-plug").unwrap();
        let config = SystemConfig { topology, ..SystemConfig::default() };
        let mut system = config.build(&ram, Box::new(NoInterrupts), std::io::empty()).unwrap();
        let mut numbers = std::collections::BTreeSet::new();
        for device in [4, 5] {
            let port = Bdf::new(0, device, 0);
            let mut byte = |at: u16| u16::try_from(system.config_read(port, at, 1)).unwrap();
            let mut pcie = byte(0x34);
            while byte(pcie) != 0x10 {
                pcie = byte(pcie + 1);
            }
            let slot = system.config_read(port, pcie + CAPABILITIES, 4);
            assert_eq!(slot & 0x60, 0x60, "hot-plug, and by surprise");
            numbers.insert(slot >> 19);
        }
        assert_eq!(numbers.len(), 2);
        assert!(!numbers.contains(&0));
    }
}
