//! Devices are driven as a driver would, recorded, and replayed without it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use device_models::endpoint::Progress;
use device_models::endpoint::peer::regs::{
    Descriptor, channel, channel_control, flags, layout_of_bars as layout, opcode,
};
use device_models::fabric::{InterruptSink, PostedDelay};
use device_models::system::System;
use device_models::witness::{self, Clock, Gap};
use guest_protocol::witness::{Kind, MAGIC, RECORD_SIZE, VERSION, header, record, slot};
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use peerdma_trace::{DEFAULT_LIMIT, Event, Header, Reader, Recording, Replay, Writer, replay};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::IntoBytes;

const RAM: usize = 1 << 20;
const RING: u64 = 0x1000;
const RECORDS: u64 = 0x2000;
const DATA: u64 = 0x1_0000;
const NOWHERE: u64 = 0x8000_0000;

#[derive(Debug)]
struct NoInterrupts;

impl InterruptSink for NoInterrupts {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

struct Bench {
    system: System,
    ram: GuestMemoryMmap<()>,
    recording: Recording,
}

impl Bench {
    fn new(path: &Path, limit: u64) -> Self {
        let config = SystemConfig {
            iommu: IommuKind::None,
            local_memory: 1 << 20,
            ..SystemConfig::default()
        };
        let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
        let mut system = config.build(&ram, Box::new(NoInterrupts), std::io::repeat(0x5a)).unwrap();
        let header = Header { system: config, ram: vec![(0, RAM as u64)] };
        let recording = Recording::create(path, header, limit).unwrap();
        system.add_observer(Box::new(recording.recorder()));
        let mut bench = Self { system, ram, recording };
        for peer in ["peer0", "peer1"] {
            let function = bench.system.function(peer).unwrap();
            let bdf = bench.system.address_map().node(function).requester;
            bench.system.config_write(bdf, 4, 2, 6);
        }
        bench
    }

    fn bar(&self, peer: &str, bar: u8) -> u64 {
        let function = self.system.function(peer).unwrap();
        let node = self.system.address_map().node(function);
        node.bars.iter().find(|mapped| mapped.index == bar).unwrap().range.first
    }

    fn register(&mut self, offset: u64, value: u64) {
        let address = self.bar("peer0", 0) + layout::CHANNEL_BASE + offset;
        self.system.mmio_write(address, &u32::try_from(value).unwrap().to_le_bytes());
    }

    /// Runs descriptors on channel 0 of peer0.
    fn run(&mut self, descriptors: &[Descriptor]) {
        self.register(channel::RING_LO, RING);
        self.register(channel::RING_SIZE, 5);
        self.register(channel::RECORD_LO, RECORDS);
        self.register(channel::CTRL, u64::from(channel_control::ENABLE));
        for (descriptor, index) in descriptors.iter().zip(0..) {
            self.ram.write_slice(descriptor.as_bytes(), GuestAddress(RING + 64 * index)).unwrap();
        }
        self.register(channel::TAIL, descriptors.len() as u64);
        while self.system.step() == Progress::Worked {}
        let mut completed = [0; 4];
        let address = self.bar("peer0", 0) + layout::CHANNEL_BASE + channel::COMPLETED;
        self.system.mmio_read(address, &mut completed);
        assert_eq!(u32::from_le_bytes(completed) as usize, descriptors.len());
    }
}

fn descriptor(opcode: u8, flags: u16, source: u64, destination: u64, length: u32) -> Descriptor {
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

/// A copy to the peer's memory, a checksum over data that no trace holds, a read and a write into nowhere, and a
/// write of bulk data into the peer's registers.
fn record_copies(path: &Path, limit: u64) {
    let mut bench = Bench::new(path, limit);
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

/// The peer is pulled and a copy goes to where it was; after it is back, its memory has no address yet.
fn record_surprise(path: &Path) {
    let mut bench = Bench::new(path, DEFAULT_LIMIT);
    let memory = bench.bar("peer1", 2);
    let port = bench.system.function("port1").unwrap();
    let port = bench.system.address_map().node(port).requester;
    bench.system.unplug(port).unwrap();
    bench.run(&[descriptor(opcode::COPY, 0, DATA, memory, 64)]);
    bench.system.plug(port).unwrap();
    bench.register(channel::CTRL, u64::from(channel_control::RESET));
    bench.run(&[descriptor(opcode::COPY, 0, DATA, memory, 64)]);
    bench.recording.finish().unwrap();
}

/// Data for the peer stays under way, with and without a flush, and arrives by itself, by a push and at the end.
fn record_delayed(path: &Path) {
    let mut bench = Bench::new(path, DEFAULT_LIMIT);
    let (memory, registers) = (bench.bar("peer1", 2), bench.bar("peer1", 0));
    let bdf = |bench: &Bench, name| {
        let function = bench.system.function(name).unwrap();
        bench.system.address_map().node(function).requester
    };
    let (from, to) = (bdf(&bench, "peer0"), bdf(&bench, "peer1"));
    for delay in [PostedDelay::Turns(40), PostedDelay::UntilPushed] {
        bench.system.delay_posted(from, Some(to), delay).unwrap();
        for flags in [0, flags::FLUSH] {
            bench.ram.write_slice(&[0x5a; 100], GuestAddress(DATA)).unwrap();
            bench.register(channel::CTRL, u64::from(channel_control::RESET));
            bench.run(&[
                descriptor(opcode::COPY, 0, DATA, registers + 0x28, 8),
                descriptor(opcode::COPY, flags, DATA, memory, 100),
            ]);
            bench.system.fence_seen(from).unwrap();
        }
    }
    bench.system.delay_posted(from, Some(to), PostedDelay::Off).unwrap();
    bench.recording.finish().unwrap();
}

/// A CPU reads where the data goes, or writes there, or to the registers beside: before the device is at rest, after that,
/// and once too late. Data for registers comes behind so much that the device does not take it at once.
fn record_cpu_pushes(path: &Path) {
    let mut bench = Bench::new(path, DEFAULT_LIMIT);
    let (memory, registers) = (bench.bar("peer1", 2), bench.bar("peer1", 0));
    let bdf = |bench: &Bench, name| {
        let function = bench.system.function(name).unwrap();
        bench.system.address_map().node(function).requester
    };
    let (from, to) = (bdf(&bench, "peer0"), bdf(&bench, "peer1"));
    bench.ram.write_slice(&[0x5a; 0x400], GuestAddress(DATA)).unwrap();
    for access in 0..4 {
        bench.system.delay_posted(from, Some(to), PostedDelay::UntilPushed).unwrap();
        bench.register(channel::CTRL, u64::from(channel_control::RESET));
        bench.run(&[
            descriptor(opcode::COPY, 0, DATA, registers + 0x8000, 0x400),
            descriptor(opcode::COPY, 0, DATA, memory, 100),
        ]);
        let mut word = [0; 8];
        match access {
            0 => bench.system.mmio_read(memory + 64, &mut word),
            1 => bench.system.mmio_write(memory, &[7; 8]),
            2 => bench.system.mmio_read(registers, &mut word),
            // No read: found when the delay is switched off.
            _ => Progress::Idle,
        };
        while bench.system.step() == Progress::Worked {}
        bench.system.delay_posted(from, Some(to), PostedDelay::Off).unwrap();
        while bench.system.step() == Progress::Worked {}
        bench.system.mmio_read(memory + 64, &mut word);
        assert_eq!(word, [0x5a; 8]);
    }
    bench.recording.finish().unwrap();
}

fn play(path: &Path) -> Replay {
    replay(&mut Reader::new(BufReader::new(File::open(path).unwrap())).unwrap()).unwrap()
}

fn events(path: &Path) -> (Header, Vec<Event>) {
    let mut reader = Reader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let header = reader.header().clone();
    (header, reader.by_ref().map(Result::unwrap).collect())
}

fn rewrite(path: &Path, header: Header, events: &[Event]) {
    let mut out = BufWriter::new(File::create(path).unwrap());
    let mut writer = Writer::new(&mut out, header).unwrap();
    for event in events {
        writer.append(event).unwrap();
    }
    out.flush().unwrap();
}

/// A recorded run in a folder of its own.
fn recorded() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record_copies(&path, DEFAULT_LIMIT);
    (folder, path)
}

#[test]
fn a_replay_finds_what_the_recorded_run_found() {
    let (_folder, path) = recorded();
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    assert!(!replay.truncated && !replay.cut);
    assert!(replay.transactions > 10, "{replay:?}");
    assert_eq!(replay.findings.len(), 2, "{:?}", replay.findings);
    assert!(replay.findings.iter().all(|finding| finding.contains("pci.no-target")));
}

#[test]
fn a_device_that_was_pulled_is_pulled_in_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record_surprise(&path);
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    // What comes back has no addresses; where its memory was, that of the other one ends.
    let classes = ["pci.link-down", "pci.bar-edge"];
    assert_eq!(replay.findings.len(), classes.len(), "{:?}", replay.findings);
    for (finding, class) in replay.findings.iter().zip(classes) {
        assert!(finding.contains(class), "{finding}");
    }
    let (header, mut all) = events(&path);
    all.retain(|event| !matches!(event, Event::Unplug { .. }));
    rewrite(&path, header, &all);
    assert!(play(&path).difference.is_some(), "without it the copy arrives");
}

#[test]
fn what_stayed_under_way_stays_as_long_in_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record_delayed(&path);
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    // After its turns the data is there when the fence is seen; what waits for a push is not. The records are found when
    // the device reads from there in its next work: too late.
    let classes =
        ["order.record-before-data", "order.fence-before-data", "order.record-before-data"];
    assert_eq!(replay.findings.len(), classes.len(), "{:#?}", replay.findings);
    for (finding, class) in replay.findings.iter().zip(classes) {
        assert!(finding.contains(class), "{finding}");
    }
    let (header, mut all) = events(&path);
    all.retain(|event| !matches!(event, Event::DelayPosted { .. }));
    rewrite(&path, header, &all);
    assert!(play(&path).difference.is_some(), "without it the data comes first");
}

#[test]
fn what_a_cpu_pushed_is_pushed_in_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record_cpu_pushes(&path);
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    assert_eq!(replay.findings.len(), 1, "{:#?}", replay.findings);
    assert!(replay.findings[0].contains("order.record-before-data"), "{:#?}", replay.findings);
    let (header, all) = events(&path);
    let pushes = all.iter().filter(|event| matches!(event, Event::CpuPush { .. })).count();
    assert_eq!(pushes, 3, "one for each that changed anything");
    // Without one of them more is found; and a function that is not there misleads no reader.
    for function in [None, Some(usize::MAX)] {
        let mut changed = all.clone();
        let first =
            changed.iter().position(|event| matches!(event, Event::CpuPush { .. })).unwrap();
        match function {
            None => drop(changed.remove(first)),
            Some(function) => changed[first] = Event::CpuPush { function },
        }
        rewrite(&path, header.clone(), &changed);
        assert!(play(&path).difference.is_some(), "{function:?}");
    }
}

#[test]
fn a_changed_address_is_the_first_difference() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let is_data =
        |event: &Event| matches!(event, Event::Transaction { purpose, .. } if purpose == "data");
    let index = all.iter().position(is_data).unwrap();
    let Event::Transaction { address, .. } = &mut all[index] else { unreachable!() };
    *address += 0x40;
    rewrite(&path, header, &all);
    let difference = play(&path).difference.expect("the change is noticed");
    assert_eq!(difference.line, index as u64 + 2, "{difference}");
    assert!(difference.to_string().contains(&format!("addr={:#x}", DATA + 0x40)), "{difference}");
}

#[test]
fn a_changed_descriptor_leads_elsewhere() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let data = all.iter_mut().find_map(|event| match event {
        Event::Transaction { purpose, data: Some(data), .. } if purpose == "descriptor" => {
            Some(data)
        }
        _ => None,
    });
    data.expect("descriptors are recorded in full")[17] ^= 1;
    rewrite(&path, header, &all);
    let difference = play(&path).difference.expect("the engine does what the descriptor says");
    assert!(difference.recorded.is_some() && difference.replayed.is_some(), "{difference}");
}

#[test]
fn a_lost_event_is_noticed() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let finding = all.iter().position(|event| matches!(event, Event::Finding { .. })).unwrap();
    all.remove(finding);
    rewrite(&path, header, &all);
    assert!(play(&path).difference.is_some());
}

#[test]
fn a_truncated_record_replays_as_far_as_it_goes() {
    let (_folder, path) = recorded();
    let whole = std::fs::read(&path).unwrap();
    let mut replayed = 0;
    for part in 1..8 {
        std::fs::write(&path, &whole[..whole.len() * part / 8]).unwrap();
        let mut reader = match Reader::new(BufReader::new(File::open(&path).unwrap())) {
            Ok(reader) => reader,
            Err(_) => continue,
        };
        let replay = replay(&mut reader).unwrap();
        assert_eq!(replay.difference, None, "cut at {part}/8");
        assert!(replay.truncated);
        replayed += 1;
    }
    assert!(replayed > 4);
}

#[test]
fn a_record_never_grows_past_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record_copies(&path, 4000);
    assert!(std::fs::metadata(&path).unwrap().len() < 6000);
    let replay = play(&path);
    assert!(replay.cut && !replay.truncated);
    assert_eq!(replay.difference, None);
}

/// The guest's witness, as the VMM sees it: a ring for each of two CPUs.
struct Guest {
    ram: GuestMemoryMmap<()>,
    heads: [u32; 2],
    ticket: u64,
}

impl Guest {
    const HEADER: u64 = 0x8000;
    const RINGS: [u64; 2] = [0x9000, 0xa000];

    fn attach(bench: &mut Bench) -> Self {
        let guest = Self { ram: bench.ram.clone(), heads: [0; 2], ticket: 0 };
        let word = |at, value: u32| guest.ram.write_obj(value, GuestAddress(at)).unwrap();
        for (offset, value) in [(0, MAGIC), (4, VERSION), (8, 2), (12, 16), (16, 5_000_000)] {
            word(Self::HEADER + offset, value);
        }
        for (ring, slot) in Self::RINGS.into_iter().zip(0..) {
            guest.ram.write_obj(ring, GuestAddress(Self::slot(slot))).unwrap();
        }
        bench.system.set_witness_clock(Box::new(Ticking(AtomicU64::new(0))));
        bench.system.witness_attach(u32::try_from(Self::HEADER >> 12).unwrap());
        guest
    }

    fn slot(ring: u64) -> u64 {
        Self::HEADER + header::SLOTS + ring * header::SLOT_SIZE
    }

    fn say(&mut self, ring: usize, kind: Kind, (address, length): (u64, u64), direction: u8) {
        self.ticket += 1;
        let bytes = witness::Builder::new(kind)
            .put_u64(record::TICKET, self.ticket)
            .put_u64(record::TIME, 2_000_000)
            .put_u64(record::ADDRESS, address)
            .put_u64(record::LENGTH, length)
            .put(record::DIRECTION, &[direction])
            .put(record::FUNCTION, &0x0100u32.to_le_bytes())
            .put(record::PID, &812u32.to_le_bytes())
            .put(record::TASK, b"insmod")
            .bytes();
        let head = self.heads[ring];
        let at = Self::RINGS[ring] + u64::from(head % 16) * RECORD_SIZE as u64;
        self.ram.write_slice(&bytes, GuestAddress(at)).unwrap();
        self.heads[ring] = head + 1;
        let slot = Self::slot(ring as u64) + slot::HEAD;
        self.ram.write_obj(head + 1, GuestAddress(slot)).unwrap();
    }
}

/// A clock that goes on by a millisecond at each look.
struct Ticking(AtomicU64);

impl Clock for Ticking {
    fn nanoseconds(&self) -> u64 {
        self.0.fetch_add(1_000_000, Ordering::Relaxed)
    }
}

/// What a guest's witness reports between a device's copies, some of which go wrong.
fn record_witnessed(path: &Path) -> Vec<String> {
    let mut bench = Bench::new(path, DEFAULT_LIMIT);
    let memory = bench.bar("peer1", 2);
    let copy = |source, length| [descriptor(opcode::COPY, 0, source, memory, length)];
    bench.run(&copy(DATA, 64));
    let mut guest = Guest::attach(&mut bench);
    guest.say(0, Kind::Bind, (0, 0), 0);
    guest.say(1, Kind::Map, (RING, 0x1000), 0);
    guest.say(0, Kind::Map, (RECORDS, 0x1000), 0);
    guest.say(1, Kind::Map, (DATA, 4096), 1);
    guest.say(0, Kind::Map, (memory, 1 << 20), 2);
    bench.system.witness_drain();
    let reset = |bench: &mut Bench| {
        bench.register(channel::CTRL, u64::from(channel_control::RESET));
    };
    let good = copy(DATA, 4096);
    let past = copy(DATA, 4160);
    for descriptors in [good, past] {
        reset(&mut bench);
        bench.run(&descriptors);
    }
    guest.say(1, Kind::Unmap, (DATA, 4096), 1);
    reset(&mut bench);
    bench.run(&good);
    guest.say(0, Kind::Unbind, (0, 0), 0);
    bench.system.witness_drain();
    let counters = *bench.system.witness();
    assert_eq!(counters.mappings, 4, "{counters:?}");
    assert!(counters.transactions > 64 && counters.bytes > 3 * 4096 * 2, "{counters:?}");
    assert!(counters.not_witnessed[Gap::NoWitness as usize] > 0, "{counters:?}");
    bench.system.witness_attach(0);
    bench.recording.finish().unwrap();
    play(path).findings
}

#[test]
fn what_the_guests_witness_reported_is_held_against_the_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    let findings = record_witnessed(&path);
    let expected = [
        "addr=0x11000 len=64: witness.past-end: byte 4096 of the transfer is behind the end of 4096 \
         bytes at 0x10000 (DMA_TO_DEVICE), mapped 5.0 ms earlier by pid 812 (insmod)",
        "addr=0x10000 len=4096: witness.stale: 4096 bytes at 0x10000 (DMA_TO_DEVICE), unmapped 7.0 \
         ms earlier by pid 812 (insmod)",
        "peer0: witness.leaked: 3 mappings of 1056768 bytes were left behind by the driver, among \
         them 4096 bytes at 0x1000 (DMA_BIDIRECTIONAL), mapped 8.0 ms earlier by pid 812 (insmod)",
    ];
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (finding, expected) in findings.iter().zip(expected) {
        assert!(finding.ends_with(expected), "{finding}");
    }
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    // Without one of its records the replay goes another way.
    let (header, mut all) = events(&path);
    let records = |event: &Event| matches!(event, Event::Witness { kind, .. } if kind == "record");
    let last = all.iter().rposition(records).unwrap();
    all.remove(last);
    rewrite(&path, header, &all);
    assert!(play(&path).difference.is_some());
}
