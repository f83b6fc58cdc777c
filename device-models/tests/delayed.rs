//! Posted writes that stay under way: what overtakes them, what pushes them, and what becomes of
//! them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, MEMORY_AND_MASTER, Order, Saw, World};
use device_models::endpoint::Progress;
use device_models::fabric::{
    CompletionStatus, Delivery, InterruptPolicy, PostedDelay, RouteKind, WriteOutcome,
};
use device_models::iommu::NoIommu;
use device_models::pci::Bdf;
use device_models::system::DelayError;
use vm_memory::{Bytes, GuestAddress};

const POSTED: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
/// Where records go.
const RECORD: u64 = 0x1000;
const DATA: &[u8] = &[0x5a; 64];

/// The way through the root complex, and that past it.
fn worlds() -> [(World, RouteKind); 2] {
    [
        (World::root_ports(Box::new(NoIommu)), RouteKind::ThroughHostBridge),
        (World::switch(Box::new(NoIommu), false), RouteKind::BusAddress),
    ]
}

impl World {
    fn delay(&mut self, from: usize, to: Option<usize>, delay: PostedDelay) {
        let from = self.bdf(&format!("robot{from}"));
        let to = to.map(|to| self.bdf(&format!("robot{to}")));
        self.system.delay_posted(from, to, delay).unwrap();
    }

    /// What is in a robot's memory, without any request that would push something.
    fn peek(&self, robot: usize, offset: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let function = self.system.function(&format!("robot{robot}")).unwrap();
        let mappings = self.system.address_map().guest_mappings();
        let bar = mappings.iter().find(|bar| bar.function == function && bar.bar == 2).unwrap();
        bar.memory.slice(offset, length).unwrap().copy_to(&mut bytes[..]);
        bytes
    }

    fn ram(&self, address: u64) -> [u8; 4] {
        let mut bytes = [0; 4];
        self.ram.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn record(&mut self, robot: usize) -> Saw {
        self.now(robot, Order::Record { address: RECORD, data: vec![1; 4] })
    }

    /// MSI-X vector 0 of a robot, enabled and unmasked.
    fn enable_msix(&mut self, robot: usize) {
        let bdf = self.bdf(&format!("robot{robot}"));
        let msix = self.capability(bdf, 0x11);
        self.system.config_write(bdf, msix + 2, 2, 0x8000);
        let table = self.bar(robot, 4);
        for (offset, value) in [(0, 0xfee0_0000u32), (4, 0), (8, 0x41), (12, 0)] {
            self.system.mmio_write(table + offset, &value.to_le_bytes());
        }
    }

    /// A CPU reads a robot's registers.
    fn registers(&mut self, robot: usize) {
        let address = self.bar(robot, 0);
        self.system.mmio_read(address, &mut [0; 4]);
    }

    /// A function level reset begins.
    fn flr(&mut self, robot: usize) {
        let bdf = self.bdf(&format!("robot{robot}"));
        let control = self.capability(bdf, 0x10) + 8;
        self.system.config_write(bdf, control, 2, 1 << 15);
    }

    fn interrupts(&self) -> usize {
        self.log.0.lock().unwrap().interrupts.len()
    }
}

#[test]
fn a_record_and_an_interrupt_overtake_data_and_that_is_found() {
    for (mut world, route) in worlds() {
        world.enable_msix(0);
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let memory = world.bar(1, 2);
        assert_eq!(world.write(0, memory, DATA), POSTED);
        assert!(world.log.classes().is_empty(), "nothing has been reported");
        // One after the other, before the device comes to rest.
        world.order(0, Order::Record { address: RECORD, data: vec![1; 4] });
        assert_eq!(world.now(0, Order::Raise(0)), POSTED);
        assert_eq!((world.ram(RECORD), world.interrupts()), ([1; 4], 1));
        assert_eq!(world.peek(1, 0, 64), [0; 64], "{route:?}");
        assert!(world.log.classes().is_empty(), "a CPU may still push it");
        world.delay(0, Some(1), PostedDelay::Off);
        let findings = world.log.0.lock().unwrap().findings.clone();
        assert_eq!(
            world.log.classes(),
            ["order.record-before-data", "order.interrupt-before-data"],
            "{route:?}"
        );
        let text = findings[0].to_string();
        assert!(text.contains("robot0 MWr") && text.contains("64 bytes"), "{text}");
        assert!(text.contains("under way to robot1"), "{text}");
        assert_eq!(world.peek(1, 0, 64), DATA);
        assert_eq!(world.last_route(), Some(route));
        assert!(world.log.classes().is_empty(), "once is enough");
    }
}

#[test]
fn a_requester_that_reads_after_it_came_to_rest_is_too_late() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let memory = world.bar(1, 2);
        world.write(0, memory, DATA);
        world.record(0);
        assert!(world.log.classes().is_empty());
        world.read(0, memory, 1);
        assert_eq!(world.log.classes(), ["order.record-before-data"], "{route:?}");
        // The same where the data has arrived by itself meanwhile, and time has pushed nothing.
        world.delay(0, Some(1), PostedDelay::Turns(40));
        world.order(0, Order::Write { address: memory, data: DATA.to_vec() });
        world.record(0);
        world.run();
        assert!(world.log.classes().is_empty());
        world.read(0, memory, 1);
        assert_eq!(world.log.classes(), ["order.record-before-data"], "{route:?}");
    }
}

#[test]
fn a_read_of_the_same_path_pushes_and_nothing_is_found() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let memory = world.bar(1, 2);
        world.write(0, memory, DATA);
        assert_eq!(world.peek(1, 0, 64), [0; 64], "{route:?}");
        let Saw::Read(_, last) = world.read(0, memory + 63, 1) else { panic!("it was a read") };
        assert_eq!(last, [0x5a], "a read never passes a posted write");
        assert_eq!(world.peek(1, 0, 64), DATA);
        world.record(0);
        assert!(world.log.classes().is_empty());

        // Several records before the one that counts: the last of them comes after the push.
        world.order(0, Order::Write { address: memory, data: vec![3; 8] });
        world.order(0, Order::Record { address: RECORD, data: vec![2; 4] });
        world.order(0, Order::Read { address: memory + 7, length: 1 });
        world.record(0);
        assert!(world.log.classes().is_empty(), "{route:?}");
    }
}

#[test]
fn a_read_of_registers_pushes_too() {
    for (mut world, _) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
        world.write(0, memory, DATA);
        world.write(0, registers, &[7; 4]);
        assert!(world.scripts[1].lock().unwrap().saw.is_empty());
        world.read(0, registers + 8, 4);
        assert_eq!(world.peek(1, 0, 64), DATA);
        let saw = Saw::Register { offset: 0, data: vec![7; 4] };
        assert_eq!(world.scripts[1].lock().unwrap().saw, [saw]);
    }
}

#[test]
fn reads_by_other_paths_push_nothing() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let (robot, memory) = (world.bdf("robot0"), world.bar(1, 2));
        world.write(0, memory, DATA);
        // The same requester elsewhere, another requester, and the CPUs at the requester, whose
        // completions go to the root complex.
        world.read(0, RECORD, 4);
        world.read(1, RECORD, 4);
        world.registers(0);
        world.system.config_read(robot, 0, 4);
        assert_eq!(world.peek(1, 0, 64), [0; 64], "{route:?}");
    }
}

#[test]
fn a_completion_pushes_what_its_completer_has_posted() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let memory = world.bar(1, 2);
        for bar in [2, 0] {
            let flag = world.bar(0, bar);
            let data = [bar + 1; 64];
            world.write(0, memory, &data);
            assert_ne!(world.peek(1, 0, 64), data, "{route:?}");
            world.read(1, flag, 4);
            assert_eq!(world.peek(1, 0, 64), data, "{route:?}, BAR {bar}");
        }
    }
}

#[test]
fn a_completion_waits_until_what_it_pushes_has_room() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let (flag, registers) = (world.bar(0, 0), world.bar(1, 0));
        for bar in [0, 2] {
            // More than the registers take at once.
            for _ in 0..300 {
                world.order(0, Order::Write { address: registers, data: vec![7; 4] });
            }
            world.run();
            let flag = if bar == 0 { flag } else { world.bar(0, 2) };
            let read = world.read(1, flag, 4);
            assert!(matches!(read, Saw::Read(CompletionStatus::Success, _)), "{read:?}");
            let script = world.scripts[1].lock().unwrap();
            let writes = script.saw.iter().filter(|saw| matches!(saw, Saw::Register { .. }));
            assert_eq!(writes.count(), 300, "{route:?}, BAR {bar}");
            let last = script.saw.last();
            assert!(matches!(last, Some(Saw::Read(..))), "they came before it: {last:?}");
        }
    }
}

#[test]
fn two_that_read_from_each_other_do_not_wait_for_ever() {
    for (mut world, route) in worlds() {
        for (from, to) in [(0, 1), (1, 0)] {
            world.delay(from, Some(to), PostedDelay::UntilPushed);
            for _ in 0..1000 {
                let address = world.bar(to, 0);
                world.order(from, Order::Write { address, data: vec![7; 4] });
            }
        }
        world.run();
        for (from, to) in [(0, 1), (1, 0)] {
            world.order(from, Order::Read { address: world.bar(to, 0), length: 4 });
        }
        world.run();
        for script in &world.scripts {
            let script = script.lock().unwrap();
            assert!(script.waiting.is_none(), "{route:?}");
            let writes = script.saw.iter().filter(|saw| matches!(saw, Saw::Register { .. }));
            assert_eq!(writes.count(), 1000, "{route:?}");
        }
    }
}

#[test]
fn whoever_is_reset_while_its_completion_waits_does_not_answer() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    let (flag, registers) = (world.bar(0, 0), world.bar(1, 0));
    for _ in 0..300 {
        world.order(0, Order::Write { address: registers, data: vec![7; 4] });
    }
    world.run();
    world.order(1, Order::Read { address: flag, length: 4 });
    let [completer, reader] = [0, 1].map(|index| world.system.function(&format!("robot{index}")));
    world.system.step_function(reader.unwrap());
    world.system.step_function(completer.unwrap());
    world.flr(0);
    world.run();
    let last = world.scripts[1].lock().unwrap().saw.last().cloned();
    assert_eq!(last, Some(Saw::Read(CompletionStatus::Timeout, Vec::new())));
}

#[test]
fn a_cpu_that_reads_registers_pushes_what_goes_to_ram() {
    for (mut world, route) in worlds() {
        let robot = world.bdf("robot0");
        world.enable_msix(0);
        world.delay(0, None, PostedDelay::UntilPushed);
        world.write(0, 0x2000, &[9; 4]);
        world.now(0, Order::Raise(0));
        // Neither another function's registers nor memory, which CPUs reach past the system.
        world.registers(1);
        world.peek(0, 0, 8);
        assert_eq!((world.ram(0x2000), world.interrupts()), ([0; 4], 0), "{route:?}");
        world.registers(0);
        assert_eq!((world.ram(0x2000), world.interrupts()), ([9; 4], 1), "{route:?}");
        // Its configuration space completes the same way.
        world.write(0, 0x2000, &[8; 4]);
        world.system.config_read(robot, 0, 4);
        assert_eq!(world.ram(0x2000), [8; 4], "{route:?}");
        assert!(world.log.classes().is_empty());
    }
}

#[test]
fn the_order_of_one_path_is_kept() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.delay(0, Some(1), PostedDelay::Turns(30));
    for byte in 0..20 {
        world.order(0, Order::Write { address: memory, data: vec![byte; 4] });
    }
    let robot = world.system.function("robot0").unwrap();
    let mut last = 0;
    let mut seen = 0;
    while world.system.step_function(robot) == Progress::Worked {
        let now = world.peek(1, 0, 4)[0];
        assert!(now >= last, "{now} after {last}");
        seen += u32::from(now != last);
        last = now;
    }
    assert_eq!((last, seen), (19, 19), "each arrives when its time has come");
    let arrived: Vec<_> =
        world.log.0.lock().unwrap().transactions.iter().map(|(t, _)| t.sequence).collect();
    assert!(arrived.is_sorted(), "{arrived:?}");
}

#[test]
fn so_many_turns_later_it_is_there() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.delay(0, Some(1), PostedDelay::Turns(25));
    world.order(0, Order::Write { address: memory, data: DATA.to_vec() });
    let robot = world.system.function("robot0").unwrap();
    let mut turns = 0;
    while world.peek(1, 0, 64) != DATA {
        assert_eq!(world.system.step_function(robot), Progress::Worked);
        turns += 1;
        assert!(turns < 1000, "it never arrives");
    }
    // The turn in which it was issued, and 25 more.
    assert!((25..=26).contains(&turns), "{turns}");
    assert_eq!(world.system.step(), Progress::Idle, "then there is nothing to wait for");
}

#[test]
fn an_interrupt_that_nobody_gets_has_overtaken_nothing() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.system.set_interrupt_policy(InterruptPolicy::Block);
    world.enable_msix(0);
    let signal = |world: &mut World, address, data| {
        world.now(0, Order::Signal { address, data: vec![data, 0, 0, 0] });
        // If it is under way itself.
        world.registers(0);
        world.run();
        world.log.classes()
    };
    for delay in [PostedDelay::Off, PostedDelay::UntilPushed] {
        world.delay(0, None, delay);
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        world.write(0, world.bar(1, 2), DATA);
        assert_eq!(signal(&mut world, 0xfee0_0000, 0x55), ["msi.not-a-vector"], "{delay:?}");
        assert_eq!(signal(&mut world, 0xfee0_0002, 0x41), ["msi.malformed"], "{delay:?}");
        assert_eq!(signal(&mut world, 0xfee0_0000, 0x41), [""; 0], "{delay:?}");
        world.delay(0, Some(1), PostedDelay::Off);
        assert_eq!(world.log.classes(), ["order.interrupt-before-data"], "{delay:?}");
    }
}

#[test]
fn ram_and_interrupts_are_one_path() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.enable_msix(0);
    world.delay(0, None, PostedDelay::UntilPushed);
    world.write(0, 0x2000, &[9; 4]);
    world.record(0);
    world.now(0, Order::Raise(0));
    assert_eq!((world.ram(0x2000), world.ram(RECORD)), ([0; 4], [0; 4]));
    assert_eq!(world.interrupts(), 0, "an interrupt is a write that passes no other");
    world.read(0, RECORD, 4);
    assert_eq!((world.ram(0x2000), world.ram(RECORD)), ([9; 4], [1; 4]));
    assert_eq!(world.interrupts(), 1);
    assert!(world.log.classes().is_empty(), "what comes in order misleads no reader");
}

#[test]
fn a_late_record_has_not_overtaken_what_was_issued_after_it() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.delay(0, None, PostedDelay::UntilPushed);
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.record(0);
    world.write(0, memory, DATA);
    world.read(0, RECORD, 4);
    assert_eq!(world.ram(RECORD), [1; 4]);
    assert!(world.log.classes().is_empty());
    world.record(0);
    world.read(0, RECORD, 4);
    world.delay(0, Some(1), PostedDelay::Off);
    assert_eq!(world.log.classes(), ["order.record-before-data"]);
}

#[test]
fn a_fence_that_was_seen_too_early_is_found() {
    for (mut world, _) in worlds() {
        let memory = world.bar(1, 2);
        let robot = world.bdf("robot0");
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        world.write(0, memory, DATA);
        world.system.fence_seen(robot).unwrap();
        assert_eq!(world.log.classes(), ["order.fence-before-data"]);
        world.system.fence_seen(robot).unwrap();
        assert!(world.log.classes().is_empty(), "once is enough");
        world.write(0, memory, DATA);
        world.system.fence_seen(robot).unwrap();
        let findings = world.log.0.lock().unwrap().findings.clone();
        assert_eq!(world.log.classes(), ["order.fence-before-data"]);
        let text = findings[0].to_string();
        assert!(text.contains(" 64 bytes written before it"), "only what is new: {text}");
        world.read(0, memory, 1);
        world.system.fence_seen(robot).unwrap();
        assert!(world.log.classes().is_empty());
    }
}

#[test]
fn what_a_path_holds_is_bounded() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    // Bytes: the oldest arrive.
    for index in 0..40 {
        world.write(0, memory + index * 0x1000, &[7; 0x1000]);
    }
    let there = (0..40).filter(|index| world.peek(1, index * 0x1000, 8) == [7; 8]).count();
    assert_eq!(there, 24, "16 pages, 64 KiB, are under way");
    // Writes, however small: the registers fill up, and flow control holds the writer back as ever.
    for byte in 0..3000u32 {
        world.order(0, Order::Write { address: registers, data: byte.to_le_bytes().into() });
    }
    world.run();
    let values: Vec<_> = world.scripts[1]
        .lock()
        .unwrap()
        .saw
        .iter()
        .filter_map(|saw| match saw {
            Saw::Register { data, .. } => Some(u32::from_le_bytes(data[..].try_into().unwrap())),
            _ => None,
        })
        .collect();
    assert_eq!(values, (0..3000 - 1024).collect::<Vec<_>>(), "in order, all but the last 1024");
    world.delay(0, Some(1), PostedDelay::Off);
    world.run();
    let last = world.scripts[1].lock().unwrap().saw.last().cloned();
    assert_eq!(last, Some(Saw::Register { offset: 0, data: 2999u32.to_le_bytes().into() }));
}

#[test]
fn whoever_has_gone_meanwhile_gets_nothing() {
    for (mut world, _) in worlds() {
        let memory = world.bar(1, 2);
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        world.write(0, memory, DATA);
        // Memory Space Enable.
        world.config_write(1, COMMAND, 2, 4);
        world.delay(0, Some(1), PostedDelay::Off);
        assert_eq!(world.log.classes(), ["pci.memory-decode-off"]);
        let lost = world.log.0.lock().unwrap().transactions.last().unwrap().1;
        assert!(matches!(lost, Delivery::Failed(_)), "{lost:?}");
        world.config_write(1, COMMAND, 2, 6);
        assert_eq!(world.peek(1, 0, 64), [0; 64]);
    }
}

#[test]
fn what_is_under_way_to_a_function_that_is_reset_is_lost() {
    for (mut world, route) in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let (memory, registers) = (world.bar(1, 2), world.bar(1, 0));
        world.write(0, memory, DATA);
        world.write(0, registers, &[1; 4]);
        world.flr(1);
        let findings = world.log.0.lock().unwrap().findings.clone();
        assert_eq!(world.log.classes(), ["pci.not-in-d0"], "{route:?}");
        let text = findings[0].to_string();
        assert!(text.contains("68 bytes were still under way to robot1"), "{text}");
        world.run();
        // The driver sets it up as it was.
        let (robot, bars) = (world.bdf("robot1"), [(0x10, registers), (0x18, memory)]);
        for (offset, address) in bars {
            for (offset, half) in [(offset, address & 0xffff_ffff), (offset + 4, address >> 32)] {
                let half = u32::try_from(half).unwrap();
                if offset != 0x14 {
                    world.system.config_write(robot, offset, 4, half);
                }
            }
        }
        world.config_write(1, COMMAND, 2, MEMORY_AND_MASTER);
        assert_eq!(world.bar(1, 2), memory);
        world.delay(0, Some(1), PostedDelay::Off);
        world.run();
        assert_eq!(world.peek(1, 0, 64), [0; 64], "{route:?}");
        assert!(world.scripts[1].lock().unwrap().saw.is_empty(), "{route:?}");
        assert!(world.log.classes().is_empty());
    }
}

#[test]
fn a_record_before_data_that_never_comes_is_found_although_something_is_read_later() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    let robot = world.system.function("robot0").unwrap();
    world.order(0, Order::Write { address: world.bar(1, 2), data: DATA.to_vec() });
    world.order(0, Order::Record { address: RECORD, data: vec![1; 4] });
    world.system.step_function(robot);
    world.system.step_function(robot);
    world.flr(1);
    assert_eq!(world.log.classes(), ["order.record-before-data", "pci.not-in-d0"]);
}

#[test]
fn what_is_under_way_to_a_function_that_is_pulled_is_lost() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (robot, target, port) = (world.bdf("robot0"), world.bdf("robot1"), world.bdf("port1"));
    let off = PostedDelay::Off;
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.write(0, world.bar(1, 2), DATA);
    world.system.unplug(port).unwrap();
    assert_eq!(world.log.classes(), ["pci.link-down"]);
    world.system.plug(port).unwrap();
    world.run();
    assert_eq!(world.log.classes(), [""; 0], "what comes back gets nothing of it");

    // The delay of a function that has gone can still be switched off, and what it had sent
    // arrives.
    world.delay(1, Some(0), PostedDelay::UntilPushed);
    world.config_write(1, COMMAND, 2, MEMORY_AND_MASTER);
    world.write(1, world.bar(0, 2), DATA);
    world.system.unplug(port).unwrap();
    assert_eq!(world.system.delay_posted(robot, Some(target), off), Ok(()));
    assert_eq!(world.peek(0, 0, 8), [0; 8]);
    assert_eq!(world.system.delay_posted(target, Some(robot), off), Ok(()));
    assert_eq!(world.peek(0, 0, 64), DATA);
    let absent = DelayError::NoFunction(target);
    assert_eq!(world.system.delay_posted(target, Some(robot), off), Err(absent), "it is off");
}

#[test]
fn what_is_under_way_finds_its_target_after_an_unrelated_change() {
    for (mut world, route) in worlds() {
        let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        world.write(0, memory + 16, DATA);
        world.write(0, registers + 4, &[3; 4]);
        // Bus Master Enable of the target: a new address map in which everything is where it was.
        world.config_write(1, COMMAND, 2, 2);
        world.delay(0, Some(1), PostedDelay::Off);
        world.run();
        assert_eq!(world.peek(1, 16, 64), DATA, "{route:?}");
        let saw = Saw::Register { offset: 4, data: vec![3; 4] };
        assert_eq!(world.scripts[1].lock().unwrap().saw, [saw]);
        assert!(world.log.classes().is_empty());
    }
}

#[test]
fn only_paths_that_exist_are_delayed() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (robot, absent) = (world.bdf("robot0"), Bdf::new(0x77, 0, 0));
    let delay = PostedDelay::UntilPushed;
    let no = DelayError::NoFunction(absent);
    assert_eq!(world.system.delay_posted(absent, None, delay), Err(no));
    assert_eq!(world.system.delay_posted(robot, Some(absent), delay), Err(no));
    assert_eq!(world.system.fence_seen(absent), Err(no));
}

#[test]
fn a_configuration_space_whose_reads_push_is_asked_each_time() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.system.share_config_spaces().unwrap();
    let (robot, other) = (world.bdf("robot0"), world.bdf("robot1"));
    let mapped = |world: &World| -> Vec<_> {
        world.system.config_mappings().iter().map(|mapping| mapping.bdf).collect()
    };
    let all = mapped(&world);
    assert!(all.contains(&robot) && all.contains(&other));
    let epoch = world.system.mapping_epoch();
    world.delay(0, None, PostedDelay::UntilPushed);
    assert!(world.system.mapping_epoch() > epoch, "a VMM hears of it");
    assert!(!mapped(&world).contains(&robot) && mapped(&world).contains(&other));
    let epoch = world.system.mapping_epoch();
    world.delay(0, None, PostedDelay::Off);
    assert!(world.system.mapping_epoch() > epoch, "a VMM hears of it");
    assert_eq!(mapped(&world), all);
}
