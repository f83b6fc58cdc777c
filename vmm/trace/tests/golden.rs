//! A file of each version of the format that there ever was is read, and what is written today is that of the last.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod sample;

use std::fmt::Write;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use peerdma_trace::{Ending, Reader};

/// What stands before each entry.
const TAGS: &[u8] = b"\0\x0c\0\x08peerdma\0\0\0\0\0";

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// A line for each entry.
fn text(bytes: &[u8]) -> String {
    let mut reader = Reader::new(bytes).unwrap();
    let names = reader.interfaces();
    let mut text = String::new();
    for entry in reader.by_ref() {
        let entry = entry.unwrap();
        let (number, nanoseconds) = (entry.number, entry.time.as_nanos());
        let source = &names[entry.interface as usize];
        writeln!(text, "{number} {nanoseconds} {source} {}", entry.event).unwrap();
    }
    assert_eq!(reader.ending(), Some(&Ending::Complete));
    text
}

/// The bytes behind the header entry, unpacked: in front of them is what changes with the program.
fn entries(bytes: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    zstd::stream::read::Decoder::new(bytes).unwrap().read_to_end(&mut all).unwrap();
    let mut places = all.windows(TAGS.len()).enumerate().filter(|(_, window)| *window == TAGS);
    let second = places.nth(1).unwrap().0;
    all.split_off(second - 28)
}

#[test]
fn version_1_is_read_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("now.pcapng.zst");
    sample::write(&path);
    let now = fs::read(&path).unwrap();
    // With PEERDMA_GOLDEN=1 they are made anew: only for a new version of the format.
    if std::env::var_os("PEERDMA_GOLDEN").is_some() {
        fs::create_dir_all(golden("")).unwrap();
        fs::write(golden("v1.pcapng.zst"), &now).unwrap();
        fs::write(golden("v1.txt"), text(&now)).unwrap();
    }
    let kept = fs::read(golden("v1.pcapng.zst")).unwrap();
    assert_eq!(text(&kept), fs::read_to_string(golden("v1.txt")).unwrap());
    assert_eq!(entries(&kept), entries(&now));
}
