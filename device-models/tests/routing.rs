//! Where requests go, and what the checker says of those that do not arrive.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::{COMMAND, MEMORY_AND_MASTER, Order, RAM, Saw, World};
use device_models::checker::FindingClass;
use device_models::fabric::{CompletionStatus, Delivery, InterruptPolicy, RouteKind, WriteOutcome};
use device_models::iommu::{NoIommu, VirtioIommu};
use vm_memory::{Bytes, GuestAddress};

const CLEAN: Saw = Saw::Wrote(WriteOutcome::Posted { verdict: None });

fn found(class: FindingClass) -> Saw {
    Saw::Wrote(WriteOutcome::Posted { verdict: Some(class) })
}

fn refused_read() -> Saw {
    Saw::Read(CompletionStatus::UnsupportedRequest, Vec::new())
}

fn last_route(world: &World) -> Option<RouteKind> {
    match world.log.0.lock().unwrap().transactions.last()?.1 {
        Delivery::Delivered { route, .. } => Some(route),
        Delivery::Failed(_) => None,
    }
}

#[test]
fn data_reaches_ram_and_comes_back() {
    let mut world = World::root_ports(Box::new(NoIommu));
    assert_eq!(world.write(0, 0x1ffe, b"across a page"), CLEAN);
    assert_eq!(last_route(&world), Some(RouteKind::Memory));
    let mut bytes = [0; 13];
    world.ram.read_slice(&mut bytes, GuestAddress(0x1ffe)).unwrap();
    assert_eq!(&bytes, b"across a page");
    assert_eq!(
        world.read(1, 0x1ffe, 13),
        Saw::Read(CompletionStatus::Success, b"across a page".to_vec())
    );
    assert!(world.log.classes().is_empty());
}

#[test]
fn peers_below_root_ports_meet_in_the_host_bridge() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory + 5, &[7; 300]), CLEAN);
    assert_eq!(last_route(&world), Some(RouteKind::ThroughHostBridge));
    assert_eq!(world.read(0, memory + 5, 300), Saw::Read(CompletionStatus::Success, vec![7; 300]));
}

#[test]
fn a_switch_without_acs_turns_requests_around_past_the_iommu() {
    // The IOMMU knows no domain: whatever passes it faults.
    let mut world = World::switch(
        Box::new(VirtioIommu::new(device_models::iommu::virtio::VirtioIommuConfig::default())),
        false,
    );
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory, &[1; 64]), CLEAN);
    assert_eq!(last_route(&world), Some(RouteKind::BusAddress));
    assert_eq!(world.write(0, 0x1000, &[1; 64]), found(FindingClass::NoDomain));
}

#[test]
fn acs_request_redirect_sends_them_up_to_the_iommu() {
    let mut world = World::switch(
        Box::new(VirtioIommu::new(device_models::iommu::virtio::VirtioIommuConfig::default())),
        true,
    );
    let memory = world.bar(1, 2);
    assert_eq!(world.write(0, memory, &[1; 64]), CLEAN, "the capability alone changes nothing");
    let (down, root) = (world.bdf("down0"), world.bdf("port0"));
    // SV, RR, CR, UF, as Linux sets them.
    let control = acs_control_offset(&mut world, down);
    world.system.config_write(down, control, 2, 0x1d);
    assert_eq!(
        world.write(0, memory, &[1; 64]),
        found(FindingClass::NoDomain),
        "redirected to the IOMMU"
    );
    assert_eq!(world.log.classes(), ["iommu.no-domain"]);

    let mut world = World::switch(Box::new(NoIommu), true);
    world.system.config_write(down, control, 2, 0x1d);
    assert_eq!(
        world.write(0, memory, &[1; 64]),
        found(FindingClass::TurnedBack),
        "the root port forwards nothing back"
    );
    let control = acs_control_offset(&mut world, root);
    world.system.config_write(root, control, 2, 0x1d);
    assert_eq!(world.write(0, memory, &[1; 64]), CLEAN);
    assert_eq!(last_route(&world), Some(RouteKind::ThroughHostBridge));
}

/// Walks the extended capabilities to ACS (ID 0x0d) and gives the offset of its control register.
fn acs_control_offset(world: &mut World, bdf: device_models::pci::Bdf) -> u16 {
    let mut offset = 0x100;
    while offset != 0 {
        let header = world.system.config_read(bdf, offset, 4);
        if header & 0xffff == 0xd {
            return offset + 6;
        }
        offset = u16::try_from(header >> 20).unwrap();
    }
    panic!("{bdf} has no ACS capability");
}

#[test]
fn bus_mastering_off_emits_nothing() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.config_write(0, COMMAND, 2, 2);
    let before = world.system.transactions();
    assert_eq!(world.write(0, 0x1000, &[1; 4]), Saw::Wrote(WriteOutcome::NotEmitted));
    assert_eq!(world.read(0, 0x1000, 4), Saw::NotEmitted);
    assert_eq!(world.system.transactions(), before);
    assert!(world.log.0.lock().unwrap().transactions.is_empty());
    assert_eq!(world.log.classes(), ["pci.bus-master-off"; 2]);
}

#[test]
fn a_bridge_without_bus_mastering_forwards_nothing() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let port = world.bdf("port0");
    world.system.config_write(port, COMMAND, 2, 2);
    assert_eq!(world.write(0, 0x1000, &[1; 4]), found(FindingClass::BusMasterOff));
    assert_eq!(world.read(0, 0x1000, 4), refused_read());
}

#[test]
fn the_end_of_a_bar_is_exact() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let end = world.bar(1, 2) + (1 << 20);
    assert_eq!(world.write(0, end - 8, &[9; 8]), CLEAN);
    assert_eq!(world.write(0, end - 8, &[9; 16]), found(FindingClass::BarEdge));
    assert_eq!(world.log.classes(), ["pci.bar-edge"]);
    let (failed, delivery) = *world.log.0.lock().unwrap().transactions.last().unwrap();
    assert_eq!((failed.address, failed.length), (end, 8), "the part before the edge arrived");
    assert_eq!(delivery, Delivery::Failed(CompletionStatus::UnsupportedRequest));
    let before = Saw::Read(CompletionStatus::UnsupportedRequest, vec![9; 8]);
    assert_eq!(world.read(0, end - 8, 16), before, "a read says how far it came");
}

#[test]
fn bars_that_a_reset_has_cleared_are_remembered_until_memory_is_decoded_again() {
    /// BAR 2 and its upper half.
    const BAR: [u16; 2] = [0x18, 0x1c];
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    let old = BAR.map(|at| world.system.config_read(world.bdf("robot1"), at, 4));
    world.config_write(1, COMMAND, 2, 4);
    assert_eq!(world.read(0, memory, 4), refused_read());
    BAR.into_iter().for_each(|at| world.config_write(1, at, 4, 0));
    assert_eq!(world.read(0, memory + (1 << 20) - 4, 4), refused_read());
    // Behind its end something else is wrong.
    assert_eq!(world.read(0, memory + (1 << 20), 4), refused_read());
    let text = world.log.0.lock().unwrap().findings[1].explanation.clone();
    assert!(text.contains("until its BARs and Memory Space Enable were cleared"), "{text}");
    let off = "pci.memory-decode-off";
    assert_eq!(world.log.classes(), [off, off, "pci.no-target"]);
    // Enabled without its BARs: no function claims the address.
    world.config_write(1, COMMAND, 2, MEMORY_AND_MASTER);
    assert_eq!(world.read(0, memory + 0x1000, 4), refused_read());
    assert_eq!(world.log.classes().last().map(|class| &**class), Some("pci.no-target"));
    BAR.into_iter().zip(old).for_each(|(at, value)| world.config_write(1, at, 4, value));
    assert!(matches!(world.read(0, memory, 4), Saw::Read(CompletionStatus::Success, _)));
}

#[test]
fn memory_decode_off_and_nothing_there_are_distinguished() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let memory = world.bar(1, 2);
    world.config_write(1, COMMAND, 2, 4);
    assert_eq!(world.read(0, memory, 4), refused_read());
    assert_eq!(world.read(0, RAM, 4), refused_read());
    assert_eq!(world.read(0, u64::MAX - 3, 4), refused_read());
    assert_eq!(world.log.classes(), ["pci.memory-decode-off", "pci.no-target", "pci.no-target"]);
    world.config_write(1, COMMAND, 2, MEMORY_AND_MASTER);
    assert!(matches!(world.read(0, memory, 4), Saw::Read(CompletionStatus::Success, _)));
}

#[test]
fn a_run_over_the_top_of_the_address_space_does_not_wrap_into_ram() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.write(0, u64::MAX - 3, &[0xee; 8]);
    let mut bytes = [0; 4];
    world.ram.read_slice(&mut bytes, GuestAddress(0)).unwrap();
    assert_eq!(bytes, [0; 4]);
    assert!(!world.log.classes().is_empty());
}

#[test]
fn interrupts_are_writes_into_the_window() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let table = world.bar(0, 4);
    world.system.mmio_write(table, &0xfee0_0000u64.to_le_bytes());
    world.system.mmio_write(table + 8, &0x41u32.to_le_bytes());
    world.system.mmio_write(table + 12, &0u32.to_le_bytes());
    assert_eq!(world.now(0, Order::Raise(0)), CLEAN);
    assert!(world.log.0.lock().unwrap().interrupts.is_empty(), "MSI-X is not enabled yet");
    let bdf = world.bdf("robot0");
    let control = msix_control_offset(&mut world, bdf);
    world.system.config_write(bdf, control, 2, 0x8000);
    world.now(0, Order::Raise(0));
    assert_eq!(world.log.0.lock().unwrap().interrupts, [(0xfee0_0000, 0x41)]);
    assert!(world.log.classes().is_empty());

    // Masked while raised: pending, and sent when the mask goes.
    world.system.mmio_write(table + 12, &1u32.to_le_bytes());
    world.now(0, Order::Raise(0));
    assert_eq!(world.log.0.lock().unwrap().interrupts.len(), 1);
    world.system.mmio_write(table + 12, &0u32.to_le_bytes());
    assert_eq!(world.log.0.lock().unwrap().interrupts.len(), 2);

    // A copy into the window: the right vector passes, another one is found, a long one is
    // malformed.
    assert_eq!(world.write(0, 0xfee0_0000, &0x41u32.to_le_bytes()), CLEAN);
    assert_eq!(
        world.write(0, 0xfee0_0000, &0x42u32.to_le_bytes()),
        found(FindingClass::NotAVector)
    );
    assert_eq!(
        world.log.0.lock().unwrap().interrupts.len(),
        4,
        "hardware delivers it all the same"
    );
    world.system.set_interrupt_policy(InterruptPolicy::Block);
    assert_eq!(
        world.write(0, 0xfee0_0000, &0x42u32.to_le_bytes()),
        found(FindingClass::NotAVector)
    );
    assert_eq!(world.write(0, 0xfee0_0000, &[0x41; 8]), found(FindingClass::Malformed));
    assert_eq!(world.read(0, 0xfee0_0000, 4), refused_read());
    assert_eq!(world.log.0.lock().unwrap().interrupts.len(), 4);
}

fn msix_control_offset(world: &mut World, bdf: device_models::pci::Bdf) -> u16 {
    let mut offset = u16::try_from(world.system.config_read(bdf, 0x34, 1)).unwrap();
    while world.system.config_read(bdf, offset, 1) != 0x11 {
        offset = u16::try_from(world.system.config_read(bdf, offset + 1, 1)).unwrap();
        assert_ne!(offset, 0, "no MSI-X capability");
    }
    offset + 2
}

#[test]
fn a_finding_reads_as_one_sentence() {
    let mut world = World::root_ports(Box::new(VirtioIommu::new(
        device_models::iommu::virtio::VirtioIommuConfig::default(),
    )));
    world.write(0, 0xdead_b000, &[0; 256]);
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert_eq!(
        findings[0].to_string(),
        "#0 01:00.0 robot0 MWr addr=0xdeadb000 len=256: iommu.no-domain: never attached to a domain"
    );
}

#[test]
fn an_address_of_the_wrong_kind_is_called_by_its_name() {
    let mut iommu = VirtioIommu::new(device_models::iommu::virtio::VirtioIommuConfig::default());
    let features = iommu.offered_features();
    iommu.accept_features(features.bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoint = u32::from(world.bdf("robot0").0);
    world.system.virtio_iommu().unwrap().attach(1, endpoint, 0).unwrap();
    let memory = world.bar(1, 2);
    for (address, end) in [
        (0x80_0000, "; it is the physical address of guest RAM"),
        (memory, "; it is the physical address of BAR 2 of robot1 (02:00.0)"),
        (0xdead_b000, "not mapped in domain 1"),
    ] {
        world.write(0, address, &[0; 4]);
        let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
        assert!(findings[0].to_string().ends_with(end), "{}", findings[0]);
    }
}
