//! Register BARs are reached by message: nothing nests, nothing passes what it must not pass, everything ends.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, Order, Saw, World};
use device_models::endpoint::Progress;
use device_models::fabric::{CompletionStatus, MAX_HOPS, RouteKind};
use device_models::iommu::NoIommu;

#[test]
fn a_write_to_registers_is_queued_and_delivered_later() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let registers = world.bar(1, 0);
    world.order(0, Order::Write { address: registers + 0x10, data: vec![1, 2, 3, 4] });
    let robot = world.lab.function("robot0").unwrap();
    assert_eq!(world.lab.step_function(robot), Progress::Worked);
    assert!(
        world.scripts[1].lock().unwrap().saw.is_empty(),
        "nothing happens inside the writer's own step"
    );
    world.run();
    let saw = Saw::Register { offset: 0x10, data: vec![1, 2, 3, 4] };
    assert_eq!(world.scripts[1].lock().unwrap().saw, [saw]);
}

#[test]
fn a_read_does_not_pass_a_posted_write() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
    world.order(0, Order::Write { address: registers, data: vec![1; 4] });
    world.order(0, Order::Read { address: memory, length: 4 });
    let robot = world.lab.function("robot0").unwrap();
    for _ in 0..10 {
        world.lab.step_function(robot);
    }
    let saw = world.scripts[0].lock().unwrap().saw.clone();
    assert_eq!(saw.len(), 1, "the read waits behind the write: {saw:?}");
    world.run();
    assert_eq!(world.scripts[0].lock().unwrap().saw.len(), 2);
    assert_eq!(world.scripts[1].lock().unwrap().saw.len(), 1);
}

#[test]
fn two_devices_that_read_each_others_registers_both_get_their_answer() {
    let mut world = World::root_ports(Box::new(NoIommu));
    for (reader, read) in [(0, 1), (1, 0)] {
        let address = world.bar(read, 0) + 0x20;
        world.order(reader, Order::Read { address, length: 4 });
    }
    world.run();
    let answer = Saw::Read(CompletionStatus::Success, vec![0x20, 0x21, 0x22, 0x23]);
    for script in &world.scripts {
        assert_eq!(script.lock().unwrap().saw, std::slice::from_ref(&answer));
    }
}

#[test]
fn a_to_b_to_a_terminates() {
    let mut world = World::root_ports(Box::new(NoIommu));
    for (writer, written) in [(0, 1), (1, 0)] {
        let address = world.bar(written, 0);
        world.scripts[writer].lock().unwrap().on_write =
            vec![Order::Write { address, data: vec![0; 4] }];
    }
    let address = world.bar(0, 0);
    world.lab.mmio_write(address, &[0; 4]);
    world.run();
    assert_eq!(world.log.classes(), ["fabric.hop-limit"]);
    let writes: usize = world
        .scripts
        .iter()
        .map(|script| {
            script
                .lock()
                .unwrap()
                .saw
                .iter()
                .filter(|saw| matches!(saw, Saw::Register { .. }))
                .count()
        })
        .sum();
    assert_eq!(
        writes,
        usize::from(MAX_HOPS) + 1,
        "the CPU's write and as many hops as there may be"
    );
}

#[test]
fn a_device_that_writes_its_own_registers_terminates_too() {
    let mut world = World::switch(Box::new(NoIommu), false);
    let address = world.bar(0, 0);
    world.scripts[0].lock().unwrap().on_write = vec![Order::Write { address, data: vec![0; 4] }; 3];
    world.lab.mmio_write(address, &[0; 4]);
    world.run();
    assert!(
        world.log.classes().contains(&"pci.turned-back"),
        "a port sends nothing back down its own link"
    );
}

#[test]
fn flow_control_holds_a_flood_back() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(1, 0);
    for byte in 0..200 {
        world.order(0, Order::Write { address, data: vec![byte; 4] });
    }
    let robot = world.lab.function("robot0").unwrap();
    for _ in 0..1000 {
        world.lab.step_function(robot);
    }
    assert_eq!(world.scripts[0].lock().unwrap().saw.len(), 64);
    world.run();
    let expected: Vec<_> =
        (0..200).map(|byte| Saw::Register { offset: 0, data: vec![byte; 4] }).collect();
    assert_eq!(world.scripts[1].lock().unwrap().saw, expected, "all of them, in order");
}

#[test]
fn a_reset_ends_what_waits_for_the_function() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(1, 0);
    world.order(0, Order::Read { address, length: 4 });
    let robot = world.lab.function("robot0").unwrap();
    world.lab.step_function(robot);
    let target = world.bdf("robot1");
    let device_control = pcie_capability(&mut world, target) + 8;
    let before = world.lab.config_read(target, device_control, 2);
    world.lab.config_write(target, device_control, 2, before | 0x8000);
    let mut data = [0; 4];
    world.lab.mmio_read(address, &mut data);
    assert_eq!(data, [0xff; 4], "a function in reset answers nobody");
    world.run();
    assert_eq!(
        world.scripts[0].lock().unwrap().saw,
        [Saw::Read(CompletionStatus::Timeout, Vec::new())]
    );
    assert_eq!(world.log.classes(), ["fabric.completion-timeout"]);
    assert_eq!(world.lab.config_read(target, COMMAND, 2), 0, "the command register is cleared");
}

#[test]
fn late_completions_are_dropped() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(1, 0);
    world.order(0, Order::Read { address, length: 4 });
    let (reader, target) =
        (world.lab.function("robot0").unwrap(), world.lab.function("robot1").unwrap());
    world.lab.step_function(reader);
    let bdf = world.bdf("robot0");
    let device_control = pcie_capability(&mut world, bdf) + 8;
    assert_ne!(world.lab.config_read(bdf, device_control + 2, 2) & 0x20, 0, "Transactions Pending");
    world.lab.step_function(target);
    world.lab.config_write(bdf, device_control, 2, 0x8000);
    world.run();
    assert!(world.scripts[0].lock().unwrap().saw.is_empty());
    assert_eq!(world.lab.config_read(bdf, device_control + 2, 2) & 0x20, 0);
}

fn pcie_capability(world: &mut World, bdf: device_models::pci::Bdf) -> u16 {
    let mut offset = u16::try_from(world.lab.config_read(bdf, 0x34, 1)).unwrap();
    while world.lab.config_read(bdf, offset, 1) != 0x10 {
        offset = u16::try_from(world.lab.config_read(bdf, offset + 1, 1)).unwrap();
        assert_ne!(offset, 0, "no PCI Express capability");
    }
    offset
}

#[test]
fn bytes_are_counted_by_route() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.write(0, memory, &[0; 1000]);
    world.write(0, 0x1000, &[0; 10]);
    world.read(0, memory, 77);
    let counters = *world.lab.stats().of(world.lab.function("robot0").unwrap());
    assert_eq!(counters.bytes_written[RouteKind::ThroughHostBridge as usize], 1000);
    assert_eq!(counters.bytes_written[RouteKind::Memory as usize], 10);
    assert_eq!(counters.bytes_read[RouteKind::ThroughHostBridge as usize], 77);
    assert_eq!(counters.bytes_written[RouteKind::BusAddress as usize], 0);
}
