//! A system is driven as a driver would, recorded, and replayed without any of it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use bench::{Bench, DATA, NoInterrupts, RAM, descriptor, events, open, play, recorded, rewrite};
use device_models::endpoint::Progress;
use device_models::endpoint::peer::regs::{channel, channel_control, flags, opcode};
use device_models::fabric::{CompletionStatus, Kind, PostedDelay, Purpose, RouteKind};
use peerdma_topology::assembly::{IommuKind, SystemConfig};
use peerdma_trace::{
    Destination, Ending, Event, FindingEvent, Header, Payload, Reader, RecordOptions, Recording,
    TlpRun, TransactionResult, Writer, minimise, replay,
};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

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
            // Nothing pushes them: found when the delay is switched off.
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
    // What comes back has no addresses.
    let classes = ["pci.link-down", "pci.memory-decode-off"];
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
    // Without one of them more is found; and a function that is not there misleads no reader.
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

/// Whatever a replay compares is compared: each field of a transaction and of a finding.
#[test]
fn a_change_of_any_field_is_a_difference() {
    let (_folder, path) = recorded();
    let (header, all) = events(&path);
    let failed = TransactionResult::Failed(CompletionStatus::CompleterAbort);
    type Change = fn(&mut TlpRun, TransactionResult);
    let changes: [Change; 10] = [
        |run, _| run.sequence += 1,
        |run, _| run.requester ^= 8,
        |run, _| run.function = Some(0),
        |run, _| {
            run.kind =
                if run.kind == Kind::MemoryRead { Kind::MemoryWrite } else { Kind::MemoryRead }
        },
        |run, _| run.purpose = Purpose::VirtQueue,
        |run, _| run.length += 4,
        |run, _| run.tlp_limit = 128,
        |run, failed| run.outcome = failed,
        |run, _| {
            let TransactionResult::Delivered { route, .. } = &mut run.outcome else { panic!() };
            *route = RouteKind::BusAddress;
        },
        |run, _| {
            let TransactionResult::Delivered { target, .. } = &mut run.outcome else { panic!() };
            *target = Destination::Ram { offset: 4 };
        },
    ];
    let bulk = |event: &Event| matches!(event, Event::Transaction(run) if run.digest.is_some());
    let index = all.iter().position(bulk).unwrap();
    for (number, change) in changes.iter().enumerate() {
        let mut changed = all.clone();
        let Event::Transaction(run) = &mut changed[index] else { unreachable!() };
        change(run, failed);
        rewrite(&path, &header, &changed);
        let difference = play(&path).difference.unwrap_or_else(|| panic!("change {number}"));
        assert_eq!(difference.entry, index as u64 + 1, "change {number}: {difference}");
    }
    let found = all.iter().position(|event| matches!(event, Event::Finding(_))).unwrap();
    let changes: [fn(&mut FindingEvent); 3] =
        [|it| it.class = "pci.bar-edge".into(), |it| it.note = true, |it| it.text.push('x')];
    for change in changes {
        let mut changed = all.clone();
        let Event::Finding(finding) = &mut changed[found] else { unreachable!() };
        change(finding);
        rewrite(&path, &header, &changed);
        assert_eq!(play(&path).difference.expect("noticed").entry, found as u64 + 1);
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
    let memory = bench.bar("peer1", 2);
    let fill = |part: u64| descriptor(opcode::FILL, 0, 0, memory + (part << 24), 16 << 20);
    bench.run(&(0..16).map(fill).collect::<Vec<_>>());
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
    // Nor do the free replays of `--minimise`.
    let wanted = "iommu.stale".parse().unwrap();
    assert!(minimise(open(&path), wanted, Duration::from_secs(60), std::io::sink()).is_err());
    over.store(true, std::sync::atomic::Ordering::Relaxed);
    watcher.join().unwrap();
    assert_eq!((replay.difference, replay.ending), (None, Some(Ending::Complete)));
    assert!(replay.transactions > 4000, "{}", replay.transactions);
    let most = most.load(std::sync::atomic::Ordering::Relaxed);
    assert!(most < before + 100, "{most} MiB, {before} before");
}
