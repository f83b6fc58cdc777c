//! A recording whose program is killed, or whose disk is full, reads to where it ends, and says so.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use device_models::fabric::{Input, Observer};
use peerdma_topology::assembly::SystemConfig;
use peerdma_trace::{Ending, Header, Payload, Reader, RecordOptions, Recording};

/// Where the child records to.
const PATH: &str = "PEERDMA_TEST_TRACE";
/// How many bytes its file may have; none if any number.
const ROOM: &str = "PEERDMA_TEST_ROOM";

/// As long as it takes at most until what was recorded is in the file: a frame is ended after a
/// fifth of this; the rest is for busy machines.
const FLUSHED: Duration = Duration::from_millis(500);

/// The child: records without end, and prints how much. With no room left, prints what it is told.
#[test]
#[ignore = "the other tests run it in a process of its own"]
fn a_child_that_records() {
    let Some(path) = std::env::var_os(PATH) else { return };
    if let Some(room) = std::env::var(ROOM).ok().and_then(|room| room.parse().ok()) {
        let limit = rustix::process::Rlimit { current: Some(room), maximum: Some(room) };
        rustix::process::setrlimit(rustix::process::Resource::Fsize, limit).unwrap();
    }
    let is_full = std::env::var_os(ROOM).is_some();
    let header = Header {
        system: SystemConfig::default(),
        ram: vec![(0, 1 << 20)],
        functions: Vec::new(),
        payload: Payload::Digest,
        part: false,
    };
    let recording = Recording::create(Path::new(&path), &header, RecordOptions::default()).unwrap();
    let mut recorder = recording.recorder();
    let mut seed = 1;
    for count in 0.. {
        let data = peerdma_support::random::next(&mut seed).to_be_bytes();
        recorder.input(&Input::MmioWrite { address: count * 8, data: &data });
        if count % 100 == 0 {
            println!("count {count}");
        }
        // Slowly enough that frames end by time, not by size.
        if !is_full && count % 10 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        if is_full && count == 100_000 {
            println!("end {}", recording.finish().unwrap_err());
            return;
        }
    }
}

/// The shell ignores the signal that comes with a file that is too large, and its child inherits that.
fn child(path: &Path, room: Option<u64>) -> Child {
    let mut command = Command::new("sh");
    command
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "a_child_that_records", "--ignored", "--nocapture", "--quiet"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(room) = room {
        command.env(ROOM, room.to_string());
    }
    command.spawn().unwrap()
}

/// How many entries are in the file, and how it ends.
fn read(path: &Path) -> (u64, Ending) {
    let mut reader = Reader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    let count = reader.by_ref().collect::<Result<Vec<_>, _>>().unwrap().len() as u64;
    (count, reader.ending().unwrap().clone())
}

#[test]
fn what_a_killed_recording_had_flushed_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    let mut seed = u64::from(std::process::id());
    for round in 0..10 {
        let _ = fs::remove_file(&path);
        let mut child = child(&path, None);
        let out = BufReader::new(child.stdout.take().unwrap());
        let (send, counts) = mpsc::channel();
        let listener = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let count = line.rsplit_once("count ").and_then(|(_, count)| count.parse().ok());
                count.map(|count: u64| send.send((Instant::now(), count)));
            }
        });
        let begun = Instant::now();
        while fs::metadata(&path).map_or(0, |file| file.len()) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing is recorded");
            std::thread::sleep(Duration::from_millis(1));
        }
        // The first one before the first frame of entries is ended.
        let most = if round == 0 { 90 } else { 1500 };
        let wait = peerdma_support::random::next(&mut seed) % most;
        std::thread::sleep(Duration::from_millis(wait));
        // SIGKILL.
        child.kill().unwrap();
        let killed = Instant::now();
        child.wait().unwrap();
        listener.join().unwrap();
        let flushed = counts.iter().filter(|(at, _)| killed - *at > FLUSHED);
        let flushed = flushed.map(|(_, count)| count).max().unwrap_or(0);
        let (count, ending) = read(&path);
        assert!(count >= flushed, "{count} of {flushed} after {wait} ms");
        let Ending::Truncated { place, reason } = ending else { panic!("{ending:?}") };
        assert_eq!(place.entry, count + 1);
        let size = fs::metadata(&path).unwrap().len();
        assert!(place.frame <= size && !reason.is_empty(), "{place} of {size}: {reason}");
        assert!(wait < 1000 || count > 0, "{wait} ms");
    }
}

/// The limit of a file's size stands for that of a disk: the kernel takes what there is room for,
/// and refuses the rest.
#[test]
fn a_full_disk_is_an_error_and_what_it_took_is_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    for room in [2000, 100_000, 1_000_000] {
        let output = child(&path, Some(room)).wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("end File too large"), "{room}: {text}");
        assert_eq!(fs::metadata(&path).unwrap().len(), room);
        let (count, ending) = read(&path);
        assert!(matches!(ending, Ending::Truncated { .. }), "{room}: {ending:?}");
        assert!(count >= room.saturating_sub(50_000) / 100, "{room}: {count}");
    }
}
