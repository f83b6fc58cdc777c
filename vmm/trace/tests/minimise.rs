//! A trace is made small: what is left has the finding, and replays like any other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod bench;

use std::io::Cursor;
use std::path::Path;
use std::time::Duration;

use bench::{DATA, NOWHERE, events, open, recorded};
use device_models::endpoint::peer::regs::{channel, channel_control, flags, opcode};
use peerdma_trace::{
    Ending, Event, Header, MinimiseError, Minimised, Payload, Reader, RecordOptions, Replay,
    Wanted, minimise, replay,
};

fn small(path: &Path, wanted: &str, seconds: u64) -> Result<(Minimised, Vec<u8>), MinimiseError> {
    let (wanted, budget) = (wanted.parse::<Wanted>().unwrap(), Duration::from_secs(seconds));
    let mut out = Vec::new();
    let result = minimise(open(path), wanted, budget, &mut out)?;
    Ok((result, out))
}

fn play(bytes: &[u8]) -> Replay {
    let replay = replay(Reader::new(Cursor::new(bytes.to_vec())).unwrap()).unwrap();
    let difference = replay.difference.as_ref().map(ToString::to_string);
    assert_eq!((difference, &replay.ending), (None, &Some(Ending::Complete)));
    replay
}

/// Many copies that are right, and a wrong one among them, far into a ring.
fn record(path: &Path) {
    let mut bench = bench::Bench::new(path, RecordOptions::default());
    let memory = bench.bar("peer1", 2);
    let good = bench::descriptor(opcode::COPY, 0, DATA, memory, 64);
    let bad = bench::descriptor(opcode::COPY, flags::SOURCE_LOCAL, 0, NOWHERE, 16);
    for round in 0..20 {
        let mut ring = vec![good; 12];
        if round == 13 {
            ring.push(bad);
        }
        ring.push(good);
        bench.run(&ring);
        bench.register(channel::CTRL, u64::from(channel_control::RESET));
    }
    bench.recording.finish().unwrap();
}

#[test]
fn a_finding_is_left_with_what_it_needs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    record(&path);
    let before = events(&path).1.len();
    assert!(before > 1000, "{before}");
    let (result, bytes) = small(&path, "pci.no-target", 60).unwrap();
    assert!(result.finished && result.events <= 20 && result.runs > 3, "{result:?}");
    let replay = play(&bytes);
    assert_eq!(replay.events, result.snapshot + result.events);
    assert!(
        result.finding.contains("peer0 MWr addr=0x80000000 len=16: pci.no-target"),
        "{result:?}"
    );
    assert!(replay.findings.contains(&result.finding), "{:?}", replay.findings);
    // It cannot be made smaller again.
    std::fs::write(&path, &bytes).unwrap();
    let (again, _) = small(&path, "pci.no-target", 60).unwrap();
    assert_eq!((again.snapshot, again.events), (result.snapshot, result.events));
    // The engine's turn and the write of its tail are what nothing goes without.
    let (_, all) = events(&path);
    assert!(all.iter().any(|event| matches!(event, Event::Step { .. })));
}

#[test]
fn the_same_finding_is_of_the_same_kind_of_request() {
    let (_folder, path) = recorded();
    // A read and a write into nowhere, of one class: each can be asked for by its TLP.
    let (_, all) = events(&path);
    let found = all.iter().filter_map(|event| match event {
        Event::Finding(finding) => finding.transaction,
        _ => None,
    });
    let tlps: Vec<u64> = found.collect();
    let mut kinds = Vec::new();
    for tlp in tlps {
        let (result, bytes) = small(&path, &format!("#{tlp}"), 60).unwrap();
        assert!(result.finished && result.events <= 20, "{result:?}");
        assert!(play(&bytes).findings.contains(&result.finding));
        kinds.push(result.finding.contains("MRd"));
    }
    assert_eq!(kinds, [true, false]);
}

#[test]
fn what_the_trace_had_not_found_does_not_come() {
    let (_folder, path) = recorded();
    let whole = bench::play(&path).findings;
    let (result, bytes) = small(&path, "pci.no-target", 60).unwrap();
    let found = play(&bytes).findings;
    assert_eq!(found, std::slice::from_ref(&result.finding));
    assert!(result.others.is_empty(), "{result:?}");
    // Time for nothing but what is behind it: all that came in front is named.
    let last = whole.len() - 1;
    let tlp = whole[last].split(' ').next().unwrap();
    let (result, bytes) = small(&path, tlp, 0).unwrap();
    assert_eq!((&result.others[..], &result.finding), (&whole[..last], &whole[last]));
    assert_eq!(play(&bytes).findings, whole);
}

#[test]
fn behind_an_iommu_nothing_else_is_found() {
    // Without their address, the completion records would go to 0, which is not mapped.
    let case = "tests/cases/iommu.stale-basic.pcapng.zst";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(case);
    let (result, bytes) = small(&path, "iommu.stale", 60).unwrap();
    assert_eq!(play(&bytes).findings, [result.finding]);
    assert!(result.others.is_empty(), "{:#?}", result.others);
}

#[test]
fn transactions_keep_their_verdicts() {
    let (_folder, path) = recorded();
    let verdicts = |path: &Path| {
        let (_, all) = events(path);
        let verdict = |event| match event {
            Event::Transaction(run) => run.verdict.map(|verdict| (run.sequence, verdict)),
            _ => None,
        };
        all.into_iter().filter_map(verdict).collect::<Vec<_>>()
    };
    let whole = verdicts(&path);
    assert_eq!(whole.len(), 2, "{whole:?}");
    let (_, bytes) = small(&path, &format!("#{}", whole[1].0), 0).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(verdicts(&path), whole);
}

#[test]
fn when_time_is_up_the_best_is_written() {
    let (_folder, path) = recorded();
    let (result, bytes) = small(&path, "pci.no-target", 0).unwrap();
    assert!(!result.finished, "{result:?}");
    let replay = play(&bytes);
    assert!(replay.findings.contains(&result.finding));
    assert!(replay.events < events(&path).1.len() as u64, "what is behind the finding is cut");
}

#[test]
fn what_is_not_there_is_an_error() {
    let (_folder, path) = recorded();
    let error = small(&path, "iommu.stale", 1).unwrap_err().to_string();
    assert_eq!(error, "the trace has no such finding; it has pci.no-target");
    assert!(matches!(small(&path, "#999999", 1), Err(MinimiseError::NotFound(_))));
    for bad in ["stale", "#", "#x", ""] {
        assert!(bad.parse::<Wanted>().is_err(), "{bad:?}");
    }
    let nothing = Header {
        system: peerdma_topology::assembly::SystemConfig::default(),
        ram: vec![(0, u64::MAX)],
        functions: Vec::new(),
        payload: Payload::None,
        part: false,
    };
    bench::rewrite(&path, &nothing, &[Event::End { events: 0 }]);
    assert!(matches!(small(&path, "#1", 1), Err(MinimiseError::Replay(_))));
}
