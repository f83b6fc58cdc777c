//! Interrupt enables, masks, and what becomes due when a mask is lifted.

use super::Lab;
use super::slot::Model;
use crate::fabric::{FunctionId, Purpose};
use crate::pci::MsiMessage;

impl Lab {
    /// Copies the interrupt enables from the configuration space to where the fabric looks at them.
    pub(super) fn follow_interrupt_enables(&mut self, function: FunctionId) {
        let config = &self.slots[function.index()].config;
        let state = &mut self.fabric.interrupts[function.index()];
        state.msi = config.msi();
        state.msix_function = config.msix_function();
        self.deliver_pending(function);
    }

    /// Sends the MSI-X messages whose mask was lifted (PCIe 6.0, 6.1.4.6).
    pub(super) fn deliver_pending(&mut self, function: FunctionId) {
        loop {
            let state = &mut self.fabric.interrupts[function.index()];
            let due = state.msix.as_mut().and_then(|table| table.take_pending(state.msix_function));
            let Some((_, message)) = due else { return };
            self.send_message(function, message);
        }
    }

    /// A port's own interrupt, for its error services.
    pub(super) fn signal_port_interrupt(&mut self, function: FunctionId) {
        let slot = &mut self.slots[function.index()];
        if matches!(slot.model, Model::Bridge(_))
            && let Some(message) = slot.config.take_interrupt()
        {
            self.send_message(function, message);
        }
    }

    /// Emits a message-signalled interrupt: a memory write like any other.
    pub(super) fn send_message(&mut self, function: FunctionId, message: MsiMessage) {
        self.fabric.write_bytes(
            function,
            Purpose::Interrupt,
            message.address,
            &mut message.data.to_le_bytes(),
        );
    }
}
