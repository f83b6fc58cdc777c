//! Links between ports and what is plugged in below them (PCIe 6.0, 4.2 and 7.5.3.6 to 7.5.3.8),
//! and devices with several functions.

use super::System;
use super::function::FunctionState;
use crate::fabric::FunctionId;
use crate::pci::ConfigSpace;

/// Trains every link and marks the devices below bridges that have several functions, as at
/// power-on.
pub(super) fn connect(states: &mut [FunctionState]) {
    for index in 0..states.len() {
        let children = states[index].children.clone();
        mark_multi_function(states, &children);
        if !states[index].has_link_below() {
            continue;
        }
        if children.is_empty() {
            states[index].config.set_link(None);
        }
        train(states, FunctionId(u16::try_from(index).unwrap_or(u16::MAX)));
    }
}

/// Trains the link below `port` with what is there.
pub(super) fn train(states: &mut [FunctionState], port: FunctionId) {
    for child in states[port.index()].children.clone() {
        // A bridge is built before what is below it.
        if let Some((upper, lower)) = states.split_at_mut_checked(child.index())
            && let (Some(port), Some(child)) = (upper.get_mut(port.index()), lower.first_mut())
        {
            ConfigSpace::train_link(&mut port.config, &mut child.config);
        }
    }
}

/// PCIe 6.0, 7.5.1.1.9: software looks for further functions only where function 0 says that there
/// are any.
pub(super) fn mark_multi_function(states: &mut [FunctionState], bus: &[FunctionId]) {
    for id in bus {
        let FunctionState { device, function, .. } = states[id.index()];
        let mut others = bus.iter().map(|other| &states[other.index()]);
        if others.any(|other| other.device == device && other.function != function) {
            states[id.index()].config.set_multi_function();
        }
    }
}

impl System {
    /// Lets what is below a port follow its link: it runs at the same speed, and while the link is
    /// disabled it is held in reset.
    pub(super) fn follow_link(&mut self, port: FunctionId) {
        if !self.states[port.index()].has_link_below() {
            return;
        }
        let link = self.states[port.index()].config.link();
        for child in self.states[port.index()].children.clone() {
            self.states[child.index()].config.set_link(link);
        }
        self.reset_below(port);
    }
}
