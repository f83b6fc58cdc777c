//! The libraries' choices as values of options: the libraries know nothing of the command line.

use clap::ValueEnum;
use peerdma_suite::scenario::{Swiotlb, Witness};
use peerdma_topology::Format;
use peerdma_topology::assembly::IommuMode;

/// `--iommu`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Iommu {
    /// The IOMMU translates; a freed address is invalid before the unmapping call returns
    #[default]
    Strict,
    /// The IOMMU translates; freed addresses become invalid some time later, the default of Linux
    Lazy,
    /// There is an IOMMU, but DMA of the kernel's drivers is not translated
    Passthrough,
    /// No IOMMU
    None,
}

impl From<Iommu> for IommuMode {
    fn from(value: Iommu) -> Self {
        match value {
            Iommu::Strict => Self::Strict,
            Iommu::Lazy => Self::Lazy,
            Iommu::Passthrough => Self::Passthrough,
            Iommu::None => Self::None,
        }
    }
}

/// `--swiotlb`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum BounceBuffers {
    /// Devices access all memory directly
    Off,
    /// Every mapping of system memory is a bounce buffer (swiotlb=force), which exposes a missing
    /// sync
    Force,
}

impl From<BounceBuffers> for Swiotlb {
    fn from(value: BounceBuffers) -> Self {
        match value {
            BounceBuffers::Off => Self::Off,
            BounceBuffers::Force => Self::Force,
        }
    }
}

/// `--witness`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum WitnessChoice {
    /// It tells what the kernel maps for DMA
    On,
    /// It is not loaded
    Off,
    /// It tells also who asked for each mapping, which takes longer
    Callers,
}

impl From<WitnessChoice> for Witness {
    fn from(value: WitnessChoice) -> Self {
        match value {
            WitnessChoice::On => Self::On,
            WitnessChoice::Off => Self::Off,
            WitnessChoice::Callers => Self::Callers,
        }
    }
}

/// `--format` of a drawing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum DrawingFormat {
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

impl From<DrawingFormat> for Format {
    fn from(value: DrawingFormat) -> Self {
        match value {
            DrawingFormat::Text => Self::Text,
            DrawingFormat::Dot => Self::Dot,
            DrawingFormat::Svg => Self::Svg,
            DrawingFormat::Json => Self::Json,
            DrawingFormat::Toml => Self::Toml,
        }
    }
}

/// `--only`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Only {
    /// Display controllers and accelerators
    Gpu,
    /// Network and InfiniBand controllers
    Nic,
    /// NVMe controllers
    Nvme,
    /// Devices that offer memory to p2pdma
    P2pmem,
    /// Everything that is not a bridge
    All,
}

impl Only {
    /// As it is written.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Gpu => "gpu",
            Self::Nic => "nic",
            Self::Nvme => "nvme",
            Self::P2pmem => "p2pmem",
            Self::All => "all",
        }
    }
}

/// `--format` of `explain`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TableFormat {
    /// Lines
    #[default]
    Text,
    /// For programs
    Json,
    /// A page for browsers; each cell says why
    Html,
    /// A picture
    Svg,
}
