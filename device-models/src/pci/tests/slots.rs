//! Slots with hot-plug (sections 6.7 and 7.5.3.9 to 7.5.3.11).

use super::*;

const PRESENCE_CHANGED: u32 = 1 << 3;
const PRESENCE: u32 = 1 << 6;
const LINK_STATE_CHANGED: u32 = 1 << 8;
/// Presence and link changes interrupt, as Linux sets a slot without buttons up.
const ENABLES: u32 = 1 << 3 | 1 << 5 | 1 << 12;

struct Port {
    config: ConfigSpace,
    pcie: u16,
    msi: u16,
}

fn port(hot_plug: bool) -> Port {
    let mut config = ConfigSpace::bridge(&BridgeDescription { hot_plug, ..root_port() }).unwrap();
    let (pcie, msi) = (find(&config, 0x10), find(&config, 5));
    config.write(msi + 4, 4, 0xfee0_0000);
    config.write(msi + 12, 2, 0x31);
    config.write(msi + 2, 2, 1);
    Port { config, pcie, msi }
}

impl Port {
    fn status(&self) -> u32 {
        self.config.read(self.pcie + 0x1a, 2)
    }

    fn control(&mut self, value: u32) -> ConfigEffects {
        self.config.write(self.pcie + 0x18, 2, value)
    }
}

#[test]
fn a_slot_says_that_it_has_hot_plug() {
    let mut port = port(true);
    assert_eq!(port.config.read(port.pcie + 0x14, 4), 5 << 19 | 1 << 18 | 1 << 6 | 1 << 5);
    assert_eq!(port.status(), PRESENCE, "occupied at power-on is not an event");
    port.control(0xffff);
    assert_eq!(port.config.read(port.pcie + 0x18, 2), ENABLES);
}

#[test]
fn coming_and_going_interrupt_once_each() {
    let mut port = port(true);
    assert_eq!(port.control(ENABLES), ConfigEffects::empty());
    let link = port.config.link();
    port.config.change_link(None);
    assert_eq!(port.status(), PRESENCE_CHANGED | LINK_STATE_CHANGED);
    let message = MsiMessage { address: 0xfee0_0000, data: 0x31 };
    assert_eq!(port.config.take_interrupt(), Some(message));
    assert_eq!(port.config.take_interrupt(), None, "the condition did not rise again");
    port.config.change_link(link);
    assert_eq!(port.config.take_interrupt(), None, "nor did it while events are not cleared");
    port.config.write(port.pcie + 0x1a, 2, PRESENCE_CHANGED | LINK_STATE_CHANGED);
    assert_eq!(port.status(), PRESENCE);
    port.config.change_link(None);
    assert_eq!(port.config.take_interrupt(), Some(message));
}

#[test]
fn an_event_waits_for_its_enables() {
    let mut port = port(true);
    port.config.change_link(None);
    assert_eq!(port.config.take_interrupt(), None);
    assert_eq!(port.control(1 << 5), ConfigEffects::empty(), "no event is enabled");
    assert_eq!(port.control(1 << 5 | 1 << 12), ConfigEffects::INTERRUPT);
    port.config.write(port.msi + 0x10, 4, 1);
    assert_eq!(port.config.take_interrupt(), None, "masked");
    assert!(port.config.write(port.msi + 0x10, 4, 0).contains(ConfigEffects::INTERRUPT));
}

/// One vector for both: an error that software has not read does not hold back a hot-plug event.
#[test]
fn services_interrupt_on_their_own_account() {
    let mut port = port(true);
    let aer = find_extended(&port.config, 1);
    port.config.write(aer + 0x2c, 4, 7);
    port.control(ENABLES);
    assert!(port.config.receive_error(ErrorMessage::NonFatal, Bdf::new(1, 0, 0)).is_some());
    port.config.change_link(None);
    assert!(port.config.take_interrupt().is_some());
    assert!(port.config.take_interrupt().is_none());
}

#[test]
fn disabling_the_link_is_an_event_of_the_link() {
    let mut port = port(true);
    port.config.write(port.pcie + 0x10, 2, 0x10);
    assert_eq!(port.status(), PRESENCE | LINK_STATE_CHANGED);
}

#[test]
fn a_plain_slot_tells_nothing() {
    let mut port = port(false);
    port.control(ENABLES);
    assert_eq!(port.config.read(port.pcie + 0x18, 2), 0);
    port.config.change_link(None);
    assert_eq!(port.status(), 0);
    assert_eq!(port.config.take_interrupt(), None);
}
