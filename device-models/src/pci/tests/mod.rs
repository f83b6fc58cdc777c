//! Whole configuration spaces, as software meets them.

mod bars;
mod bridge;
mod errors;
mod hostile;
mod lists;
mod registers;
mod slots;

use super::*;

/// What the tests ask of: an endpoint with everything.
fn endpoint() -> FunctionDescription {
    FunctionDescription {
        vendor: 0x1234,
        device: 0x5678,
        revision: 3,
        class: 0x08_0100,
        subsystem_vendor: 0x1111,
        subsystem_id: 0x2222,
        bars: vec![
            BarDescription { index: 0, size: 0x4000, kind: BarKind::Memory32 },
            BarDescription { index: 1, size: 0x1000, kind: BarKind::Memory32 },
            BarDescription {
                index: 2,
                size: 256 << 20,
                kind: BarKind::Memory64 { prefetchable: true },
            },
        ],
        msix_vectors: 16,
        msix_bar: 1,
        flr: true,
        aer: true,
        resizable_bars: vec![ResizableBar { bar: 2, sizes: 0b1_1111_1111 }],
        acs: Some(AcsCapabilities {
            controls: AcsControl::all(),
            egress_vector_bits: 40,
            ..Default::default()
        }),
        serial_number: Some(0x0011_22ff_fe33_4455),
        vendor_capabilities: vec![
            vec![6, 1, 2, 3].into(),
            VendorCapability { body: vec![7, 5, 0, 0, 0], writable: vec![0, 0, 0xff, 0x0f] },
        ],
        ..FunctionDescription::default()
    }
}

fn root_port() -> BridgeDescription {
    BridgeDescription {
        vendor: 0x1234,
        device: 0x9999,
        slot_number: 5,
        acs: Some(AcsCapabilities::default()),
        ..BridgeDescription::new(PortKind::RootPort)
    }
}

fn all_kinds() -> Vec<ConfigSpace> {
    let kinds = [PortKind::RootPort, PortKind::SwitchUpstream, PortKind::SwitchDownstream];
    let mut spaces = vec![
        ConfigSpace::endpoint(&endpoint()).unwrap(),
        ConfigSpace::endpoint(&FunctionDescription { pcie: None, ..Default::default() }).unwrap(),
        ConfigSpace::host_bridge(&HostBridgeDescription::default()),
    ];
    for kind in kinds {
        spaces.push(ConfigSpace::bridge(&BridgeDescription { kind, ..root_port() }).unwrap());
    }
    spaces
}

/// Offset of a capability, found as software finds it.
fn find(config: &ConfigSpace, id: u8) -> u16 {
    let mut offset = config.read(0x34, 1);
    while offset != 0 {
        let at = u16::try_from(offset).unwrap();
        if config.read(at, 1) == u32::from(id) {
            return at;
        }
        offset = config.read(at + 1, 1);
    }
    panic!("no capability {id:#x}");
}

fn find_extended(config: &ConfigSpace, id: u16) -> u16 {
    let mut at = 0x100;
    while at != 0 {
        let header = config.read(at, 4);
        if header & 0xffff == u32::from(id) {
            return at;
        }
        at = u16::try_from(header >> 20).unwrap();
    }
    panic!("no extended capability {id:#x}");
}
