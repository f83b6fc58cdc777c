//! Devices that are pulled out of their slots, announced or not, and plugged in again (PCIe 6.0,
//! 6.7).
//!
//! A device is pulled between two transactions: its own outstanding reads are forgotten, reads that
//! wait for it end in a time-out, posted writes that were under way to it are lost and those that
//! had left it arrive. Its BDF and addresses lead to a link that is down. It comes back as
//! after power-on.

use super::links;
use super::{System, function::FunctionState};
use crate::endpoint::ResetKind;
use crate::fabric::{FunctionId, Input};
use crate::pci::Bdf;

/// Why nothing was pulled or plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    /// The function is not a port with a device below.
    #[error(
        "{0} is not a root port or downstream port above a device; name the port, not the device"
    )]
    NoSlot(Bdf),
    /// The slot is empty as it is.
    #[error("nothing is in the slot of {0}")]
    Empty(Bdf),
    /// The slot is occupied as it is.
    #[error("the slot of {0} is occupied")]
    Occupied(Bdf),
}

impl System {
    /// Pulls everything below the port at `port`, without notice.
    ///
    /// The port notices in any case (link and presence are gone); it notifies software if its slot
    /// has hot-plug.
    ///
    /// # Errors
    /// When there is no such slot, or it is empty.
    pub fn unplug(&mut self, port: Bdf) -> Result<(), PlugError> {
        let function = self.slot_at(port)?;
        if self.states[function.index()].emptied {
            return Err(PlugError::Empty(port));
        }
        self.input(&Input::Unplug { port });
        self.states[function.index()].emptied = true;
        self.states[function.index()].config.change_link(None);
        for child in self.states[function.index()].children.clone() {
            self.states[child.index()].config.set_link(None);
        }
        self.hold_below(function, ResetKind::Cold);
        self.publish();
        self.signal_port_interrupt(function);
        Ok(())
    }

    /// Plugs in again what was pulled out of the slot of the port at `port`.
    ///
    /// # Errors
    /// When there is no such slot, or it is occupied.
    pub fn plug(&mut self, port: Bdf) -> Result<(), PlugError> {
        let function = self.slot_at(port)?;
        if !self.states[function.index()].emptied {
            return Err(PlugError::Occupied(port));
        }
        self.input(&Input::Plug { port });
        self.states[function.index()].emptied = false;
        self.forget_bus_numbers(function);
        links::train(&mut self.states, function);
        self.publish();
        self.signal_port_interrupt(function);
        Ok(())
    }

    /// A device that comes back has captured no bus number yet.
    fn forget_bus_numbers(&mut self, port: FunctionId) {
        let mut below = self.states[port.index()].children.clone();
        while let Some(function) = below.pop() {
            let state = &mut self.states[function.index()];
            state.captured = None;
            below.extend_from_slice(&state.children);
        }
    }

    fn slot_at(&self, port: Bdf) -> Result<FunctionId, PlugError> {
        let above_a_device =
            |state: &FunctionState| state.has_link_below() && !state.children.is_empty();
        self.by_bdf(port)
            .filter(|function| above_a_device(&self.states[function.index()]))
            .ok_or(PlugError::NoSlot(port))
    }
}
