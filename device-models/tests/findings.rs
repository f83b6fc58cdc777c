//! What findings say beside their class: whether they are mistakes, which belong together, and what
//! an address is.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::BTreeSet;

use common::{COMMAND, MEMORY_AND_MASTER, Order, Robot, Shared, World, port};
use device_models::AddressRange;
use device_models::checker::{Cause, Finding, FindingClass, Severity};
use device_models::fabric::{HostWindow, RouteKind};
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{NoIommu, VirtioIommu};
use device_models::pci::PortKind;
use device_models::pci::firmware::HostResources;
use device_models::system::{Function, HostBridge, System, Topology};
use vm_memory::{GuestAddress, GuestMemoryMmap};

const WRITE: u32 = 2;
const BOTH: u32 = 3;
const IOVA: u64 = 0xfff0_0000;

fn taken(world: &World) -> Vec<Finding> {
    std::mem::take(&mut world.log.0.lock().unwrap().findings)
}

/// Two robots below root ports, each attached to a domain of its own: 1 and 2.
fn translated() -> World {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    let mut world = World::root_ports(Box::new(iommu));
    for robot in 0..2 {
        let endpoint = u32::from(world.bdf(&format!("robot{robot}")).0);
        iommu_of(&mut world).attach(1 + robot, endpoint, 0).unwrap();
    }
    world
}

fn iommu_of(world: &mut World) -> &mut VirtioIommu {
    world.system.virtio_iommu().unwrap()
}

fn map(world: &mut World, domain: u32, iova: u64, length: u64, flags: u32) {
    iommu_of(world).map(domain, iova, iova + length - 1, 0x10_0000, flags).unwrap();
}

fn unmap(world: &mut World, domain: u32, iova: u64, length: u64) {
    iommu_of(world).unmap(domain, iova, iova + length - 1).unwrap();
}

/// What is said of one write of `length` bytes by robot 0, which is one finding.
fn said(world: &mut World, address: u64, length: usize) -> String {
    world.write(0, address, &vec![1; length]);
    let findings = taken(world);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings[0].to_string()
}

#[test]
fn what_the_kernel_quiesces_is_a_note_and_new_work_is_a_finding() {
    let severities = |world: &World| -> Vec<_> {
        taken(world).iter().map(|found| (found.class, found.severity)).collect()
    };
    let (note, finding) = (
        (FindingClass::BusMasterOff, Severity::Note),
        (FindingClass::BusMasterOff, Severity::Finding),
    );
    let mut world = World::root_ports(Box::new(NoIommu));
    world.config_write(0, COMMAND, 2, 2);
    world.write(0, 0x1000, &[1; 4]);
    world.read(0, 0x1000, 4);
    assert_eq!(severities(&world), [note, note]);
    // A CPU's doorbell asks for more.
    let doorbell = world.bar(0, 0);
    world.system.mmio_write(doorbell, &[1; 4]);
    world.write(0, 0x1000, &[1; 4]);
    assert_eq!(severities(&world), [finding]);
    // Once more from the beginning, and another device rings.
    world.config_write(0, COMMAND, 2, MEMORY_AND_MASTER);
    world.config_write(0, COMMAND, 2, 2);
    world.write(0, 0x1000, &[1; 4]);
    assert_eq!(severities(&world), [note]);
    world.write(1, doorbell, &[1; 4]);
    world.write(0, 0x1000, &[1; 4]);
    assert_eq!(severities(&world), [finding]);
    // What rang before the bit was cleared is work that is left.
    world.config_write(0, COMMAND, 2, MEMORY_AND_MASTER);
    world.system.mmio_write(doorbell, &[1; 4]);
    world.config_write(0, COMMAND, 2, 0);
    world.write(0, 0x1000, &[1; 4]);
    assert_eq!(severities(&world), [note]);
}

#[test]
fn bus_mastering_that_was_never_on_is_not_a_quiescing() {
    let mut world = World::root_ports(Box::new(NoIommu));
    // A reset clears the bit, and forgets the work.
    let bdf = world.bdf("robot0");
    let doorbell = world.bar(0, 0);
    let express = world.capability(bdf, 0x10);
    world.system.config_write(bdf, express + 8, 2, 0x8000);
    world.run();
    world.config_write(0, 0x10, 4, u32::try_from(doorbell).unwrap());
    world.config_write(0, COMMAND, 2, 2);
    world.system.mmio_write(doorbell, &[1; 4]);
    world.write(0, 0x1000, &[1; 4]);
    assert_eq!(taken(&world)[0].severity, Severity::Finding);
}

#[test]
fn another_functions_mapping_is_named_with_owner_and_user() {
    let mut world = translated();
    map(&mut world, 2, IOVA, 0x1000, BOTH);
    let text = said(&mut world, IOVA + 0x40, 64);
    let end = "iommu.unmapped: not mapped in domain 1; mapped for 02:00.0 robot1 by request #3; \
        used by 01:00.0 robot0";
    assert!(text.ends_with(end), "{text}");
    // One that has no domain at all.
    let endpoint = u32::from(world.bdf("robot0").0);
    iommu_of(&mut world).detach(1, endpoint).unwrap();
    assert!(said(&mut world, IOVA, 4).contains("; mapped for 02:00.0 robot1 by request #3; used"));
    // What both map belongs to no third function.
    iommu_of(&mut world).attach(2, endpoint, 0).unwrap();
    let text = said(&mut world, IOVA + 0x1_0000, 4);
    assert!(text.ends_with("not mapped in domain 2"), "{text}");
}

#[test]
fn a_failed_mapping_is_called_one_and_its_neighbours_are_not() {
    let mut world = translated();
    for (address, length) in [(u64::MAX, 1), (u64::MAX, 64)] {
        let text = said(&mut world, address, length);
        assert!(text.contains("0xffffffffffffffff is DMA_MAPPING_ERROR"), "{text}");
    }
    assert!(
        said(&mut world, 0xffff_ffff, 64).contains("0xffffffff is the low half of DMA_MAPPING")
    );
    for address in [u64::MAX - 63, 0xffff_ffff_ffff_f000, 0xffff_fffe, 0xfff, 0x1_0000_0000] {
        let text = said(&mut world, address, 4);
        assert!(!text.contains("DMA_MAPPING_ERROR"), "{text}");
    }
    // The last page below 4 GiB is mapped: the request leaves it after its first byte.
    map(&mut world, 1, 0xffff_f000, 0x1000, BOTH);
    assert!(said(&mut world, 0xffff_ffff, 64).contains("low half of DMA_MAPPING_ERROR"));
    let text = said(&mut world, 0xffff_fff0, 64);
    assert!(text.ends_with("; what request #3 mapped ends just before it"), "{text}");
    // Nor is it one without an IOMMU.
    let mut world = World::root_ports(Box::new(NoIommu));
    assert!(said(&mut world, u64::MAX, 64).contains("is DMA_MAPPING_ERROR"));
}

#[test]
fn a_low_half_is_called_by_the_whole_address() {
    let mut world = translated();
    map(&mut world, 1, 0x1_fedc_c000, 0x2000, BOTH);
    let text = said(&mut world, 0xfedc_d040, 64);
    assert!(text.ends_with("it is the low half of 0x1fedcd040, which is mapped there"), "{text}");
    assert!(said(&mut world, 0xfedc_b000, 64).ends_with("not mapped in domain 1"), "a page before");
    assert!(said(&mut world, 0xfedc_e000, 64).ends_with("not mapped in domain 1"), "a page behind");
    // Far above, over a mapping of more than 4 GiB, and behind many others.
    for high in 5..20 {
        map(&mut world, 1, high << 32, 0x1000, BOTH);
    }
    map(&mut world, 1, 0x7f_8000_0000, 0x1_8000_0000, BOTH);
    assert!(said(&mut world, 0x9000_0000, 4).contains("low half of 0x7f90000000"));
    assert!(said(&mut world, 0x1000_0000, 4).contains("low half of 0x8010000000"));
    // A BAR's; RAM at the very address goes first.
    let mut world = switch_behind(0);
    let memory = world.bar(1, 2);
    let text = said(&mut world, (memory & 0xffff_ffff) + 0x40, 4);
    let end =
        format!("the low half of {:#x}, an address of BAR 2 of robot1 (04:00.0)", memory + 0x40);
    assert!(text.contains("pci.no-target") && text.ends_with(&end), "{text}");
    let mut world = translated();
    let memory = world.bar(1, 2);
    let text = said(&mut world, memory & 0xffff_ffff, 4);
    let both = "it is the physical address of guest RAM, or the low half of 0x10";
    assert!(
        text.contains(both) && text.ends_with("an address of BAR 2 of robot1 (02:00.0)"),
        "{text}"
    );
}

/// Two robots below a switch, where the CPUs see what is on the bus `offset` higher.
fn switch_behind(offset: u64) -> World {
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 16 << 20)]).unwrap();
    let (robots, scripts): (Vec<_>, Vec<_>) = (0..2).map(|_| Robot::new()).unzip();
    let below = robots.into_iter().zip(0..).map(|(robot, index)| {
        let robot = vec![Function::endpoint(0, format!("robot{index}"), robot)];
        Function::bridge(
            index,
            format!("down{index}"),
            port(PortKind::SwitchDownstream, true),
            robot,
        )
    });
    let upstream =
        Function::bridge(0, "up", port(PortKind::SwitchUpstream, false), below.collect());
    let root = Function::bridge(4, "port0", port(PortKind::RootPort, true), vec![upstream]);
    let window = |range: &std::ops::RangeInclusive<u64>| HostWindow {
        bus: AddressRange { first: *range.start(), last: *range.end() },
        offset,
    };
    // The low half of what lies above 4 GiB is nothing.
    let prefetchable = 0x10_9000_0000..=0x1f_ffff_ffff;
    let resources = &HostResources { prefetchable, ..common::RESOURCES };
    let bridge = HostBridge {
        name: "bridge".into(),
        windows: vec![window(&resources.memory), window(&resources.prefetchable)],
        root: vec![root],
        ..HostBridge::default()
    };
    let log = Shared::default();
    let topology = Topology { host_bridges: vec![bridge] };
    let mut system = System::new(topology, &ram, Box::new(NoIommu), Box::new(log.clone())).unwrap();
    system.run_firmware(resources).unwrap();
    system.add_observer(Box::new(log.clone()));
    let mut world = World { system, log, ram, scripts };
    for robot in 0..2 {
        world.config_write(robot, COMMAND, 2, MEMORY_AND_MASTER);
    }
    world
}

#[test]
fn the_cpus_address_of_a_bar_is_distinguished_from_its_bus_address_whatever_refuses_it() {
    // As far apart as the memory of the two: the CPUs' address of the one is the bus address of the
    // other.
    let mut world = switch_behind(0);
    let apart = world.bar(1, 2) - world.bar(0, 2);
    for (offset, by) in [(0x20_0000_0000, "port0"), (0u64.wrapping_sub(apart), "down0")] {
        world = switch_behind(offset);
        let bus = world.bar(1, 2) + 0x40;
        let physical = bus.wrapping_add(offset);
        let text = said(&mut world, physical, 4);
        assert!(text.contains(&format!("pci.turned-back: {by} ")), "{text}");
        let meant = format!(
            "; it is the CPU physical address of BAR 2 of robot1 (04:00.0), whose bus address is \
             {bus:#x}"
        );
        assert!(text.contains(&meant), "{text}");
        // By its bus address the switch takes it there.
        world.write(0, bus, &[1; 4]);
        assert_eq!((taken(&world).len(), world.last_route()), (0, Some(RouteKind::BusAddress)));
    }
    // The other way round: above the switch the CPUs' address is due.
    let mut world = switch_behind(0x20_0000_0000);
    world.set_acs("down0", device_models::pci::AcsControl::P2P_REQUEST_REDIRECT);
    let bus = world.bar(1, 2);
    let text = said(&mut world, bus, 4);
    let meant = format!(
        "; it is the bus address of BAR 2 of robot1 (04:00.0), whose CPU physical address is {:#x}",
        bus + 0x20_0000_0000
    );
    assert!(text.contains("pci.no-target") && text.ends_with(&meant), "{text}");
}

#[test]
fn what_a_mapping_leads_to_is_named_where_nobody_is() {
    let mut world = translated();
    iommu_of(&mut world).map(1, IOVA, IOVA + 0xfff, 0x9_0000_0000, BOTH).unwrap();
    let text = said(&mut world, IOVA + 8, 4);
    assert!(
        text.contains("pci.no-target") && text.ends_with("; it is mapped to 0x900000008"),
        "{text}"
    );
    assert_eq!(causes(&mut world, [IOVA, IOVA + 0x10, IOVA + 0x800]).len(), 1, "one mapping");
}

#[test]
fn a_target_behind_a_closed_window_is_named_and_is_one_cause() {
    let mut world = translated();
    let memory = world.bar(1, 2);
    iommu_of(&mut world).map(1, IOVA, IOVA + 0xffff, memory, BOTH).unwrap();
    let port = world.bdf("port1");
    world.system.config_write(port, 0x24, 4, 0x0000_fff0);
    let text = said(&mut world, IOVA + 0x40, 4);
    let end = format!(
        "; it is mapped to {:#x}, which is the physical address of BAR 2 of robot1 (02:00.0)",
        memory + 0x40
    );
    assert!(text.contains("pci.no-target") && text.ends_with(&end), "{text}");
    let apart = [IOVA + 0x8000, IOVA + 0x1000, IOVA + 0x4000];
    assert_eq!(causes(&mut world, apart).len(), 1);
}

/// The causes of what happens when robot 0 writes 16 bytes to each of the addresses.
fn causes(world: &mut World, addresses: impl IntoIterator<Item = u64>) -> BTreeSet<Cause> {
    for address in addresses {
        world.write(0, address, &[1; 16]);
    }
    taken(world).iter().map(|found| found.cause).collect()
}

#[test]
fn findings_of_one_mapping_have_one_cause_until_it_is_another() {
    let mut world = translated();
    let pages = || (0..16).map(|page| IOVA + (page << 12));
    map(&mut world, 1, IOVA, 0x1_0000, BOTH);
    unmap(&mut world, 1, IOVA, 0x1_0000);
    let first = causes(&mut world, pages());
    assert_eq!(first, [Cause::Unmapping { request: 4 }].into());
    map(&mut world, 1, IOVA, 0x1_0000, BOTH);
    unmap(&mut world, 1, IOVA, 0x1_0000);
    assert!(causes(&mut world, pages()).is_disjoint(&first), "unmapped once more");
    // Piece by piece, as Linux does it, and by one request for all.
    for at_once in [false, true] {
        pages().for_each(|page| map(&mut world, 1, page, 0x1000, BOTH));
        if at_once {
            unmap(&mut world, 1, IOVA, 0x1_0000);
        } else {
            pages().for_each(|page| unmap(&mut world, 1, page, 0x1000));
        }
        assert_eq!(causes(&mut world, pages()).len(), 1);
    }
    // In the wrong direction: a scatterlist, and two mappings that are none.
    pages().for_each(|page| map(&mut world, 1, page, 0x1000, 1));
    assert_eq!(causes(&mut world, pages()).len(), 1);
    unmap(&mut world, 1, IOVA, 0x1_0000);
    map(&mut world, 1, IOVA + 0x1000, 0x1000, 1);
    map(&mut world, 1, IOVA, 0x1000, 1);
    assert_eq!(causes(&mut world, pages().take(2)).len(), 2);
}

#[test]
fn findings_without_a_mapping_belong_together_by_their_addresses() {
    let mut world = translated();
    let stretch = |first: u64| (0..8).map(move |index| first + index * 16);
    let first = causes(&mut world, stretch(0x5000_0000));
    assert_eq!(first.len(), 1);
    assert_eq!(causes(&mut world, stretch(0x5000_0080)), first, "it goes on");
    assert!(causes(&mut world, stretch(0x5000_8000)).is_disjoint(&first), "elsewhere");
    map(&mut world, 1, 0x5000_0000, 0x1000, BOTH);
    unmap(&mut world, 1, 0x5000_0000, 0x1000);
    map(&mut world, 2, 0x6000_0000, 0x1000, BOTH);
    assert!(causes(&mut world, stretch(0x5000_0100)).is_disjoint(&first), "mapped meanwhile");
    // A BAR's addresses are one wherever they lie in it.
    let memory = world.bar(1, 2);
    assert_eq!(causes(&mut world, [memory, memory + 0x8000, memory + 0x400]).len(), 1);
}

#[test]
fn findings_about_a_target_have_one_cause_and_those_about_others_another() {
    let mut world = World::new(3, Box::new(NoIommu), |robots| {
        let place = |(robot, device): (Robot, u8)| {
            let below = vec![Function::endpoint(0, format!("robot{}", device - 4), robot)];
            let name = format!("port{}", device - 4);
            Function::bridge(device, name, port(PortKind::RootPort, true), below)
        };
        robots.into_iter().zip(4..).map(place).collect()
    });
    let (one, other) = (world.bar(1, 2), world.bar(2, 2));
    world.config_write(1, COMMAND, 2, 0);
    world.config_write(2, COMMAND, 2, 0);
    let first = causes(&mut world, [one, one + 0x1000, one + 0x40]);
    assert_eq!(first.len(), 1);
    let second = causes(&mut world, [other, other + 0x1000]);
    assert!(second.len() == 1 && second.is_disjoint(&first));
}

#[test]
fn what_another_function_maps_anew_is_another_mistake() {
    let mut world = translated();
    map(&mut world, 2, IOVA, 0x1000, BOTH);
    let first = causes(&mut world, [IOVA, IOVA + 0x40]);
    assert_eq!(first.len(), 1);
    unmap(&mut world, 2, IOVA, 0x1000);
    map(&mut world, 2, IOVA, 0x1000, BOTH);
    assert!(causes(&mut world, [IOVA]).is_disjoint(&first));
    // It is reported after a later unmapping too, if it was mapped in between.
    map(&mut world, 1, IOVA + 0x8000, 0x1000, BOTH);
    map(&mut world, 2, IOVA + 0x8000, 0x1000, BOTH);
    unmap(&mut world, 1, IOVA + 0x8000, 0x1000);
    let text = said(&mut world, IOVA + 0x8000, 4);
    assert!(text.contains("iommu.stale") && !text.contains("mapped for"), "{text}");
    unmap(&mut world, 2, IOVA + 0x8000, 0x1000);
    map(&mut world, 1, IOVA + 0x8000, 0x1000, BOTH);
    unmap(&mut world, 1, IOVA + 0x8000, 0x1000);
    map(&mut world, 2, IOVA + 0x8000, 0x1000, BOTH);
    let text = said(&mut world, IOVA + 0x8000, 4);
    assert!(
        text.contains("iommu.stale") && text.contains("; mapped for 02:00.0 robot1 by"),
        "{text}"
    );
    // A copy that runs out of its mapping to where another one was.
    map(&mut world, 1, IOVA + 0x8000, 0x1000, BOTH);
    unmap(&mut world, 1, IOVA + 0x8000, 0x1000);
    map(&mut world, 1, IOVA + 0x7000, 0x1000, BOTH);
    world.write(0, IOVA + 0x7ff0, &[1; 32]);
    let text = taken(&world)[0].to_string();
    assert!(text.contains("iommu.stale"), "{text}");
    assert!(text.ends_with("mapped ends just before it"), "{text}");
}

/// What is noted about a copy of `length` bytes from `address` on.
fn noted(world: &mut World, address: u64, length: usize) -> Vec<String> {
    world.write(0, address, &vec![1; length]);
    let found = taken(world);
    assert!(found.iter().all(|found| found.severity == Severity::Note), "{found:?}");
    assert!(found.iter().all(|found| found.class == FindingClass::MappingEdge), "{found:?}");
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn a_copy_that_runs_into_another_mapping_is_noted() {
    let mut world = translated();
    // A ring that was mapped before lies behind the buffer.
    map(&mut world, 1, IOVA + 0x1000, 0x1000, BOTH);
    map(&mut world, 1, IOVA, 0x1000, WRITE);
    let said = noted(&mut world, IOVA, 4160);
    assert_eq!(said.len(), 1, "{said:?}");
    let text = format!(
        "addr={:#x} len=64: iommu.mapping-edge: runs on from {:#x}..={:#x}, mapped by request #4, \
         into {:#x}..={:#x}, \
         mapped separately by request #3",
        IOVA + 0x1000,
        IOVA,
        IOVA + 0xfff,
        IOVA + 0x1000,
        IOVA + 0x1fff
    );
    assert!(said[0].ends_with(&text), "{}", said[0]);
    assert!(noted(&mut world, IOVA, 4096).is_empty(), "to its end");
    assert!(noted(&mut world, IOVA + 0x1000, 4096).is_empty(), "the other alone");
    // Two requests in a row are not one range unless the device says so.
    assert!(noted(&mut world, IOVA + 0xff0, 16).is_empty());
    assert!(noted(&mut world, IOVA + 0x1000, 16).is_empty());
    // Once a time, and with one cause.
    assert_eq!(causes(&mut world, [IOVA + 0xff8, IOVA + 0xff8]).len(), 1);
}

#[test]
fn a_scatterlist_that_is_mapped_piece_by_piece_is_silent() {
    let mut world = translated();
    for piece in 0..8 {
        map(&mut world, 1, IOVA + piece * 0x1000, 0x1000, WRITE);
        // Another processor maps for another function meanwhile.
        map(&mut world, 2, IOVA + piece * 0x1000, 0x1000, WRITE);
    }
    assert_eq!(noted(&mut world, IOVA, 0x8000), [""; 0]);
    // Near misses: with other flags, much later, and before.
    map(&mut world, 1, IOVA + 0x8000, 0x1000, BOTH);
    assert_eq!(noted(&mut world, IOVA + 0x7ff0, 32).len(), 1);
    unmap(&mut world, 1, IOVA + 0x8000, 0x1000);
    (0..100).for_each(|page| map(&mut world, 2, 0x1000_0000 + page * 0x1000, 0x1000, BOTH));
    map(&mut world, 1, IOVA + 0x8000, 0x1000, WRITE);
    assert_eq!(noted(&mut world, IOVA + 0x7ff0, 32).len(), 1);
    map(&mut world, 1, IOVA - 0x1000, 0x1000, WRITE);
    assert_eq!(noted(&mut world, IOVA - 0x10, 32).len(), 1);
}

#[test]
fn control_structures_and_bypassed_addresses_have_no_edges() {
    let mut world = translated();
    map(&mut world, 1, IOVA + 0x1000, 0x1000, BOTH);
    map(&mut world, 1, IOVA, 0x1000, WRITE);
    world.now(0, Order::Record { address: IOVA + 0xff0, data: vec![1; 32] });
    assert_eq!(taken(&world), []);
    let mut world = World::root_ports(Box::new(NoIommu));
    assert_eq!(noted(&mut world, 0x1000, 0x4000), [""; 0]);
}
