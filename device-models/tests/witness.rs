//! Requests of devices, held against what a guest's witness reports in rings in its RAM.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::World;
use device_models::checker::{Cause, Severity};
use device_models::iommu::virtio::VirtioIommuConfig;
use device_models::iommu::{NoIommu, VirtioIommu};
use device_models::pci::Bdf;
use device_models::witness::{Builder, Gap};
use guest_protocol::witness::{
    Kind, MAGIC, NO_FUNCTION, RECORD_SIZE, VERSION, flags, header, record, slot,
};
use vm_memory::{Bytes, GuestAddress};

const HEADER: u64 = 0x8000;
const RING: u64 = 0x9000;
const ENTRIES: u32 = 16;
const TO_DEVICE: u8 = 1;
const FROM_DEVICE: u8 = 2;
const DATA: u64 = 0x1_0000;

/// The witness in the guest.
struct Guest {
    head: u32,
    ticket: u64,
}

impl Guest {
    fn attach(world: &mut World) -> Self {
        for (at, value) in [
            (header::MAGIC, MAGIC),
            (header::VERSION, VERSION),
            (header::RINGS, 1),
            (header::ENTRIES, ENTRIES),
        ] {
            world.ram.write_obj(value, GuestAddress(HEADER + at)).unwrap();
        }
        world.ram.write_obj(RING, GuestAddress(HEADER + header::SLOTS + slot::RING)).unwrap();
        world.system.witness_attach(u32::try_from(HEADER >> 12).unwrap());
        let mut guest = Self { head: 0, ticket: 0 };
        for robot in 0..2 {
            guest.say(world, Kind::Bind, robot, (0, 0), |bytes| bytes);
        }
        guest
    }

    fn say(
        &mut self,
        world: &World,
        kind: Kind,
        robot: usize,
        (address, length): (u64, u64),
        with: impl Fn(Builder) -> Builder,
    ) {
        let Bdf(bdf) = world.bdf(&format!("robot{robot}"));
        self.ticket += 1;
        let bytes = Builder::new(kind)
            .put_u64(record::TICKET, self.ticket)
            .put_u64(record::ADDRESS, address)
            .put_u64(record::LENGTH, length)
            .put(record::FUNCTION, &u32::from(bdf).to_le_bytes())
            .put(record::PID, &812u32.to_le_bytes())
            .put(record::TASK, b"insmod");
        let at = RING + u64::from(self.head % ENTRIES) * RECORD_SIZE as u64;
        world.ram.write_slice(&with(bytes).bytes(), GuestAddress(at)).unwrap();
        self.head += 1;
        let head = HEADER + header::SLOTS + slot::HEAD;
        world.ram.write_obj(self.head, GuestAddress(head)).unwrap();
    }

    fn map(&mut self, world: &World, robot: usize, place: (u64, u64), direction: u8) {
        self.say(world, Kind::Map, robot, place, |bytes| {
            bytes.put(record::DIRECTION, &[direction])
        });
    }

    fn unmap(&mut self, world: &World, robot: usize, place: (u64, u64), direction: u8) {
        self.say(world, Kind::Unmap, robot, place, |bytes| {
            bytes.put(record::DIRECTION, &[direction])
        });
    }
}

fn said(world: &World) -> Vec<String> {
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    findings.iter().map(|finding| format!("{}: {}", finding.class, finding.explanation)).collect()
}

#[test]
fn without_an_iommu_only_the_witness_sees_it() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let mut guest = Guest::attach(&mut world);
    guest.map(&world, 0, (DATA, 64), TO_DEVICE);
    guest.map(&world, 1, (DATA + 0x1000, 64), FROM_DEVICE);
    world.read(0, DATA, 64);
    assert_eq!(said(&world), [""; 0]);
    world.write(0, DATA, &[1; 64]);
    world.read(0, DATA + 60, 8);
    world.write(0, DATA + 0x1000, &[1; 4]);
    let bar = world.bar(1, 2);
    world.write(0, bar, &[1; 4]);
    guest.unmap(&world, 0, (DATA, 64), TO_DEVICE);
    world.read(0, DATA, 64);
    let [robot0, robot1] = ["robot0", "robot1"].map(|name| world.bdf(name));
    assert_eq!(
        said(&world),
        [
            "witness.direction: 64 bytes at 0x10000 (DMA_TO_DEVICE), mapped by pid 812 (insmod): \
             the device may not write it"
                .to_owned(),
            "witness.past-end: byte 4 of the transfer is behind the end of 64 bytes at 0x10000 \
             (DMA_TO_DEVICE), mapped by pid 812 (insmod)"
                .to_owned(),
            format!(
                "witness.unmapped: never mapped for this function; it is in 64 bytes at 0x11000 \
                 (DMA_FROM_DEVICE), mapped by pid 812 (insmod) for robot1 ({robot1}); used by \
                 robot0 ({robot0})"
            ),
            format!(
                "witness.unmapped: never mapped for this function; it is the \
                 physical address of BAR 2 of robot1 ({robot1})"
            ),
            "witness.stale: 64 bytes at 0x10000 (DMA_TO_DEVICE), unmapped by pid 812 (insmod)"
                .to_owned(),
        ]
    );
    let counters = world.system.witness();
    assert_eq!(
        (counters.mappings, counters.live, counters.bytes),
        (2, 1, 64 + 64 + 8 + 4 + 4 + 64)
    );
}

#[test]
fn a_frozen_function_shows_its_state_and_what_is_mapped_nearby() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoint = u32::from(world.bdf("robot0").0);
    let robot = world.system.function("robot0").unwrap();
    let bare = world.system.scene(robot, None);
    assert!(bare.iter().all(|line| !line.contains("map")), "nothing is known: {bare:?}");
    let iommu = world.system.virtio_iommu().unwrap();
    iommu.attach(1, endpoint, 0).unwrap();
    for page in 1..=10_u64 {
        let first = page << 12;
        iommu.map(1, first, first + 0xfff, DATA, 2).unwrap();
    }
    let mut guest = Guest::attach(&mut world);
    guest.map(&world, 0, (0x5000, 0x800), TO_DEVICE);
    guest.map(&world, 0, (0x1000, 0x40), FROM_DEVICE);
    guest.map(&world, 1, (0x5000, 0x40), FROM_DEVICE);
    world.read(0, 0x5000, 4);
    let scene = world.system.scene(robot, Some(0x5900));
    let robot0 = world.bdf("robot0");
    assert_eq!(
        scene[0],
        format!("robot0 ({robot0}): Bus Master Enable on, Memory Space Enable on")
    );
    let mapped = scene.iter().position(|line| line.starts_with("the guest's kernel")).unwrap();
    assert!(scene[1..mapped].iter().all(|line| line.starts_with("  BAR ")), "{scene:?}");
    assert_eq!(
        scene[mapped..mapped + 4],
        [
            "the guest's kernel has mapped for robot0:",
            "  64 bytes at 0x1000 (DMA_FROM_DEVICE), mapped by pid 812 (insmod)",
            "  2048 bytes at 0x5000 (DMA_TO_DEVICE), mapped by pid 812 (insmod)",
            "the IOMMU maps for robot0, the nearest 6 of 10:",
        ]
    );
    // By address, and around the one in question.
    let pages: Vec<_> =
        scene[mapped + 4..].iter().map(|line| line.split_once("..").unwrap().0).collect();
    assert_eq!(pages, ["  0x3000", "  0x4000", "  0x5000", "  0x6000", "  0x7000", "  0x8000"]);
    assert!(scene[mapped + 4].contains(" for writing, by request #"), "{scene:?}");
}

#[test]
fn what_the_iommu_refuses_is_one_finding_that_names_the_unmap() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoint = u32::from(world.bdf("robot0").0);
    let iommu = world.system.virtio_iommu().unwrap();
    iommu.attach(1, endpoint, 0).unwrap();
    iommu.map(1, 0xf000, 0xffff, DATA, 3).unwrap();
    let mut guest = Guest::attach(&mut world);
    guest.map(&world, 0, (0xf000, 0x800), TO_DEVICE);
    world.read(0, 0xf000, 0x800);
    assert_eq!(said(&world), [""; 0]);
    // In the page, and not in the mapping.
    world.read(0, 0xf000, 0x801);
    let found = said(&world);
    assert!(found.len() == 1 && found[0].starts_with("witness.past-end: byte 2048"), "{found:#?}");
    world.system.virtio_iommu().unwrap().unmap(1, 0xf000, 0xffff).unwrap();
    guest.unmap(&world, 0, (0xf000, 0x800), TO_DEVICE);
    world.read(0, 0xf000, 64);
    let found = said(&world);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert!(found[0].starts_with("iommu.stale: "), "{found:#?}");
    assert!(found[0].ends_with("(DMA_TO_DEVICE), unmapped by pid 812 (insmod)"), "{found:#?}");
}

#[test]
fn what_the_iommu_refuses_later_is_the_same_mistake() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoint = u32::from(world.bdf("robot0").0);
    let iommu = world.system.virtio_iommu().unwrap();
    iommu.attach(1, endpoint, 0).unwrap();
    iommu.map(1, 0xe000, 0xffff, DATA, 3).unwrap();
    let mut guest = Guest::attach(&mut world);
    guest.map(&world, 0, (0xe000, 0x2000), TO_DEVICE);
    // Lazily: the IOMMU learns of it later.
    guest.unmap(&world, 0, (0xe000, 0x2000), TO_DEVICE);
    world.read(0, 0xe000, 64);
    world.system.virtio_iommu().unwrap().unmap(1, 0xe000, 0xffff).unwrap();
    world.read(0, 0xe040, 64);
    let mut causes: Vec<_> = {
        let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
        findings.iter().map(|found| (found.class.name(), found.cause)).collect()
    };
    assert_eq!(causes.len(), 2, "{causes:?}");
    causes.dedup();
    assert_eq!(causes, [("witness.stale", Cause::Mapped { group: 3 })]);
    // Behind the end of a mapping, where the IOMMU had another one before.
    let iommu = world.system.virtio_iommu().unwrap();
    iommu.map(1, 0xd000, 0xdfff, DATA, 3).unwrap();
    guest.map(&world, 0, (0xd000, 0x1000), TO_DEVICE);
    world.read(0, 0xd000, 0x1040);
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(
        (findings[0].class.name(), findings[0].cause),
        ("iommu.stale", Cause::Mapped { group: 5 })
    );
    assert!(findings[0].explanation.contains("; byte 4096 of the transfer is behind the end of"));
}

#[test]
fn findings_of_one_mapping_have_one_cause_and_narrow_the_transaction() {
    let mut world = World::root_ports(Box::new(NoIommu));
    let mut guest = Guest::attach(&mut world);
    guest.map(&world, 0, (DATA, 4096), TO_DEVICE);
    guest.map(&world, 0, (DATA + 4096, 4096), TO_DEVICE);
    world.read(0, DATA, 4160);
    world.read(0, DATA + 64, 4160);
    let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
    let seen: Vec<_> = findings
        .iter()
        .map(|found| {
            let transaction = found.transaction.unwrap();
            (found.severity, found.cause, transaction.address, transaction.length)
        })
        .collect();
    let cause = Cause::Mapped { group: 3 };
    assert_eq!(
        seen,
        [(Severity::Finding, cause, DATA + 4096, 64), (Severity::Finding, cause, DATA + 4096, 128)]
    );
}

#[test]
fn a_peers_memory_for_an_importer_without_peer_to_peer_is_a_finding() {
    for (peer, expected) in [(0, 1), (flags::PEER2PEER, 0)] {
        let mut world = World::root_ports(Box::new(NoIommu));
        let mut guest = Guest::attach(&mut world);
        let (bar, group) = (world.bar(1, 2), 0xffff_8880_0000_0040);
        let attach = |bytes: Builder| {
            let bytes = bytes.put_u64(record::GROUP, group).put_u64(record::BUFFER, 9);
            bytes.put(record::FLAGS, &[flags::DYNAMIC | peer])
        };
        guest.say(&world, Kind::Attach, 0, (0, 0), attach);
        for place in [(bar, 64), (DATA, 64)] {
            guest.say(&world, Kind::BufferMap, 0, place, attach);
        }
        world.write(0, bar, &[1; 64]);
        let found = said(&world);
        assert_eq!(found.len(), expected, "{found:#?}");
        assert!(
            found.iter().all(|text| text.starts_with("buffer.peer2peer-not-allowed: dma-buf 9"))
        );
    }
}

#[test]
fn what_is_not_watched_is_counted() {
    let mut world = World::root_ports(Box::new(NoIommu));
    world.read(0, DATA, 64);
    let mut guest = Guest::attach(&mut world);
    guest.say(&world, Kind::Missed, 0, (0, 1), |bytes| {
        bytes.put(record::FUNCTION, &NO_FUNCTION.to_le_bytes())
    });
    world.read(0, DATA, 64);
    assert_eq!(said(&world), [""; 0]);
    let counters = world.system.witness();
    let of = |gap: Gap| counters.not_witnessed[gap as usize];
    assert_eq!((of(Gap::NoWitness), of(Gap::Lost), counters.transactions), (1, 1, 0));
}

#[test]
fn headers_of_a_hostile_guest_are_refused() {
    let mut world = World::root_ports(Box::new(NoIommu));
    for frame in [1, 0xffff, 0x00ff_ffff, u32::MAX] {
        world.system.witness_attach(frame);
        world.system.witness_drain();
    }
    world.read(0, DATA, 64);
    assert_eq!(world.system.witness().not_witnessed[Gap::NoWitness as usize], 1);
}

#[test]
fn without_an_iommu_a_later_mapping_of_another_function_explains_an_address_best() {
    let at = |time: u64| move |bytes: Builder| bytes.put_u64(record::TIME, time);
    for (other, expected) in [(3, "witness.unmapped"), (1, "witness.stale")] {
        let mut world = World::root_ports(Box::new(NoIommu));
        let mut guest = Guest::attach(&mut world);
        guest.say(&world, Kind::Map, 0, (DATA, 64), at(1));
        // In the order of their time.
        if other == 1 {
            guest.say(&world, Kind::Map, 1, (DATA, 64), at(other));
        }
        guest.say(&world, Kind::Unmap, 0, (DATA, 64), at(2));
        if other == 3 {
            guest.say(&world, Kind::Map, 1, (DATA, 64), at(other));
        }
        world.read(0, DATA, 64);
        let found = said(&world);
        assert!(found.len() == 1 && found[0].starts_with(expected), "{found:#?}");
        assert!(found[0].contains("for robot1 ("), "{found:#?}");
        assert!(found[0].contains("unmapped"), "{found:#?}");
    }
}

#[test]
fn behind_an_iommu_equal_addresses_of_two_functions_mean_nothing() {
    let mut iommu = VirtioIommu::new(VirtioIommuConfig::default());
    iommu.accept_features(iommu.offered_features().bits());
    let mut world = World::root_ports(Box::new(iommu));
    let endpoints = ["robot0", "robot1"].map(|name| u32::from(world.bdf(name).0));
    let iommu = world.system.virtio_iommu().unwrap();
    for (domain, endpoint) in [1, 2].into_iter().zip(endpoints) {
        iommu.attach(domain, endpoint, 0).unwrap();
        iommu.map(domain, 0xf000, 0xffff, DATA, 3).unwrap();
    }
    let mut guest = Guest::attach(&mut world);
    let at = |time: u64| move |bytes: Builder| bytes.put_u64(record::TIME, time);
    guest.say(&world, Kind::Map, 0, (0xf000, 64), at(1));
    guest.say(&world, Kind::Unmap, 0, (0xf000, 64), at(2));
    guest.say(&world, Kind::Map, 1, (0xf000, 64), at(3));
    // Lazily: the IOMMU still has it.
    world.read(0, 0xf000, 64);
    let found = said(&world);
    assert!(found.len() == 1 && found[0].starts_with("witness.stale"), "{found:#?}");
}

#[test]
fn a_dma_buf_that_leaves_a_device_for_an_importer_is_noted() {
    for (first, second, expected) in [
        // Into the device for one importer, then into RAM for one that takes nothing else.
        ((true, flags::PEER2PEER), (false, 0), 1),
        // The other importer would have taken the device's memory.
        ((true, flags::PEER2PEER), (false, flags::PEER2PEER), 0),
        // It was never in the device, as far as is known.
        ((false, flags::PEER2PEER), (false, 0), 0),
        ((false, 0), (false, 0), 0),
    ] {
        let mut world = World::root_ports(Box::new(NoIommu));
        let mut guest = Guest::attach(&mut world);
        let bar = world.bar(1, 2);
        for (group, (in_device, peer)) in [(64, first), (65, second)] {
            let attach = move |bytes: Builder| {
                let bytes = bytes.put_u64(record::GROUP, group).put_u64(record::BUFFER, 9);
                bytes.put(record::FLAGS, &[flags::DYNAMIC | peer])
            };
            guest.say(&world, Kind::Attach, 0, (0, 0), attach);
            let place = (if in_device { bar } else { DATA }, 64);
            guest.say(&world, Kind::BufferMap, 0, place, attach);
        }
        world.write(0, DATA, &[1; 64]);
        let findings = std::mem::take(&mut world.log.0.lock().unwrap().findings);
        let notes: Vec<_> = findings
            .iter()
            .filter(|found| found.severity == Severity::Note)
            .map(|found| found.class.name())
            .collect();
        assert_eq!(
            notes,
            vec!["buffer.fell-back"; expected],
            "{first:?} {second:?}: {findings:#?}"
        );
    }
}
