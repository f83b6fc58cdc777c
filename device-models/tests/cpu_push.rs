//! CPUs' accesses to a function's BARs come behind the posted writes that are under way to it, and
//! push them.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, Order, Saw, World};
use device_models::endpoint::Progress;
use device_models::fabric::PostedDelay;
use device_models::iommu::NoIommu;
use device_models::pci::Bdf;

/// Where records go.
const RECORD: u64 = 0x1000;
const DATA: &[u8] = &[0x5a; 64];
const RECORD_FOUND: [&str; 1] = ["order.record-before-data"];

fn worlds() -> [World; 2] {
    [World::root_ports(Box::new(NoIommu)), World::switch(Box::new(NoIommu), false)]
}

impl World {
    fn delay(&mut self, from: usize, to: Option<usize>, delay: PostedDelay) {
        let [from, to] = [Some(from), to].map(|robot| robot.map(|robot| self.robot(robot)));
        self.system.delay_posted(from.unwrap(), to, delay).unwrap();
    }

    fn robot(&self, robot: usize) -> Bdf {
        self.bdf(&format!("robot{robot}"))
    }

    /// A CPU's read of eight bytes of a robot's memory.
    fn cpu_reads(&mut self, robot: usize, offset: u64) -> [u8; 8] {
        let mut bytes = [0; 8];
        let address = self.bar(robot, 2) + offset;
        self.system.mmio_read(address, &mut bytes);
        bytes
    }

    fn cpu_writes(&mut self, robot: usize, offset: u64, data: &[u8]) {
        let address = self.bar(robot, 2) + offset;
        self.system.mmio_write(address, data);
    }

    /// Data that stays under way, and the record that says that it is there; the robot is at rest.
    fn post(&mut self, from: usize, to: usize) {
        self.order(from, Order::Write { address: self.bar(to, 2), data: DATA.to_vec() });
        self.now(from, Order::Record { address: RECORD, data: vec![1; 4] });
    }

    /// What was written to a robot's registers.
    fn register_writes(&self, robot: usize) -> usize {
        let script = self.scripts[robot].lock().unwrap();
        script.saw.iter().filter(|saw| matches!(saw, Saw::Register { .. })).count()
    }

    /// The memory BARs of a robot that its guest has.
    fn mapped(&self, robot: usize) -> usize {
        let function = self.system.function(&format!("robot{robot}")).unwrap();
        self.system.guest_mappings().iter().filter(|bar| bar.function == function).count()
    }
}

#[test]
fn a_cpu_that_reads_where_the_data_goes_sees_it_and_nothing_is_found() {
    for mut world in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        for offset in [0, 56] {
            world.post(0, 1);
            assert!(world.log.classes().is_empty(), "no CPU has read yet");
            assert_eq!(world.cpu_reads(1, offset), [0x5a; 8]);
            world.cpu_writes(1, offset, &[0; 8]);
        }
        world.delay(0, Some(1), PostedDelay::Off);
        assert!(world.log.classes().is_empty(), "no reader was misled");
        assert_eq!(world.cpu_reads(1, 56), [0; 8]);
    }
}

#[test]
fn a_cpu_pushes_before_the_requester_comes_to_rest_too() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let robot = world.system.function("robot0").unwrap();
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.order(0, Order::Write { address: world.bar(1, 2), data: DATA.to_vec() });
    world.order(0, Order::Record { address: RECORD, data: vec![1; 4] });
    world.system.step_function(robot);
    world.system.step_function(robot);
    assert_eq!(world.cpu_reads(1, 0), [0x5a; 8]);
    world.run();
    world.delay(0, Some(1), PostedDelay::Off);
    assert!(world.log.classes().is_empty());
}

#[test]
fn a_cpu_s_write_lands_behind_what_was_posted_before_it() {
    for mut world in worlds() {
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        world.post(0, 1);
        world.cpu_writes(1, 8, &[7; 8]);
        world.delay(0, Some(1), PostedDelay::Off);
        let seen = [0, 8, 16].map(|offset| world.cpu_reads(1, offset)[0]);
        assert_eq!(seen, [0x5a, 7, 0x5a], "the device's bytes are older");
        assert!(world.log.classes().is_empty());
    }
}

#[test]
fn an_access_to_the_target_s_registers_pushes_as_well() {
    for writes in [false, true] {
        for mut world in worlds() {
            world.delay(0, Some(1), PostedDelay::UntilPushed);
            let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
            world.post(0, 1);
            // More than the registers take at once: the function takes them, and then the CPU's.
            for _ in 0..300 {
                world.order(0, Order::Write { address: registers, data: vec![7; 4] });
            }
            world.order(0, Order::Write { address: memory + 64, data: vec![8; 8] });
            world.run();
            assert_eq!(world.register_writes(1), 0);
            let progress = if writes {
                world.system.mmio_write(registers + 4, &[9; 4])
            } else {
                world.system.mmio_read(registers, &mut [0; 4])
            };
            assert_eq!(progress, Progress::Worked, "the caller that steps the system learns of it");
            assert_eq!(world.register_writes(1), 300 + usize::from(writes));
            let last = world.scripts[1].lock().unwrap().saw.last().cloned();
            let (offset, value) = if writes { (4, 9) } else { (0, 7) };
            assert_eq!(last, Some(Saw::Register { offset, data: vec![value; 4] }));
            assert_eq!([0, 64].map(|offset| world.cpu_reads(1, offset)[0]), [0x5a, 8]);
            world.delay(0, Some(1), PostedDelay::Off);
            assert!(world.log.classes().is_empty());
        }
    }
}

#[test]
fn what_goes_elsewhere_is_not_pushed() {
    let mut world = World::root_ports(Box::new(NoIommu));
    for (from, to) in [(0, 1), (1, 0)] {
        world.delay(from, Some(to), PostedDelay::UntilPushed);
        world.post(from, to);
    }
    assert_eq!(world.cpu_reads(1, 0), [0x5a; 8]);
    world.delay(0, Some(1), PostedDelay::Off);
    assert!(world.log.classes().is_empty());
    world.delay(1, Some(0), PostedDelay::Off);
    assert_eq!(world.log.classes(), RECORD_FOUND, "what a CPU did elsewhere excuses nothing");
}

#[test]
fn configuration_and_requests_that_nobody_takes_push_nothing() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.post(0, 1);
    let (robot, memory) = (world.robot(1), world.bar(1, 2));
    world.system.config_read(robot, 0, 4);
    world.config_write(1, COMMAND, 2, 4);
    assert_eq!(world.cpu_reads(1, 0), [0xff; 8], "it decodes no memory");
    world.config_write(1, COMMAND, 2, 6);
    world.system.mmio_read(memory - 8, &mut [0; 8]);
    world.cpu_reads(0, 0);
    world.delay(0, Some(1), PostedDelay::Off);
    assert_eq!(world.log.classes(), RECORD_FOUND);
}

#[test]
fn a_fence_is_for_devices_and_no_cpu_excuses_it_afterwards() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let robot = world.robot(0);
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.post(0, 1);
    world.system.fence_seen(robot).unwrap();
    assert_eq!(world.log.classes(), ["order.fence-before-data"]);
    world.post(0, 1);
    world.cpu_reads(1, 0);
    world.system.fence_seen(robot).unwrap();
    assert!(world.log.classes().is_empty(), "this time the CPU was first");
}

#[test]
fn what_goes_to_ram_is_found_when_the_requester_comes_to_rest() {
    // No CPU is seen reading RAM, so none can push anything there.
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, None, PostedDelay::UntilPushed);
    world.order(0, Order::Write { address: 0x2000, data: DATA.to_vec() });
    let address = world.bar(1, 2);
    world.now(0, Order::Record { address, data: vec![1; 4] });
    assert_eq!(world.log.classes(), RECORD_FOUND);
}

#[test]
fn a_delayed_target_is_not_in_the_guest_s_memory() {
    for mut world in worlds() {
        let epoch = |world: &World| world.system.mapping_epoch();
        let (start, map) = (epoch(&world), world.system.address_map().epoch);
        assert_eq!((world.mapped(0), world.mapped(1)), (1, 1));
        world.delay(0, Some(1), PostedDelay::UntilPushed);
        let armed = epoch(&world);
        assert!(armed > start);
        assert_eq!((world.mapped(0), world.mapped(1)), (1, 0), "only where data may be under way");
        assert_eq!(world.system.withheld_mappings().len(), 1);
        // Other paths change nothing: to RAM, to one that is out already.
        world.delay(0, None, PostedDelay::UntilPushed);
        world.delay(0, Some(1), PostedDelay::Turns(4));
        world.delay(1, Some(1), PostedDelay::Turns(4));
        world.delay(0, Some(1), PostedDelay::Off);
        assert_eq!(world.mapped(1), 0, "there is another path to it");
        let before = epoch(&world);
        world.delay(1, Some(1), PostedDelay::Off);
        assert!(epoch(&world) > before);
        assert_eq!((world.mapped(0), world.mapped(1)), (1, 1));
        assert_eq!(world.system.address_map().epoch, map, "nothing has moved");
    }
}

#[test]
fn a_path_that_is_off_and_not_empty_keeps_the_target_out() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    let (registers, memory) = (world.bar(1, 0), world.bar(1, 2));
    for _ in 0..200 {
        world.order(0, Order::Write { address: registers, data: vec![7; 4] });
    }
    world.order(0, Order::Write { address: memory, data: DATA.to_vec() });
    world.run();
    world.delay(0, Some(1), PostedDelay::Off);
    assert_eq!(world.mapped(1), 0, "the registers are full, and the data waits behind");
    let before = world.system.mapping_epoch();
    assert_eq!(world.cpu_reads(1, 0), [0x5a; 8]);
    assert_eq!(world.mapped(1), 1);
    assert!(world.system.mapping_epoch() > before, "a VMM hears of it");
}

#[test]
fn bars_that_are_withheld_come_back() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let robot = world.robot(1);
    assert_eq!(world.system.withhold(Bdf::new(0x77, 0, 0)), None);
    let first = world.system.withhold(robot).unwrap();
    let second = world.system.withhold(robot).unwrap();
    assert_eq!((world.mapped(0), world.mapped(1)), (1, 0));
    world.system.release(first);
    assert_eq!(world.mapped(1), 0, "another holder wants it out");
    let before = world.system.mapping_epoch();
    world.system.release(second);
    assert!(world.system.mapping_epoch() > before);
    assert_eq!(world.mapped(1), 1);
    let before = world.system.mapping_epoch();
    world.system.release(second);
    assert_eq!(world.system.mapping_epoch(), before, "it was not withheld");
}

#[test]
fn when_all_delays_end_everything_is_reported() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.delay(0, None, PostedDelay::UntilPushed);
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.order(0, Order::Write { address: world.bar(1, 2), data: DATA.to_vec() });
    world.now(0, Order::Record { address: world.bar(1, 2) + 0x100, data: vec![1; 4] });
    world.now(0, Order::Record { address: RECORD, data: vec![1; 4] });
    world.system.end_delays();
    assert_eq!(world.mapped(1), 1);
    assert_eq!(world.log.classes(), [""; 0], "data and record took the same paths");
    world.system.end_delays();

    world.delay(0, Some(1), PostedDelay::UntilPushed);
    world.post(0, 1);
    world.system.end_delays();
    assert_eq!(world.log.classes(), RECORD_FOUND);
    assert_eq!(world.mapped(1), 1);
}

#[test]
fn without_a_delay_nothing_is_pushed() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.post(0, 1);
    let address = world.bar(1, 2);
    assert_eq!(world.system.mmio_read(address, &mut [0; 8]), Progress::Idle);
    world.delay(0, Some(1), PostedDelay::UntilPushed);
    assert_eq!(world.system.mmio_write(address, &[0; 8]), Progress::Idle, "nothing is under way");
}
