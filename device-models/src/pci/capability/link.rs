//! The link registers of the PCI Express capability (sections 7.5.3.6 to 7.5.3.8 and 7.5.3.18 to
//! 7.5.3.20), and the Secondary PCI Express capability that 8.0 GT/s brings along.

use crate::pci::config::{Builder, ConfigEffects, ConfigSpace};
use crate::pci::description::{BridgeDescription, DescriptionError, Link};
use crate::pci::spec::extended_id;
use crate::pci::spec::pcie::{
    self, link_2, link_capabilities, link_control, link_status, secondary, slot,
};

/// From this speed code on lanes are equalized, which has registers of its own.
const EQUALIZED_SPEED: u8 = 3;

/// Lays out the link registers within the capability at `offset`. No power management of the link
/// is offered (ASPM), which the ASPM Optionality Compliance bit makes legal.
pub(super) fn install(
    builder: &mut Builder,
    offset: u16,
    link: Link,
    port: Option<&BridgeDescription>,
) -> Result<(), DescriptionError> {
    if !(1..=5).contains(&link.speed) || ![1, 2, 4, 8, 16].contains(&link.lanes) {
        return Err(DescriptionError::Link(link));
    }
    let downstream = port.is_some_and(|port| port.kind.is_downstream());
    let registers = &mut builder.registers;
    let reporting = link_capabilities::DATA_LINK_LAYER_ACTIVE_REPORTING
        | link_capabilities::BANDWIDTH_NOTIFICATION;
    let number = u32::from(port.map_or(0, |port| port.port_number));
    registers.define_u32(
        offset + pcie::LINK_CAPABILITIES,
        u32::from(link.speed)
            | u32::from(link.lanes) << link_capabilities::WIDTH_SHIFT
            | link_capabilities::ASPM_OPTIONALITY
            | number << link_capabilities::PORT_NUMBER_SHIFT
            | if downstream { reporting } else { 0 },
    );
    let kept = link_control::ASPM_MASK
        | link_control::READ_COMPLETION_BOUNDARY
        | link_control::COMMON_CLOCK
        | link_control::EXTENDED_SYNCH;
    let mut writable =
        link_control::ASPM_MASK | link_control::COMMON_CLOCK | link_control::EXTENDED_SYNCH;
    let control = offset + pcie::LINK_CONTROL;
    if port.is_none() {
        writable |= link_control::READ_COMPLETION_BOUNDARY;
    }
    if downstream {
        writable |= link_control::LINK_DISABLE
            | link_control::BANDWIDTH_MANAGEMENT_INTERRUPT
            | link_control::AUTONOMOUS_BANDWIDTH_INTERRUPT;
        builder.trigger_u16(control, link_control::RETRAIN, ConfigEffects::LINK);
        builder.watch_u16(control, link_control::LINK_DISABLE, ConfigEffects::LINK);
        let notifications = link_status::BANDWIDTH_MANAGEMENT | link_status::AUTONOMOUS_BANDWIDTH;
        builder.registers.clearable_u16(offset + pcie::LINK_STATUS, notifications);
    }
    let registers = &mut builder.registers;
    registers.writable_u16(control, writable);
    registers.kept_by_function_reset_u16(control, kept);
    registers.define_u16(offset + pcie::LINK_STATUS, link_status::SLOT_CLOCK);

    let speeds = (1u32 << link.speed) - 1;
    registers.define_u32(offset + pcie::LINK_CAPABILITIES_2, speeds << link_2::SPEEDS_SHIFT);
    registers.define_u16(offset + pcie::LINK_CONTROL_2, link.speed.into());
    registers.writable_u16(offset + pcie::LINK_CONTROL_2, link_2::TARGET_SPEED_MASK);
    registers.sticky_u16(offset + pcie::LINK_CONTROL_2, link_2::TARGET_SPEED_MASK);
    if link.speed >= EQUALIZED_SPEED {
        registers.define_u16(offset + pcie::LINK_STATUS_2, link_2::EQUALIZED);
    }
    Ok(())
}

/// Lays out Secondary PCI Express (section 7.7.3), required from 8.0 GT/s on: equalization presets
/// per lane, all of them preset 0.
pub(in crate::pci) fn install_secondary(
    builder: &mut Builder,
    link: Link,
) -> Result<(), DescriptionError> {
    if link.speed >= EQUALIZED_SPEED {
        let length = secondary::LANE_EQUALIZATION + 2 * u16::from(link.lanes);
        builder.extended(extended_id::SECONDARY_PCI_EXPRESS, 1, length)?;
    }
    Ok(())
}

impl ConfigSpace {
    /// The fastest and widest link this function supports; `None` for one without a link.
    #[must_use]
    pub fn supported_link(&self) -> Option<Link> {
        let capabilities = self.registers().u32(self.layout().pcie? + pcie::LINK_CAPABILITIES);
        let [low, high, ..] = (capabilities & 0x3ff).to_le_bytes();
        let lanes = low >> 4 | high << 4;
        (lanes != 0).then_some(Link { speed: low & 0xf, lanes })
    }

    /// The link as it runs now: below a root port or downstream port, above any other function.
    /// `None` while it is down or disabled.
    #[must_use]
    pub fn link(&self) -> Option<Link> {
        let offset = self.layout().pcie?;
        let control = self.registers().u16(offset + pcie::LINK_CONTROL);
        if control & link_control::LINK_DISABLE != 0 {
            return None;
        }
        let target = self.registers().u16(offset + pcie::LINK_CONTROL_2);
        let target = target.to_le_bytes()[0] & 0xf;
        self.trained_link().map(|link| Link { speed: link.speed.min(target.max(1)), ..link })
    }

    /// Whether everything below this bridge is held in reset: by Secondary Bus Reset, or because
    /// the link is disabled (section 6.6.1).
    #[must_use]
    pub fn holds_below_in_reset(&self) -> bool {
        let Some(offset) = self.layout().pcie.filter(|_| self.port_kind().is_some()) else {
            return false;
        };
        let control = self.registers().u16(offset + pcie::LINK_CONTROL);
        self.secondary_bus_reset() || control & link_control::LINK_DISABLE != 0
    }

    /// Sets what is at the other end: `None` for an empty slot.
    pub fn set_link(&mut self, link: Option<Link>) {
        self.set_trained_link(link);
        self.refresh_link();
    }

    /// Trains the link between a downstream-facing port and the function below it, at the fastest
    /// speed and largest width that both support. A slot with hot-plug latches what that changes.
    pub fn train_link(port: &mut Self, below: &mut Self) {
        let both = port.supported_link().zip(below.supported_link());
        let link = both.map(|(port, below)| Link {
            speed: port.speed.min(below.speed),
            lanes: port.lanes.min(below.lanes),
        });
        port.change_link(link);
        // The port has its say: a lower target speed, a link that is disabled.
        below.set_link(port.link());
    }

    /// Brings Link Status and Slot Status up to date with the state of the link.
    pub(in crate::pci) fn refresh_link(&mut self) {
        let Some(offset) = self.layout().pcie else { return };
        if self.supported_link().is_none() {
            return;
        }
        let downstream = self.port_kind().is_some_and(|kind| kind.is_downstream());
        let (present, link) = (self.trained_link().is_some(), self.link());
        let Link { speed, lanes } = link.unwrap_or(Link { speed: 1, lanes: 0 });
        let active = link_status::DATA_LINK_LAYER_ACTIVE;
        let status = u16::from(speed)
            | u16::from(lanes) << link_status::WIDTH_SHIFT
            | if downstream && link.is_some() { active } else { 0 };
        let mask = link_status::SPEED_MASK | link_status::WIDTH_MASK | active;
        let registers = self.registers_mut();
        registers.modify_u16(offset + pcie::LINK_STATUS, mask, status);
        // Without a slot the port has nothing to say about presence (section 7.5.3.11).
        let has_slot = registers.u32(offset + pcie::SLOT_CAPABILITIES) != 0;
        let presence = if present && has_slot { slot::PRESENCE } else { 0 };
        registers.modify_u16(offset + pcie::SLOT_STATUS, slot::PRESENCE, presence);
    }
}
