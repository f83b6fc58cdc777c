//! Slots and their hot-plug registers (sections 6.7 and 7.5.3.9 to 7.5.3.11): no button, no
//! indicator, no power controller and no latch, as in a slot for drives that are simply pulled.

use crate::pci::config::{Builder, ConfigSpace};
use crate::pci::description::{BridgeDescription, Link};
use crate::pci::spec::pcie::{self, link_status, slot};

/// Lays out the slot registers within the capability at `offset`.
pub(super) fn install(builder: &mut Builder, offset: u16, bridge: &BridgeDescription) {
    let number = u32::from(bridge.slot_number & 0x1fff) << slot::NUMBER_SHIFT;
    let capabilities = number | slot::NO_COMMAND_COMPLETED;
    let registers = &mut builder.registers;
    if !bridge.hot_plug {
        // Nothing to control, only a number and presence.
        registers.define_u32(offset + pcie::SLOT_CAPABILITIES, capabilities);
        return;
    }
    let capabilities = capabilities | slot::HOT_PLUG_CAPABLE | slot::HOT_PLUG_SURPRISE;
    registers.define_u32(offset + pcie::SLOT_CAPABILITIES, capabilities);
    let enables = slot::PRESENCE_CHANGED_ENABLE
        | slot::LINK_STATE_CHANGED_ENABLE
        | slot::HOT_PLUG_INTERRUPT_ENABLE;
    registers.writable_u16(offset + pcie::SLOT_CONTROL, enables);
    let events = slot::PRESENCE_CHANGED | slot::LINK_STATE_CHANGED;
    registers.clearable_u16(offset + pcie::SLOT_STATUS, events);
}

/// What a slot shows of its occupant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pci) struct Occupancy {
    present: bool,
    link_active: bool,
}

impl ConfigSpace {
    /// Something was plugged into the slot of this port and the link came up, or it went away and
    /// took the link along (`None`): like [`set_link`](Self::set_link), but a slot with hot-plug
    /// latches the events (section 6.7.3). Ask [`take_interrupt`](Self::take_interrupt) afterwards.
    pub fn change_link(&mut self, link: Option<Link>) {
        let before = self.occupancy();
        self.set_link(link);
        self.latch_slot_events(before);
    }

    pub(in crate::pci) fn occupancy(&self) -> Option<Occupancy> {
        let offset = self.hot_plug_slot()?;
        let link = self.registers().u16(offset + pcie::LINK_STATUS);
        let status = self.registers().u16(offset + pcie::SLOT_STATUS);
        Some(Occupancy {
            present: status & slot::PRESENCE != 0,
            link_active: link & link_status::DATA_LINK_LAYER_ACTIVE != 0,
        })
    }

    /// Sets the event bits for what is no longer as it was.
    pub(in crate::pci) fn latch_slot_events(&mut self, before: Option<Occupancy>) {
        let (Some(offset), Some(before), Some(now)) =
            (self.hot_plug_slot(), before, self.occupancy())
        else {
            return;
        };
        let mut events = 0;
        if before.present != now.present {
            events |= slot::PRESENCE_CHANGED;
        }
        if before.link_active != now.link_active {
            events |= slot::LINK_STATE_CHANGED;
        }
        self.registers_mut().modify_u16(offset + pcie::SLOT_STATUS, events, events);
    }

    /// Whether an event that software wants to hear of has been latched and hot-plug interrupts are
    /// on (section 6.7.3.4).
    pub(super) fn hot_plug_signalled(&self) -> bool {
        let Some(offset) = self.hot_plug_slot() else { return false };
        let control = self.registers().u16(offset + pcie::SLOT_CONTROL);
        let status = self.registers().u16(offset + pcie::SLOT_STATUS);
        control & slot::HOT_PLUG_INTERRUPT_ENABLE != 0
            && [
                (slot::PRESENCE_CHANGED_ENABLE, slot::PRESENCE_CHANGED),
                (slot::LINK_STATE_CHANGED_ENABLE, slot::LINK_STATE_CHANGED),
            ]
            .into_iter()
            .any(|(enable, event)| control & enable != 0 && status & event != 0)
    }

    /// The PCI Express capability of a port whose slot has hot-plug.
    fn hot_plug_slot(&self) -> Option<u16> {
        let offset = self.layout().pcie.filter(|_| self.port_kind().is_some())?;
        let capabilities = self.registers().u32(offset + pcie::SLOT_CAPABILITIES);
        (capabilities & slot::HOT_PLUG_CAPABLE != 0).then_some(offset)
    }
}
