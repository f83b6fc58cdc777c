//! Several host bridges, and bridges that translate addresses.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Robot, Saw, Shared, World, port};
use device_models::AddressRange;
use device_models::checker::FindingClass;
use device_models::fabric::{HostWindow, PeerRouting, RouteKind, WriteOutcome};
use device_models::iommu::NoIommu;
use device_models::pci::PortKind;
use device_models::pci::firmware::HostResources;
use device_models::system::{Function, HostBridge, System, Topology};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const OFFSET: u64 = 0x20_0000_0000;
const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });

fn found(class: FindingClass) -> Saw {
    Saw::Wrote(WriteOutcome::Posted { verdict: Some(class) })
}

fn resources(index: u64) -> HostResources {
    let bus = u8::try_from(8 * index).unwrap();
    let (memory, high) = (0xc000_0000 + (index << 28), 0x10_0000_0000 + (index << 35));
    HostResources {
        buses: bus..=bus + 7,
        memory: memory..=memory + 0xfff_ffff,
        prefetchable: high..=high + 0x7_ffff_ffff,
    }
}

/// A robot below a root port at each of two host bridges, which translate by `offset`.
fn world(offset: u64, peer_routing: PeerRouting) -> World {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let (robots, scripts): (Vec<_>, Vec<_>) = (0..2).map(|_| Robot::new()).unzip();
    let host_bridges = robots.into_iter().zip(0..).map(|(robot, index)| {
        let HostResources { buses, memory, prefetchable } = resources(index);
        let window = |range: std::ops::RangeInclusive<u64>| HostWindow {
            bus: AddressRange { first: *range.start(), last: *range.end() },
            offset,
        };
        let below = vec![Function::endpoint(0, format!("robot{index}"), robot)];
        HostBridge {
            name: format!("bridge{index}"),
            first_bus: *buses.start(),
            windows: vec![window(memory), window(prefetchable)],
            peer_routing,
            root: vec![Function::bridge(
                4,
                format!("port{index}"),
                port(PortKind::RootPort, true),
                below,
            )],
            ..HostBridge::default()
        }
    });
    let topology = Topology { host_bridges: host_bridges.collect() };
    let log = Shared::default();
    let mut system = System::new(topology, &ram, Box::new(NoIommu), Box::new(log.clone())).unwrap();
    for index in 0..2 {
        system.run_firmware(&resources(index)).unwrap();
    }
    system.add_observer(Box::new(log.clone()));
    let mut world = World { system, log, ram, scripts };
    for robot in 0..2 {
        world.config_write(robot, common::COMMAND, 2, common::MEMORY_AND_MASTER);
    }
    world
}

#[test]
fn each_host_bridge_has_its_own_buses() {
    let world = world(0, PeerRouting::Everywhere);
    let numbers = ["bridge0", "port0", "robot0", "bridge1", "port1", "robot1"];
    let numbers = numbers.map(|name| world.bdf(name).to_string());
    assert_eq!(numbers, ["00:00.0", "00:04.0", "01:00.0", "08:00.0", "08:04.0", "09:00.0"]);
}

#[test]
fn a_translated_bar_is_where_the_cpus_see_it_and_not_where_the_bus_does() {
    let mut world = world(OFFSET, PeerRouting::Everywhere);
    let mapping = world.system.address_map().guest_mappings();
    let bus = world.bar(1, 2);
    assert_eq!(mapping[1].guest_address, bus + OFFSET);
    assert_eq!(world.write(0, bus + OFFSET, &[3; 8]), CLEAN);
    assert_eq!(world.last_route(), Some(RouteKind::ThroughHostBridge));
    assert_eq!(world.write(0, bus, &[3; 8]), found(FindingClass::NoTarget));
    let registers = world.bar(1, 0);
    let mut bytes = [0; 4];
    world.system.mmio_read(registers + OFFSET + 0x10, &mut bytes);
    assert_eq!(bytes, [0x10, 0x11, 0x12, 0x13]);
    world.system.mmio_read(registers + 0x10, &mut bytes);
    assert_eq!(bytes, [0xff; 4]);
}

#[test]
fn traffic_between_host_bridges_goes_as_far_as_they_take_it() {
    for (routing, across) in [
        (PeerRouting::Everywhere, CLEAN),
        (PeerRouting::SameBridge, found(FindingClass::PeerToPeerRefused)),
        (PeerRouting::Nowhere, found(FindingClass::PeerToPeerRefused)),
    ] {
        let mut world = world(0, routing);
        let memory = world.bar(1, 2);
        assert_eq!(world.write(0, memory, &[1; 4]), across, "{routing:?}");
        assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN, "memory is not a peer");
    }
}
