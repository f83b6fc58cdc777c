//! The same work with the guest's witness and without: what holding each request against it costs.

use device_models::pci::Bdf;
use device_models::system::System;
use device_models::witness::Builder;
use guest_protocol::witness::{Kind, MAGIC, RECORD_SIZE, VERSION, header, record, slot};
use peerdma_topology::Topology;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use crate::copies::{self, CHUNK, COPIES, Direction};
use crate::report::{Figure, Goal, Report, median};
use crate::rig::{IOVA, Rig, iova};
use crate::transactions::{self, COUNT, MAPPINGS, PAGE};

/// With the witness, at least so much of the rate without it.
const GOAL: f64 = 0.85;
const ENTRIES: u32 = 1 << 12;
const BIDIRECTIONAL: u8 = 0;

/// A witness in guest RAM: header, then a ring.
pub struct Guest {
    at: u64,
    head: u32,
    ticket: u64,
    function: Bdf,
}

impl Guest {
    /// One that has seen the driver of `function` being bound; at `at` nothing else is.
    pub fn attach(system: &mut System, ram: &GuestMemoryMmap<()>, at: u64, function: Bdf) -> Self {
        let mut guest = Self { at, head: 0, ticket: 0, function };
        for (offset, value) in [
            (header::MAGIC, MAGIC),
            (header::VERSION, VERSION),
            (header::RINGS, 1),
            (header::ENTRIES, ENTRIES),
        ] {
            ram.write_obj(value, GuestAddress(at + offset)).expect("the header is in RAM");
        }
        ram.write_obj(guest.ring(), GuestAddress(at + header::SLOTS + slot::RING))
            .expect("the header is in RAM");
        system.witness_attach(u32::try_from(at >> 12).expect("below 4 GiB"));
        guest.say(system, ram, Kind::Bind, (0, 0));
        guest
    }

    fn ring(&self) -> u64 {
        self.at + 0x1000
    }

    fn say(
        &mut self,
        system: &mut System,
        ram: &GuestMemoryMmap<()>,
        kind: Kind,
        (address, length): (u64, u64),
    ) {
        self.ticket += 1;
        let bytes = Builder::new(kind)
            .put_u64(record::TICKET, self.ticket)
            .put_u64(record::ADDRESS, address)
            .put_u64(record::LENGTH, length)
            .put(record::DIRECTION, &[BIDIRECTIONAL])
            .put(record::FUNCTION, &u32::from(self.function.0).to_le_bytes());
        let at = self.ring() + u64::from(self.head % ENTRIES) * RECORD_SIZE as u64;
        ram.write_slice(&bytes.bytes(), GuestAddress(at)).expect("the ring is in RAM");
        self.head += 1;
        ram.write_obj(self.head, GuestAddress(self.at + header::SLOTS + slot::HEAD))
            .expect("the header is in RAM");
        if self.head.is_multiple_of(ENTRIES) {
            system.witness_drain();
        }
    }

    /// It has mapped this.
    pub fn map(
        &mut self,
        system: &mut System,
        ram: &GuestMemoryMmap<()>,
        address: u64,
        length: u64,
    ) {
        self.say(system, ram, Kind::Map, (address, length));
    }
}

pub fn run(report: &mut Report, rounds: usize) {
    small(report, rounds);
    large(report, rounds);
}

/// Takes turns, so that neither always finds the warmer caches.
fn ratio(rounds: usize, mut without: impl FnMut() -> f64, mut with: impl FnMut() -> f64) -> f64 {
    without();
    with();
    let ratios = (0..rounds).map(|round| {
        let (without, with) = if round % 2 == 0 {
            let without = without();
            (without, with())
        } else {
            let with = with();
            (without(), with)
        };
        without / with
    });
    median(ratios.collect())
}

fn small(report: &mut Report, rounds: usize) {
    let mut plain = Rig::new(MAPPINGS, PAGE);
    let mut watched = Rig::new(MAPPINGS, PAGE);
    let at = crate::rig::RAM;
    let mut guest = Guest::attach(&mut watched.system, &watched.ram, at, Bdf::new(1, 0, 0));
    for index in 0..MAPPINGS {
        guest.map(&mut watched.system, &watched.ram, iova(index, PAGE), PAGE);
    }
    watched.system.witness_drain();
    for (name, offsets) in [
        ("64-byte writes, cached, witnessed", transactions::offsets(16)),
        ("64-byte writes, 16 Ki mappings, witnessed", transactions::offsets(MAPPINGS)),
    ] {
        let seen = watched.system.witness().transactions;
        let value = ratio(
            rounds,
            || transactions::checked(&mut plain, &offsets),
            || transactions::checked(&mut watched, &offsets),
        );
        let checked = watched.system.witness().transactions - seen;
        assert_eq!(checked, (COUNT * (rounds + 1)) as u64, "the witness has seen every write");
        add(report, name, value);
    }
}

fn large(report: &mut Report, rounds: usize) {
    let mut plain = copies::Bench::new(Topology::default());
    let mut watched = copies::Bench::new(Topology::default());
    let copies::Bench { system, ram, .. } = &mut watched;
    let function = system.function("peer0").expect("the first peer");
    let bdf = system.address_map().node(function).requester;
    let mut guest = Guest::attach(system, ram, copies::FREE, bdf);
    guest.map(system, ram, 0, copies::FREE);
    for index in 0..copies::PLACES {
        guest.map(system, ram, IOVA + index * CHUNK, CHUNK);
    }
    system.witness_drain();
    for (name, direction) in [
        ("64 KiB copies to RAM, witnessed", Direction::LocalToRemote),
        ("64 KiB copies from RAM, witnessed", Direction::RemoteToLocal),
    ] {
        let seen = watched.system.witness().bytes;
        let value = ratio(rounds, || plain.checked(direction), || watched.checked(direction));
        let checked = watched.system.witness().bytes - seen;
        assert!(checked >= COPIES * CHUNK * (rounds as u64 + 1), "the witness has seen every byte");
        add(report, name, value);
    }
}

fn add(report: &mut Report, name: &'static str, value: f64) {
    report.add(Figure {
        name,
        value,
        unit: "of the rate",
        compared_with: "the same without the witness",
        goal: Goal::AtLeast(GOAL),
        rate: None,
    });
}
