//! Links between ports and what is plugged in below them (PCIe 6.0, 4.2 and 7.5.3.6 to 7.5.3.8), and devices with
//! several functions.

use super::Lab;
use super::slot::Slot;
use crate::fabric::FunctionId;
use crate::pci::ConfigSpace;

/// Trains every link and marks the devices below bridges that have several functions, as at power-on.
pub(super) fn connect(slots: &mut [Slot]) {
    for index in 0..slots.len() {
        let children = slots[index].children.clone();
        mark_multi_function(slots, &children);
        if !slots[index].has_link_below() {
            continue;
        }
        if children.is_empty() {
            slots[index].config.set_link(None);
        }
        train(slots, FunctionId(u16::try_from(index).unwrap_or(u16::MAX)));
    }
}

/// Trains the link below `port` with what is there.
pub(super) fn train(slots: &mut [Slot], port: FunctionId) {
    for child in slots[port.index()].children.clone() {
        // A bridge is built before what is below it.
        if let Some((upper, lower)) = slots.split_at_mut_checked(child.index())
            && let (Some(port), Some(child)) = (upper.get_mut(port.index()), lower.first_mut())
        {
            ConfigSpace::train_link(&mut port.config, &mut child.config);
        }
    }
}

/// PCIe 6.0, 7.5.1.1.9: software looks for further functions only where function 0 says that there are any.
pub(super) fn mark_multi_function(slots: &mut [Slot], bus: &[FunctionId]) {
    for id in bus {
        let Slot { device, function, .. } = slots[id.index()];
        let mut others = bus.iter().map(|other| &slots[other.index()]);
        if others.any(|other| other.device == device && other.function != function) {
            slots[id.index()].config.set_multi_function();
        }
    }
}

impl Lab {
    /// Lets what is below a port follow its link: it runs at the same speed, and while the link is disabled it is
    /// held in reset.
    pub(super) fn follow_link(&mut self, port: FunctionId) {
        if !self.slots[port.index()].has_link_below() {
            return;
        }
        let link = self.slots[port.index()].config.link();
        for child in self.slots[port.index()].children.clone() {
            self.slots[child.index()].config.set_link(link);
        }
        self.reset_below(port);
    }
}
