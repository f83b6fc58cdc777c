//! Capabilities one by one.

use super::*;

/// Section 7.5.3.4: the sizes, and what is larger than supported.
#[test]
fn payload_and_read_request_sizes() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let control = find(&config, 0x10) + 8;
    assert_eq!((config.max_payload_size(), config.max_read_request_size()), (128, 512));
    assert_eq!(config.write(control, 2, 1 << 5 | 5 << 12), ConfigEffects::PAYLOAD);
    assert_eq!((config.max_payload_size(), config.max_read_request_size()), (256, 4096));
    config.write(control, 2, 7 << 5 | 7 << 12);
    assert_eq!((config.max_payload_size(), config.max_read_request_size()), (256, 4096));
    config.reset(ResetKind::FunctionLevel);
    assert_eq!(config.read(control, 2) >> 5 & 7, 7, "kept by FLR, section 6.6.2");
    config.reset(ResetKind::Hot);
    assert_eq!(config.read(control, 2), 0x2910);
}

/// Sections 6.6.2 and 7.5.3.4: the bit asks for a reset and always reads 0.
#[test]
fn function_level_reset_clears_what_it_must() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let control = find(&config, 0x10) + 8;
    assert_eq!(config.write(control, 2, 0x8000 | 0x2910), ConfigEffects::FLR);
    assert_eq!(config.read(control, 2), 0x2910);
    config.write(4, 2, 6);
    config.write(0x10, 4, 0xc000_0000);
    config.write(find(&config, 0x11) + 2, 2, 0xc000);
    assert!(config.bus_master_enabled() && config.msix_enabled() && config.msix_function_masked());
    config.set_transactions_pending(true);
    assert_eq!(config.read(control + 2, 2), 0x20);
    config.reset(ResetKind::FunctionLevel);
    assert_eq!((config.read(4, 2), config.read(0x10, 4)), (0, 0));
    assert_eq!(config.msix_function(), MsixFunction::default());
    assert_eq!(config.read(control + 2, 2), 0);
    let mut without =
        ConfigSpace::endpoint(&FunctionDescription { flr: false, ..endpoint() }).unwrap();
    let effects = without.write(find(&without, 0x10) + 8, 2, 0x8000 | 0x2910);
    assert_eq!(effects, ConfigEffects::empty());
}

/// Sections 5.3.1.4.1 and 7.5.2.2.
#[test]
fn power_states() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let control = find(&config, 1) + 4;
    config.write(4, 2, 6);
    assert!(config.decodes_memory() && config.masters_bus());
    for unsupported in [1, 2] {
        assert_eq!(config.write(control, 2, unsupported), ConfigEffects::empty());
        assert_eq!(config.power_state(), PowerState::D0);
    }
    assert_eq!(config.write(control, 2, 3), ConfigEffects::POWER);
    assert_eq!(config.power_state(), PowerState::D3Hot);
    assert!(!config.decodes_memory() && !config.masters_bus());
    assert_eq!(config.write(control, 2, 2), ConfigEffects::empty());
    assert_eq!(config.power_state(), PowerState::D3Hot);
    assert_eq!(config.write(control, 1, 0), ConfigEffects::POWER);
    assert!(config.decodes_memory(), "No_Soft_Reset: the registers are still there");
}

/// Section 7.7.1.
#[test]
fn msi_is_programmed() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    let msi = find(&port, 5);
    assert_eq!(port.read(msi + 2, 2), 0x180);
    port.write(msi + 4, 4, 0xfee0_1003);
    port.write(msi + 8, 4, 0);
    port.write(msi + 12, 2, 0x4041);
    assert_eq!(port.write(msi + 2, 2, 1), ConfigEffects::MSI);
    let state = port.msi().unwrap();
    assert_eq!((state.address, state.data), (0xfee0_1000, 0x4041));
    assert!(state.owns(0xfee0_1000, 0x4041));
    assert!(!state.owns(0xfee0_1000, 0x4042) && !state.owns(0xfee0_2000, 0x4041));
    assert_eq!(port.write(msi + 0x10, 4, u32::MAX), ConfigEffects::MSI);
    assert!(!port.msi().unwrap().owns(0xfee0_1000, 0x4041));
    assert_eq!(ConfigSpace::endpoint(&endpoint()).unwrap().msi(), None);
}

/// Section 7.7.11.
#[test]
fn acs_controls_are_those_described() {
    let mut port = ConfigSpace::bridge(&root_port()).unwrap();
    let acs = find_extended(&port, 0xd);
    assert_eq!(port.read(acs + 4, 2), 0x1f);
    assert_eq!(port.acs_control(), AcsControl::empty());
    assert_eq!(port.write(acs + 6, 2, 0x7d), ConfigEffects::ACS);
    assert_eq!(port.acs_control().bits(), 0x1d);
    assert!(!port.acs_egress_blocked(0));
    let without = BridgeDescription { acs: None, ..root_port() };
    let without = ConfigSpace::bridge(&without).unwrap();
    assert_eq!((without.acs_capabilities(), without.acs_control()), (None, AcsControl::empty()));
}

/// Section 7.7.11.4: the vector has as many bits as the capability says.
#[test]
fn the_egress_vector_ends_where_it_should() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    let acs = find_extended(&config, 0xd);
    assert_eq!(config.read(acs + 4, 2), 40 << 8 | 0x7f);
    assert_eq!(config.write(acs + 8, 4, 1 << 9), ConfigEffects::ACS);
    config.write(acs + 12, 4, u32::MAX);
    assert_eq!(config.read(acs + 12, 4), 0xff);
    assert!(config.acs_egress_blocked(9) && config.acs_egress_blocked(39));
    assert!(!config.acs_egress_blocked(8) && !config.acs_egress_blocked(40));
    for bits in [1, 32, 33, 255, 256] {
        let acs = AcsCapabilities {
            controls: AcsControl::all(),
            egress_vector_bits: bits,
            ..Default::default()
        };
        let mut port =
            ConfigSpace::bridge(&BridgeDescription { acs: Some(acs), ..root_port() }).unwrap();
        let vector = find_extended(&port, 0xd) + 8;
        for dword in 0..8 {
            port.write(vector + 4 * dword, 4, u32::MAX);
        }
        let blocked = (0..=255).filter(|port_number| port.acs_egress_blocked(*port_number));
        assert_eq!(blocked.count(), usize::from(bits));
    }
    let none = AcsCapabilities {
        controls: AcsControl::all(),
        egress_vector_bits: 0,
        ..Default::default()
    };
    let refused = ConfigSpace::bridge(&BridgeDescription { acs: Some(none), ..root_port() });
    assert_eq!(refused.err(), Some(DescriptionError::EgressVector(0)));
}

#[test]
fn one_of_several_functions_says_so() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    config.set_multi_function();
    config.reset(ResetKind::Cold);
    assert_eq!(config.read(0x0e, 1), 0x80);
}

#[test]
fn a_command_write_reports_each_change() {
    let mut config = ConfigSpace::endpoint(&endpoint()).unwrap();
    assert_eq!(config.write(4, 2, 4), ConfigEffects::BUS_MASTER);
    assert_eq!(config.write(4, 2, 0x0547), ConfigEffects::DECODE | ConfigEffects::AER);
    assert_eq!(config.read(4, 2), 0x0546, "no I/O space");
    assert_eq!(
        config.write(4, 4, 0xffff_0000),
        ConfigEffects::DECODE | ConfigEffects::BUS_MASTER | ConfigEffects::AER
    );
}
