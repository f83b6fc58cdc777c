//! The MSI-X capability (section 7.7.2). The table itself is [`MsixTable`].

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::{DescriptionError, FunctionDescription};
use crate::pci::msix_table::{MsixFunction, MsixTable};
use crate::pci::spec::{id, msix, msix::control};

/// Lays the capability out for a function that has vectors.
pub(in crate::pci) fn install(
    builder: &mut Builder,
    function: &FunctionDescription,
) -> Result<u16, DescriptionError> {
    let (vectors, bar) = (function.msix_vectors, function.msix_bar);
    let needed = MsixTable::bar_size(vectors);
    let room = function.bars.iter().any(|other| other.index == bar && other.size >= needed);
    if !room || vectors > msix::VECTORS_MAX {
        return Err(DescriptionError::MsixBar { vectors, bar, needed });
    }
    let offset = builder.capability(id::MSIX, msix::LENGTH)?;
    let registers = &mut builder.registers;
    registers.define_u16(offset + msix::CONTROL, vectors.saturating_sub(1));
    registers.writable_u16(offset + msix::CONTROL, control::ENABLE | control::FUNCTION_MASK);
    registers.define_u32(offset + msix::TABLE, u32::from(bar));
    let pending = MsixTable::pending_offset(vectors) | u32::from(bar);
    registers.define_u32(offset + msix::PENDING, pending);
    let watched = control::ENABLE | control::FUNCTION_MASK;
    builder.watch_u16(offset + msix::CONTROL, watched, ConfigEffects::MSIX);
    Ok(offset)
}

impl ConfigSpace {
    /// MSI-X Enable; false for a function without MSI-X.
    #[must_use]
    pub fn msix_enabled(&self) -> bool {
        self.msix_bit(control::ENABLE)
    }

    /// Function Mask: all vectors are masked; false for a function without MSI-X.
    #[must_use]
    pub fn msix_function_masked(&self) -> bool {
        self.msix_bit(control::FUNCTION_MASK)
    }

    /// Both of them, as [`MsixTable`] wants them.
    #[must_use]
    pub fn msix_function(&self) -> MsixFunction {
        MsixFunction { enabled: self.msix_enabled(), masked: self.msix_function_masked() }
    }

    fn msix_bit(&self, bit: u16) -> bool {
        let control = self.layout().msix.map(|offset| self.registers().u16(offset + msix::CONTROL));
        control.is_some_and(|control| control & bit != 0)
    }
}
