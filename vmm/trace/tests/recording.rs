//! What a recording of the device models has in it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::time::Duration;

use bench::{Bench, DATA, descriptor, events, open, play, record, recorded};
use device_models::endpoint::peer::regs::{channel, channel_control, opcode};
use device_models::fabric::Purpose;
use peerdma_support::random;
use peerdma_trace::{ConfigAccess, Ending, Event, Payload, RecordOptions, replay, ring_file};
use vm_memory::{Bytes, GuestAddress};

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

/// A ring as a program leaves it: what of it can be replayed, and what not.
#[test]
fn a_ring_is_replayed_as_far_as_its_beginning_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    let ring = |size| RecordOptions {
        ring: Some(size),
        payload: Payload::Full,
        ..RecordOptions::default()
    };
    record(&path, ring(64 << 20));
    assert!(!ring_file(&path, 1).exists());
    assert_eq!(play(&path).ending, Some(Ending::Complete));
    let mut bench = Bench::new(&path, ring(4 << 20));
    let mut seed = 1;
    let mut turns = |bench: &mut Bench, count| {
        for _ in 0..count {
            let data = (0..0x2000).flat_map(|_| random::next(&mut seed).to_be_bytes());
            let data: Vec<u8> = data.collect();
            bench.ram.write_slice(&data, GuestAddress(DATA)).unwrap();
            let copy = descriptor(opcode::COPY, 0, DATA, bench.bar("peer1", 2), 0x1_0000);
            bench.run(&[copy]);
            let reset = u64::from(channel_control::RESET);
            bench.register(channel::CTRL, reset);
        }
    };
    turns(&mut bench, 10);
    bench.recording.clone().finish().unwrap();
    let first = play(&path);
    assert_eq!((first.difference, first.ending), (None, Some(Ending::Cut)));
    assert!(first.transactions > 10);
    let part = replay(open(&ring_file(&path, 1))).unwrap_err().to_string();
    assert!(part.contains("has overwritten it (--record-ring)"), "{part}");
    let mut bench = Bench::new(&path, ring(4 << 20));
    turns(&mut bench, 100);
    let summary = bench.recording.finish().unwrap();
    assert!(summary.files.overwritten && summary.bytes <= 4 << 20, "{summary:?}");
    assert!(replay(open(&path)).is_err());
    let newest = events(&ring_file(&path, summary.files.newest)).1;
    assert_eq!(newest.last(), Some(&Event::End { events: summary.events }));
}
