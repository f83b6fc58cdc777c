//! Which functions make up a lab, and where they sit: the default machine.
//!
//! ```text
//! 00:00.0 host bridge (allowed to route between its ports)
//! 00:01.0 virtio-iommu
//! 00:02.0 virtio-rng
//! 00:04.0 root port ─ 01:00.0 peer0
//! 00:05.0 root port ─ 02:00.0 peer1
//! ```

use std::io::Read;

use device_models::endpoint::peer::{PeerConfig, PeerDevice, PeerError};
use device_models::fabric::{InterruptPolicy, InterruptSink};
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{Iommu, NoIommu, VirtioIommu};
use device_models::lab::{BuildError, Lab, Place, Topology};
use device_models::pci::firmware::{FirmwareError, HostResources};
use device_models::pci::{AcsCapabilities, Bdf, BridgeDescription, PortKind};
use serde::{Deserialize, Serialize};
use vm_memory::GuestMemoryMmap;

use crate::machine::layout;
use crate::virtio::{VirtioError, VirtioIommuFunction, VirtioPci, VirtioRng};

/// Where the virtio-iommu sits; ACPI's VIOT names it.
pub const IOMMU: Bdf = Bdf::new(0, 1, 0);

const RNG_DEVICE: u8 = 2;
const FIRST_PORT: u8 = 4;

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

/// What happens to a write into the interrupt window that is nobody's vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StrayInterrupts {
    /// It is an interrupt all the same, as on hardware without interrupt remapping.
    #[default]
    Deliver,
    /// It is dropped. The finding is the same.
    Block,
}

/// What can be chosen about the machine's devices. Part of every trace, so that a replay builds the same lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabConfig {
    /// Number of peer devices, each below a root port of its own: 0 to 8.
    pub peers: u8,
    /// Local memory of each, in bytes: a power of two from 1 MiB to 64 GiB.
    pub local_memory: u64,
    /// DMA channels of each.
    pub channels: u8,
    /// The IOMMU.
    pub iommu: IommuKind,
    /// Interrupt writes that are nobody's vector.
    pub stray_interrupts: StrayInterrupts,
}

impl Default for LabConfig {
    fn default() -> Self {
        let peer = PeerConfig::new("", 0);
        Self {
            peers: 2,
            local_memory: peer.local_size,
            channels: peer.channels,
            iommu: IommuKind::default(),
            stray_interrupts: StrayInterrupts::default(),
        }
    }
}

/// Why a lab cannot be assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssemblyError {
    /// Too many devices.
    #[error("{0} peer devices; the default machine has room for 8")]
    Peers(u8),
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

impl LabConfig {
    /// Builds the lab around `ram` and runs its firmware. `entropy` feeds the guest's virtio-rng.
    ///
    /// # Errors
    /// When the configuration is out of range, or the host lacks memory.
    pub fn build(
        &self,
        ram: &GuestMemoryMmap<()>,
        sink: Box<dyn InterruptSink>,
        entropy: impl Read + Send + std::fmt::Debug + 'static,
    ) -> Result<Lab, AssemblyError> {
        let iommu_config = VirtioIommuConfig::default();
        let mut root = Vec::new();
        let iommu: Box<dyn Iommu> = match self.iommu {
            IommuKind::Virtio => {
                let function = VirtioPci::new(VirtioIommuFunction::new(iommu_config.clone()))?;
                root.push(Place::endpoint(IOMMU.device(), "virtio-iommu", function));
                Box::new(VirtioIommu::new(iommu_config))
            }
            IommuKind::None => Box::new(NoIommu),
        };
        root.push(Place::endpoint(
            RNG_DEVICE,
            "virtio-rng",
            VirtioPci::new(VirtioRng::new(entropy))?,
        ));
        if self.peers > 8 {
            return Err(AssemblyError::Peers(self.peers));
        }
        for index in 0..self.peers {
            root.push(self.port_with_peer(index)?);
        }
        let mut lab = Lab::new(Topology { root, ..Topology::default() }, ram, iommu, sink)?;
        lab.set_interrupt_policy(match self.stray_interrupts {
            StrayInterrupts::Deliver => InterruptPolicy::Deliver,
            StrayInterrupts::Block => InterruptPolicy::Block,
        });
        lab.run_firmware(&self.resources())?;
        Ok(lab)
    }

    /// The highest bus of the host bridge: enough for the topology, and no more, because the guest scans them all.
    pub fn last_bus(&self) -> u8 {
        self.peers
    }

    /// What the host bridge forwards: what ACPI's `_CRS` tells the guest.
    fn resources(&self) -> HostResources {
        HostResources {
            buses: 0..=self.last_bus(),
            memory: layout::PCI_WINDOW_32.start..=layout::PCI_WINDOW_32.end - 1,
            prefetchable: layout::PCI_WINDOW_64.start..=layout::PCI_WINDOW_64.end - 1,
        }
    }

    fn port_with_peer(&self, index: u8) -> Result<Place, AssemblyError> {
        let peer = PeerDevice::new(&PeerConfig {
            local_size: self.local_memory,
            channels: self.channels,
            ..PeerConfig::new(peer_name(index), 0x5045_4552_0000_0000 | u64::from(index))
        })?;
        // Red Hat's generic root port: an identity that Linux drives with portdrv and nothing else.
        let port = BridgeDescription {
            vendor: 0x1b36,
            device: 0x000c,
            subsystem_vendor: 0x1b36,
            port_number: index + 1,
            acs: Some(AcsCapabilities::default()),
            ..BridgeDescription::new(PortKind::RootPort)
        };
        Ok(Place::bridge(
            FIRST_PORT + index,
            format!("port{index}"),
            port,
            vec![Place::endpoint(0, peer_name(index), peer)],
        ))
    }
}

/// The name under which reports know a peer device.
pub fn peer_name(index: u8) -> String {
    format!("peer{index}")
}

#[cfg(test)]
mod tests {
    use vm_memory::GuestAddress;

    use super::*;

    #[derive(Debug)]
    struct NoInterrupts;

    impl InterruptSink for NoInterrupts {
        fn signal_msi(&mut self, _address: u64, _data: u32) {}
    }

    fn build(config: &LabConfig) -> Result<Lab, AssemblyError> {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        config.build(&ram, Box::new(NoInterrupts), std::io::empty())
    }

    #[test]
    fn the_default_machine_is_the_one_in_the_picture() {
        let lab = build(&LabConfig::default()).unwrap();
        let map = lab.address_map();
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
        let mut lab = build(&LabConfig { iommu: IommuKind::None, ..LabConfig::default() }).unwrap();
        assert_eq!(lab.config_read(IOMMU, 0, 4), u32::MAX);
    }

    #[test]
    fn what_does_not_fit_is_said() {
        let error = build(&LabConfig { peers: 9, ..LabConfig::default() }).unwrap_err();
        assert!(error.to_string().contains("room for 8"));
        let error = build(&LabConfig { local_memory: 3, ..LabConfig::default() }).unwrap_err();
        assert!(error.to_string().contains("power of two"));
    }
}
