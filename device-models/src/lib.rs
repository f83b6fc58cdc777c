//! PCIe functions, fabric, IOMMU and DMA checker.
#![forbid(unsafe_code)]

/// Kinds of devices.
pub mod endpoint {
    pub mod peer;
}
pub mod iommu;
pub mod pci;
