//! What was watched, and what was not and why.

/// Why the transactions of a function are not held against its mappings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gap {
    /// No witness is in the guest.
    NoWitness,
    /// The function's driver was bound before the witness was loaded.
    BoundBefore,
    /// The function has no driver.
    NoDriver,
    /// Its driver maps by the IOMMU API, or not at all: VFIO, UIO.
    Unseen,
    /// The witness has missed something since the driver was bound.
    Lost,
    /// A virtio function whose driver has not accepted `VIRTIO_F_ACCESS_PLATFORM`: it is given
    /// physical addresses.
    Physical,
}

impl Gap {
    /// All of them, in the order of [`Counters::not_witnessed`].
    pub const ALL: [Self; 6] = [
        Self::NoWitness,
        Self::BoundBefore,
        Self::NoDriver,
        Self::Unseen,
        Self::Lost,
        Self::Physical,
    ];

    /// The name that reports use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NoWitness => "no-witness",
            Self::BoundBefore => "bound-before",
            Self::NoDriver => "no-driver",
            Self::Unseen => "unseen-driver",
            Self::Lost => "records-lost",
            Self::Physical => "no-access-platform",
        }
    }

    /// What it means, for people.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::NoWitness => "no witness",
            Self::BoundBefore => "bound before the witness",
            Self::NoDriver => "no driver bound",
            Self::Unseen => "driver without the DMA API",
            Self::Lost => "records lost",
            Self::Physical => "virtio without ACCESS_PLATFORM",
        }
    }
}

/// Sums since power-on. Transactions are request TLPs; interrupts and the virtio-iommu's own
/// requests are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Records taken.
    pub records: u64,
    /// Mappings that were made.
    pub mappings: u64,
    /// Mappings that are in force now.
    pub live: u64,
    /// Transactions held against mappings.
    pub transactions: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Transactions that were not, by [`Gap`].
    pub not_witnessed: [u64; Gap::ALL.len()],
    /// Unmaps of what was not known to be mapped.
    pub unknown_unmaps: u64,
    /// Mappings for devices that are no PCI functions, or none that there is.
    pub elsewhere: u64,
}
