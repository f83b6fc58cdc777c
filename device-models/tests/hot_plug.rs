//! Devices that are pulled out of their slots while they work and are in use.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, MEMORY_AND_MASTER, Order, RESOURCES, Saw, World};
use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, WriteOutcome};
use device_models::iommu::NoIommu;
use device_models::pci::{Bdf, BridgeDescription, PortKind};
use device_models::system::{Function, PlugError};

const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
const LOST: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: Some(FindingClass::LinkDown) });

/// Two robots in slots with hot-plug of two root ports, whose interrupts are on.
fn slots() -> World {
    let mut world = World::new(2, Box::new(NoIommu), |robots| {
        let port = |index: u8, robot| {
            let below = vec![Function::endpoint(0, format!("robot{index}"), robot)];
            let description = BridgeDescription {
                slot_number: u16::from(index) + 1,
                hot_plug: true,
                ..common::port(PortKind::RootPort, true)
            };
            Function::bridge(4 + index, format!("port{index}"), description, below)
        };
        (0..).zip(robots).map(|(index, robot)| port(index, robot)).collect()
    });
    for name in ["port0", "port1"] {
        let bdf = world.bdf(name);
        let (pcie, msi) = (world.capability(bdf, 0x10), world.capability(bdf, 5));
        let aer = world.extended_capability(bdf, 1);
        world.system.config_write(bdf, pcie + 8, 2, 0x291f);
        world.system.config_write(bdf, aer + 0x2c, 4, 7);
        world.system.config_write(bdf, pcie + 0x18, 2, 1 << 3 | 1 << 5 | 1 << 12);
        world.system.config_write(bdf, msi + 4, 4, 0xfee0_0000);
        world.system.config_write(bdf, msi + 12, 2, u32::from(bdf.device()));
        world.system.config_write(bdf, msi + 2, 2, 1);
    }
    world
}

fn interrupts(world: &World) -> Vec<(u64, u32)> {
    std::mem::take(&mut world.log.0.lock().unwrap().interrupts)
}

#[test]
fn a_device_that_was_pulled_answers_nothing() {
    let mut world = slots();
    let (port, robot) = (world.bdf("port1"), world.bdf("robot1"));
    let [registers, memory] = [0, 2].map(|bar| world.bar(1, bar));
    assert_eq!(world.write(0, memory, &[1; 64]), CLEAN);
    world.system.unplug(port).unwrap();

    assert_eq!(interrupts(&world), [(0xfee0_0000, 5)], "the port interrupts");
    assert_eq!(world.system.config_read(robot, 0, 4), u32::MAX);
    world.system.config_write(robot, COMMAND, 2, MEMORY_AND_MASTER);
    for address in [registers, memory] {
        let mut data = [0; 4];
        world.system.mmio_write(address, &[0; 4]);
        world.system.mmio_read(address, &mut data);
        assert_eq!(data, [0xff; 4]);
        assert_eq!(world.write(0, address, &[1; 64]), LOST);
        let ended = Saw::Read(CompletionStatus::UnsupportedRequest, Vec::new());
        assert_eq!(world.read(0, address, 64), ended);
    }
    assert_eq!(world.log.classes(), ["pci.link-down"; 4]);
    assert!(world.system.address_map().guest_mappings().iter().all(|m| m.guest_address != memory));
    assert!(interrupts(&world).is_empty(), "a port whose link is down discards without an error");
    // A robot that is not there carries out no order.
    world.order(1, Order::Write { address: world.bar(0, 2), data: vec![7; 4] });
    world.run();
    assert!(!world.scripts[1].lock().unwrap().saw.contains(&CLEAN));
}

#[test]
fn what_comes_back_is_as_after_power_on() {
    let mut world = slots();
    let (port, robot) = (world.bdf("port1"), world.bdf("robot1"));
    let memory = world.bar(1, 2);
    world.system.unplug(port).unwrap();
    // The driver acknowledges, or the port would have nothing new to say.
    let pcie = world.capability(port, 0x10);
    world.system.config_write(port, pcie + 0x1a, 2, 0xffff);
    interrupts(&world);
    world.system.plug(port).unwrap();
    assert_eq!(interrupts(&world), [(0xfee0_0000, 5)]);
    assert_eq!(world.system.config_read(port, pcie + 0x12, 2) & 0x2000, 0x2000, "the link is up");
    assert_eq!(world.system.config_read(robot, 0, 4), 0x5678_1234);
    assert_eq!(world.system.config_read(robot, COMMAND, 2), 0);
    assert_eq!(world.system.config_read(robot, 0x18, 4) & !0xf, 0, "BARs have no address");
    world.run();
    assert_ne!(world.write(0, memory, &[1; 4]), CLEAN);
    world.system.run_firmware(&RESOURCES).unwrap();
    for index in 0..2 {
        world.config_write(index, COMMAND, 2, MEMORY_AND_MASTER);
    }
    world.log.classes();
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    let other = world.bar(0, 2);
    assert_eq!(world.write(1, other, &[2; 4]), CLEAN, "no order of the time before is left");
    assert!(world.log.classes().is_empty());
}

/// Robot 0 has asked, robot 1 has not answered yet: neither waits for ever.
#[test]
fn a_read_under_way_to_a_device_that_is_pulled_times_out() {
    let mut world = slots();
    let port = world.bdf("port1");
    world.order(0, Order::Read { address: world.bar(1, 0), length: 4 });
    let robot = world.system.function("robot0").unwrap();
    world.system.step_function(robot);
    assert!(world.scripts[0].lock().unwrap().waiting.is_some(), "it waits for a completion");
    world.system.unplug(port).unwrap();
    world.run();
    let saw = world.scripts[0].lock().unwrap().saw.clone();
    assert_eq!(saw, [Saw::Read(CompletionStatus::Timeout, Vec::new())]);
    assert_eq!(world.log.classes(), ["fabric.completion-timeout"]);
}

/// Robot 0 has asked and is pulled: the completion reaches no function, not even the next one in
/// the slot.
#[test]
fn completions_for_a_device_that_was_pulled_are_dropped() {
    let mut world = slots();
    let port = world.bdf("port0");
    world.order(0, Order::Read { address: world.bar(1, 0), length: 4 });
    let robot = world.system.function("robot0").unwrap();
    world.system.step_function(robot);
    world.system.unplug(port).unwrap();
    let other = world.system.function("robot1").unwrap();
    world.system.step_function(other);
    world.system.plug(port).unwrap();
    world.run();
    assert_eq!(world.scripts[0].lock().unwrap().completions, 0);
    assert!(world.log.classes().is_empty());
}

#[test]
fn a_whole_switch_is_pulled_at_once() {
    let mut world = World::switch(Box::new(NoIommu), true);
    let (port, down, robot) = (world.bdf("port0"), world.bdf("down1"), world.bdf("robot1"));
    world.system.unplug(down).unwrap();
    assert_eq!(world.system.config_read(robot, 0, 4), u32::MAX);
    assert_ne!(world.system.config_read(down, 0, 4), u32::MAX);
    world.system.unplug(port).unwrap();
    assert_eq!(world.system.config_read(down, 0, 4), u32::MAX);
    assert_eq!(world.system.plug(down), Err(PlugError::NoSlot(down)), "the slot is gone too");
    world.run();
    world.system.plug(port).unwrap();
    world.run();
    world.system.run_firmware(&RESOURCES).unwrap();
    assert_eq!(world.system.config_read(robot, 0, 4), u32::MAX, "still pulled out of the switch");
    world.system.plug(down).unwrap();
    assert_ne!(world.system.config_read(robot, 0, 4), u32::MAX);
    world.system.run_firmware(&RESOURCES).unwrap();
    world.run();
    for index in 0..2 {
        world.config_write(index, COMMAND, 2, MEMORY_AND_MASTER);
    }
    for (robot, other) in [(0, 1), (1, 0)] {
        let memory = world.bar(other, 2);
        assert_eq!(world.write(robot, memory, &[1; 4]), CLEAN);
    }
}

#[test]
fn only_what_sits_in_a_slot_is_pulled_and_only_once() {
    let mut world = slots();
    let (port, robot) = (world.bdf("port0"), world.bdf("robot0"));
    for nothing in [robot, Bdf::new(0, 0, 0), Bdf::new(9, 9, 1)] {
        assert_eq!(world.system.unplug(nothing), Err(PlugError::NoSlot(nothing)));
        assert_eq!(world.system.plug(nothing), Err(PlugError::NoSlot(nothing)));
    }
    assert_eq!(world.system.plug(port), Err(PlugError::Occupied(port)));
    world.system.unplug(port).unwrap();
    assert_eq!(world.system.unplug(port), Err(PlugError::Empty(port)));
}
