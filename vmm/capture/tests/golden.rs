//! Dumps of real machines, as people posted them. Each file says where it is from and what Linux decides; the decisions
//! are checked where they are made. Here: what is read from them, compared with the table beside each.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use peerdma_capture::{Acs, AcsFlags, Function, Machine, Parent, read};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines");
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().unwrap() == "txt").collect();
    files.sort();
    files
}

fn row(function: &Function) -> String {
    let parent = match function.parent {
        Parent::Root => "root".to_owned(),
        Parent::Below(above) => above.to_string(),
        Parent::Unknown => "?".to_owned(),
    };
    let id = |id: Option<u16>| id.map_or("?".to_owned(), |id| format!("{id:04x}"));
    let acs = match &function.acs {
        Acs::Unknown => "?".to_owned(),
        Acs::Absent => "none".to_owned(),
        Acs::Present { control, .. } => {
            let sign = |value| match value {
                Some(true) => '+',
                Some(false) => '-',
                None => '?',
            };
            let flags = AcsFlags::NAMES.iter().zip(control.values());
            flags.map(|(name, value)| format!("{name}{} ", sign(value))).collect()
        }
    };
    let port = function.port.name();
    let (vendor, device) = (id(function.vendor), id(function.device));
    let group = function.iommu_group.map_or("?".to_owned(), |group| group.to_string());
    let bars = function.bars.len();
    let acs = acs.trim();
    format!(
        "{} | {parent} | {port} | {vendor}:{device} | {acs} | group {group} | {bars} BARs",
        function.address
    )
}

fn table(machine: &Machine) -> String {
    let mut text = String::new();
    for function in &machine.functions {
        let _ = writeln!(text, "{}", row(function));
    }
    if let Some(cpu) = &machine.cpu {
        let _ = writeln!(text, "processor {cpu:?}");
    }
    text
}

/// PEERDMA_UPDATE_GOLDEN=1 writes the tables anew: to be read before they are committed.
#[test]
fn dumps_of_real_machines_are_read_as_the_tables_say() {
    let files = files();
    assert!(files.len() >= 8, "{}", files.len());
    for path in files {
        let machine = read(&fs::read(&path).unwrap()).unwrap();
        let table = table(&machine);
        let golden = path.with_extension("table");
        if std::env::var_os("PEERDMA_UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &table).unwrap();
        }
        assert_eq!(table, fs::read_to_string(&golden).unwrap(), "{}", path.display());
    }
}

#[test]
fn each_says_where_it_is_from_and_what_is_expected_of_functions_that_it_has() {
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let machine = read(text.as_bytes()).unwrap();
        let lines = |key: &str| -> Vec<String> {
            let found = text.lines().filter_map(|line| line.strip_prefix(&format!("# {key}: ")));
            found.map(str::to_owned).collect()
        };
        for key in ["source", "machine", "shortened", "kernel"] {
            assert_eq!(lines(key).len(), 1, "{key}: {}", path.display());
        }
        let expected = lines("expect");
        assert!(!expected.is_empty(), "{}", path.display());
        for line in expected {
            let words: Vec<_> = line.split(' ').collect();
            for name in &words[..2] {
                assert!(machine.find(name).is_ok(), "{name}: {}", path.display());
            }
            let decision = words[2].trim_end_matches(';');
            assert!(
                ["bus-address", "host-bridge", "not-supported", "unknown"].contains(&decision),
                "{line}"
            );
        }
    }
}
