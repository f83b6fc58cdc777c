use std::io::{BufReader, Cursor};
use std::time::Duration;

use peerdma_support::testing::logged;

use super::*;
use crate::event::{FindingEvent, Payload};
use crate::writer::Writer;
use peerdma_topology::assembly::SystemConfig;

fn finding(text: &str) -> Event {
    Event::Finding(FindingEvent {
        class: "x".into(),
        note: false,
        transaction: None,
        function: String::new(),
        text: text.into(),
    })
}

fn header() -> Header {
    let ram = vec![(0, 1 << 20)];
    Header { ram, ..Header::nothing() }
}

fn trace(header: &Header, events: &[Event]) -> Reader<BufReader<Cursor<Vec<u8>>>> {
    let mut writer = Writer::new(Vec::new(), header, Duration::ZERO).unwrap();
    events.iter().for_each(|event| writer.append(event, Duration::ZERO).unwrap());
    let events = writer.events();
    writer.append(&Event::End { events }, Duration::ZERO).unwrap();
    Reader::new(BufReader::new(Cursor::new(writer.finish().unwrap()))).unwrap()
}

#[test]
fn what_no_cause_brought_about_is_a_difference_at_once() {
    for cause in [None, Some(Event::Step { function: 0 })] {
        let mut events = vec![finding("not so"); 1000];
        let first = cause.is_some() as u64 + 1;
        events.splice(0..0, cause);
        let replay = replay(trace(&header(), &events)).unwrap();
        let difference = replay.difference.unwrap();
        assert_eq!((difference.entry, difference.recorded), (first, Some(finding("not so"))));
    }
}

#[test]
fn causes_that_are_refused_do_not_fill_the_log() {
    let events = vec![Event::Unplug { port: u16::MAX }; 500];
    let lines = logged(|| {
        let replay = replay(trace(&header(), &events)).unwrap();
        assert_eq!(replay.difference, None);
    });
    assert_eq!(lines.len(), 10, "{lines:#?}");
    assert_eq!(lines[9], "recorded causes that the devices refused: 500 in all");
}

#[test]
fn of_the_findings_the_first_are_kept_and_all_are_counted() {
    let mut replay = Replay::default();
    for number in 0..MAX_FINDINGS + 5 {
        replay.add(number.to_string());
    }
    assert_eq!(replay.findings.len(), MAX_FINDINGS);
    assert_eq!(replay.found, MAX_FINDINGS as u64 + 5);
}

#[test]
fn marks_and_what_other_sources_added_do_not_matter() {
    let mark = crate::event::TestMark { name: "a".into(), result: None };
    let events =
        [Event::Test(mark), Event::Step { function: 0 }, Event::Other { kind: 16, body: vec![1] }];
    let replay = replay(trace(&header(), &events)).unwrap();
    assert_eq!((replay.difference, replay.events), (None, 1));
    assert_eq!(replay.ending, Some(Ending::Complete));
}

#[test]
fn where_entries_were_dropped_the_replay_ends() {
    let events = [Event::Step { function: 0 }, Event::Lost { entries: 3 }];
    let error = replay(trace(&header(), &events)).unwrap_err();
    assert!(matches!(error, ReplayError::Lost(5)), "{error}");
    let part = Header { part: true, ..header() };
    assert!(matches!(replay(trace(&part, &[])), Err(ReplayError::Part)));
}

#[test]
fn a_header_is_not_believed() {
    for (ram, what) in [
        (vec![(0, 1 << 60)], "bytes are possible"),
        (vec![(0, u64::MAX), (5, u64::MAX)], "bytes are possible"),
        (vec![(0, 1); 17], "at most 16 ranges"),
        (vec![(0, 0)], "empty"),
    ] {
        let error = replay(trace(&Header { ram, ..header() }, &[])).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
        assert!(!error.is_of_the_machine());
    }
    let system = SystemConfig { local_memory: 3, ..SystemConfig::default() };
    let error =
        replay(trace(&Header { system, payload: Payload::None, ..header() }, &[])).unwrap_err();
    assert!(matches!(error, ReplayError::Assembly(_)), "{error}");
}
