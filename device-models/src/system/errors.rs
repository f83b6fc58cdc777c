//! Error messages on their way to the root port (PCIe 6.0, 6.2.4 and 6.2.6).

use super::System;
use crate::fabric::{DetectedError, FunctionId};
use crate::pci::{RequestKind, Side};

impl System {
    /// Logs errors where they were detected, and lets the root port notify the guest.
    pub(super) fn log_errors(&mut self) {
        for (requester, abort) in self.fabric.take_aborts() {
            self.states[requester.index()].config.record_abort(abort, Side::Primary);
        }
        for error in self.fabric.take_errors() {
            self.log_error(&error);
        }
    }

    fn log_error(&mut self, DetectedError { detector, error, header }: &DetectedError) {
        let config = &mut self.states[detector.index()].config;
        let Some(message) = config.record_uncorrectable(*error, RequestKind::Posted, *header)
        else {
            return;
        };
        let source = self.fabric.map().node(*detector).requester;
        let above: Vec<FunctionId> = self.fabric.map().path_up(*detector).collect();
        let root_port = match above.split_last() {
            None => *detector,
            Some((root_port, switches)) => {
                let mut path = switches.iter().chain([root_port]);
                if !path.all(|bridge| self.states[bridge.index()].config.forward_error(message)) {
                    return;
                }
                *root_port
            }
        };
        let due = self.states[root_port.index()].config.receive_error(message, source);
        if let Some(message) = due {
            self.send_message(root_port, message);
        }
    }
}
