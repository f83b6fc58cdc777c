//! The device side of the peerdma lab: PCIe functions, the fabric between them, an IOMMU, and a checker that sees
//! every DMA transaction.
//!
//! Nothing here knows who runs the guest. A VMM, a unit test or a replay drives a [`System`](system::System) through
//! configuration accesses, register accesses and steps, and gets transactions, interrupts and findings.
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

pub use address_range::AddressRange;
