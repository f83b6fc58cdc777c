//! Regression cases: small traces, each with a finding that must come out again. `peerdma replay
//! --minimise FINDING --to-test vmm/trace/tests/cases` makes one of a trace of any size. What a case
//! finds is what its name says, and notes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use peerdma_trace::{Ending, Event, Reader, replay};

#[test]
fn every_case_has_its_findings_again() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut cases = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let open = || Reader::new(BufReader::new(File::open(&path).unwrap())).unwrap();
        // The name of a case begins with the class that it is about.
        let class = name.split('-').next().unwrap().split('.').next().unwrap().to_owned();
        let finding = |event: Event| match event {
            Event::Finding(finding) => Some(finding.class),
            _ => None,
        };
        let found: Vec<_> = open().filter_map(|entry| finding(entry.unwrap().event)).collect();
        assert!(found.iter().any(|found| found.starts_with(&class)), "{name}: {found:?}");
        let replay = replay(open()).unwrap();
        let difference = replay.difference.map(|difference| difference.to_string());
        assert_eq!((difference, replay.ending), (None, Some(Ending::Complete)), "{name}");
        assert_eq!(replay.found, found.len() as u64, "{name}");
        let others: Vec<_> = replay
            .findings
            .iter()
            .filter(|text| !text.starts_with("note: ") && !text.contains(&format!(": {class}")))
            .collect();
        assert!(others.is_empty(), "{name}: {others:#?}");
        cases += 1;
    }
    assert!(cases >= 5, "{cases}");
}
