//! The classes of findings: the words in which tests state what they expect.

use std::fmt;
use std::str::FromStr;

macro_rules! classes {
    ($($(#[$doc:meta])* $variant:ident = $code:literal, $name:literal;)+) => {
        /// What kind of mistake a finding is. The name is what tests, reports and traces use; the
        /// code is what the peer device's lab-only verdict register holds. Neither is ever reused
        /// for something else.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum FindingClass {
            $($(#[$doc])* $variant = $code,)+
        }

        impl FindingClass {
            /// Every class there is.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name, for example `iommu.unmapped`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

classes! {
    /// A function wanted to issue a request with Bus Master Enable clear, its own or a bridge's
    /// above it (PCIe 6.0, 7.5.1.1.3). With its own clear nothing is emitted.
    BusMasterOff = 1, "pci.bus-master-off";
    /// A function wanted to issue a request, or was addressed, in a power state other than D0 (PCIe
    /// 6.0, 5.3.1).
    NotInD0 = 2, "pci.not-in-d0";
    /// The address decodes to nothing: no RAM, no BAR, no window.
    NoTarget = 3, "pci.no-target";
    /// The request runs over the end of a BAR, or just past it.
    BarEdge = 4, "pci.bar-edge";
    /// The address belongs to a BAR or window whose Memory Space Enable is clear (PCIe 6.0,
    /// 7.5.1.1.3).
    MemoryDecodeOff = 5, "pci.memory-decode-off";
    /// An ACS control of a port forbade the request (PCIe 6.0, 6.12).
    AcsViolation = 6, "pci.acs-violation";
    /// A request came back to the port that it came from, and ACS Upstream Forwarding is off or
    /// without effect (PCIe 6.0, 6.12.1.1).
    TurnedBack = 7, "pci.turned-back";
    /// The root complex does not route between these two of its ports.
    PeerToPeerRefused = 8, "pci.peer-to-peer-refused";
    /// The route leads over a link that is down: its slot is empty, or the link is disabled (PCIe
    /// 6.0, 2.9.1).
    LinkDown = 9, "pci.link-down";

    /// The requester is attached to no domain and bypass is off (virtio 1.3, 5.13.6.3).
    NoDomain = 16, "iommu.no-domain";
    /// The requester's domain does not map the address.
    Unmapped = 17, "iommu.unmapped";
    /// The requester's domain no longer maps the address: it was unmapped earlier.
    Stale = 18, "iommu.stale";
    /// The mapping does not allow this direction.
    Permission = 19, "iommu.permission";
    /// A mapping with the MMIO flag leads to RAM (virtio 1.3, 5.13.6.5).
    MmioFlagOnRam = 20, "iommu.mmio-flag-on-ram";
    /// An IOMMU request was answered with a status other than OK, which Linux does not read for
    /// MAP.
    RequestFailed = 21, "iommu.request-failed";
    /// What a descriptor names runs from one mapping into another that was made separately.
    MappingEdge = 22, "iommu.mapping-edge";

    /// A write into the interrupt window matches no enabled MSI or MSI-X entry of its requester.
    NotAVector = 32, "msi.not-a-vector";
    /// An access to the interrupt window that is not one aligned dword write.
    Malformed = 33, "msi.malformed";

    /// A chain of device-to-device register writes without a CPU in it was cut after the hop limit.
    HopLimit = 48, "fabric.hop-limit";
    /// No completion came in time.
    CompletionTimeout = 49, "fabric.completion-timeout";

    /// A completion record arrived before data that was issued before it (PCIe 6.0, 2.4.1: another
    /// path), and its device came to rest without having pushed the data.
    RecordBeforeData = 50, "order.record-before-data";
    /// The same with an interrupt.
    InterruptBeforeData = 51, "order.interrupt-before-data";
    /// Software has seen a fence while data of the work that it stands for was still under way.
    FenceBeforeData = 52, "order.fence-before-data";

    /// The guest's kernel has not mapped the address for the function.
    WitnessUnmapped = 80, "witness.unmapped";
    /// The guest's kernel has unmapped the address before.
    WitnessStale = 81, "witness.stale";
    /// The guest's kernel has mapped the address for the other direction.
    WitnessDirection = 82, "witness.direction";
    /// What the function was given as one range of addresses runs past the end of what the guest's
    /// kernel mapped in one go.
    WitnessPastEnd = 83, "witness.past-end";
    /// A driver was unbound, or its device is gone, with mappings left.
    WitnessLeaked = 84, "witness.leaked";

    /// A dma-buf was invalidated, the fences have signalled, and its old mapping is written through.
    WriteAfterInvalidate = 96, "buffer.write-after-invalidate";
    /// An importer that does not take peer-to-peer addresses was given one.
    PeerToPeerNotAllowed = 97, "buffer.peer2peer-not-allowed";
    /// A dma-buf was freed while it was mapped for a function.
    BufferFreed = 98, "buffer.freed";
    /// A dma-buf that was in another device's memory was mapped in system memory, for an importer
    /// that does not take peer-to-peer addresses.
    FellBack = 99, "buffer.fell-back";

    /// A device was given work that makes no sense to it.
    BadDescriptor = 64, "device.bad-descriptor";
    /// A virtqueue breaks the specification.
    BadQueue = 65, "virtio.bad-queue";
}

impl FindingClass {
    /// The number in the lab-only verdict register; 0 there means that nothing was found.
    pub fn code(self) -> u32 {
        self as u32
    }
}

impl fmt::Display for FindingClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The name is that of no class.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no finding class {0:?}; `peerdma findings` lists them")]
pub struct UnknownClass(pub String);

impl FromStr for FindingClass {
    type Err = UnknownClass;

    fn from_str(name: &str) -> Result<Self, UnknownClass> {
        Self::ALL
            .iter()
            .copied()
            .find(|class| class.name() == name)
            .ok_or_else(|| UnknownClass(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_codes_are_unique_and_lead_back() {
        let names: BTreeSet<_> = FindingClass::ALL.iter().map(|class| class.name()).collect();
        let codes: BTreeSet<_> = FindingClass::ALL.iter().map(|class| class.code()).collect();
        assert_eq!(names.len(), FindingClass::ALL.len());
        assert_eq!(codes.len(), FindingClass::ALL.len());
        assert!(!codes.contains(&0));
        for class in FindingClass::ALL {
            assert_eq!(class.name().parse(), Ok(*class));
        }
        assert!("iommu.nonsense".parse::<FindingClass>().is_err());
    }
}
