//! MSI with one vector, 64-bit address and mask (section 7.7.1), for the services of a port.

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::DescriptionError;
use crate::pci::spec::{id, msi, msi::control};

/// A message-signalled interrupt: a memory write of one dword.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// Bus address, a multiple of 4.
    pub address: u64,
    /// The dword.
    pub data: u32,
}

/// The MSI capability as software has programmed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MsiState {
    /// MSI Enable.
    pub enabled: bool,
    /// The mask bit of the only vector.
    pub masked: bool,
    /// Message Address.
    pub address: u64,
    /// Message Data, 16 bits; the upper half of the dword is 0.
    pub data: u16,
}

impl MsiState {
    /// Whether this address and data are an interrupt that the function may send now.
    #[must_use]
    pub fn owns(&self, address: u64, data: u32) -> bool {
        self.enabled && !self.masked && self.address == address && u32::from(self.data) == data
    }
}

/// Lays the capability out.
pub(in crate::pci) fn install(builder: &mut Builder) -> Result<u16, DescriptionError> {
    let offset = builder.capability(id::MSI, msi::LENGTH)?;
    let registers = &mut builder.registers;
    let fixed = control::ADDRESS_64_BIT | control::PER_VECTOR_MASKING;
    registers.define_u16(offset + msi::CONTROL, fixed);
    // Multiple Message Enable is RW although only one message is offered; it is not looked at.
    let writable = control::ENABLE | control::MULTIPLE_ENABLE_MASK;
    registers.writable_u16(offset + msi::CONTROL, writable);
    registers.writable_u32(offset + msi::ADDRESS, !3);
    registers.writable_u32(offset + msi::ADDRESS_UPPER, u32::MAX);
    registers.writable_u16(offset + msi::DATA, u16::MAX);
    registers.writable_u32(offset + msi::MASK, 1);
    builder.watch_u16(offset + msi::CONTROL, control::ENABLE, ConfigEffects::MSI);
    for register in [msi::ADDRESS, msi::ADDRESS_UPPER, msi::DATA, msi::MASK] {
        builder.watch_u32(offset + register, u32::MAX, ConfigEffects::MSI);
    }
    Ok(offset)
}

impl ConfigSpace {
    /// The MSI capability's state; `None` for a function without it.
    #[must_use]
    pub fn msi(&self) -> Option<MsiState> {
        let offset = self.layout().msi?;
        let registers = self.registers();
        let low = u64::from(registers.u32(offset + msi::ADDRESS));
        let high = u64::from(registers.u32(offset + msi::ADDRESS_UPPER));
        Some(MsiState {
            enabled: registers.u16(offset + msi::CONTROL) & control::ENABLE != 0,
            masked: registers.u32(offset + msi::MASK) & 1 != 0,
            address: high << 32 | low,
            data: registers.u16(offset + msi::DATA),
        })
    }

    /// Sets or clears the pending bit: an interrupt is due but masked (section 7.7.1.8).
    pub(in crate::pci) fn set_msi_pending(&mut self, pending: bool) {
        if let Some(offset) = self.layout().msi {
            self.registers_mut().put_u32(offset + msi::PENDING, u32::from(pending));
        }
    }
}
