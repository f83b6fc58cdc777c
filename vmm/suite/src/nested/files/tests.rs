use std::fs;
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use peerdma_topology::assembly::SystemConfig;

use super::*;
use crate::files::Files as _;
use crate::hello::{Hello, Mode};
use crate::job::{GuestRun, Job};

/// A job whose guest leaves `a/console.log` and `a.trace`, in folders of its own.
fn job(folder: &Path) -> Job {
    let run = GuestRun {
        name: "a".into(),
        parameters: Vec::new(),
        initramfs: None,
        hello: Hello::new(Mode::Test, "a"),
        system: SystemConfig::default(),
        setup: None,
        memory: 64,
        cpus: 1,
        limit: Some(5),
        at_least: 0,
        console_log: Some("a/console.log".into()),
        record: Some("a.trace".into()),
        interactive: false,
        all_findings: false,
        expectations: Vec::new(),
        suppressions: Vec::new(),
        stop_on: Vec::new(),
        pause_on: Vec::new(),
        gdb: false,
    };
    let folder = |name: &str| {
        let path = folder.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    };
    Job {
        kernel: "/k".into(),
        initramfs: "/i".into(),
        out: folder("out"),
        record: Some(folder("record")),
        recording: peerdma_trace::RecordOptions::default(),
        at_once: 1,
        jitter: None,
        exchange: crate::exchange::Exchange::default(),
        runs: vec![run],
    }
}

/// All files below a folder, with their lengths.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push((entry.path(), entry.metadata().unwrap().len())),
        }
    }
    found.sort();
    found
}

/// What the receiver makes of these bytes, and what it answers.
fn received(job: &Job, bytes: &[u8]) -> (io::Result<()>, String) {
    let mut answers = Vec::new();
    let result = Receiver::new(job).unwrap().receive(bytes, &mut answers);
    (result, String::from_utf8(answers).unwrap())
}

const CREATE: &str = "{\"create\":{\"folder\":\"out\",\"name\":\"a/console.log\"}}\n";
const SETTLE: &str = "{\"settle\":{\"folder\":\"out\",\"name\":\"a/console.log\"}}\n";

fn write(offset: u64, length: usize) -> String {
    format!(
        "{{\"write\":{{\"folder\":\"out\",\"name\":\"a/console.log\",\"offset\":{offset},\"length\":{length}}}}}\n"
    )
}

#[test]
fn files_arrive_byte_for_byte_from_guests_beside_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    // An earlier run left more.
    fs::write(job.record.as_ref().unwrap().join("a.trace"), vec![b'x'; 4 << 20]).unwrap();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut receiver = Receiver::new(&job).unwrap();
    let answers = ours.try_clone().unwrap();
    let outside = thread::spawn(move || receiver.receive(ours, answers));
    let sender = Arc::new(Sender::new(theirs.try_clone().unwrap(), theirs));
    let content = |salt: usize, length: usize| -> Vec<u8> {
        (0..length).map(|i| ((i * 7919 + salt) >> 3).to_le_bytes()[0]).collect()
    };
    let inside = |folder, name: &'static str, bytes: Vec<u8>, sizes: [usize; 4]| {
        let sender = Arc::clone(&sender);
        thread::spawn(move || {
            let name = Path::new(name);
            let mut file = sender.create(folder, name).unwrap();
            let (mut rest, mut sizes) = (&bytes[..], sizes.into_iter().cycle());
            while !rest.is_empty() {
                let count = sizes.next().unwrap().min(rest.len());
                file.write_all(&rest[..count]).unwrap();
                rest = &rest[count..];
            }
            sender.settle(folder, name).unwrap();
        })
    };
    let (log, trace) = (content(1, 100_000), content(2, 3_000_001));
    let threads = [
        inside(Folder::Out, "a/console.log", log.clone(), [1, 80, 3, 500]),
        inside(Folder::Record, "a.trace", trace.clone(), [65536, 1, MAX_DATA, MAX_DATA + 77]),
    ];
    for thread in threads {
        thread.join().unwrap();
    }
    // Settled: there before the stream ends.
    assert!(fs::read(job.out.join("a/console.log")).unwrap() == log);
    assert!(fs::read(job.record.as_ref().unwrap().join("a.trace")).unwrap() == trace);
    drop(sender);
    outside.join().unwrap().unwrap();
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn a_cut_stream_leaves_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    let text = format!("{CREATE}{}hello{}wor", write(0, 5), write(5, 6));
    assert_eq!(received(&job, text.as_bytes()).1, "{\"errno\":0}\n");
    assert_eq!(fs::read(job.out.join("a/console.log")).unwrap(), b"hellowor");
    // In the middle of a line it is an end as well.
    let (result, answers) = received(&job, format!("{CREATE}{{\"wri").as_bytes());
    result.unwrap();
    assert_eq!(answers, "{\"errno\":0}\n");
}

#[test]
fn a_hostile_test_host_writes_nothing_else() {
    let names = [
        "../x",
        "a/../x",
        "a/../../x",
        "/x",
        "/etc/x",
        "",
        ".",
        "..",
        "./a.trace",
        "a//console.log",
        "a/",
        "a/console.log/",
        "a/console.log/x",
        "a/console.log\\u0000",
        "b/console.log",
        "x",
        ".lock",
        "test-host.log",
        "junit.xml",
    ];
    let creates =
        names.map(|name| format!("{{\"create\":{{\"folder\":\"out\",\"name\":\"{name}\"}}}}\n"));
    let long = format!("{{\"create\":{{\"folder\":\"out\",\"name\":\"{}\"}}}}\n", "a".repeat(5000));
    let endless = "{".repeat(1 << 20);
    let other = [
        // A right name in the wrong folder, a folder that there is not.
        "{\"create\":{\"folder\":\"record\",\"name\":\"a/console.log\"}}\n".to_owned(),
        "{\"create\":{\"folder\":\"home\",\"name\":\"a.trace\"}}\n".to_owned(),
        // More keys, more frames, none at all.
        "{\"create\":{\"folder\":\"out\",\"name\":\"a/console.log\",\"mode\":511}}\n".to_owned(),
        "{\"remove\":{\"folder\":\"out\",\"name\":\"a/console.log\"}}\n".to_owned(),
        "\n".to_owned(),
        "\u{0}\u{1}\n".to_owned(),
        long,
        endless,
    ];
    for text in creates.into_iter().chain(other) {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path());
        let (result, answers) = received(&job, format!("{text}{}hello", write(0, 5)).as_bytes());
        let shown = &text[..text.len().min(100)];
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData, "{shown:?}");
        assert_eq!(answers, "", "{shown:?}");
        assert_eq!(files(folder.path()), [], "{shown:?}");
    }
}

#[test]
fn order_and_lengths_are_checked() {
    let most = usize::try_from(crate::console::MAX_LOG).unwrap();
    for (text, kept) in [
        (format!("{}hello", write(0, 5)), None),
        (SETTLE.to_owned(), None),
        (format!("{CREATE}{CREATE}"), Some(0)),
        (format!("{CREATE}{SETTLE}{SETTLE}"), Some(0)),
        (format!("{CREATE}{SETTLE}{CREATE}"), Some(0)),
        (format!("{CREATE}{SETTLE}{}hello", write(0, 5)), Some(0)),
        (format!("{CREATE}{}hello", write(1, 5)), Some(0)),
        (format!("{CREATE}{}hello{}hello", write(0, 5), write(0, 5)), Some(5)),
        (format!("{CREATE}{}hello{}hello", write(0, 5), write(1 << 40, 5)), Some(5)),
        (format!("{CREATE}{}hello{}hello", write(0, 5), write(u64::MAX, 5)), Some(5)),
        (format!("{CREATE}{}", write(0, 0)), Some(0)),
        (format!("{CREATE}{}{}", write(0, MAX_DATA + 1), "x".repeat(MAX_DATA + 1)), Some(0)),
        (format!("{CREATE}{}", write(0, usize::MAX)), Some(0)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path());
        let (result, _) = received(&job, text.as_bytes());
        let shown = &text[..text.len().min(300)];
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData, "{shown}");
        let kept = kept.map(|length| (job.out.join("a/console.log"), length));
        assert_eq!(files(folder.path()), kept.into_iter().collect::<Vec<_>>(), "{shown}");
    }
    // As much as a log may have, and one byte more.
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    let mut text = CREATE.as_bytes().to_vec();
    for offset in (0..most).step_by(MAX_DATA) {
        text.extend(write(offset as u64, MAX_DATA).as_bytes());
        text.resize(text.len() + MAX_DATA, b'x');
    }
    received(&job, &text).0.unwrap();
    text.extend(write(most as u64, 1).as_bytes());
    text.push(b'x');
    assert!(received(&job, &text).0.unwrap_err().to_string().contains("longer than it may be"));
    assert_eq!(files(folder.path()), [(job.out.join("a/console.log"), most as u64)]);
}

#[test]
fn no_link_is_followed_and_only_files_are_written_to() {
    let text = format!("{CREATE}{}", write(0, 5));
    for kind in ["folder", "file", "dangling", "pipe"] {
        let folder = tempfile::tempdir().unwrap();
        let job = job(folder.path());
        let other = folder.path().join("other");
        fs::create_dir(&other).unwrap();
        fs::write(other.join("console.log"), "mine").unwrap();
        let (inside, log) = (job.out.join("a"), job.out.join("a/console.log"));
        match kind {
            "folder" => symlink(&other, &inside).unwrap(),
            _ => fs::create_dir(&inside).unwrap(),
        }
        match kind {
            "file" => symlink(other.join("console.log"), &log).unwrap(),
            "dangling" => symlink(other.join("new"), &log).unwrap(),
            "pipe" => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mkfifoat(rustix::fs::CWD, &log, mode).unwrap();
            }
            _ => {}
        }
        let (result, answers) = received(&job, text.as_bytes());
        assert!(
            answers != "{\"errno\":0}\n" && answers.starts_with("{\"errno\":"),
            "{kind}: {answers}"
        );
        // It was reported, and the run goes on.
        assert!(result.is_err(), "{kind}");
        assert_eq!(files(&other), [(other.join("console.log"), 4)], "{kind}");
    }
}

#[test]
fn a_full_disk_is_reported_at_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(folder.path());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut receiver = Receiver::new(&job).unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    receiver.open_for_test(Folder::Out, "a/console.log", full);
    let answers = ours.try_clone().unwrap();
    let outside = thread::spawn(move || receiver.receive(ours, answers));
    let sender = Sender::new(theirs.try_clone().unwrap(), theirs);
    let mut file = sender.outgoing(Folder::Out, Name::new(Path::new("a/console.log")).unwrap());
    file.write_all(&vec![b'x'; 1 << 20]).unwrap();
    let error = sender.settle(Folder::Out, Path::new("a/console.log")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::NOSPC.raw_os_error()));
    drop((sender, file));
    outside.join().unwrap().unwrap();
}

#[test]
fn a_file_of_a_ring_can_be_begun_again_and_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job(folder.path());
    let frame = |frame: &str, name: &str, rest: &str| {
        format!("{{\"{frame}\":{{\"folder\":\"record\",\"name\":\"{name}\"{rest}}}}}\n")
    };
    let write = |name: &str, count: usize| {
        frame("write", name, &format!(",\"offset\":0,\"length\":{count}")) + &"x".repeat(count)
    };
    let create = |name: &str| frame("create", name, "");
    let script = |second: &str| {
        [create("a.trace"), write("a.trace", 50), create(second), write(second, 3)].concat()
    };
    let again = |job: &Job, second: &str| received(job, script(second).as_bytes()).0;
    for second in ["a.trace", "a.trace.2"] {
        assert!(again(&job, second).is_err(), "{second}");
    }
    job.recording.ring = Some(400);
    let record = job.record.clone().unwrap();
    again(&job, "a.trace").unwrap();
    assert_eq!(fs::read(record.join("a.trace")).unwrap(), b"xxx");
    again(&job, "a.trace.4").unwrap();
    assert_eq!(fs::read(record.join("a.trace.4")).unwrap(), b"xxx");
    assert!(again(&job, "a.trace.5").is_err());
    // Each of the four may have a quarter, however often it is begun.
    let long = [create("a.trace"), write("a.trace", 100)].concat();
    received(&job, [long.clone(), long].concat().as_bytes()).0.unwrap();
    let longer = [create("a.trace"), write("a.trace", 101)].concat();
    assert!(received(&job, longer.as_bytes()).0.is_err());
    let log = [CREATE, CREATE].concat();
    assert!(received(&job, log.as_bytes()).0.is_err());
}
