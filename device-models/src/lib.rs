#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod address_range;
pub mod checker;
pub mod endpoint;
pub mod fabric;
pub mod iommu;
pub mod memory;
pub mod pci;
pub mod system;
pub mod virtio;
pub mod witness;

pub use address_range::AddressRange;
