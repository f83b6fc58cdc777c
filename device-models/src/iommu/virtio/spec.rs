//! What virtio 1.3, section 5.13 lays down: numbers and layouts, no behaviour.

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The virtio device ID of an IOMMU (5.13.1).
pub const DEVICE_ID: u16 = 23;

/// The queue on which the driver sends requests (5.13.2).
pub const REQUEST_QUEUE: u16 = 0;
/// The queue on which the device reports faults (5.13.2).
pub const EVENT_QUEUE: u16 = 1;

bitflags! {
    /// Feature bits (5.13.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Features: u64 {
        /// `input_range` says which addresses can be mapped.
        const INPUT_RANGE = 1 << 0;
        /// `domain_range` says which domain numbers are valid.
        const DOMAIN_RANGE = 1 << 1;
        /// MAP and UNMAP exist.
        const MAP_UNMAP = 1 << 2;
        /// PROBE exists.
        const PROBE = 1 << 4;
        /// MAP knows the flag MMIO.
        const MMIO = 1 << 5;
        /// The configuration field `bypass` and the ATTACH flag BYPASS exist.
        const BYPASS_CONFIG = 1 << 6;
    }

    /// `flags` of an ATTACH request (5.13.6.3).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AttachFlags: u32 {
        /// The domain does not translate.
        const BYPASS = 1 << 0;
    }

    /// `flags` of a MAP request (5.13.6.5).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MapFlags: u32 {
        /// Endpoints may read.
        const READ = 1 << 0;
        /// Endpoints may write.
        const WRITE = 1 << 1;
        /// Device registers are behind the mapping.
        const MMIO = 1 << 2;
    }

    /// `flags` of a fault report (5.13.6.9).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FaultFlags: u32 {
        /// A read failed.
        const READ = 1 << 0;
        /// A write failed.
        const WRITE = 1 << 1;
        /// `address` is valid.
        const ADDRESS = 1 << 8;
    }
}

/// Request types (5.13.6).
pub(super) mod request_type {
    pub(crate) const ATTACH: u8 = 1;
    pub(crate) const DETACH: u8 = 2;
    pub(crate) const MAP: u8 = 3;
    pub(crate) const UNMAP: u8 = 4;
    pub(crate) const PROBE: u8 = 5;
}

/// `reason` of a fault report (5.13.6.9).
pub(super) mod fault_reason {
    pub(crate) const DOMAIN: u8 = 1;
    pub(crate) const MAPPING: u8 = 2;
}

/// `status` of a request that was refused (5.13.6). `OK` is the absence of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Virtio communication error. The device never writes it; a driver assumes it when nothing was
    /// written.
    IoErr = 1,
    /// Unsupported request.
    Unsupp = 2,
    /// Invalid parameters.
    Inval = 4,
    /// Parameters out of range.
    Range = 5,
    /// Endpoint or domain does not exist.
    NoEnt = 6,
    /// Insufficient resources.
    NoMem = 8,
}

impl Status {
    /// The name in the specification.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoErr => "VIRTIO_IOMMU_S_IOERR",
            Self::Unsupp => "VIRTIO_IOMMU_S_UNSUPP",
            Self::Inval => "VIRTIO_IOMMU_S_INVAL",
            Self::Range => "VIRTIO_IOMMU_S_RANGE",
            Self::NoEnt => "VIRTIO_IOMMU_S_NOENT",
            Self::NoMem => "VIRTIO_IOMMU_S_NOMEM",
        }
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// `struct virtio_iommu_req_head`; its reserved bytes must be ignored.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Head {
    pub(super) r#type: u8,
    pub(super) reserved: [u8; 3],
}

/// The length of `struct virtio_iommu_req_tail`: the status and three zeroes.
pub(super) const TAIL_LENGTH: usize = 4;

/// The readable part of `struct virtio_iommu_req_attach` behind its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Attach {
    pub(super) domain: U32,
    pub(super) endpoint: U32,
    pub(super) flags: U32,
    pub(super) reserved: [u8; 4],
}

/// The readable part of `struct virtio_iommu_req_detach` behind its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Detach {
    pub(super) domain: U32,
    pub(super) endpoint: U32,
    pub(super) reserved: [u8; 8],
}

/// The readable part of `struct virtio_iommu_req_map` behind its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Map {
    pub(super) domain: U32,
    pub(super) virt_start: U64,
    pub(super) virt_end: U64,
    pub(super) phys_start: U64,
    pub(super) flags: U32,
}

/// The readable part of `struct virtio_iommu_req_unmap` behind its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Unmap {
    pub(super) domain: U32,
    pub(super) virt_start: U64,
    pub(super) virt_end: U64,
    pub(super) reserved: [u8; 4],
}

/// The readable part of `struct virtio_iommu_req_probe` behind its head.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct Probe {
    pub(super) endpoint: U32,
    pub(super) reserved: [u8; 64],
}

/// `struct virtio_iommu_probe_resv_mem` with its head (5.13.6.8).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ReservedMemory {
    pub(super) r#type: U16,
    pub(super) length: U16,
    pub(super) subtype: u8,
    pub(super) reserved: [u8; 3],
    pub(super) start: U64,
    pub(super) end: U64,
}

/// `VIRTIO_IOMMU_PROBE_T_RESV_MEM`.
pub(super) const PROBE_RESV_MEM: u16 = 1;
/// `length` of the RESV_MEM property: all of it but its head, which is type and length.
pub(super) const RESERVED_MEMORY_LENGTH: u16 = 20;
const _: () = assert!(RESERVED_MEMORY_LENGTH as usize + 4 == size_of::<ReservedMemory>());
/// `VIRTIO_IOMMU_RESV_MEM_T_MSI`.
pub(super) const RESV_MEM_MSI: u8 = 1;

/// `struct virtio_iommu_fault` (5.13.6.9).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct FaultReport {
    pub(super) reason: u8,
    pub(super) reserved: [u8; 3],
    pub(super) flags: U32,
    pub(super) endpoint: U32,
    pub(super) reserved1: U32,
    pub(super) address: U64,
}

/// The length of a fault report in bytes.
pub const FAULT_REPORT_LENGTH: usize = size_of::<FaultReport>();

/// `struct virtio_iommu_config` (5.13.4).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub(super) struct ConfigLayout {
    pub(super) page_size_mask: U64,
    pub(super) input_range_start: U64,
    pub(super) input_range_end: U64,
    pub(super) domain_range_start: U32,
    pub(super) domain_range_end: U32,
    pub(super) probe_size: U32,
    pub(super) bypass: u8,
    pub(super) reserved: [u8; 3],
}

/// The length of the device configuration in bytes.
pub const CONFIG_LENGTH: u32 = 40;
const _: () = assert!(CONFIG_LENGTH as usize == size_of::<ConfigLayout>());
