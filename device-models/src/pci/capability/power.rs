//! Power management (section 7.5.2): D0 and D3hot, without a reset in between.

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::DescriptionError;
use crate::pci::spec::{id, power, power::control};

/// The power state of a function. D1 and D2 are optional and not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PowerState {
    /// Working.
    D0,
    /// Only configuration requests are served (section 5.3.1.4.1).
    D3Hot,
}

/// Lays the capability out. Ports say that they can send PME, because real ones do.
pub(in crate::pci) fn install(builder: &mut Builder, pme: bool) -> Result<u16, DescriptionError> {
    let offset = builder.capability(id::POWER_MANAGEMENT, power::LENGTH)?;
    let pme_states = if pme { power::PME_D0_D3 } else { 0 };
    let registers = &mut builder.registers;
    registers.define_u16(offset + power::CAPABILITIES, power::VERSION_3 | pme_states);
    let control = offset + power::CONTROL;
    registers.define_u16(control, control::NO_SOFT_RESET);
    registers
        .writable_u16(control, control::STATE_MASK | if pme { control::PME_ENABLE } else { 0 });
    if pme {
        registers.clearable_u16(control, control::PME_STATUS);
        registers.sticky_u16(control, control::PME_ENABLE | control::PME_STATUS);
    }
    builder.watch_u16(control, control::STATE_MASK, ConfigEffects::POWER);
    Ok(offset)
}

impl ConfigSpace {
    /// The power state; a function without the capability is always in D0.
    #[must_use]
    pub fn power_state(&self) -> PowerState {
        match self.layout().power {
            Some(offset) if self.power_bits(offset) == control::STATE_D3 => PowerState::D3Hot,
            _ => PowerState::D0,
        }
    }

    fn power_bits(&self, offset: u16) -> u16 {
        self.registers().u16(offset + power::CONTROL) & control::STATE_MASK
    }

    /// Undoes a write of D1 or D2: "if software attempts to write an unsupported, optional state
    /// to this field, the write operation must complete normally; however, the data is discarded
    /// and no state change occurs" (section 7.5.2.2).
    pub(in crate::pci) fn discard_unsupported_power_state(&mut self, before: PowerState) {
        let Some(offset) = self.layout().power else { return };
        if ![control::STATE_D0, control::STATE_D3].contains(&self.power_bits(offset)) {
            let state = match before {
                PowerState::D0 => control::STATE_D0,
                PowerState::D3Hot => control::STATE_D3,
            };
            self.registers_mut().modify_u16(offset + power::CONTROL, control::STATE_MASK, state);
        }
    }
}
