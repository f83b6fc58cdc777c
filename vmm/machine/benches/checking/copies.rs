//! Bulk copies by a peer device's own engine, descriptors, completion records and all.

use device_models::endpoint::Progress;
use device_models::endpoint::peer::regs::{
    Descriptor, Record, channel, channel_control, flags, layout_of_bars as layout, opcode,
};
use device_models::fabric::MappedBar;
use device_models::memory::Memory;
use device_models::pci::Bdf;
use device_models::system::System;
use peerdma_topology::Topology;
use peerdma_topology::assembly::SystemConfig;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, VolatileSlice};
use zerocopy::{FromBytes, IntoBytes};

use crate::clock::Stopwatch;
use crate::report::{Figure, Goal, Report, median};
use crate::rig::{NoInterrupts, to_usize};

pub const CHUNK: u64 = 64 << 10;
/// Copies of a round, all in one ring.
pub const COPIES: u64 = 1000;
const RING_SIZE: u64 = 10;
const RAM: u64 = 256 << 20;
const LOCAL: u64 = 64 << 20;
/// The rings' RAM; data lies above.
pub const RINGS: u64 = 0x10_0000;
pub const RECORDS: u64 = 0x12_0000;
const DATA: u64 = 16 << 20;
/// RAM that nothing uses, up to the data.
pub const FREE: u64 = 8 << 20;
pub const PLACES: u64 = (RAM - DATA) / CHUNK;
pub const IOVA: u64 = 0x1_0000_0000;
pub const DOMAIN: u32 = 1;

/// From where to where.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    LocalToRemote,
    RemoteToLocal,
    RemoteToRemote,
}

pub fn run(report: &mut Report, rounds: usize) {
    let mut bench = Bench::new(Topology::default());
    for (name, direction, goal) in [
        ("64 KiB copies, local memory to random RAM", Direction::LocalToRemote, 0.9),
        ("64 KiB copies, random RAM to local memory", Direction::RemoteToLocal, 0.9),
        ("64 KiB copies, RAM to RAM (staged)", Direction::RemoteToRemote, 0.65),
    ] {
        let (mut ratios, mut rates) = (Vec::new(), Vec::new());
        bench.checked(direction);
        for round in 0..rounds {
            // The second one finds warmer caches: take turns.
            let (checked, plain) = if round % 2 == 0 {
                let checked = bench.checked(direction);
                (checked, bench.plain(direction))
            } else {
                let plain = bench.plain(direction);
                (bench.checked(direction), plain)
            };
            ratios.push(plain / checked);
            rates.push((COPIES * CHUNK) as f64 / checked / 1e9);
        }
        let rate = Some((median(rates), "GB/s"));
        let compared_with = "memcpy between the same places";
        report.add(Figure {
            name,
            value: median(ratios),
            unit: "of memcpy",
            compared_with,
            goal: Goal::AtLeast(goal),
            rate,
        });
    }
}

pub struct Bench {
    pub system: System,
    pub ram: GuestMemoryMmap<()>,
    local: Memory,
    registers: u64,
}

/// The place of copy `index`: scattered, and another one for source and destination.
pub fn place(index: u64, salt: u64) -> u64 {
    (index * 7919 + salt * 1237) % PLACES
}

fn local_offset(index: u64) -> u64 {
    index * CHUNK % LOCAL
}

impl Bench {
    pub fn new(topology: Topology) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), to_usize(RAM))])
            .expect("RAM for the bench");
        let config = SystemConfig { topology, local_memory: LOCAL, ..SystemConfig::default() };
        let mut system =
            config.build(&ram, Box::new(NoInterrupts), std::io::empty()).expect("a system");
        let function = system.function("peer0").expect("the first peer");
        let map = system.address_map().clone();
        let node = map.node(function);
        let bdf: Bdf = node.requester;
        let bar = |index: u8| -> &MappedBar {
            node.bars.iter().find(|bar| bar.index == index).expect("a BAR of the peer device")
        };
        let registers = bar(0).range.first;
        system.config_write(bdf, 4, 2, 6);
        let mapping = system
            .address_map()
            .guest_mappings()
            .into_iter()
            .find(|mapping| mapping.function == function);
        let local = mapping.expect("local memory is mapped").memory;
        let iommu = system.virtio_iommu().expect("the default machine has one");
        let features = iommu.offered_features();
        iommu.accept_features(features.bits());
        iommu.attach(DOMAIN, u32::from(bdf.0), 0).expect("attached");
        iommu.map(DOMAIN, 0, DATA - 1, 0, 3).expect("rings");
        for index in 0..PLACES {
            let first = IOVA + index * CHUNK;
            iommu.map(DOMAIN, first, first + CHUNK - 1, DATA + index * CHUNK, 3).expect("data");
        }
        let bench = Self { system, ram, local, registers };
        for page in (0..LOCAL).step_by(4096) {
            let _ = bench.local(page, 1).write_obj(1u8, 0);
        }
        for page in (0..RAM).step_by(4096) {
            let _ = bench.ram.write_obj(1u8, GuestAddress(page));
        }
        bench
    }

    fn local(&self, offset: u64, length: u64) -> VolatileSlice<'_> {
        self.local.slice(offset, to_usize(length)).expect("inside local memory")
    }

    fn remote(&self, place: u64) -> VolatileSlice<'_> {
        self.ram.get_slice(GuestAddress(DATA + place * CHUNK), to_usize(CHUNK)).expect("inside RAM")
    }

    fn register(&mut self, offset: u64, value: u64) {
        let value = u32::try_from(value).expect("registers have 32 bits");
        self.system
            .mmio_write(self.registers + layout::CHANNEL_BASE + offset, &value.to_le_bytes());
    }

    /// All copies by the device's engine, in seconds.
    pub fn checked(&mut self, direction: Direction) -> f64 {
        self.checked_of(direction, CHUNK)
    }

    /// The same with copies of `length` bytes, at most a chunk.
    pub fn checked_of(&mut self, direction: Direction, length: u64) -> f64 {
        for index in 0..COPIES {
            let remote = |salt| IOVA + place(index, salt) * CHUNK;
            let (bits, source, destination) = match direction {
                Direction::LocalToRemote => (flags::SOURCE_LOCAL, local_offset(index), remote(0)),
                Direction::RemoteToLocal => {
                    (flags::DESTINATION_LOCAL, remote(0), local_offset(index))
                }
                Direction::RemoteToRemote => (0, remote(0), remote(1)),
            };
            let descriptor = Descriptor {
                opcode: opcode::COPY,
                reserved0: 0,
                flags: bits.into(),
                length: u32::try_from(length).expect("small").into(),
                source: source.into(),
                destination: destination.into(),
                pattern: 0.into(),
                cookie: index.into(),
                reserved1: [0.into(); 3],
            };
            self.ram
                .write_slice(descriptor.as_bytes(), GuestAddress(RINGS + 64 * index))
                .expect("the ring is in RAM");
        }
        self.register(channel::CTRL, u64::from(channel_control::RESET));
        self.register(channel::RING_LO, RINGS);
        self.register(channel::RING_SIZE, RING_SIZE);
        self.register(channel::RECORD_LO, RECORDS);
        self.register(channel::CTRL, u64::from(channel_control::ENABLE));
        let start = Stopwatch::start();
        self.register(channel::TAIL, COPIES);
        while self.system.step() == Progress::Worked {}
        let seconds = start.seconds();
        self.verify(length);
        seconds
    }

    /// The last copy was done, without an error.
    fn verify(&self, length: u64) {
        let mut record = [0; 32];
        self.ram
            .read_slice(&mut record, GuestAddress(RECORDS + 32 * (COPIES - 1)))
            .expect("the ring is in RAM");
        let record = Record::read_from_bytes(&record).expect("32 bytes");
        assert_eq!(
            (record.cookie.get(), record.bytes.get(), record.status.get()),
            (COPIES - 1, length, 0)
        );
    }

    /// The same bytes between the same places by plain copies, in seconds.
    fn plain(&self, direction: Direction) -> f64 {
        let start = Stopwatch::start();
        for index in 0..COPIES {
            let (near, far) = (self.remote(place(index, 0)), self.remote(place(index, 1)));
            let local = self.local(local_offset(index), CHUNK);
            match direction {
                Direction::LocalToRemote => local.copy_to_volatile_slice(near),
                Direction::RemoteToLocal => near.copy_to_volatile_slice(local),
                Direction::RemoteToRemote => near.copy_to_volatile_slice(far),
            }
        }
        start.seconds()
    }
}
