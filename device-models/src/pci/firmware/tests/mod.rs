//! Trees of real configuration spaces, reached by configuration requests that are routed by the
//! bus numbers in the bridges.

mod properties;

use super::*;
use crate::pci::{
    BarDescription, BarKind, BridgeDescription, ConfigSpace, FunctionDescription,
    HostBridgeDescription, PcieKind, PortKind,
};

const HOST: HostResources = HostResources {
    buses: 0..=0xff,
    memory: 0xc000_0000..=0xdfff_ffff,
    prefetchable: 0x10_0000_0000..=0x1f_ffff_ffff,
};

/// A function at its device and function number, with what is below it.
#[derive(Debug, Clone)]
struct Node {
    devfn: u8,
    config: ConfigSpace,
    below: Vec<Node>,
}

#[derive(Debug, Clone)]
struct Tree(Vec<Node>);

impl Tree {
    /// Section 7.3.3: a bridge forwards what lies between secondary and subordinate bus number.
    fn find(&mut self, bdf: Bdf) -> Option<&mut ConfigSpace> {
        let (mut nodes, mut bus) = (&mut self.0, 0);
        while bus != bdf.bus() {
            let bridge = nodes.iter_mut().find(|node| {
                let buses = node.config.bridge_buses();
                buses.is_some_and(|buses| buses.secondary > bus && buses.contains(bdf.bus()))
            })?;
            bus = bridge.config.bridge_buses()?.secondary;
            nodes = &mut bridge.below;
        }
        nodes.iter_mut().find(|node| node.devfn == bdf.devfn()).map(|node| &mut node.config)
    }
}

impl ConfigAccess for Tree {
    fn config_read(&mut self, function: Bdf, offset: u16, len: u8) -> u32 {
        self.find(function).map_or(u32::MAX, |config| config.read(offset, len))
    }

    fn config_write(&mut self, function: Bdf, offset: u16, len: u8, value: u32) {
        if let Some(config) = self.find(function) {
            config.write(offset, len, value);
        }
    }
}

fn host_bridge() -> Node {
    let config = ConfigSpace::host_bridge(&HostBridgeDescription::default());
    Node { devfn: 0, config, below: Vec::new() }
}

/// An endpoint with registers, interrupts and local memory, like a peer device.
fn peer(device: u8, pcie: PcieKind, memory: u64) -> Node {
    let description = FunctionDescription {
        vendor: 1,
        device: 2,
        bars: vec![
            BarDescription { index: 0, size: 0x4000, kind: BarKind::Memory32 },
            BarDescription { index: 1, size: 0x1000, kind: BarKind::Memory32 },
            BarDescription {
                index: 2,
                size: memory,
                kind: BarKind::Memory64 { prefetchable: true },
            },
        ],
        pcie: Some(pcie),
        ..Default::default()
    };
    let config = ConfigSpace::endpoint(&description).unwrap();
    Node { devfn: device << 3, config, below: Vec::new() }
}

fn port(device: u8, kind: PortKind, below: Vec<Node>) -> Node {
    let description = BridgeDescription { vendor: 1, device: 3, ..BridgeDescription::new(kind) };
    Node { devfn: device << 3, config: ConfigSpace::bridge(&description).unwrap(), below }
}

/// The default topology: two root ports with a device each, and a function on the root bus.
fn two_root_ports(memory: u64) -> Tree {
    let below = || vec![peer(0, PcieKind::Endpoint, memory)];
    Tree(vec![
        host_bridge(),
        peer(1, PcieKind::RootComplexIntegratedEndpoint, 0x1000),
        port(4, PortKind::RootPort, below()),
        port(5, PortKind::RootPort, below()),
    ])
}

/// A root port with a switch of two downstream ports, one of them with another switch below.
fn switches() -> Tree {
    let end = || vec![peer(0, PcieKind::Endpoint, 256 << 20)];
    let inner = vec![
        port(0, PortKind::SwitchDownstream, end()),
        port(1, PortKind::SwitchDownstream, Vec::new()),
    ];
    let outer = vec![
        port(2, PortKind::SwitchDownstream, vec![port(0, PortKind::SwitchUpstream, inner)]),
        port(7, PortKind::SwitchDownstream, end()),
    ];
    Tree(vec![
        host_bridge(),
        port(1, PortKind::RootPort, vec![port(0, PortKind::SwitchUpstream, outer)]),
        port(2, PortKind::RootPort, end()),
    ])
}

fn bdf(text: &str) -> Bdf {
    text.parse().unwrap()
}

fn bars(assignment: &Assignment, function: &str) -> Vec<RangeInclusive<u64>> {
    let found = assignment.functions.iter().find(|entry| entry.function == bdf(function));
    found.unwrap().bars.iter().map(|bar| bar.range.clone()).collect()
}

#[test]
fn the_default_topology_is_assigned() {
    let mut tree = two_root_ports(256 << 20);
    let assignment = assign(&mut tree, &HOST).unwrap();
    let order: Vec<_> = assignment.functions.iter().map(|entry| entry.function).collect();
    let expected = ["00:00.0", "00:01.0", "00:04.0", "01:00.0", "00:05.0", "02:00.0"];
    assert_eq!(order, expected.map(bdf));
    assert_eq!(
        bars(&assignment, "01:00.0"),
        [0xc000_0000..=0xc000_3fff, 0xc000_4000..=0xc000_4fff, 0x10_0000_0000..=0x10_0fff_ffff]
    );
    assert_eq!(
        bars(&assignment, "02:00.0"),
        [0xc010_0000..=0xc010_3fff, 0xc010_4000..=0xc010_4fff, 0x10_1000_0000..=0x10_1fff_ffff]
    );
    assert_eq!(
        bars(&assignment, "00:01.0"),
        [0xc020_0000..=0xc020_3fff, 0xc020_4000..=0xc020_4fff, 0x10_2000_0000..=0x10_2000_0fff]
    );
    let bridge = tree.find(bdf("00:05.0")).unwrap();
    let buses = BridgeBuses { primary: 0, secondary: 2, subordinate: 2 };
    assert_eq!(bridge.bridge_buses(), Some(buses));
    let windows = Windows {
        memory: Some(0xc010_0000..=0xc01f_ffff),
        prefetchable: Some(0x10_1000_0000..=0x10_1fff_ffff),
    };
    assert_eq!(bridge.bridge_windows(), windows);
}

#[test]
fn functions_are_left_as_a_bios_leaves_them() {
    let mut tree = two_root_ports(256 << 20);
    // A device that takes less than its port: all of its tree is set to that.
    let small = FunctionDescription { vendor: 1, max_payload: 128, ..Default::default() };
    let config = ConfigSpace::endpoint(&small).unwrap();
    tree.0[3].below = vec![Node { devfn: 0, config, below: Vec::new() }];
    assign(&mut tree, &HOST).unwrap();
    for (function, payload) in
        [("00:04.0", 256), ("01:00.0", 256), ("00:05.0", 128), ("02:00.0", 128)]
    {
        let config = tree.find(bdf(function)).unwrap();
        assert_eq!(config.max_payload_size(), payload, "{function}");
        let is_bridge = config.port_kind().is_some();
        assert_eq!((config.memory_enabled(), config.bus_master_enabled()), (is_bridge, is_bridge));
    }
    // Both ends of a link run on the common clock, so that Linux has nothing to change.
    for function in ["00:04.0", "01:00.0"] {
        let config = tree.find(bdf(function)).unwrap();
        let pcie = config.layout().pcie.unwrap();
        assert_eq!(config.read(pcie + 0x10, 2) & 0x40, 0x40, "{function}");
    }
}

#[test]
fn nested_switches_are_numbered_depth_first() {
    let mut tree = switches();
    let assignment = assign(&mut tree, &HOST).unwrap();
    let order: Vec<_> = assignment.functions.iter().map(|entry| entry.function).collect();
    let expected = [
        "00:00.0", "00:01.0", "01:00.0", "02:02.0", "03:00.0", "04:00.0", "05:00.0", "04:01.0",
        "02:07.0", "07:00.0", "00:02.0", "08:00.0",
    ];
    assert_eq!(order, expected.map(bdf));
    let root = tree.find(bdf("00:01.0")).unwrap();
    assert_eq!(root.bridge_buses().map(|buses| buses.subordinate), Some(7));
    // A port with nothing below has both windows closed.
    assert_eq!(tree.find(bdf("04:01.0")).unwrap().bridge_windows(), Windows::default());
    properties::check(&mut tree, &assignment, &HOST);
}

#[test]
fn further_functions_of_a_device_are_found() {
    let mut tree = two_root_ports(1 << 20);
    let mut second = peer(4, PcieKind::RootComplexIntegratedEndpoint, 1 << 20);
    second.devfn |= 3;
    tree.0.push(second);
    let without = assign(&mut tree, &HOST).unwrap();
    assert_eq!(without.functions.len(), 6, "function 0 does not say that there are more");
    tree.0[2].config.set_multi_function();
    let with = assign(&mut tree, &HOST).unwrap();
    assert!(with.functions.iter().any(|entry| entry.function == bdf("00:04.3")));
}

/// Section 7.3.1: a link ends at device 0, whatever else would answer.
#[test]
fn a_link_has_one_device() {
    let mut tree = two_root_ports(1 << 20);
    tree.0[2].below.push(peer(1, PcieKind::Endpoint, 1 << 20));
    assert_eq!(assign(&mut tree, &HOST).unwrap().functions.len(), 6);
}

#[test]
fn what_does_not_fit_is_named() {
    let error = assign(&mut two_root_ports(64 << 30), &HOST).unwrap_err();
    let expected = FirmwareError::NoSpace {
        function: bdf("02:00.0"),
        index: 2,
        size: 64 << 30,
        window: WindowKind::Prefetchable,
        range: HOST.prefetchable,
    };
    assert_eq!(error, expected);
    let text = error.to_string();
    assert!(
        text.contains("BAR2 of 02:00.0") && text.contains("0x1000000000-0x1fffffffff"),
        "{text}"
    );

    // The one that is too large, not the one that finds nothing left.
    let mut uneven = two_root_ports(64 << 30);
    uneven.0[2].below[0] = peer(0, PcieKind::Endpoint, 1 << 20);
    let error = assign(&mut uneven, &HOST).unwrap_err();
    let FirmwareError::NoSpace { function, size, .. } = error else { panic!("{error}") };
    assert_eq!((function, size), (bdf("02:00.0"), 64 << 30));

    // Sums beyond 64 bits do not wrap.
    let error = assign(&mut two_root_ports(1 << 62), &HOST).unwrap_err();
    assert!(matches!(error, FirmwareError::NoSpace { size: 0x4000_0000_0000_0000, .. }));

    // A bridge window is a MiB even when its BARs are small.
    let tight = HostResources { memory: 0xc000_0000..=0xc01f_ffff, ..HOST };
    let error = assign(&mut two_root_ports(1 << 20), &tight).unwrap_err();
    assert!(matches!(error, FirmwareError::NoSpace { index: 0, size: 0x4000, .. }), "{error}");
}

#[test]
fn too_few_buses_are_named() {
    let host = HostResources { buses: 0..=6, ..HOST };
    let error = assign(&mut switches(), &host).unwrap_err();
    assert_eq!(error, FirmwareError::NoBus { function: bdf("02:07.0"), buses: 0..=6 });
}

/// A second assignment finds the same, although the registers are full of the first one.
#[test]
fn assignment_is_repeatable() {
    let mut tree = switches();
    let first = assign(&mut tree, &HOST).unwrap();
    assert_eq!(assign(&mut tree, &HOST).unwrap(), first);
}
