//! Configuration spaces as memory of the guest: reads are most of what a kernel does to them, and
//! none needs an answer that is not there already.

use super::System;
use crate::fabric::FunctionId;
use crate::memory::{Memory, MemoryError};
use crate::pci::{Bdf, CONFIG_SPACE_SIZE};

/// A configuration space that the guest's CPUs may read without an exit. Writes have to come to
/// [`System::config_write`].
#[derive(Debug, Clone)]
pub struct ConfigMapping {
    /// The function that it belongs to.
    pub bdf: Bdf,
    /// The memory that holds its 4 KiB.
    pub memory: Memory,
    /// Offset of its first byte in `memory`.
    pub offset: u64,
}

impl System {
    /// Keeps the values of all configuration spaces in memory that a VMM can map into its guest,
    /// read-only. Without this, [`System::config_mappings`] names none.
    ///
    /// # Errors
    /// When the host does not give the memory.
    pub fn share_config_spaces(&mut self) -> Result<(), MemoryError> {
        let size = CONFIG_SPACE_SIZE as u64;
        let memory = Memory::new("configuration spaces", size * self.states.len() as u64)?;
        for (state, index) in self.states.iter_mut().zip(0u64..) {
            state.config.mirror_to(memory.clone(), index * size);
        }
        self.publish();
        Ok(())
    }

    /// The configuration spaces that may be mapped now; may change with [`System::mapping_epoch`].
    /// Left out is where a read does more than read: a device answers for some registers itself, or
    /// posted writes are under way that the completion would push ahead of itself.
    pub fn config_mappings(&self) -> Vec<ConfigMapping> {
        let reached = self.fabric.map().by_bdf.iter();
        let mapping = |(&bdf, &function): (&Bdf, &FunctionId)| {
            let (memory, offset) = self.states[function.index()].config.mirror()?;
            let is_plain = !self.fabric.cpu_read_pushes(function);
            is_plain.then(|| ConfigMapping { bdf, memory: memory.clone(), offset })
        };
        reached.filter_map(mapping).collect()
    }
}
