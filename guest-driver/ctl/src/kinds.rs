//! Kinds of memory, importers and mappings, as they are typed.

use clap::ValueEnum;
use guest_agent::uapi;

/// What backs memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum MemoryKind {
    /// The device's local memory
    #[default]
    Local,
    /// Local memory with struct pages (ZONE_DEVICE)
    P2pmem,
    /// Pages of the system, to be exported
    Pages,
    /// dma_alloc_noncontiguous()
    Noncontiguous,
    /// dma_alloc_noncoherent()
    Noncoherent,
    /// Local memory or pages, as importers need it
    Migrating,
    /// Pages that the DMA API maps for this device
    System,
    /// dma_alloc_coherent() for this device
    Coherent,
}

impl MemoryKind {
    /// The driver's number of a kind of buffer; none for what has a call of its own.
    pub(crate) fn buffer(self) -> Option<u32> {
        match self {
            Self::P2pmem => Some(uapi::BUFFER_P2PMEM),
            Self::Pages => Some(uapi::BUFFER_PAGES),
            Self::Noncontiguous => Some(uapi::BUFFER_NONCONTIGUOUS),
            Self::Noncoherent => Some(uapi::BUFFER_NONCOHERENT),
            Self::Migrating => Some(uapi::BUFFER_MIGRATING),
            Self::Local | Self::System | Self::Coherent => None,
        }
    }

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Local => "local memory",
            Self::P2pmem => "local memory with struct pages",
            Self::Pages => "pages",
            Self::Noncontiguous => "dma_alloc_noncontiguous memory",
            Self::Noncoherent => "dma_alloc_noncoherent memory",
            Self::Migrating => "migrating memory",
            Self::System => "system memory",
            Self::Coherent => "coherent system memory",
        }
    }
}

/// How an importer attaches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Importer {
    /// As a driver should: peer-to-peer allowed, mappings can be invalidated
    #[default]
    Dynamic,
    /// Without allow_peer2peer: RAM only
    NoPeers,
    /// dma_buf_attach(), without any callbacks
    Static,
    /// Pinned while attached
    Pinned,
}

impl Importer {
    pub(crate) fn flags(self) -> u32 {
        match self {
            Self::Dynamic => uapi::IMPORT_PEER2PEER,
            Self::NoPeers => 0,
            Self::Static => uapi::IMPORT_STATIC,
            Self::Pinned => uapi::IMPORT_PEER2PEER | uapi::IMPORT_PINNED,
        }
    }
}

/// What a device may do with a mapping.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Direction {
    /// DMA_BIDIRECTIONAL
    #[default]
    Both,
    /// DMA_TO_DEVICE: it reads
    ToDevice,
    /// DMA_FROM_DEVICE: it writes
    FromDevice,
}

impl Direction {
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Both => uapi::BIDIRECTIONAL,
            Self::ToDevice => uapi::TO_DEVICE,
            Self::FromDevice => uapi::FROM_DEVICE,
        }
    }
}

/// Where a migrating buffer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// In the device
    Local,
    /// In RAM
    System,
}
