//! Memory BARs as memory of the guest, as long as nothing has to see its CPUs' accesses to them.

use super::System;
use crate::fabric::{FunctionId, GuestMapping};
use crate::pci::Bdf;

/// Memory BARs that the VMM keeps out of the guest's memory.
#[derive(Debug, Default)]
pub(super) struct Withheld {
    functions: Vec<FunctionId>,
    /// Grows with each change.
    generation: u64,
}

impl System {
    /// The memory BARs that a VMM maps into its guest now; it may ask again with each new
    /// [`System::mapping_epoch`]. Left out are those of a function to which posted writes may be
    /// under way, which a CPU's access would push: such accesses have to come to
    /// [`System::mmio_read`] and [`System::mmio_write`].
    pub fn guest_mappings(&self) -> Vec<GuestMapping> {
        self.mappings(false)
    }

    /// The memory BARs that [`System::guest_mappings`] leaves out at present.
    pub fn withheld_mappings(&self) -> Vec<GuestMapping> {
        self.mappings(true)
    }

    /// Changes whenever [`System::guest_mappings`] or [`System::config_mappings`] may have changed.
    pub fn mapping_epoch(&self) -> u64 {
        // Each of them only grows.
        self.fabric.map().epoch + self.fabric.delayed_generation() + self.withheld.generation
    }

    /// Takes the memory BARs of the function at `bdf` out of [`System::guest_mappings`] until
    /// [`System::release`]: CPUs that still reach them directly would push nothing, so a VMM has
    /// them out of its guest before it delays a path to them. None: no function has this BDF.
    pub fn withhold(&mut self, bdf: Bdf) -> Option<FunctionId> {
        let function = self.by_bdf(bdf)?;
        self.withheld.functions.push(function);
        self.withheld.generation += 1;
        Some(function)
    }

    /// Takes back one [`System::withhold`].
    pub fn release(&mut self, function: FunctionId) {
        let place = self.withheld.functions.iter().position(|&held| held == function);
        if let Some(place) = place {
            self.withheld.functions.swap_remove(place);
            self.withheld.generation += 1;
        }
    }

    fn mappings(&self, withheld: bool) -> Vec<GuestMapping> {
        let mut mappings = self.fabric.map().guest_mappings();
        let is_withheld = |function| {
            self.fabric.is_delayed_to(function) || self.withheld.functions.contains(&function)
        };
        mappings.retain(|mapping| is_withheld(mapping.function) == withheld);
        mappings
    }
}
