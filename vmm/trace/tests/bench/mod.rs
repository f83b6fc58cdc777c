//! A system of two peers that is driven as a driver would, and recorded.

#![allow(dead_code, reason = "each test uses what it needs")]

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use device_models::endpoint::Progress;
use device_models::endpoint::peer::regs::{
    Descriptor, channel, channel_control, flags, layout_of_bars as layout, opcode,
};
use device_models::fabric::{InterruptSink, Node, NodeKind};
use device_models::system::System;
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use peerdma_trace::{Event, Header, Reader, RecordOptions, Recording, Replay, Writer, replay};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

pub(crate) const RAM: usize = 1 << 20;
pub(crate) const RING: u64 = 0x1000;
pub(crate) const RECORDS: u64 = 0x2000;
pub(crate) const DATA: u64 = 0x1_0000;
pub(crate) const NOWHERE: u64 = 0x8000_0000;

#[derive(Debug)]
pub(crate) struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

pub(crate) struct Bench {
    pub(crate) system: System,
    pub(crate) ram: GuestMemoryMmap<()>,
    pub(crate) recording: Recording,
}

impl Bench {
    pub(crate) fn new(path: &Path, options: RecordOptions) -> Self {
        let config = SystemConfig {
            iommu: IommuKind::None,
            local_memory: 1 << 20,
            ..SystemConfig::default()
        };
        Self::of(path, options, config)
    }

    pub(crate) fn of(path: &Path, options: RecordOptions, config: SystemConfig) -> Self {
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let mut system = config.build(&ram, Box::new(NoInterrupts), std::io::repeat(0x5a)).unwrap();
        let header = Header::of(&config, vec![(0, RAM as u64)], &system, options.payload);
        let recording = Recording::create(path, &header, options).unwrap();
        system.add_observer(Box::new(recording.recorder()));
        let mut bench = Self { system, ram, recording };
        let map = bench.system.address_map();
        let endpoints =
            |node: &&Node| node.kind != NodeKind::Endpoint || node.name.starts_with("peer");
        let functions = map.functions().map(|(_, node)| node).filter(endpoints);
        let all: Vec<_> = functions.map(|node| node.requester).collect();
        for bdf in all {
            bench.system.config_write(bdf, 4, 2, 6);
        }
        bench
    }

    pub(crate) fn bar(&self, peer: &str, bar: u8) -> u64 {
        let function = self.system.function(peer).unwrap();
        let node = self.system.address_map().node(function);
        node.bars.iter().find(|mapped| mapped.index == bar).unwrap().range.first
    }

    pub(crate) fn register(&mut self, offset: u64, value: u64) {
        let address = self.bar("peer0", 0) + layout::CHANNEL_BASE + offset;
        self.system.mmio_write(address, &u32::try_from(value).unwrap().to_le_bytes());
    }

    /// Switches MSI-X of peer0 on, with all vectors unmasked.
    pub(crate) fn enable_interrupts(&mut self) {
        let function = self.system.function("peer0").unwrap();
        let requester = self.system.address_map().node(function).requester;
        let mut at = 0x34;
        let capability = loop {
            let offset = u16::try_from(self.system.config_read(requester, at, 1)).unwrap();
            assert_ne!(offset, 0, "MSI-X is missing");
            if self.system.config_read(requester, offset, 1) == 0x11 {
                break offset;
            }
            at = offset + 1;
        };
        let control = self.system.config_read(requester, capability + 2, 2);
        self.system.config_write(requester, capability + 2, 2, control | 0x8000);
        let table = self.bar("peer0", 4);
        for vector in 0..=u64::from(control & 0x7ff) {
            for (offset, value) in [(0, 0xfee0_0000_u32), (4, 0), (8, 0x41), (12, 0)] {
                self.system.mmio_write(table + 16 * vector + offset, &value.to_le_bytes());
            }
        }
    }

    /// Runs descriptors on channel 0 of peer0.
    pub(crate) fn run(&mut self, descriptors: &[Descriptor]) {
        self.run_and(descriptors, |_| {});
    }

    /// The same, and does something else behind the doorbell.
    pub(crate) fn run_and(&mut self, descriptors: &[Descriptor], also: impl FnOnce(&mut System)) {
        self.register(channel::RING_LO, RING);
        self.register(channel::RING_SIZE, 5);
        self.register(channel::RECORD_LO, RECORDS);
        self.register(channel::CTRL, u64::from(channel_control::ENABLE));
        for (descriptor, index) in descriptors.iter().zip(0..) {
            self.ram.write_slice(descriptor.as_bytes(), GuestAddress(RING + 64 * index)).unwrap();
        }
        self.register(channel::TAIL, descriptors.len() as u64);
        also(&mut self.system);
        while self.system.step() == Progress::Worked {}
        let mut completed = [0; 4];
        let address = self.bar("peer0", 0) + layout::CHANNEL_BASE + channel::COMPLETED;
        self.system.mmio_read(address, &mut completed);
        assert_eq!(u32::from_le_bytes(completed) as usize, descriptors.len());
    }
}

pub(crate) fn descriptor(
    opcode: u8,
    flags: u16,
    source: u64,
    destination: u64,
    length: u32,
) -> Descriptor {
    Descriptor {
        opcode,
        reserved0: 0,
        flags: flags.into(),
        length: length.into(),
        source: source.into(),
        destination: destination.into(),
        pattern: 0.into(),
        cookie: 7.into(),
        reserved1: [0.into(); 3],
    }
}

pub(crate) fn open(path: &Path) -> Reader<BufReader<File>> {
    Reader::new(BufReader::new(File::open(path).unwrap())).unwrap()
}

pub(crate) fn play(path: &Path) -> Replay {
    replay(open(path)).unwrap()
}

pub(crate) fn events(path: &Path) -> (Header, Vec<Event>) {
    let reader = open(path);
    let header = reader.header().clone();
    (header, reader.map(|entry| entry.unwrap().event).collect())
}

pub(crate) fn rewrite(path: &Path, header: &Header, events: &[Event]) {
    let mut writer = Writer::new(File::create(path).unwrap(), header, Duration::ZERO).unwrap();
    for event in events {
        let count = writer.events();
        match event {
            Event::End { .. } => writer.append(&Event::End { events: count }, Duration::ZERO),
            event => writer.append(event, Duration::ZERO),
        }
        .unwrap();
    }
    writer.finish().unwrap();
}

/// A copy to the peer's memory, a checksum over data that no trace holds, a read and a write into nowhere, and a
/// write of bulk data into the peer's registers.
pub(crate) fn record(path: &Path, options: RecordOptions) {
    let mut bench = Bench::new(path, options);
    bench.ram.write_slice(&[0xc3; 0x2_0000], GuestAddress(DATA)).unwrap();
    let (memory, registers) = (bench.bar("peer1", 2), bench.bar("peer1", 0));
    bench.run(&[
        descriptor(opcode::COPY, 0, DATA, memory + 3, 0x1_2345),
        descriptor(opcode::CHECKSUM, 0, DATA, 0, 0x1_0000),
        descriptor(opcode::COPY, flags::DESTINATION_LOCAL, NOWHERE, 0, 16),
        descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, NOWHERE, 16),
        descriptor(opcode::COPY, 0, DATA, registers + 0x28, 8),
    ]);
    bench.recording.finish().unwrap();
}

/// A recorded run in a folder of its own.
pub(crate) fn recorded() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record(&path, RecordOptions::default());
    (folder, path)
}
