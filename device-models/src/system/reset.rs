//! Resets (PCIe 6.0, 6.6).

use super::System;
use crate::endpoint::{Progress, ResetKind};
use crate::fabric::FunctionId;

impl System {
    /// A function level reset begins: nothing is issued any more, nothing answers, completions that
    /// are under way will be dropped. It ends at the function's next turn, or when software next
    /// writes to its configuration space.
    pub(super) fn begin_reset(&mut self, function: FunctionId) {
        let state = &mut self.states[function.index()];
        state.resetting = true;
        state.config.reset(ResetKind::FunctionLevel);
        self.forget(function, ResetKind::FunctionLevel);
    }

    /// A bridge resets everything below it while its Secondary Bus Reset bit is set or its link is
    /// disabled (PCIe 6.0, 6.6.1).
    pub(super) fn reset_below(&mut self, bridge: FunctionId) {
        if self.states[bridge.index()].config.holds_below_in_reset() {
            self.hold_below(bridge, ResetKind::Hot);
        }
    }

    /// Resets everything below a bridge; that ends when the bridge does not hold it in reset any
    /// more.
    pub(super) fn hold_below(&mut self, bridge: FunctionId, kind: ResetKind) {
        let mut below = self.states[bridge.index()].children.clone();
        while let Some(function) = below.pop() {
            below.extend_from_slice(&self.states[function.index()].children);
            self.states[function.index()].resetting = true;
            // It cannot be reached any more; the new map, which comes next, leaves out its
            // configuration space too.
            self.states[function.index()].config.show(false);
            self.states[function.index()].config.reset(kind);
            self.forget(function, kind);
            self.follow_interrupt_enables(function);
        }
    }

    fn forget(&mut self, function: FunctionId, kind: ResetKind) {
        self.fabric.reset_function(function, kind);
        if let Some(endpoint) = self.states[function.index()].endpoint() {
            endpoint.reset(kind);
        }
    }

    /// Ends the reset of a function, unless a bridge above holds it in reset.
    pub(super) fn finish_reset(&mut self, function: FunctionId) -> Progress {
        let held = self
            .fabric
            .map()
            .path_up(function)
            .map(|bridge| &self.states[bridge.index()])
            .any(|bridge| bridge.emptied || bridge.config.holds_below_in_reset());
        if !self.states[function.index()].resetting || held {
            return Progress::Idle;
        }
        self.states[function.index()].resetting = false;
        self.publish();
        Progress::Worked
    }

    /// Transactions Pending of the Device Status register (PCIe 6.0, 7.5.3.5).
    pub(super) fn update_transactions_pending(&mut self, function: FunctionId) {
        let pending = self.fabric.has_outstanding_reads(function);
        self.states[function.index()].config.set_transactions_pending(pending);
    }
}
