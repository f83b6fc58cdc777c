//! Advanced Error Reporting of a root port (sections 6.2.4.1, 7.8.4.9 to 7.8.4.11): error
//! messages arrive here and become an interrupt.

use super::errors::ErrorMessage;
use super::msi::MsiMessage;
use crate::pci::address::Bdf;
use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::PortKind;
use crate::pci::spec::aer::{self, root_command, root_status};

/// The registers that a root port has beyond the others.
pub(super) fn install(builder: &mut Builder, offset: u16) {
    builder.registers.writable_u32(offset + aer::ROOT_COMMAND, root_command::ALL);
    builder.registers.clearable_u32(offset + aer::ROOT_STATUS, root_status::ALL);
    builder.registers.sticky_u32(offset + aer::ROOT_STATUS, root_status::ALL);
    builder.registers.sticky_u32(offset + aer::ERROR_SOURCE, u32::MAX);
    builder.watch_u32(offset + aer::ROOT_COMMAND, root_command::ALL, ConfigEffects::AER);
    builder.watch_u32(offset + aer::ROOT_STATUS, root_status::ALL, ConfigEffects::AER);
}

impl ConfigSpace {
    /// An error message reached this root port: from below through
    /// [`forward_error`](Self::forward_error), or its own. Records it and gives the interrupt to
    /// raise, if one is due. Nothing happens at other functions.
    pub fn receive_error(&mut self, message: ErrorMessage, from: Bdf) -> Option<MsiMessage> {
        let offset = self.root_aer()?;
        let registers = self.registers_mut();
        let before = registers.u32(offset + aer::ROOT_STATUS);
        let [cor_low, cor_high, unc_low, unc_high] =
            registers.u32(offset + aer::ERROR_SOURCE).to_le_bytes();
        let [id_low, id_high] = from.0.to_le_bytes();
        let (new, source) = if message == ErrorMessage::Correctable {
            if before & root_status::CORRECTABLE != 0 {
                (root_status::MULTIPLE_CORRECTABLE, None)
            } else {
                (root_status::CORRECTABLE, Some([id_low, id_high, unc_low, unc_high]))
            }
        } else {
            let fatal = message == ErrorMessage::Fatal;
            let kind = if fatal { root_status::FATAL } else { root_status::NON_FATAL };
            if before & root_status::UNCORRECTABLE != 0 {
                (kind | root_status::MULTIPLE_UNCORRECTABLE, None)
            } else {
                let first = if fatal { root_status::FIRST_IS_FATAL } else { 0 };
                let source = [cor_low, cor_high, id_low, id_high];
                (kind | root_status::UNCORRECTABLE | first, Some(source))
            }
        };
        registers.put_u32(offset + aer::ROOT_STATUS, before | new);
        if let Some(source) = source {
            registers.put(offset + aer::ERROR_SOURCE, source);
        }
        self.take_interrupt()
    }

    /// Whether Root Error Command wants to hear of something that Root Error Status has.
    pub(super) fn error_signalled(&self) -> bool {
        let Some(offset) = self.root_aer() else { return false };
        let status = self.registers().u32(offset + aer::ROOT_STATUS);
        let command = self.registers().u32(offset + aer::ROOT_COMMAND);
        [
            (root_command::CORRECTABLE, root_status::CORRECTABLE),
            (root_command::NON_FATAL, root_status::NON_FATAL),
            (root_command::FATAL, root_status::FATAL),
        ]
        .into_iter()
        .any(|(enable, received)| command & enable != 0 && status & received != 0)
    }

    fn root_aer(&self) -> Option<u16> {
        self.layout().aer.filter(|_| self.port_kind() == Some(PortKind::RootPort))
    }
}
