//! PCIe functions, fabric, IOMMU and DMA checker.
#![forbid(unsafe_code)]
