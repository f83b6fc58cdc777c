//! Type 1 headers (section 7.5.1.3).

use super::*;

#[test]
fn windows_follow_their_registers() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    assert_eq!(port.read(0x0e, 1), 1);
    // After power-on base and limit are 0: the first MiB (section 7.5.1.3.8 leaves it to software).
    assert_eq!(port.bridge_windows().memory, Some(0..=0xf_ffff));
    assert_eq!(port.write(0x20, 4, 0xc01f_c01f), ConfigEffects::DECODE);
    assert_eq!(port.read(0x20, 4), 0xc010_c010);
    assert_eq!(port.bridge_windows().memory, Some(0xc010_0000..=0xc01f_ffff));
    port.write(0x24, 4, 0xfff0_0000);
    port.write(0x28, 4, 0x10);
    port.write(0x2c, 4, 0x10);
    assert_eq!(port.read(0x24, 4), 0xfff1_0001);
    assert_eq!(port.bridge_windows().prefetchable, Some(0x10_0000_0000..=0x10_ffff_ffff));
    assert!(port.bridge_windows().contains(0x10_8000_0000));
    assert!(!port.bridge_windows().contains(0x11_0000_0000));
    // A limit below its base closes a window.
    port.write(0x2c, 4, 0xf);
    port.write(0x20, 4, 0x0000_fff0);
    assert_eq!(port.bridge_windows(), Windows::default());
    assert!(!port.bridge_windows().contains(0));
}

#[test]
fn bus_numbers_are_kept_and_there_is_no_io_window() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    assert_eq!(port.write(0x18, 4, 0xff07_0302), ConfigEffects::DECODE);
    let buses = port.bridge_buses().unwrap();
    assert_eq!(buses, BridgeBuses { primary: 2, secondary: 3, subordinate: 7 });
    assert!(buses.contains(3) && buses.contains(7) && !buses.contains(2) && !buses.contains(8));
    assert_eq!(port.read(0x1b, 1), 0, "no secondary latency timer");
    port.write(0x1c, 2, 0xf0f0);
    assert_eq!(port.read(0x1c, 2), 0);
    let endpoint = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert_eq!(endpoint.bridge_buses(), None);
    assert_eq!(endpoint.bridge_windows(), Windows::default());
}

#[test]
fn secondary_bus_reset_is_reported() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    assert_eq!(port.write(0x3e, 2, 0x40), ConfigEffects::SECONDARY_BUS_RESET);
    assert!(port.secondary_bus_reset());
    assert_eq!(port.write(0x3e, 2, 0x40), ConfigEffects::empty());
    assert_eq!(port.write(0x3e, 2, 0), ConfigEffects::SECONDARY_BUS_RESET);
    assert!(!port.secondary_bus_reset());
    // In an endpoint the same bits are something else.
    let mut endpoint = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert_eq!(endpoint.write(0x3e, 2, 0x40), ConfigEffects::empty());
}

/// Sections 7.5.3.6 to 7.5.3.11.
#[test]
fn the_link_is_shown_as_it_is() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    let slow = Link { speed: 1, lanes: 4 };
    let mut below =
        ConfigSpace::endpoint(&FunctionDescription { link: slow, ..endpoint() }).unwrap();
    ConfigSpace::train_link(&mut port, &mut below);
    assert_eq!((port.link(), below.link()), (Some(slow), Some(slow)));
    let (pcie, pcie_below) = (find(&port, 0x10), find(&below, 0x10));
    assert_eq!(port.read(pcie + 0x12, 2), 0x3041, "slot clock, active, x4, 2.5 GT/s");
    assert_eq!(below.read(pcie_below + 0x12, 2), 0x1041);
    assert_eq!(port.read(pcie + 0x1a, 2), 0x40, "presence");
    assert_eq!(port.write(pcie + 0x10, 2, 0x10), ConfigEffects::LINK);
    assert_eq!(port.link(), None);
    assert_eq!(port.read(pcie + 0x12, 2) & 0x2000, 0);
    assert_eq!(port.read(pcie + 0x1a, 2), 0x40, "still plugged in");
    port.write(pcie + 0x10, 2, 0);
    assert_eq!(port.link(), Some(slow));
    port.set_link(None);
    assert_eq!(port.read(pcie + 0x1a, 2), 0);
    port.reset(ResetKind::Cold);
    assert_eq!(port.link(), None, "a reset plugs nothing in");
}

#[test]
fn a_retrain_honours_the_target_speed_and_reads_zero() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    let pcie = find(&port, 0x10);
    assert_eq!(port.link().unwrap().speed, 3);
    port.write(pcie + 0x30, 2, 1);
    assert_eq!(port.write(pcie + 0x10, 2, 0x20), ConfigEffects::LINK);
    assert_eq!(port.read(pcie + 0x10, 2), 0);
    assert_eq!(port.read(pcie + 0x12, 2) & 0xf, 1);
    port.write(pcie + 0x30, 2, 0);
    assert_eq!(port.link().unwrap().speed, 1, "0 is not a speed");
}

#[test]
fn a_soldered_port_has_no_slot_and_a_switch_has_two_kinds() {
    let soldered = BridgeDescription { slot_number: 0, ..root_port() };
    let port = ConfigSpace::bridge(&soldered).unwrap();
    assert_eq!(port.read(find(&port, 0x10) + 2, 2), 0x42);
    let port = ConfigSpace::bridge(&root_port()).unwrap();
    assert_eq!(port.read(find(&port, 0x10) + 2, 2), 0x142);
    assert_eq!(port.read(find(&port, 0x10) + 0x14, 4), 5 << 19 | 1 << 18);
    for (kind, flags) in [(PortKind::SwitchUpstream, 0x52), (PortKind::SwitchDownstream, 0x162)] {
        let port = ConfigSpace::bridge(&BridgeDescription { kind, ..root_port() }).unwrap();
        assert_eq!(port.read(find(&port, 0x10) + 2, 2), flags);
        assert_eq!(port.port_kind(), Some(kind));
    }
}
