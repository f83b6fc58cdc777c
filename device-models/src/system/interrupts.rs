//! Interrupt enables, masks, and what becomes due when a mask is lifted.

use super::System;
use super::function::Model;
use crate::fabric::{FunctionId, Purpose, WriteOutcome};
use crate::pci::MsiMessage;

impl System {
    /// Copies the interrupt enables from the configuration space to where the fabric looks at them.
    pub(super) fn follow_interrupt_enables(&mut self, function: FunctionId) {
        let config = &self.states[function.index()].config;
        let (msi, msix) = (config.msi(), config.msix_function());
        self.fabric.set_interrupt_enables(function, msi, msix);
        self.deliver_pending(function);
    }

    /// Sends the MSI-X messages whose mask was lifted (PCIe 6.0, 6.1.4.6), as far as the function
    /// may send anything; the others stay pending. Whether one was sent.
    pub(super) fn deliver_pending(&mut self, function: FunctionId) -> bool {
        let mut any = false;
        while let Some((vector, message)) = self.fabric.take_pending_vector(function) {
            match self.send_message(function, message) {
                WriteOutcome::Posted { .. } => any = true,
                WriteOutcome::Retry { .. } | WriteOutcome::NotEmitted => {
                    self.fabric.hold_back_vector(function, vector);
                    break;
                }
            }
        }
        any
    }

    /// At a function's turn: tries once more what found no room before.
    pub(super) fn deliver_held_back(&mut self, function: FunctionId) -> bool {
        self.fabric.holds_back_vector(function) && self.deliver_pending(function)
    }

    /// A port's own interrupt, for its error services.
    pub(super) fn signal_port_interrupt(&mut self, function: FunctionId) {
        let state = &mut self.states[function.index()];
        if matches!(state.model, Model::Bridge(_))
            && let Some(message) = state.config.take_interrupt()
        {
            self.send_message(function, message);
        }
    }

    /// Emits a message-signalled interrupt: a memory write like any other.
    pub(super) fn send_message(
        &mut self,
        function: FunctionId,
        message: MsiMessage,
    ) -> WriteOutcome {
        let mut data = message.data.to_le_bytes();
        self.fabric.write_bytes(function, Purpose::Interrupt, message.address, &mut data)
    }
}
