//! What the guest's witness reports is in the trace, and a replay holds it against the requests again.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bench::{Bench, DATA, RECORDS, RING, descriptor, events, play, rewrite};
use device_models::endpoint::peer::regs::{channel, channel_control, opcode};
use device_models::fabric::WitnessInput;
use device_models::witness::{self, Clock, Gap};
use guest_protocol::witness::{Kind, MAGIC, RECORD_SIZE, VERSION, header, record, slot};
use peerdma_trace::{Event, RecordOptions};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

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
    let mut bench = Bench::new(path, RecordOptions::default());
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
        "peer0: witness.leaked: the driver left 3 mappings of 1056768 bytes behind, among \
         them 4096 bytes at 0x1000 (DMA_BIDIRECTIONAL), mapped 8.0 ms earlier by pid 812 (insmod)",
    ];
    assert_eq!(findings.len(), expected.len(), "{findings:#?}");
    for (finding, expected) in findings.iter().zip(expected) {
        assert!(finding.ends_with(expected), "{finding}");
    }
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    // What the witness finds is at the transaction, too.
    let (_, all) = events(&path);
    let verdicts: Vec<_> = all
        .iter()
        .filter_map(|event| match event {
            Event::Transaction(run) => run.verdict.map(|class| class.name()),
            _ => None,
        })
        .collect();
    assert_eq!(verdicts, ["witness.past-end", "witness.stale"]);
    // Without one of its records the replay goes another way.
    let (header, mut all) = events(&path);
    let records =
        |event: &Event| matches!(event, Event::Witness { kind: WitnessInput::Record, .. });
    let last = all.iter().rposition(records).unwrap();
    all.remove(last);
    rewrite(&path, &header, &all);
    assert!(play(&path).difference.is_some());
}
