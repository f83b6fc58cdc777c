//! Address translation for DMA: the interface between the fabric and the IOMMU.
//!
//! The fabric asks [`Iommu::translate`] at the root complex for every transaction that is routed by
//! an untranslated address. Translation and use happen under the one lock of the system, so no
//! unmap slips in between. Faults are values; whether one is also queued for the guest
//! ([`Iommu::report`]) is the fabric's decision, because a checker or a cache may translate without
//! there being a transaction.

use std::fmt;

use crate::AddressRange;
use crate::pci::Bdf;

mod fault;
mod identity;
pub mod virtio;

pub use fault::{Fault, FaultReason, Retired};
pub use identity::NoIommu;
pub use virtio::VirtioIommu;

/// What a transaction wants to do with the memory at its address.
///
/// An atomic operation needs both; the fabric asks for [`Access::Write`] after it asked for
/// [`Access::Read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// The requester receives data: memory read requests.
    Read,
    /// The requester sends data: memory write requests and message-signalled interrupts.
    Write,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
        })
    }
}

/// Why an address was let through, and under which conditions it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MappingKind {
    /// No translation takes place for this requester: the address is a guest physical one, all
    /// access is allowed.
    Bypass,
    /// The guest mapped the address.
    Mapped {
        /// The requester may read.
        readable: bool,
        /// The requester may write.
        writable: bool,
        /// The guest declared that device registers, not memory, are behind it
        /// (`VIRTIO_IOMMU_MAP_F_MMIO`). Whether that is true only the fabric knows.
        mmio: bool,
        /// The domain that holds the mapping.
        domain: u32,
        /// The number of the request that made the mapping; requests are counted from 1.
        born: u64,
    },
    /// The address lies in the window through which message-signalled interrupts reach the
    /// interrupt controller (`VIRTIO_IOMMU_RESV_MEM_T_MSI`): it is never translated.
    ReservedMsi,
}

impl MappingKind {
    /// Whether the mapping allows `access`. A caller that caches translations asks again for each
    /// access.
    #[must_use]
    pub const fn permits(&self, access: Access) -> bool {
        match (self, access) {
            (Self::Bypass | Self::ReservedMsi, _) => true,
            (Self::Mapped { readable, .. }, Access::Read) => *readable,
            (Self::Mapped { writable, .. }, Access::Write) => *writable,
        }
    }
}

/// Where a range of addresses leads, as far as one mapping reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The guest physical address that the asked address stands for.
    pub address: u64,
    /// How many bytes, from the asked address on, this answer serves: at most what was asked, at
    /// least 1 unless nothing was asked. A caller with more to go asks again for the rest.
    pub length: u64,
    /// What the answer rests on.
    pub mapping: MappingKind,
    /// All addresses of this requester that the same answer serves, with the same distance between
    /// the asked and the given address. May be kept until [`Iommu::epoch`] changes, if
    /// [`MappingKind::permits`] is asked each time.
    pub range: AddressRange,
}

impl Translation {
    /// The answer for `length` bytes from `address`, which lies in `range`, when the range begins
    /// at `target`. Wraps silently where `target` is so high that the range does not fit behind it;
    /// no driver makes such mappings.
    fn within(
        range: AddressRange,
        target: u64,
        address: u64,
        length: u64,
        mapping: MappingKind,
    ) -> Self {
        Self {
            address: target.wrapping_add(address.wrapping_sub(range.first)),
            length: length.min(range.last.saturating_sub(address).saturating_add(1)),
            mapping,
            range,
        }
    }
}

/// An IOMMU as the fabric and the checker see it.
///
/// `requester` is the requester ID of the transaction (PCIe 6.0, section 2.2.6.2), addresses and
/// lengths are bytes. Nothing here panics, whatever the guest asked for.
pub trait Iommu: Send + fmt::Debug {
    /// Translates the start of `length` bytes from `address`: where to, and how far the same
    /// mapping reaches. The caller loops over the rest. Has no effect that a guest or a trace can
    /// see.
    ///
    /// # Errors
    ///
    /// The fault of the *first* byte.
    fn translate(
        &mut self,
        requester: Bdf,
        address: u64,
        length: u64,
        access: Access,
    ) -> Result<Translation, Fault>;

    /// Changes whenever an earlier *successful* translation may have become different. A fault may
    /// turn into a success without a change: only successes may be cached.
    fn epoch(&self) -> u64;

    /// Queues `fault` for the guest. The queue is bounded; what does not fit is counted and
    /// dropped.
    fn report(&mut self, fault: &Fault);

    /// The virtio-iommu behind this trait object, for the function through which the guest programs
    /// it.
    fn as_virtio(&mut self) -> Option<&mut VirtioIommu> {
        None
    }
}
