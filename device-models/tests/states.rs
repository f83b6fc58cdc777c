//! Functions in D3hot, and functions that have lost their bus numbers: what they still do, and what
//! not.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{Saw, World};
use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, WriteOutcome};
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{NoIommu, VirtioIommu};
use device_models::pci::Bdf;

const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });
/// Primary, secondary and subordinate bus number of a bridge.
const BUS_NUMBERS: u16 = 0x18;
const D0: u32 = 0;
const D3_HOT: u32 = 3;

fn found(class: FindingClass) -> Saw {
    Saw::Wrote(WriteOutcome::Posted { verdict: Some(class) })
}

fn set_power(world: &mut World, name: &str, state: u32) {
    let bdf = world.bdf(name);
    let power = world.capability(bdf, 1);
    world.system.config_write(bdf, power + 4, 2, state);
}

#[test]
fn a_target_that_sleeps_is_distinguished_from_one_that_does_not_decode() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    set_power(&mut world, "robot1", D3_HOT);
    assert_eq!(world.write(0, memory, &[1; 4]), found(FindingClass::NotInD0));
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert!(
        findings[0].explanation.starts_with("robot1 (02:00.0) would claim the address"),
        "{}",
        findings[0]
    );
    assert!(world.system.address_map().guest_mappings().iter().all(|m| m.guest_address != memory));
    set_power(&mut world, "robot1", D0);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
}

#[test]
fn nothing_passes_a_port_that_sleeps() {
    let mut world = World::switch(Box::new(NoIommu), false);
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory, &[1; 4]), CLEAN);
    let mapped = |world: &World| {
        world.system.address_map().guest_mappings().iter().any(|m| m.guest_address == memory)
    };
    assert!(mapped(&world));
    set_power(&mut world, "down1", D3_HOT);
    assert_ne!(world.write(0, memory, &[1; 4]), CLEAN);
    assert!(!mapped(&world), "nor does a CPU");
}

#[test]
fn a_function_keeps_the_number_that_it_captured() {
    let mut world = World::root_ports(Box::new(VirtioIommu::new(VirtioIommuConfig::default())));
    let (port, robot) = (world.bdf("port0"), world.bdf("robot0"));
    world.system.config_write(port, BUS_NUMBERS, 4, 0);
    assert_eq!(world.system.config_read(robot, 0, 4), u32::MAX, "it cannot be reached");
    // It goes on under its old number, which is not below the port any more; above all it is not
    // the host bridge.
    world.write(0, 0x1000, &[1; 4]);
    let (transaction, _) = *world.log.0.lock().unwrap().transactions.last().unwrap();
    assert_eq!(transaction.requester, robot);
}

/// Hardware captures its number from a configuration write, not from what a bridge above is
/// programmed to.
#[test]
fn a_function_takes_a_new_number_from_a_configuration_write() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let (port, new) = (world.bdf("port0"), Bdf::new(9, 0, 0));
    let old = world.bdf("robot0");
    world.system.config_write(port, BUS_NUMBERS, 4, 0x0009_0900);
    assert_eq!(world.system.config_read(old, 0, 4), u32::MAX);
    assert_ne!(world.system.config_read(new, 0, 4), u32::MAX);
    assert_eq!(world.bdf("robot0"), old);
    world.system.config_write(new, common::COMMAND, 2, common::MEMORY_AND_MASTER);
    assert_eq!(world.bdf("robot0"), new);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), CLEAN);
}

/// Without ACS Source Validation the request gets through, but its completions do not find back.
#[test]
fn completions_for_a_bus_that_moved_away_are_lost() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let port = world.bdf("port0");
    let numbers = world.system.config_read(port, BUS_NUMBERS, 4);
    let peer = world.bar(1, 2);
    world.system.config_write(port, BUS_NUMBERS, 4, 0x0009_0900);
    for address in [0x1000, peer] {
        let ended = Saw::Read(CompletionStatus::Timeout, Vec::new());
        assert_eq!(world.read(0, address, 4), ended);
        assert_eq!(world.write(0, address, &[1; 4]), CLEAN);
    }
    world.system.config_write(port, BUS_NUMBERS, 4, numbers);
    for address in [0x1000, peer] {
        assert_eq!(world.read(0, address, 4), Saw::Read(CompletionStatus::Success, vec![1; 4]));
    }
}

#[test]
fn a_bus_outside_those_of_the_bridge_above_is_not_reached() {
    let mut world = World::switch(Box::new(NoIommu), false);
    let (down, robot) = (world.bdf("down1"), world.bdf("robot1"));
    let numbers = world.system.config_read(down, BUS_NUMBERS, 4);
    let [primary, ..] = numbers.to_le_bytes();
    world.system.config_write(down, BUS_NUMBERS, 4, u32::from_le_bytes([primary, 9, 9, 0]));
    assert_eq!(world.system.config_read(Bdf::new(9, 0, 0), 0, 4), u32::MAX);
    world.system.config_write(down, BUS_NUMBERS, 4, numbers);
    assert_ne!(world.system.config_read(robot, 0, 4), u32::MAX);
}

#[test]
fn no_mapping_leads_into_the_interrupt_window() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    let features = iommu.offered_features();
    iommu.accept_features(features.bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoint = u32::from(world.bdf("robot0").0);
    let iommu = world.system.virtio_iommu().unwrap();
    iommu.attach(1, endpoint, 0).unwrap();
    iommu.map(1, 0x1000, 0x1fff, 0xfee0_0000, 3).unwrap();
    assert_eq!(world.write(0, 0x1000, &0x41u32.to_le_bytes()), found(FindingClass::NoTarget));
    assert!(world.log.0.lock().unwrap().interrupts.is_empty());
}
