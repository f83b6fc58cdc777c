//! A function of the machine, as far as it is known.

use serde::{Deserialize, Serialize};

use crate::{Acs, Address};

/// A function. What is `None`, or unknown in another form, could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Function {
    /// Where it is.
    pub address: Address,
    /// What is above it.
    #[serde(default)]
    pub parent: Parent,
    /// Vendor ID.
    #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
    pub vendor: Option<u16>,
    /// Device ID.
    #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
    pub device: Option<u16>,
    /// Subsystem vendor ID.
    #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
    pub subsystem_vendor: Option<u16>,
    /// Subsystem ID.
    #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
    pub subsystem_device: Option<u16>,
    /// Base class in the upper byte, sub-class in the lower.
    #[serde(default, with = "hexadecimal", skip_serializing_if = "Option::is_none")]
    pub class: Option<u16>,
    /// Programming interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub programming_interface: Option<u8>,
    /// Revision ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u8>,
    /// What the text calls it, without its address; `None` if it was read from sysfs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Type of the configuration space's header.
    #[serde(default)]
    pub header: Header,
    /// Whether the device has several functions: the bit in its function 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_function: Option<bool>,
    /// Device/port type of the PCIe capability.
    #[serde(default)]
    pub port: PortType,
    /// What a bridge passes down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<Bridge>,
    /// Access Control Services.
    #[serde(default)]
    pub acs: Acs,
    /// The BARs that are in use, without the expansion ROM.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bars: Vec<Bar>,
    /// For a virtual function: the physical function that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub physical_function: Option<Address>,
    /// For a physical function: how many virtual functions are enabled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_functions: Option<u16>,
    /// Address Translation Service.
    #[serde(default)]
    pub ats: Service,
    /// Process Address Space ID.
    #[serde(default)]
    pub pasid: Service,
    /// Number of the IOMMU group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iommu_group: Option<u32>,
    /// The driver that is bound to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// NUMA node; `None` where firmware does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numa_node: Option<u32>,
    /// Memory that the driver offers to p2pdma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p2p_memory: Option<P2pMemory>,
    /// Names of what its driver provides.
    #[serde(default, skip_serializing_if = "Names::is_empty")]
    pub names: Names,
}

/// What is above a function.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Parent {
    /// Not known: a bridge is missing, or whether there is one. Functions on one bus have the same parent nevertheless.
    #[default]
    Unknown,
    /// It is on a root bus.
    Root,
    /// The bridge that it is below.
    Below(Address),
}

/// Type of the configuration space's header (PCIe 6.0, 7.5.1.1.9).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Header {
    /// Not known.
    #[default]
    Unknown,
    /// Type 0.
    Endpoint,
    /// Type 1: a bridge, or a port.
    Bridge,
    /// Type 2.
    CardBus,
}

/// Device/port type (PCIe 6.0, 7.5.3.2).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortType {
    /// Not known: capabilities were not readable.
    #[default]
    Unknown,
    /// Conventional PCI: without a PCIe capability.
    Conventional,
    /// Endpoint.
    Endpoint,
    /// Legacy endpoint.
    LegacyEndpoint,
    /// Root port.
    RootPort,
    /// Upstream port of a switch.
    Upstream,
    /// Downstream port of a switch.
    Downstream,
    /// PCIe to PCI or PCI-X bridge.
    PcieToPci,
    /// PCI or PCI-X to PCIe bridge.
    PciToPcie,
    /// Root complex integrated endpoint.
    IntegratedEndpoint,
    /// Root complex event collector.
    EventCollector,
}

impl PortType {
    /// From the PCIe capabilities register's field.
    pub(crate) fn from_field(field: u16) -> Self {
        match field {
            0 => Self::Endpoint,
            1 => Self::LegacyEndpoint,
            4 => Self::RootPort,
            5 => Self::Upstream,
            6 => Self::Downstream,
            7 => Self::PcieToPci,
            8 => Self::PciToPcie,
            9 => Self::IntegratedEndpoint,
            10 => Self::EventCollector,
            _ => Self::Unknown,
        }
    }

    /// Whether only a function on a root bus has this type.
    pub fn is_at_root(self) -> bool {
        matches!(self, Self::RootPort | Self::IntegratedEndpoint | Self::EventCollector)
    }

    /// Whether a function of this type is a bridge to a bus of its own.
    pub fn is_bridge(self) -> bool {
        use PortType::{Downstream, PciToPcie, PcieToPci, RootPort, Upstream};
        matches!(self, RootPort | Upstream | Downstream | PcieToPci | PciToPcie)
    }

    /// In the words of the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Conventional => "conventional PCI",
            Self::Endpoint => "endpoint",
            Self::LegacyEndpoint => "legacy endpoint",
            Self::RootPort => "root port",
            Self::Upstream => "upstream port",
            Self::Downstream => "downstream port",
            Self::PcieToPci => "PCIe to PCI bridge",
            Self::PciToPcie => "PCI to PCIe bridge",
            Self::IntegratedEndpoint => "integrated endpoint",
            Self::EventCollector => "event collector",
        }
    }
}

/// What a bridge passes down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bridge {
    /// Its bus numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buses: Option<Buses>,
    /// Window for memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Window>,
    /// Window for prefetchable memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetchable: Option<Window>,
}

/// Bus numbers of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Buses {
    /// The bus that it is on.
    pub primary: u8,
    /// The bus directly below.
    pub secondary: u8,
    /// The highest bus below.
    pub subordinate: u8,
}

/// A window of a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Window {
    /// Nothing is passed down.
    Closed,
    /// Addresses from `first` to `last`.
    Open {
        /// The first address.
        first: u64,
        /// The last address, inclusive.
        last: u64,
    },
}

/// A base address register in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Bar {
    /// Number, 0 to 5; a 64-bit BAR takes two and has the lower.
    pub index: u8,
    /// Which kind of addresses.
    pub space: Space,
    /// What the register holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bus_address: Option<u64>,
    /// The address for the CPU, which is what `lspci` shows without `-b`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_address: Option<u64>,
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
}

/// Kind of a BAR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Space {
    /// I/O ports.
    Io,
    /// Memory.
    Memory {
        /// 64 bits; otherwise 32.
        wide: bool,
        /// Prefetchable.
        prefetchable: bool,
    },
}

/// Whether a function has a service, and whether it is enabled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Service {
    /// Not known.
    #[default]
    Unknown,
    /// The function lacks the capability.
    Absent,
    /// It has it, not enabled.
    Off,
    /// It has it, enabled.
    On,
}

/// Memory that a driver offers to p2pdma (`p2pmem/` in sysfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct P2pMemory {
    /// Size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Whether other drivers may find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<bool>,
}

/// Names that a user knows a device by.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Names {
    /// Network interfaces: `eth0`, `enp1s0f0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
    /// RDMA devices: `mlx5_0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rdma: Vec<String>,
    /// NVMe controllers as the kernel numbers them: `nvme0`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nvme: Vec<String>,
    /// DRM devices: `card0`, `renderD128`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub drm: Vec<String>,
}

impl Names {
    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        let lists = [&self.network, &self.rdma, &self.nvme, &self.drm];
        lists.into_iter().flatten().map(String::as_str)
    }
}

impl Function {
    /// Nothing but an address.
    pub fn new(address: Address) -> Self {
        Self {
            address,
            parent: Parent::Unknown,
            vendor: None,
            device: None,
            subsystem_vendor: None,
            subsystem_device: None,
            class: None,
            programming_interface: None,
            revision: None,
            description: None,
            header: Header::Unknown,
            multi_function: None,
            port: PortType::Unknown,
            bridge: None,
            acs: Acs::Unknown,
            bars: Vec::new(),
            physical_function: None,
            virtual_functions: None,
            ats: Service::Unknown,
            pasid: Service::Unknown,
            iommu_group: None,
            driver: None,
            numa_node: None,
            p2p_memory: None,
            names: Names::default(),
        }
    }
}

/// IDs as four hexadecimal digits, as `lspci -n` writes them.
mod hexadecimal {
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(id: &Option<u16>, to: S) -> Result<S::Ok, S::Error> {
        match id {
            Some(id) => to.collect_str(&format_args!("{id:04x}")),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
        let digits = text.len() == 4 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        match u16::from_str_radix(&text, 16) {
            Ok(id) if digits => Ok(Some(id)),
            _ => Err(serde::de::Error::custom(format!("{text:?} is not four hexadecimal digits"))),
        }
    }
}
