//! Register BARs are reached by message: nothing nests, nothing passes what it must not pass,
//! everything ends.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, Order, Saw, World};
use device_models::endpoint::Progress;
use device_models::fabric::{CompletionStatus, MAX_HOPS, Moved, RouteKind};
use device_models::iommu::NoIommu;

#[test]
fn a_write_to_registers_is_queued_and_delivered_later() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let registers = world.bar(1, 0);
    world.order(0, Order::Write { address: registers + 0x10, data: vec![1, 2, 3, 4] });
    let robot = world.system.function("robot0").unwrap();
    assert_eq!(world.system.step_function(robot), Progress::Worked);
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
    let robot = world.system.function("robot0").unwrap();
    for _ in 0..10 {
        world.system.step_function(robot);
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
    world.system.mmio_write(address, &[0; 4]);
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
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(0, 0);
    world.scripts[0].lock().unwrap().on_write = vec![Order::Write { address, data: vec![0; 4] }];
    world.system.mmio_write(address, &[0; 4]);
    world.run();
    assert_eq!(
        world.log.classes(),
        ["pci.turned-back"],
        "a port sends nothing back down its own link"
    );

    // Unless Upstream Forwarding says so: then there is a loop.
    let port = world.bdf("port0");
    let acs = world.extended_capability(port, 0xd);
    world.system.config_write(port, acs + 6, 2, 0x10);
    world.scripts[0].lock().unwrap().saw.clear();
    world.system.mmio_write(address, &[0; 4]);
    world.run();
    assert_eq!(world.log.classes(), ["fabric.hop-limit"]);
    let saw = world.scripts[0].lock().unwrap().saw.clone();
    let writes = saw.iter().filter(|saw| matches!(saw, Saw::Register { .. })).count();
    assert_eq!(writes, usize::from(MAX_HOPS) + 1);
}

#[test]
fn flow_control_holds_a_flood_back() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(1, 0);
    for byte in 0..200 {
        world.order(0, Order::Write { address, data: vec![byte; 4] });
    }
    let robot = world.system.function("robot0").unwrap();
    for _ in 0..1000 {
        world.system.step_function(robot);
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
    let robot = world.system.function("robot0").unwrap();
    world.system.step_function(robot);
    let target = world.bdf("robot1");
    let device_control = world.capability(target, 0x10) + 8;
    let before = world.system.config_read(target, device_control, 2);
    world.system.config_write(target, device_control, 2, before | 0x8000);
    let mut data = [0; 4];
    world.system.mmio_read(address, &mut data);
    assert_eq!(data, [0xff; 4], "a function in reset does not answer");
    world.run();
    assert_eq!(
        world.scripts[0].lock().unwrap().saw,
        [Saw::Read(CompletionStatus::Timeout, Vec::new())]
    );
    assert_eq!(world.log.classes(), ["fabric.completion-timeout"]);
    assert_eq!(world.system.config_read(target, COMMAND, 2), 0, "the command register is cleared");
}

#[test]
fn late_completions_are_dropped() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let address = world.bar(1, 0);
    world.order(0, Order::Read { address, length: 4 });
    let (reader, target) =
        (world.system.function("robot0").unwrap(), world.system.function("robot1").unwrap());
    world.system.step_function(reader);
    let bdf = world.bdf("robot0");
    let device_control = world.capability(bdf, 0x10) + 8;
    assert_ne!(
        world.system.config_read(bdf, device_control + 2, 2) & 0x20,
        0,
        "Transactions Pending"
    );
    // Reset first: the completion is not under way yet, and it is no longer wanted when it comes.
    world.system.config_write(bdf, device_control, 2, 0x8000);
    assert_eq!(world.system.step_function(target), Progress::Worked);
    world.run();
    assert_eq!(world.scripts[0].lock().unwrap().completions, 0);
    assert!(world.scripts[0].lock().unwrap().saw.is_empty());
    assert_eq!(world.system.config_read(bdf, device_control + 2, 2) & 0x20, 0);
}

#[test]
fn a_read_that_fails_shows_in_its_requesters_status() {
    const STATUS: u16 = 6;
    const RECEIVED_MASTER_ABORT: u32 = 1 << 13;
    let mut world = World::root_ports(Box::new(NoIommu));
    let bdf = world.bdf("robot0");
    assert_eq!(world.system.config_read(bdf, STATUS, 2) & RECEIVED_MASTER_ABORT, 0);
    world.read(0, 0xf000_0000, 4);
    assert_ne!(world.system.config_read(bdf, STATUS, 2) & RECEIVED_MASTER_ABORT, 0);
    let other = world.bdf("robot1");
    assert_eq!(world.system.config_read(other, STATUS, 2) & RECEIVED_MASTER_ABORT, 0);
    world.system.config_write(bdf, STATUS, 2, RECEIVED_MASTER_ABORT);
    world.write(0, 0xf000_0000, &[0; 4]);
    assert_eq!(
        world.system.config_read(bdf, STATUS, 2) & RECEIVED_MASTER_ABORT,
        0,
        "writes are posted"
    );
}

#[test]
fn a_masked_interrupt_waits_until_its_function_may_send_it() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let table = world.bar(0, 4);
    let bdf = world.bdf("robot0");
    let msix = world.capability(bdf, 0x11);
    world.system.config_write(bdf, msix + 2, 2, 0x8000);
    for (offset, value) in [(0, 0xfee0_0000u32), (4, 0), (8, 0x41)] {
        world.system.mmio_write(table + offset, &value.to_le_bytes());
    }
    world.now(0, Order::Raise(0));
    world.config_write(0, COMMAND, 2, 2);
    world.system.mmio_write(table + 12, &0u32.to_le_bytes());
    let mut pending = [0; 4];
    world.system.mmio_read(table + 0x800, &mut pending);
    assert_eq!(pending, [1, 0, 0, 0], "Bus Master Enable is clear: it stays pending");
    assert!(world.log.classes().is_empty(), "and the function did nothing wrong");
    world.config_write(0, COMMAND, 2, 6);
    assert_eq!(world.log.0.lock().unwrap().interrupts, [(0xfee0_0000, 0x41)]);
    world.system.mmio_read(table + 0x800, &mut pending);
    assert_eq!(pending, [0; 4]);
}

#[test]
fn an_interrupt_into_full_registers_comes_when_there_is_room() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (table, registers) = (world.bar(0, 4), world.bar(1, 0));
    let bdf = world.bdf("robot0");
    let msix = world.capability(bdf, 0x11);
    world.system.config_write(bdf, msix + 2, 2, 0x8000);
    let target = u32::try_from(registers + 0x40).unwrap();
    for (offset, value) in [(0, target), (4, 0), (8, 0x1234)] {
        world.system.mmio_write(table + offset, &value.to_le_bytes());
    }
    world.now(0, Order::Raise(0));
    for _ in 0..64 {
        world.order(0, Order::Write { address: registers, data: vec![0; 4] });
    }
    let robot = world.system.function("robot0").unwrap();
    for _ in 0..64 {
        world.system.step_function(robot);
    }
    world.system.mmio_write(table + 12, &0u32.to_le_bytes());
    world.run();
    let saw = world.scripts[1].lock().unwrap().saw.clone();
    let message = Saw::Register { offset: 0x40, data: vec![0x34, 0x12, 0, 0] };
    assert_eq!((saw.len(), saw.last()), (65, Some(&message)));
}

#[test]
fn bytes_are_counted_by_route() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.write(0, memory, &[0; 1000]);
    world.write(0, 0x1000, &[0; 10]);
    world.read(0, memory, 77);
    let counters = *world.system.stats().of(world.system.function("robot0").unwrap());
    assert_eq!(counters.bytes_written[RouteKind::ThroughHostBridge as usize], 1000);
    assert_eq!(counters.bytes_written[RouteKind::Memory as usize], 10);
    assert_eq!(counters.bytes_read[RouteKind::ThroughHostBridge as usize], 77);
    assert_eq!(counters.bytes_written[RouteKind::BusAddress as usize], 0);
    let (from, to) =
        (world.system.function("robot0").unwrap(), world.system.function("robot1").unwrap());
    let moved = |target, read, written| (target, Moved { read, written });
    let by_target: Vec<_> = world.system.stats().by_target(from).collect();
    assert_eq!(by_target, [moved(None, 0, 10), moved(Some(to), 77, 1000)]);
    assert_eq!(world.system.stats().by_target(to).count(), 0);

    // Registers are read by message; the bytes still took a way.
    let mut world = World::switch(Box::new(NoIommu), false);
    let registers = world.bar(1, 0);
    world.read(0, registers, 8);
    let counters = *world.system.stats().of(world.system.function("robot0").unwrap());
    assert_eq!(counters.bytes_read[RouteKind::BusAddress as usize], 8);
    assert_eq!(counters.bytes_read[RouteKind::ThroughHostBridge as usize], 0);
}
