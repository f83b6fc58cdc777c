//! The interrupt of a port's services: one message for all of them (sections 6.2.4.1.2 and
//! 6.7.3.4).

use super::msi::MsiMessage;
use crate::pci::config::ConfigSpace;

bitflags::bitflags! {
    /// What a port interrupts for. Each is a condition of its own: a message is sent when one
    /// rises, also while another holds.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(in crate::pci) struct Services: u8 {
        /// Root Error Status has something that Root Error Command wants to hear of.
        const ERRORS = 1 << 0;
        /// Slot Status has something that Slot Control wants to hear of.
        const HOT_PLUG = 1 << 1;
    }
}

impl ConfigSpace {
    /// The interrupt of the port's services, once per rise of a condition: enabled and signalled in
    /// the service's own registers, MSI enabled and unmasked.
    pub fn take_interrupt(&mut self) -> Option<MsiMessage> {
        if !self.interrupt_due() {
            return None;
        }
        self.asserted = self.signalled();
        self.msi().map(|msi| MsiMessage { address: msi.address, data: msi.data.into() })
    }

    /// Whether a condition has risen and its interrupt was not taken yet.
    pub(in crate::pci) fn interrupt_due(&mut self) -> bool {
        let Some(msi) = self.msi().filter(|msi| msi.enabled) else {
            self.asserted = Services::empty();
            return false;
        };
        let signalled = self.signalled();
        self.set_msi_pending(msi.masked && !(signalled - self.asserted).is_empty());
        let condition = if msi.masked { Services::empty() } else { signalled };
        self.asserted &= condition;
        !(condition - self.asserted).is_empty()
    }

    fn signalled(&self) -> Services {
        let mut signalled = Services::empty();
        signalled.set(Services::ERRORS, self.error_signalled());
        signalled.set(Services::HOT_PLUG, self.hot_plug_signalled());
        signalled
    }
}
