//! The libraries' choices as values of options: the libraries know nothing of the command line.

use clap::ValueEnum;
use peerdma_suite::scenario::{Swiotlb, Witness};
use peerdma_topology::Format;
use peerdma_topology::assembly::IommuMode;

/// `--iommu`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Iommu {
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
    /// Devices reach all memory as it is
    Off,
    /// Every mapping of system memory is a bounce buffer (swiotlb=force): a missing sync shows
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
    /// Whatever offers memory to p2pdma
    P2pmem,
    /// Everything that is not a bridge
    All,
}

/// `--format` of a table of pairs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum TableFormat {
    /// Lines
    #[default]
    Text,
    /// A page for browsers; each cell says why
    Html,
    /// A picture
    Svg,
}
