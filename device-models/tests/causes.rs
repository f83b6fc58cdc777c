//! Which findings belong together, and that a sentence about one address is not repeated for
//! another.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use common::{COMMAND, MEMORY_AND_MASTER, World};
use device_models::checker::{Cause, Finding, FindingClass};
use device_models::fabric::PostedDelay;
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{NoIommu, VirtioIommu};
use device_models::pci::AcsControl;

const BOTH: u32 = 3;
const IOVA: u64 = 0xfff0_0000;

fn iommu() -> Box<VirtioIommu> {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    Box::new(iommu)
}

fn iommu_of(world: &mut World) -> &mut VirtioIommu {
    world.system.virtio_iommu().unwrap()
}

/// Attaches the two robots to a domain of its own each: 1 and 2.
fn attached(mut world: World) -> World {
    for robot in 0..2 {
        let endpoint = u32::from(world.bdf(&format!("robot{robot}")).0);
        iommu_of(&mut world).attach(1 + robot, endpoint, 0).unwrap();
    }
    world
}

fn translated() -> World {
    attached(World::root_ports(iommu()))
}

fn map_to(world: &mut World, domain: u32, iova: u64, length: u64, physical: u64) {
    iommu_of(world).map(domain, iova, iova + length - 1, physical, BOTH).unwrap();
}

fn map(world: &mut World, domain: u32, iova: u64, length: u64) {
    map_to(world, domain, iova, length, 0x10_0000);
}

fn unmap(world: &mut World, domain: u32, iova: u64, length: u64) {
    iommu_of(world).unmap(domain, iova, iova + length - 1).unwrap();
}

fn taken(world: &World) -> Vec<Finding> {
    std::mem::take(&mut world.log.0.lock().unwrap().findings)
}

/// What is said of one write of `length` bytes by robot 0, which is one finding.
fn said(world: &mut World, address: u64, length: usize) -> String {
    world.write(0, address, &vec![1; length]);
    let findings = taken(world);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings[0].to_string()
}

/// The causes of all that was found since the last call, all of class `class`.
fn causes(world: &World, class: FindingClass) -> BTreeSet<Cause> {
    let findings = taken(world);
    assert!(findings.iter().all(|found| found.class == class), "{findings:#?}");
    findings.iter().map(|found| found.cause).collect()
}

#[test]
fn a_detached_functions_addresses_are_explained_one_by_one() {
    let mut world = translated();
    let endpoint = u32::from(world.bdf("robot0").0);
    map(&mut world, 2, IOVA, 0x2000);
    iommu_of(&mut world).detach(1, endpoint).unwrap();
    let mapped = "; mapped for 02:00.0 robot1 by request #3; used by 01:00.0 robot0";
    let nowhere = 0x1_6ff0_0000;
    assert!(said(&mut world, IOVA, 4).ends_with(mapped));
    let text = said(&mut world, nowhere, 4);
    assert!(text.contains("iommu.no-domain") && !text.contains("mapped for"), "{text}");
    assert!(said(&mut world, IOVA + 0x1040, 4).ends_with(mapped), "the other page of it");
    assert!(!said(&mut world, IOVA + 0x2000, 4).contains("mapped for"), "just behind it");
    assert!(!said(&mut world, IOVA - 4, 4).contains("mapped for"), "just before it");
    // What is mapped and unmapped meanwhile counts.
    map(&mut world, 2, nowhere, 0x1000);
    assert!(said(&mut world, nowhere, 4).contains("; mapped for 02:00.0 robot1 by request #5"));
    unmap(&mut world, 2, nowhere, 0x1000);
    assert!(!said(&mut world, nowhere, 4).contains("mapped for"));
    assert!(said(&mut world, IOVA, 4).ends_with(mapped));
    unmap(&mut world, 2, IOVA, 0x2000);
    assert!(!said(&mut world, IOVA, 4).contains("mapped for"));
}

#[test]
fn the_pieces_of_what_was_unmapped_in_one_go_are_explained_one_by_one() {
    let mut world = translated();
    map(&mut world, 1, IOVA, 0x1000);
    map(&mut world, 1, IOVA + 0x1000, 0x1000);
    unmap(&mut world, 1, IOVA, 0x2000);
    map(&mut world, 2, IOVA, 0x1000);
    for (page, hinted) in [(0, true), (1, false), (0, true)] {
        let text = said(&mut world, IOVA + page * 0x1000, 4);
        assert!(text.contains("iommu.stale"), "{text}");
        assert_eq!(text.contains("mapped for 02:00.0 robot1"), hinted, "{text}");
    }
}

#[test]
fn neighbouring_addresses_have_one_cause_and_their_own_explanations() {
    // The low half of each is that of another address.
    let mut world = translated();
    map(&mut world, 1, 0x1_fedc_c000, 0x2000);
    for low in [0xfedc_d040, 0xfedc_d044, 0xfedc_d048, 0xfedc_d044] {
        let text = said(&mut world, low, 4);
        assert!(
            text.ends_with(&format!("the low half of {:#x}, which is mapped there", low | 1 << 32)),
            "{text}"
        );
    }
    // A copy that leaves its mapping, and another that begins where that one ended.
    map(&mut world, 1, IOVA, 0x1000);
    world.write(0, IOVA + 0xfc0, &[1; 128]);
    let first = taken(&world);
    assert!(first[0].to_string().ends_with("mapped ends just before it"), "{first:?}");
    world.write(0, IOVA + 0x1040, &[1; 64]);
    let second = taken(&world);
    assert_eq!(first[0].cause, second[0].cause);
    assert!(second[0].to_string().ends_with("not mapped in domain 1"), "{second:?}");
    // Mapped for another function since.
    map(&mut world, 2, IOVA + 0x1000, 0x1000);
    assert!(said(&mut world, IOVA + 0x1040, 4).contains("mapped for 02:00.0 robot1"));
}

/// Maps `physical` at [`IOVA`] for robot 0 twice, and lets it do `work` both times: each time there
/// is one cause, and the second is another.
fn is_told_again(world: &mut World, class: FindingClass, physical: u64, work: impl Fn(&mut World)) {
    let seen = [(); 2].map(|()| {
        map_to(world, 1, IOVA, 0x1000, physical);
        work(world);
        work(world);
        unmap(world, 1, IOVA, 0x1000);
        let causes = causes(world, class);
        assert_eq!(causes.len(), 1, "{causes:?}");
        causes
    });
    assert_ne!(seen[0], seen[1]);
}

fn write_twice(world: &mut World) {
    world.write(0, IOVA, &[1; 16]);
    world.write(0, IOVA + 0x40, &[1; 16]);
}

#[test]
fn a_target_or_a_port_that_refuses_is_reported_again_when_the_address_was_mapped_again() {
    let mut world = translated();
    let memory = world.bar(1, 2);
    world.config_write(1, COMMAND, 2, 0);
    is_told_again(&mut world, FindingClass::MemoryDecodeOff, memory, write_twice);
    // The root port would have to turn it around.
    let mut world = attached(World::switch(iommu(), true));
    world.set_acs("down0", AcsControl::P2P_REQUEST_REDIRECT);
    let memory = world.bar(1, 2);
    is_told_again(&mut world, FindingClass::TurnedBack, memory, write_twice);
    // A read whose completions do not come back: the requester's bus is not behind its port any
    // more.
    let mut world = translated();
    let port = world.bdf("port0");
    world.system.config_write(port, 0x18, 4, 0x0009_0900);
    is_told_again(&mut world, FindingClass::CompletionTimeout, 0x10_0000, |world| {
        world.read(0, IOVA, 4);
    });
    // An address that stands for a failed mapping, and the byte there is mapped.
    let mut world = translated();
    let seen = [(); 2].map(|()| {
        map(&mut world, 1, 0xffff_f000, 0x1000);
        world.write(0, 0xffff_ffff, &[1; 64]);
        world.write(0, 0xffff_ffff, &[1; 64]);
        unmap(&mut world, 1, 0xffff_f000, 0x1000);
        causes(&world, FindingClass::Unmapped)
    });
    assert!(seen[0].len() == 1 && seen[1].len() == 1 && seen[0] != seen[1], "{seen:?}");
    // Nothing is mapped there, and nothing has been.
    world.write(0, u64::MAX, &[1]);
    map(&mut world, 1, IOVA, 0x1000);
    world.write(0, u64::MAX, &[1]);
    assert_eq!(causes(&world, FindingClass::Unmapped).len(), 1);
}

#[test]
fn what_no_iommu_has_translated_is_one_whatever_is_mapped() {
    let mut world = translated();
    let port = world.bdf("port0");
    world.system.config_write(port, COMMAND, 2, 2);
    for _ in 0..2 {
        map(&mut world, 1, IOVA, 0x1000);
        write_twice(&mut world);
        unmap(&mut world, 1, IOVA, 0x1000);
    }
    assert_eq!(causes(&world, FindingClass::BusMasterOff).len(), 1);
}

#[test]
fn a_delayed_write_belongs_to_the_mapping_that_it_was_issued_by() {
    let mut world = translated();
    let (memory, robots) = (world.bar(1, 2), (world.bdf("robot0"), world.bdf("robot1")));
    world.system.delay_posted(robots.0, Some(robots.1), PostedDelay::UntilPushed).unwrap();
    for _ in 0..2 {
        map_to(&mut world, 1, IOVA, 0x1000, memory);
        write_twice(&mut world);
        unmap(&mut world, 1, IOVA, 0x1000);
    }
    world.config_write(1, COMMAND, 2, 0);
    world.system.delay_posted(robots.0, Some(robots.1), PostedDelay::Off).unwrap();
    let found = taken(&world);
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found.iter().all(|found| found.class == FindingClass::MemoryDecodeOff), "{found:#?}");
    assert_eq!(found.iter().map(|found| found.cause).collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn writes_that_are_no_vectors_are_distinguished_by_where_and_what() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.config_write(0, COMMAND, 2, MEMORY_AND_MASTER);
    let mut signal = |address: u64, data: u32| {
        world.write(0, address, &data.to_le_bytes());
        let causes = causes(&world, FindingClass::NotAVector);
        assert_eq!(causes.len(), 1);
        causes
    };
    let first = signal(0xfee0_0000, 0x42);
    assert_eq!(signal(0xfee0_0000, 0x42), first);
    assert_ne!(signal(0xfee0_0000, 0x43), first);
    assert_ne!(signal(0xfee0_1000, 0x42), first);
}

#[test]
fn malformed_accesses_to_the_interrupt_window_are_distinguished_by_where_and_how() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let class = FindingClass::Malformed;
    world.write(0, 0xfee0_0000, &[1; 0x4000]);
    let copy = causes(&world, class);
    assert_eq!(copy.len(), 1, "one copy");
    world.write(0, 0xfee0_1000, &[2; 0x80]);
    assert_eq!(causes(&world, class), copy);
    let mut all = copy;
    world.write(0, 0xfee0_1000, &[2; 2]);
    all.extend(causes(&world, class));
    world.write(0, 0xfee0_1002, &[2; 4]);
    all.extend(causes(&world, class));
    world.read(0, 0xfee0_1000, 4);
    all.extend(causes(&world, class));
    world.write(0, 0xfee8_0000, &[1; 8]);
    all.extend(causes(&world, class));
    assert_eq!(all.len(), 5, "{all:?}");
}
