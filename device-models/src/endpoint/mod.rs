//! Device models: the trait that each implements, and the models.
//!
//! An endpoint is a state machine that others step. It owns its registers and its local memory; its
//! configuration space, MSI-X table and place in the topology belong to the
//! [`System`](crate::system::System), so that a new kind of device is one folder and no more.

mod dma;
pub mod ioat;
mod kind;
pub mod peer;
#[cfg(test)]
mod walk;

use std::fmt;

use crate::fabric::{CompletionStatus, Port, Tag};
use crate::memory::Memory;
use crate::pci::FunctionDescription;
pub use crate::pci::ResetKind;
pub use kind::{Kind, Setup, SetupError};

/// Every kind there is, beside the peer device, which topologies have lists of their own for. What
/// stands here has its folder above; no macro says both at once, because `cargo fmt` does not find
/// modules that a macro declares.
pub const KINDS: &[Kind] = &[ioat::KIND];

/// Whether a step found something to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// State changed, or transactions were issued: step again.
    Worked,
    /// Nothing to do until a register is written or a completion arrives.
    Idle,
}

/// The completion of a read that the fabric could not answer at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadCompletion<'a> {
    /// How the read ended.
    pub status: CompletionStatus,
    /// The bytes read; empty unless `status` is [`CompletionStatus::Success`].
    pub data: &'a [u8],
}

/// A PCIe endpoint function.
///
/// The guest decides what reaches these methods and in what order: none may panic, loop without
/// bound or allocate in proportion to a register's value.
pub trait Endpoint: Send + fmt::Debug {
    /// Identity, BARs and capabilities. Constant over the life of the device.
    fn description(&self) -> FunctionDescription;

    /// Reads `data.len()` bytes (1 to 8) at `offset` of register BAR `bar`, little endian.
    ///
    /// `data` comes filled with ones, which is what a register that does not exist reads as.
    fn register_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes `data` (1 to 8 bytes from a CPU, up to one TLP from another device) at `offset` of
    /// register BAR `bar`.
    ///
    /// Changes state only. A write that asks for work leaves it for [`step`](Self::step): a model
    /// never issues transactions while it is being accessed, so an access can never recurse.
    fn register_write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// The device's registers by name, with their values, to show a device that stands still. Nothing
    /// changes by that, also where a read by software would clear something. Empty if the model names none.
    fn named_registers(&mut self) -> Vec<(String, u64)> {
        Vec::new()
    }

    /// Whether this [`register_write`](Self::register_write) asks for work: a doorbell, or what
    /// enables an engine. A function whose Bus Master Enable was cleared with work left is not to
    /// blame for it until it is asked for more.
    ///
    /// The default takes every write for one.
    fn asks_for_work(&self, bar: u8, offset: u64, data: &[u8]) -> bool {
        let _ = (bar, offset, data);
        true
    }

    /// The memory behind memory BAR `bar`; `None` for a register BAR. Constant over the life of the
    /// device.
    fn memory(&self, bar: u8) -> Option<&Memory> {
        let _ = bar;
        None
    }

    /// A read that was [`Pending`](crate::fabric::ReadOutcome::Pending) completes.
    fn completion(&mut self, tag: Tag, completion: ReadCompletion<'_>) {
        let _ = (tag, completion);
    }

    /// Does a bounded amount of work: at most 64 KiB moved and a few dozen transactions.
    fn step(&mut self, port: &mut Port<'_>) -> Progress;

    /// Returns to the state after reset (PCIe 6.0, 6.6): work in progress is forgotten, nothing is
    /// issued for it.
    fn reset(&mut self, kind: ResetKind);

    /// Whether a CPU's register write is served to the end before the CPU goes on.
    ///
    /// For functions whose driver spins with interrupts off until they have answered, as
    /// virtio-iommu's does.
    fn served_in_exit(&self) -> bool {
        false
    }

    /// Whether its driver gives it physical addresses, and maps nothing for it: a virtio function
    /// without `VIRTIO_F_ACCESS_PLATFORM`.
    fn takes_physical_addresses(&self) -> bool {
        false
    }

    /// Reads from a vendor-specific capability; `offset` counts from the capability's first byte.
    ///
    /// `None` leaves the answer to the configuration space.
    fn vendor_config_read(&mut self, capability: usize, offset: u8, data: &mut [u8]) -> Option<()> {
        let _ = (capability, offset, data);
        None
    }

    /// Sees a write into a vendor-specific capability after the configuration space has taken it.
    fn vendor_config_write(&mut self, capability: usize, offset: u8, data: &[u8]) {
        let _ = (capability, offset, data);
    }
}
