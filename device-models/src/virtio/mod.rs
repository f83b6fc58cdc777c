//! virtio functions of the system: the modern PCI transport (virtio 1.3, 4.1) over split virtqueues
//! (2.7), the virtio-iommu's programming interface and virtio-rng.
//!
//! A function reaches memory only through its [`Port`](crate::fabric::Port), like every device of
//! the system: its ring accesses are transactions, routed, translated and checked (`memory`).

mod chain;
mod common;
mod device;
mod function;
mod iommu;
mod memory;
mod queue;
mod rng;
mod spec;
#[cfg(test)]
mod tests;
mod window;

pub use chain::Chain;
pub use device::{DeviceKind, Reset, VirtioDevice};
pub use function::{VirtioError, VirtioPci};
pub use iommu::VirtioIommuFunction;
pub use memory::{Failure, PortMemory};
pub use rng::VirtioRng;
