//! PCIe functions, fabric, IOMMU and DMA checker.
#![forbid(unsafe_code)]

/// Kinds of devices.
pub mod endpoint {
    pub mod peer;
}
pub mod iommu;
/// PCI functions: addresses, configuration space, capabilities.
pub mod pci {
    mod address;

    pub use address::{Bdf, ParseBdfError};
}
