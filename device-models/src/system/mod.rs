//! The system: every function, the fabric between them, the IOMMU and the checker, as one state
//! machine.
//!
//! A VMM, a test or a replay drives it through configuration and register accesses and
//! [`System::step`]. It has no threads and no clock: the same inputs in the same order give the
//! same transactions and findings. A caller that shares it between threads puts one lock around it;
//! that lock is the guard under which a translation is used.

mod build;
mod config;
mod config_mapping;
mod cpu;
mod delay;
mod errors;
mod firmware;
mod function;
mod guest_mapping;
mod hot_plug;
mod interrupts;
mod links;
mod reset;
mod scene;
mod schedule;
mod topology;
mod witness;

use std::sync::Arc;

pub use build::BuildError;
pub use config_mapping::ConfigMapping;
pub use delay::DelayError;
pub use hot_plug::PlugError;
pub use scene::{DmaMappings, Listed};
pub use topology::{Function, FunctionKind, HostBridge, Topology};

use crate::AddressRange;
use crate::fabric::{
    AddressMap, Fabric, FunctionId, InterruptPolicy, MapChange, Observer, RootComplex, Stats,
};
use crate::iommu::VirtioIommu;
use function::FunctionState;

/// A running PCIe system. See the module.
#[derive(Debug)]
pub struct System {
    states: Vec<FunctionState>,
    roots: Vec<Root>,
    fabric: Fabric,
    withheld: guest_mapping::Withheld,
    ram: Vec<AddressRange>,
    /// Index of the function that has its turn.
    turn: usize,
    /// Turns that it has had in a row.
    turns: u8,
}

/// A root bus, and what its host bridge is for routing.
#[derive(Debug)]
struct Root {
    first_bus: u8,
    routing: RootComplex,
}

impl System {
    /// The address map that is in force; a new one has a higher epoch. The memory BARs that a VMM
    /// maps into its guest are [`System::guest_mappings`], and the configuration spaces
    /// [`System::config_mappings`].
    pub fn address_map(&self) -> &Arc<AddressMap> {
        self.fabric.map()
    }

    /// What went where since power-on.
    pub fn stats(&self) -> &Stats {
        self.fabric.stats()
    }

    /// Request TLPs issued since power-on.
    pub fn transactions(&self) -> u64 {
        self.fabric.sequence()
    }

    /// The function called `name`.
    pub fn function(&self, name: &str) -> Option<FunctionId> {
        self.address_map().functions().find(|(_, node)| &*node.name == name).map(|(id, _)| id)
    }

    /// The virtio-iommu, if the system has one: for its counters.
    pub fn virtio_iommu(&mut self) -> Option<&mut VirtioIommu> {
        self.fabric.virtio_iommu()
    }

    /// Lets `observer` see everything from now on, after those that were there before.
    pub fn add_observer(&mut self, observer: Box<dyn Observer>) {
        self.fabric.add_observer(observer);
    }

    /// Tells the observers, behind each transaction, which parts of it would have ended in another
    /// way with `change`: ACS controls, or how far host bridges take requests between functions.
    /// Nothing else may change in the map. The system itself goes on as it is.
    pub fn set_what_if(&mut self, change: MapChange) {
        self.fabric.set_what_if(change);
    }

    /// From here on bulk data stays where it is, as long as there are observers and none wants its bytes: for replays,
    /// whose memory does not hold what the guest's did. Requests are checked, and seen, as before.
    pub fn leave_data(&mut self) {
        self.fabric.leave_data();
    }

    /// What to do with interrupt writes that are not a vector of their requester.
    pub fn set_interrupt_policy(&mut self, policy: InterruptPolicy) {
        self.fabric.set_interrupt_policy(policy);
    }
}
