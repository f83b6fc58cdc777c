//! What a function is made of: the constants from which its configuration space is built.

use super::spec::acs;

/// A function with a type 0 header: an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionDescription {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, 24 bits: base class, sub-class, programming interface.
    pub class: u32,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
    /// The base address registers, the MSI-X table's among them.
    pub bars: Vec<BarDescription>,
    /// Number of MSI-X vectors, 0 (no MSI-X) to 2048.
    pub msix_vectors: u16,
    /// The BAR that holds the MSI-X table and pending bits and nothing else; it must be among
    /// `bars` and at least [`MsixTable::bar_size`](super::MsixTable::bar_size) bytes.
    pub msix_bar: u8,
    /// The PCI Express capability; `None` for a function that shows none.
    pub pcie: Option<PcieKind>,
    /// Function level reset is offered. Needs `pcie`.
    pub flr: bool,
    /// Advanced Error Reporting. Needs `pcie`.
    pub aer: bool,
    /// The largest TLP payload the function takes, in bytes: 128 to 4096, a power of two.
    pub max_payload: u16,
    /// Fastest and widest link it can train; unused on the root bus.
    pub link: Link,
    /// BARs whose size software may choose (Resizable BAR capability).
    pub resizable_bars: Vec<ResizableBar>,
    /// Access Control Services, for functions of a multi-function device.
    pub acs: Option<AcsCapabilities>,
    /// Device Serial Number, an EUI-64; `None` for a function without.
    pub serial_number: Option<u64>,
    /// Vendor-specific capabilities in order.
    pub vendor_capabilities: Vec<VendorCapability>,
}

impl Default for FunctionDescription {
    /// A plain PCI Express endpoint without BARs and IDs.
    fn default() -> Self {
        Self {
            vendor: 0,
            device: 0,
            revision: 0,
            class: 0xff_0000,
            subsystem_vendor: 0,
            subsystem_id: 0,
            bars: Vec::new(),
            msix_vectors: 0,
            msix_bar: 0,
            pcie: Some(PcieKind::Endpoint),
            flr: false,
            aer: false,
            max_payload: 256,
            link: Link::default(),
            resizable_bars: Vec::new(),
            acs: None,
            serial_number: None,
            vendor_capabilities: Vec::new(),
        }
    }
}

/// How an endpoint is attached (Device/Port Type, section 7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcieKind {
    /// Behind a port, over a link.
    Endpoint,
    /// On the root bus, part of the root complex.
    RootComplexIntegratedEndpoint,
}

/// One base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarDescription {
    /// Which of the six registers, 0 to 5; a 64-bit BAR takes the next one too.
    pub index: u8,
    /// Size in bytes: a power of two, at least 16; at most 2 GiB for a 32-bit BAR and 2^62 for a
    /// 64-bit one.
    pub size: u64,
    /// Width and prefetchability.
    pub kind: BarKind,
}

/// The type of a memory BAR (section 7.5.1.2.1). The system has no I/O space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Below 4 GiB, not prefetchable.
    Memory32,
    /// Anywhere, over two registers.
    Memory64 {
        /// Reads have no side effects. Only prefetchable BARs fit the 64-bit window of a bridge.
        prefetchable: bool,
    },
}

/// A BAR whose size software may choose (section 7.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResizableBar {
    /// Index of a BAR of the description, whose size is the one after reset.
    pub bar: u8,
    /// Sizes on offer: bit n stands for 2^(20+n) bytes, n from 0 to 27.
    pub sizes: u32,
}

/// A vendor-specific capability (section 7.9.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VendorCapability {
    /// The bytes after ID and next pointer: the length (of the whole capability), then what the
    /// vendor wants.
    pub body: Vec<u8>,
    /// Which bits of `body` software may write; missing bytes count as 0.
    pub writable: Vec<u8>,
}

impl From<Vec<u8>> for VendorCapability {
    /// A capability that software can only read.
    fn from(body: Vec<u8>) -> Self {
        Self { body, writable: Vec::new() }
    }
}

/// A function with a type 1 header: one port of a PCI Express fabric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgeDescription {
    /// Which kind of port.
    pub kind: PortKind,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID; 0 for a port that shows no subsystem IDs.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
    /// Port Number of the Link Capabilities register.
    pub port_number: u8,
    /// Physical Slot Number, 13 bits, 0 for "no slot": the device below is soldered on.
    pub slot_number: u16,
    /// The slot takes a device out or in at any time (Hot-Plug Capable and Hot-Plug Surprise).
    /// Means nothing without a slot.
    pub hot_plug: bool,
    /// Access Control Services; `None` for a port without the capability.
    pub acs: Option<AcsCapabilities>,
    /// Advanced Error Reporting.
    pub aer: bool,
    /// MSI with one vector, for the port services (errors, power management events).
    pub msi: bool,
    /// The largest TLP payload the port takes, in bytes: 128 to 4096, a power of two.
    pub max_payload: u16,
    /// Fastest and widest link it can train.
    pub link: Link,
}

impl BridgeDescription {
    /// A port of `kind` with AER, MSI and without ACS, soldered, whose IDs are still 0.
    #[must_use]
    pub fn new(kind: PortKind) -> Self {
        Self {
            kind,
            vendor: 0,
            device: 0,
            revision: 0,
            subsystem_vendor: 0,
            subsystem_id: 0,
            port_number: 0,
            slot_number: 0,
            hot_plug: false,
            acs: None,
            aer: true,
            msi: true,
            max_payload: 512,
            link: Link::default(),
        }
    }
}

/// The ports of a fabric (Device/Port Type, section 7.5.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PortKind {
    /// A root port.
    RootPort,
    /// The port of a switch that faces the root.
    SwitchUpstream,
    /// A port of a switch that faces a device.
    SwitchDownstream,
}

impl PortKind {
    /// True for the ports that have a link *below* them: root ports and downstream ports.
    #[must_use]
    pub const fn is_downstream(self) -> bool {
        matches!(self, Self::RootPort | Self::SwitchDownstream)
    }
}

/// Speed and width of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Speed as the Link Capabilities register codes it: 1 is 2.5 GT/s, 2 is 5, 3 is 8, 4 is 16,
    /// 5 is 32.
    pub speed: u8,
    /// Lanes: 1, 2, 4, 8 or 16.
    pub lanes: u8,
}

impl Default for Link {
    /// 8.0 GT/s, 16 lanes.
    fn default() -> Self {
        Self { speed: 3, lanes: 16 }
    }
}

/// The Access Control Services a function implements (section 7.7.11.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcsCapabilities {
    /// The controls that exist; each can then be switched on by software.
    pub controls: AcsControl,
    /// Length of the egress control vector in bits, 1 to 256, used with
    /// [`AcsControl::P2P_EGRESS_CONTROL`] only.
    pub egress_vector_bits: u16,
    /// Controls that software switches on and nothing comes of it: a defect.
    pub without_effect: AcsControl,
}

impl Default for AcsCapabilities {
    /// What Linux switches on, and Translation Blocking: the set of an ordinary root port.
    fn default() -> Self {
        Self {
            controls: AcsControl::SOURCE_VALIDATION
                | AcsControl::TRANSLATION_BLOCKING
                | AcsControl::P2P_REQUEST_REDIRECT
                | AcsControl::P2P_COMPLETION_REDIRECT
                | AcsControl::UPSTREAM_FORWARDING,
            egress_vector_bits: 0,
            without_effect: AcsControl::empty(),
        }
    }
}

bitflags::bitflags! {
    /// The ACS Control register (section 7.7.11.3); the same bits name the capabilities.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct AcsControl: u16 {
        /// V: the port checks the bus number of the requester ID of requests going upstream.
        const SOURCE_VALIDATION = acs::SOURCE_VALIDATION;
        /// B: the port blocks requests going upstream whose address is marked translated.
        const TRANSLATION_BLOCKING = acs::TRANSLATION_BLOCKING;
        /// R: peer-to-peer requests are sent towards the root instead.
        const P2P_REQUEST_REDIRECT = acs::P2P_REQUEST_REDIRECT;
        /// C: peer-to-peer completions are sent towards the root instead.
        const P2P_COMPLETION_REDIRECT = acs::P2P_COMPLETION_REDIRECT;
        /// U: requests that the root sent back down the port they came from are forwarded.
        const UPSTREAM_FORWARDING = acs::UPSTREAM_FORWARDING;
        /// E: the egress control vector decides which peers may be reached directly.
        const P2P_EGRESS_CONTROL = acs::P2P_EGRESS_CONTROL;
        /// T: translated requests go to the peer directly, redirect or not.
        const DIRECT_TRANSLATED_P2P = acs::DIRECT_TRANSLATED_P2P;
    }
}

/// The function of the host bridge itself, usually 00:00.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostBridgeDescription {
    /// Vendor ID. Linux allows peer traffic through a bridge by this ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem_id: u16,
}

impl Default for HostBridgeDescription {
    /// Intel's 8086:2020, which Linux lets pass peer-to-peer traffic in all versions that the lab
    /// runs.
    fn default() -> Self {
        Self { vendor: 0x8086, device: 0x2020, revision: 1, subsystem_vendor: 0, subsystem_id: 0 }
    }
}

/// A description from which no configuration space can be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionError {
    /// A BAR's size.
    #[error(
        "BAR{index} of {size:#x} bytes is not possible: a size is a power of two of at least 16, \
         and at most 2 GiB for a 32-bit BAR"
    )]
    BarSize {
        /// Index of the BAR.
        index: u8,
        /// Its size in bytes.
        size: u64,
    },
    /// A BAR's place.
    #[error(
        "BAR{index} does not fit: there are registers 0 to 5, a 64-bit BAR takes two of them, \
         and each belongs to one BAR"
    )]
    BarIndex {
        /// Index of the BAR.
        index: u8,
    },
    /// MSI-X without room for its table.
    #[error(
        "{vectors} MSI-X vectors need BAR{bar} with at least {needed:#x} bytes (vectors: 1 to 2048)"
    )]
    MsixBar {
        /// Vectors asked for.
        vectors: u16,
        /// The BAR named for the table.
        bar: u8,
        /// Bytes needed there.
        needed: u64,
    },
    /// A Resizable BAR entry that contradicts the BAR.
    #[error(
        "the Resizable BAR entry for BAR{bar} is not possible: the BAR must exist and its own \
         size must be among the sizes 1 MiB to 128 TiB that the entry offers"
    )]
    ResizableBar {
        /// The BAR it names.
        bar: u8,
    },
    /// A payload size that PCIe does not have.
    #[error(
        "a maximum payload of {0} bytes does not exist; take 128, 256, 512, 1024, 2048 or 4096"
    )]
    MaxPayload(u16),
    /// A link that cannot be trained.
    #[error("a link of speed code {} and {} lanes does not exist; take speed 1 to 5 and 1, 2, 4, \
        8 or 16 lanes", .0.speed, .0.lanes)]
    Link(Link),
    /// FLR or extended capabilities without a PCI Express capability.
    #[error("{0} needs the PCI Express capability; describe the function with `pcie` set")]
    NeedsPcie(&'static str),
    /// An egress control vector of an impossible length.
    #[error("an ACS egress control vector of {0} bits is not possible; it has 1 to 256")]
    EgressVector(u16),
    /// A vendor capability whose length byte is wrong.
    #[error("vendor-specific capability {index} must begin with its own length, {needed}")]
    VendorLength {
        /// Function in the description.
        index: usize,
        /// The right length byte.
        needed: usize,
    },
    /// The capabilities need more than the configuration space has.
    #[error("the {0} capabilities do not fit into the configuration space; leave some out")]
    NoRoom(&'static str),
}
