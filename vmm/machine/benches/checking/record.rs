//! The same work recorded and not: what a trace costs, how long it gets, and how fast it is read.
//!
//! Time on the clock: a thread of its own packs and writes, and the devices may wait for it.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Instant;

use device_models::fabric::{Purpose, WriteOutcome};
use device_models::system::System;
use peerdma_topology::Topology;
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{
    Context, FunctionName, Header, Payload, Reader, RecordOptions, RecordSummary, Recording, Stats,
};
use vm_memory::VolatileSlice;

use crate::copies::{self, COPIES, Direction};
use crate::report::{Figure, Goal, Report, median};
use crate::rig::{Rig, iova};
use crate::transactions::{self, COUNT, PAGE};

/// Bytes of a copy.
const LENGTH: u64 = 4096;
/// Rings of copies of a round.
const RINGS: usize = 40;

pub fn run(report: &mut Report, rounds: usize) {
    let folder = tempfile::tempdir().expect("a folder for traces");
    let path = folder.path().join("bench.pcapng.zst");
    copied(report, rounds, &path);
    let small = |payload| written(rounds, &path, payload);
    let (_, none) = small(Payload::None);
    let (rates, digests) = small(Payload::Digest);
    report.add(Figure {
        name: "64-byte writes, recorded with digests",
        value: median(rates),
        unit: "million/s",
        compared_with: "nothing",
        goal: Goal::AtLeast(3.0),
        rate: None,
    });
    for (name, summary, goal) in [
        ("an entry on disk, with digests", digests, 24.0),
        ("an entry on disk, without", none, 16.0),
    ] {
        report.add(Figure {
            name,
            value: summary.bytes as f64 / summary.events as f64,
            unit: "bytes",
            compared_with: "nothing: 64-byte writes of random data to 16 pages at random",
            goal: Goal::AtMost(goal),
            rate: None,
        });
    }
    let rates = (0..rounds).map(|_| read(&path, digests.events));
    report.add(Figure {
        name: "trace stats",
        value: median(rates.collect()),
        unit: "million/s",
        compared_with: "nothing",
        goal: Goal::AtLeast(5.0),
        rate: None,
    });
}

fn record(path: &Path, system: &mut System, payload: Payload) -> Recording {
    let functions = system
        .address_map()
        .functions()
        .map(|(_, node)| FunctionName { name: node.name.to_string(), requester: node.requester.0 });
    let header = Header {
        system: SystemConfig::default(),
        ram: Vec::new(),
        functions: functions.collect(),
        payload,
        part: false,
    };
    let options = RecordOptions { payload, limit: u64::MAX, ..RecordOptions::default() };
    let recording = Recording::create(path, &header, options).expect("a trace");
    system.add_observer(Box::new(recording.recorder()));
    recording
}

fn copied(report: &mut Report, rounds: usize, path: &Path) {
    let mut plain = copies::Bench::new(Topology::default());
    let mut watched = copies::Bench::new(Topology::default());
    let recording = record(path, &mut watched.system, Payload::Digest);
    let seconds = |bench: &mut copies::Bench| {
        let start = Instant::now();
        for _ in 0..RINGS {
            bench.checked_of(Direction::LocalToRemote, LENGTH);
        }
        start.elapsed().as_secs_f64()
    };
    let (mut ratios, mut rates) = (Vec::new(), Vec::new());
    seconds(&mut watched);
    for round in 0..rounds {
        let (recorded, unrecorded) = if round % 2 == 0 {
            let recorded = seconds(&mut watched);
            (recorded, seconds(&mut plain))
        } else {
            let unrecorded = seconds(&mut plain);
            (seconds(&mut watched), unrecorded)
        };
        ratios.push(unrecorded / recorded);
        rates.push((RINGS as u64 * COPIES * LENGTH) as f64 / recorded / 1e9);
    }
    let summary = recording.finish().expect("the trace is whole");
    assert!(summary.events > (rounds * RINGS) as u64 * COPIES, "every copy is in the trace");
    report.add(Figure {
        name: "4 KiB copies, recorded with digests",
        value: median(ratios),
        unit: "of the rate",
        compared_with: "the same unrecorded",
        goal: Goal::AtLeast(0.8),
        rate: Some((median(rates), "GB/s")),
    });
}

/// Small writes, all in one trace: millions a second in each round, and what came of it.
fn written(rounds: usize, path: &Path, payload: Payload) -> (Vec<f64>, RecordSummary) {
    let mut rig = Rig::new(16, PAGE);
    let recording = record(path, &mut rig.system, payload);
    let offsets = transactions::offsets(16);
    let mut rates = Vec::new();
    for _ in 0..rounds {
        let addresses: Vec<u64> =
            offsets.iter().map(|&(page, offset)| iova(page, PAGE) + offset).collect();
        let start = Instant::now();
        rig.issue(move |port| {
            let mut data = [0x5a_u8; 64];
            let mut random = 0x9e37_79b9_7f4a_7c15_u64;
            for &address in &addresses {
                // Other data each time, as a digest that is always the same costs nothing.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                data[..8].copy_from_slice(&random.to_le_bytes());
                let outcome =
                    port.write(Purpose::Data, address, &VolatileSlice::from(&mut data[..]));
                assert!(matches!(outcome, WriteOutcome::Posted { verdict: None }));
            }
        });
        rates.push(COUNT as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
    let summary = recording.finish().expect("the trace is whole");
    assert!(summary.events >= (COUNT * rounds) as u64 && summary.lost == 0, "{summary:?}");
    (rates, summary)
}

/// What `peerdma trace stats` does, in million entries a second.
fn read(path: &Path, events: u64) -> f64 {
    let start = Instant::now();
    let file = BufReader::with_capacity(1 << 17, File::open(path).expect("the trace"));
    let mut reader = Reader::ahead(file).expect("the trace");
    let header = reader.header().clone();
    let mut context = Context::new(&header, reader.begun());
    let mut stats = Stats::default();
    for entry in reader.by_ref() {
        let entry = entry.expect("an entry");
        context.follow(&entry);
        stats.add(&entry, &header, &context);
        context.leave(&entry);
    }
    assert!(stats.entries >= events, "all of it was read");
    stats.entries as f64 / start.elapsed().as_secs_f64() / 1e6
}
