//! Cutting, comparing and adding up traces.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod sample;

use std::io::Cursor;
use std::time::Duration;

use device_models::fabric::WitnessInput;
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{
    Context, CutError, Ending, Event, Filter, FunctionName, Header, Part, Payload, Reader, Stats,
    TestMark, TestResult, Writer, check_seek_table, cut, diff, jsonl, replay,
};

fn header() -> Header {
    Header {
        system: SystemConfig::default(),
        ram: vec![(0, 1 << 20)],
        functions: vec![FunctionName { name: "peer0".into(), requester: 0x100 }],
        payload: Payload::Digest,
        part: false,
    }
}

fn mark(name: &str, result: Option<TestResult>) -> Event {
    Event::Test(TestMark { name: name.into(), result })
}

/// Entries a tenth of a second apart.
fn trace(events: &[Event]) -> Vec<u8> {
    let begun = Duration::from_secs(1000);
    let mut writer = Writer::new(Vec::new(), &header(), begun).unwrap();
    for (event, number) in events.iter().zip(1..) {
        writer.append(event, begun + Duration::from_millis(100) * number).unwrap();
    }
    let count = writer.events();
    writer.append(&Event::End { events: count }, begun + Duration::from_secs(50)).unwrap();
    writer.finish().unwrap()
}

/// 1 step, then test a with two, 1 step, test b with one, 1 step.
fn steps() -> Vec<u8> {
    let step = |function| Event::Step { function };
    trace(&[
        step(0),
        mark("a", None),
        step(1),
        step(2),
        mark("a", Some(TestResult::Passed)),
        step(3),
        mark("b", None),
        step(4),
        mark("b", Some(TestResult::Failed)),
        step(5),
        Event::Witness { kind: WitnessInput::Record, data: sample::mapped().to_vec() },
    ])
}

fn read(bytes: &[u8]) -> (Header, Vec<String>, Option<Ending>) {
    let mut reader = Reader::new(bytes).unwrap();
    let header = reader.header().clone();
    let all = reader.by_ref().map(|entry| entry.unwrap().event.to_string()).collect();
    (header, all, reader.ending().cloned())
}

fn part(bytes: &[u8], part: &Part) -> Result<(Header, Vec<String>, Option<Ending>), CutError> {
    let mut out = Vec::new();
    cut(Reader::new(bytes).unwrap(), &mut out, part)?;
    check_seek_table(&mut Cursor::new(&out)).unwrap();
    Ok(read(&out))
}

#[test]
fn a_test_is_cut_out_with_its_marks() {
    let wanted = Part { test: Some("a".into()), ..Part::default() };
    let (header, all, ending) = part(&steps(), &wanted).unwrap();
    assert!(header.part);
    assert_eq!(
        all,
        [
            "test a begins",
            "turn of function 1",
            "turn of function 2",
            "test a passed",
            "cut after 4 entries, by a size limit or trace cut"
        ]
    );
    assert_eq!(ending, Some(Ending::Cut));
    let none = Part { test: Some("c".into()), ..Part::default() };
    assert!(matches!(part(&steps(), &none), Err(CutError::Nothing)));
}

#[test]
fn a_time_is_cut_out_and_a_beginning_can_be_replayed() {
    let time = Duration::from_millis;
    let middle = Part { from: Some(time(300)), to: Some(time(400)), test: None };
    let (header, all, _) = part(&steps(), &middle).unwrap();
    assert!(header.part && all.len() == 3, "{all:?}");
    let beginning = Part { to: Some(time(400)), ..Part::default() };
    let (header, all, ending) = part(&steps(), &beginning).unwrap();
    assert_eq!((header.part, all.len(), ending), (false, 5, Some(Ending::Cut)));
    let mut out = Vec::new();
    cut(Reader::new(&steps()[..]).unwrap(), &mut out, &beginning).unwrap();
    let replay = replay(Reader::new(Cursor::new(out)).unwrap()).unwrap();
    assert_eq!((replay.difference, replay.ending), (None, Some(Ending::Cut)));
    // The end is complete, but not a whole trace.
    let end = Part { from: Some(time(950)), ..Part::default() };
    let (header, all, ending) = part(&steps(), &end).unwrap();
    assert_eq!((header.part, all.len(), ending), (true, 3, Some(Ending::Complete)));
}

#[test]
fn traces_are_compared_as_far_as_a_filter_lets_them() {
    let compare = |one: &[u8], other: &[u8], terms: &[&str]| {
        let filter = Filter::new(terms).unwrap();
        let diff = diff(Reader::new(one).unwrap(), Reader::new(other).unwrap(), &filter).unwrap();
        let number = |entry: Option<peerdma_trace::Entry>| entry.map(|entry| entry.number);
        (diff.same, diff.first.map(|(one, other)| (number(one), number(other))))
    };
    let step = |function| Event::Step { function };
    let (one, other) = (
        trace(&[step(0), step(1), mark("a", None), step(2)]),
        trace(&[step(0), step(1), step(2), step(3)]),
    );
    assert_eq!(compare(&one, &one, &[]), (4, None));
    assert_eq!(compare(&one, &other, &[]), (2, Some((Some(3), Some(3)))));
    assert_eq!(compare(&one, &other, &["kind=turn"]), (3, Some((None, Some(4)))));
    assert_eq!(compare(&one, &other, &["kind=turn", "entry=1-2"]), (2, None));
}

#[test]
fn sums_and_lines_are_those_of_the_entries() {
    let bytes = steps();
    let mut reader = Reader::new(&bytes[..]).unwrap();
    let header = reader.header().clone();
    let mut context = Context::new(&header, reader.begun());
    let (mut stats, mut lines) = (Stats::default(), Vec::new());
    for entry in reader.by_ref() {
        let entry = entry.unwrap();
        context.follow(&entry);
        stats.add(&entry, &header, &context);
        jsonl(&entry, "trace", &context, &mut lines).unwrap();
        context.leave(&entry);
    }
    assert_eq!((stats.entries, stats.kinds["turn"], stats.kinds["test"]), (11, 6, 4));
    assert_eq!(stats.records, [("buffer-map", 1)].into());
    assert_eq!(stats.tests, [("failed", 1), ("passed", 1)].into());
    let lines: Vec<serde_json::Value> = String::from_utf8(lines)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 12);
    let says = &lines[10]["says"];
    assert_eq!((&says["record"], &says["buffer"]), (&"buffer-map".into(), &7.into()));
    assert_eq!((&says["requester"], &says["task"]), (&0x100.into(), &"importer".into()));
    assert_eq!(
        lines[2],
        serde_json::json!({
            "entry": 3, "time_ns": 300_000_000, "source": "trace", "test": "a",
            "event": "step", "function": 1,
        })
    );
}

#[test]
fn a_seek_table_that_is_not_there_or_wrong_is_noticed() {
    let bytes = steps();
    check_seek_table(&mut Cursor::new(&bytes)).unwrap();
    let check = |bytes: &[u8]| check_seek_table(&mut Cursor::new(bytes)).unwrap_err();
    assert_eq!(check(b"short"), "the file is too short");
    assert_eq!(check(&bytes[..bytes.len() - 1]), "there is none at the end of the file");
    let mut many = bytes.clone();
    let at = many.len() - 9;
    many[at..at + 4].fill(0xff);
    assert_eq!(check(&many), "the file has no room for 4294967295 frames");
    let mut more = bytes[..10].to_vec();
    more.extend(&bytes);
    assert!(check(&more).contains("bytes of frames"), "{}", check(&more));
}
