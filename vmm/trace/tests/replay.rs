//! A system is driven as a driver would, recorded, and replayed without any of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use bench::{Bench, DATA, NOWHERE, NoInterrupts, RAM, descriptor, events, open, play, rewrite};
use device_models::endpoint::Progress;
use device_models::endpoint::peer::regs::{channel, channel_control, flags, opcode};
use device_models::fabric::{PostedDelay, Purpose};
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use peerdma_trace::{
    ConfigAccess, Ending, Event, Header, Payload, Reader, RecordOptions, Recording, Writer, replay,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

/// A copy to the peer's memory, a checksum over data that no trace holds, a read and a write into nowhere, and a
/// write of bulk data into the peer's registers.
fn record(path: &Path, options: RecordOptions) {
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

/// The peer is pulled and a copy goes to where it was; after it is back, its memory has no address yet.
fn record_surprise(path: &Path) {
    let mut bench = Bench::new(path, RecordOptions::default());
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
    let mut bench = Bench::new(path, RecordOptions::default());
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
    let mut bench = Bench::new(path, RecordOptions::default());
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
            // Nobody looks: found when the delay is switched off.
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

/// A recorded run in a folder of its own.
fn recorded() -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    record(&path, RecordOptions::default());
    (folder, path)
}

#[test]
fn a_replay_finds_what_the_recorded_run_found() {
    let (_folder, path) = recorded();
    let replay = play(&path);
    assert_eq!(replay.difference, None);
    assert_eq!(replay.ending, Some(Ending::Complete));
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
    rewrite(&path, &header, &all);
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
    rewrite(&path, &header, &all);
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
    // Without one of them more is found; and nobody is misled by a function that is not there.
    for function in [None, Some(usize::MAX)] {
        let mut changed = all.clone();
        let first =
            changed.iter().position(|event| matches!(event, Event::CpuPush { .. })).unwrap();
        match function {
            None => drop(changed.remove(first)),
            Some(function) => changed[first] = Event::CpuPush { function },
        }
        rewrite(&path, &header, &changed);
        assert!(play(&path).difference.is_some(), "{function:?}");
    }
}

#[test]
fn a_changed_address_is_the_first_difference() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let is_data =
        |event: &Event| matches!(event, Event::Transaction(run) if run.purpose == Purpose::Data);
    let index = all.iter().position(is_data).unwrap();
    let Event::Transaction(run) = &mut all[index] else { unreachable!() };
    run.address += 0x40;
    rewrite(&path, &header, &all);
    let difference = play(&path).difference.expect("the change is noticed");
    assert_eq!(difference.entry, index as u64 + 1, "{difference}");
    assert!(difference.to_string().contains(&format!("addr={:#x}", DATA + 0x40)), "{difference}");
}

#[test]
fn a_changed_descriptor_leads_elsewhere() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let data = all.iter_mut().find_map(|event| match event {
        Event::Transaction(run) if run.purpose == Purpose::DescriptorFetch => run.data.as_mut(),
        _ => None,
    });
    data.expect("descriptors are recorded in full")[17] ^= 1;
    rewrite(&path, &header, &all);
    let difference = play(&path).difference.expect("the engine does what the descriptor says");
    assert!(difference.recorded.is_some() && difference.replayed.is_some(), "{difference}");
}

#[test]
fn a_lost_event_is_noticed() {
    let (_folder, path) = recorded();
    let (header, mut all) = events(&path);
    let finding = all.iter().position(|event| matches!(event, Event::Finding(_))).unwrap();
    all.remove(finding);
    rewrite(&path, &header, &all);
    assert!(play(&path).difference.is_some());
}

#[test]
fn a_truncated_trace_replays_as_far_as_it_goes() {
    let (_folder, path) = recorded();
    let (header, all) = events(&path);
    // A frame for each few events, as a slow recording has them.
    let mut writer = Writer::new(Vec::new(), &header, Duration::ZERO).unwrap();
    for (number, event) in all.iter().enumerate() {
        writer.append(event, Duration::ZERO).unwrap();
        if number % 3 == 0 {
            writer.flush().unwrap();
        }
    }
    let whole = writer.finish().unwrap();
    let mut most = 0;
    for cut in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let Ok(reader) = Reader::new(BufReader::new(File::open(&path).unwrap())) else { continue };
        let replay = replay(reader).unwrap();
        assert_eq!(replay.difference, None, "cut at {cut}");
        if replay.ending != Some(Ending::Complete) {
            assert!(replay.is_partial(), "{replay:?}");
            assert!(replay.events >= most, "a longer file has more");
            most = replay.events;
        }
    }
    assert!(most > all.len() as u64 / 2, "{most} of {}", all.len());
}

#[test]
fn a_trace_is_cut_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    let options = RecordOptions { limit: 4000, ..RecordOptions::default() };
    let mut bench = Bench::new(&path, options);
    let memory = bench.bar("peer1", 2);
    for _ in 0..2000 {
        bench.register(channel::CTRL, u64::from(channel_control::RESET));
        bench.run(&[descriptor(opcode::COPY, 0, DATA, memory, 64)]);
    }
    let summary = bench.recording.finish().unwrap();
    assert!(summary.cut && summary.bytes <= options.largest(), "{summary:?}");
    assert_eq!(std::fs::metadata(&path).unwrap().len(), summary.bytes);
    let (_, all) = events(&path);
    assert!(all.len() < 20_000, "{}", all.len());
    let replay = play(&path);
    assert_eq!(replay.ending, Some(Ending::Cut));
    assert_eq!(replay.difference, None);
}

#[test]
fn what_is_kept_of_bulk_data_changes_no_replay() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    let mut found = Vec::new();
    for payload in [Payload::None, Payload::Digest, Payload::Full] {
        record(&path, RecordOptions { payload, ..RecordOptions::default() });
        let replay = play(&path);
        assert_eq!((replay.difference, replay.ending), (None, Some(Ending::Complete)));
        found.push((replay.events, replay.transactions, replay.findings));
        let (header, all) = events(&path);
        assert_eq!(header.payload, payload);
        let (mut bulk, mut registers) = (0, 0);
        for event in all {
            let Event::Transaction(run) = event else { continue };
            let arrived = !matches!(run.outcome, peerdma_trace::TransactionResult::Failed(_));
            if run.purpose != Purpose::Data || !arrived {
                assert_eq!(run.digest, None);
                continue;
            }
            match (payload, run.digest, &run.data) {
                // What goes to registers steers a device.
                (_, None, Some(data)) if run.length == 8 => {
                    assert_eq!(data[..], [0xc3; 8]);
                    registers += 1;
                }
                (Payload::None, None, None) => bulk += 1,
                (Payload::Digest, Some(digest), None) => {
                    let bytes = vec![0xc3; usize::try_from(run.length).unwrap()];
                    assert_eq!(digest, crc32c::crc32c(&bytes));
                    bulk += 1;
                }
                (Payload::Full, Some(_), Some(data)) => {
                    let kept = usize::try_from(run.length.min(64 << 10)).unwrap();
                    assert_eq!(data[..], vec![0xc3; kept]);
                    bulk += 1;
                }
                _ => panic!("{payload:?}: {run:?}"),
            }
        }
        assert!(bulk > 2 && registers == 1, "{bulk} {registers}");
    }
    assert!(found.windows(2).all(|pair| pair[0] == pair[1]), "{found:#?}");
}

#[test]
fn a_finding_is_at_its_transaction_too() {
    let (_folder, path) = recorded();
    let (_, all) = events(&path);
    let mut marked = 0;
    for pair in all.windows(2) {
        let Event::Transaction(run) = &pair[0] else { continue };
        match &pair[1] {
            Event::Finding(finding) => {
                assert_eq!(run.verdict.unwrap().name(), finding.class);
                assert_eq!(finding.transaction, Some(run.sequence));
                marked += 1;
            }
            _ => assert_eq!(run.verdict, None),
        }
    }
    assert_eq!(marked, 2);
}

#[test]
fn entries_have_times_that_never_go_back_and_sources() {
    let (_folder, path) = recorded();
    let mut reader = open(&path);
    let names = reader.interfaces();
    let mut last = reader.begun();
    assert!(last > Duration::from_secs(1_500_000_000));
    let mut seen = std::collections::BTreeSet::new();
    for entry in reader.by_ref() {
        let entry = entry.unwrap();
        assert!(entry.time >= last);
        last = entry.time;
        seen.insert(names[entry.interface as usize].clone());
        if let Event::Transaction(run) = &entry.event
            && run.purpose == Purpose::Data
        {
            assert_eq!(names[entry.interface as usize], "peer0");
        }
        if let Event::ConfigWrite(ConfigAccess { offset, .. }) = entry.event {
            assert_eq!((offset, names[entry.interface as usize].as_str()), (4, "configuration"));
        }
    }
    let wanted = ["configuration", "cpu", "peer0", "peer1", "trace"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

/// Copies that write gigabytes leave no gigabytes behind: what the devices of a replay write is given back.
#[test]
fn a_replay_needs_memory_as_its_trace_has_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.trace");
    let ram = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM)]).unwrap();
    let config =
        SystemConfig { iommu: IommuKind::None, local_memory: 256 << 20, ..SystemConfig::default() };
    let system = config.build(&ram, Box::new(NoInterrupts), std::io::repeat(0x5a)).unwrap();
    let header = Header::of(&config, vec![(0, RAM as u64)], &system, Payload::None);
    let recording = Recording::create(&path, &header, RecordOptions::default()).unwrap();
    let mut bench = Bench { system, ram, recording };
    bench.system.add_observer(Box::new(bench.recording.recorder()));
    for peer in ["peer0", "peer1"] {
        let function = bench.system.function(peer).unwrap();
        let bdf = bench.system.address_map().node(function).requester;
        bench.system.config_write(bdf, 4, 2, 6);
    }
    bench.run(&[descriptor(opcode::FILL, flags::DESTINATION_LOCAL, 0, 0, 256 << 20)]);
    bench.recording.finish().unwrap();
    let shared = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssShmem")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
    };
    drop(bench);
    let before = shared();
    let most = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let over = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let watcher = {
        let (most, over) = (most.clone(), over.clone());
        std::thread::spawn(move || {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                most.fetch_max(shared(), std::sync::atomic::Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        })
    };
    let replay = play(&path);
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!((replay.difference, replay.ending), (None, Some(Ending::Complete)));
    let most = most.load(std::sync::atomic::Ordering::Relaxed);
    assert!(most < before + 100, "{most} MiB, {before} before");
}
