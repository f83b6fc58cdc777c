//! Regression cases: small traces, each with a finding that must come out again. `peerdma replay
//! --minimise FINDING --to-test vmm/trace/tests/cases` makes one of a trace of any size. What a case
//! finds is what its name says, and notes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use device_models::checker::FindingClass;
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
        let is_about = |class: &&FindingClass| name.starts_with(&format!("{}-", class.name()));
        let class = FindingClass::ALL.iter().find(is_about).unwrap().name();
        let finding = |event: Event| match event {
            Event::Finding(finding) => Some((finding.class, finding.note)),
            _ => None,
        };
        let found: Vec<_> = open().filter_map(|entry| finding(entry.unwrap().event)).collect();
        assert!(found.iter().any(|(found, _)| found == class), "{name}: {found:?}");
        assert!(found.iter().all(|(found, note)| found == class || *note), "{name}: {found:?}");
        let replay = replay(open()).unwrap();
        let difference = replay.difference.map(|difference| difference.to_string());
        assert_eq!((difference, replay.ending), (None, Some(Ending::Complete)), "{name}");
        assert_eq!(replay.found, found.len() as u64, "{name}");
        cases += 1;
    }
    assert!(cases >= 5, "{cases}");
}
