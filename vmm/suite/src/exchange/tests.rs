use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_protocol::exchange::{EntryKind, Listing, MAX_PIECE, Piece};
use guest_protocol::wire::{MAX_ANSWER, MAX_REQUEST};

use super::results::{MAX_BYTES, MAX_OPEN};
use super::share::{MAX_ENTRIES, has_openat2};
use super::*;

/// A folder `work` to share, a folder `out` for results, and `secret` beside them.
fn folders() -> tempfile::TempDir {
    let top = tempfile::tempdir().unwrap();
    fs::create_dir_all(top.path().join("work/sub")).unwrap();
    fs::create_dir(top.path().join("out")).unwrap();
    fs::write(top.path().join("secret"), "secret").unwrap();
    fs::write(top.path().join("work/a.ko"), "module").unwrap();
    fs::write(top.path().join("work/sub/b"), "below").unwrap();
    top
}

fn server(top: &Path) -> Server {
    let exchange = Exchange::new(&[top.join("work")], Some(&top.join("out"))).unwrap();
    Server::new(&exchange).unwrap()
}

fn read(server: &mut Server, offset: u64, stamp: &str, name: &str) -> Result<Piece, String> {
    let answer = server.answer(&format!("share read {offset} {stamp} {name}"));
    assert!(answer.len() <= MAX_ANSWER && !answer.contains('\n'));
    match answer.split_once(' ').unwrap() {
        ("ok", json) => Ok(serde_json::from_str(json).unwrap()),
        (_, reason) => Err(reason.to_owned()),
    }
}

/// The whole file, as a guest fetches it.
fn fetch(server: &mut Server, name: &str) -> Result<Vec<u8>, String> {
    let (mut stamp, mut bytes) = ("-".to_owned(), Vec::new());
    loop {
        let piece = read(server, bytes.len() as u64, &stamp, name)?;
        if piece.data.is_empty() {
            assert_eq!(piece.size, bytes.len() as u64);
            return Ok(bytes);
        }
        bytes.extend(STANDARD.decode(&piece.data).unwrap());
        stamp = piece.stamp;
    }
}

fn list(server: &mut Server, skip: usize, name: &str) -> Listing {
    let answer = server.answer(format!("share list {skip} {name}").trim_end());
    serde_json::from_str(answer.strip_prefix("ok ").unwrap_or_else(|| panic!("{answer}"))).unwrap()
}

#[test]
fn files_are_fetched_as_they_are_at_that_moment() {
    let top = folders();
    let mut server = server(top.path());
    assert_eq!(fetch(&mut server, "work/a.ko").unwrap(), b"module");
    assert_eq!(fetch(&mut server, "work/sub/b").unwrap(), b"below");
    // Built again, as a compiler, and as `install` and editors do.
    fs::write(top.path().join("work/a.ko"), "written over").unwrap();
    assert_eq!(fetch(&mut server, "work/a.ko").unwrap(), b"written over");
    fs::write(top.path().join("new"), vec![7; 3 * MAX_PIECE + 5]).unwrap();
    fs::rename(top.path().join("new"), top.path().join("work/a.ko")).unwrap();
    assert_eq!(fetch(&mut server, "work/a.ko").unwrap(), vec![7; 3 * MAX_PIECE + 5]);
    // The whole folder, too.
    fs::rename(top.path().join("work"), top.path().join("old")).unwrap();
    let gone = read(&mut server, 0, "-", "work/a.ko").unwrap_err();
    assert!(gone.contains("the share work") && gone.contains("is not there any more"), "{gone}");
    fs::create_dir(top.path().join("work")).unwrap();
    fs::write(top.path().join("work/a.ko"), "").unwrap();
    fs::set_permissions(top.path().join("work/a.ko"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fetch(&mut server, "work/a.ko").unwrap(), b"");
    assert!(read(&mut server, 0, "-", "work/a.ko").unwrap().executable);
}

#[test]
fn a_file_that_changes_while_it_is_read_is_noticed() {
    let top = folders();
    let mut server = server(top.path());
    let path = top.path().join("work/a.ko");
    fs::write(&path, vec![1; MAX_PIECE + 1]).unwrap();
    let first = read(&mut server, 0, "-", "work/a.ko").unwrap();
    let second = |server: &mut Server| read(server, MAX_PIECE as u64, &first.stamp, "work/a.ko");
    assert_eq!(STANDARD.decode(second(&mut server).unwrap().data).unwrap(), [1]);
    for content in [vec![1; MAX_PIECE + 2], vec![1; 3]] {
        fs::write(&path, content).unwrap();
        assert_eq!(second(&mut server).unwrap_err(), "work/a.ko has changed");
    }
    // The same bytes in another file are another file.
    fs::write(top.path().join("new"), vec![1; MAX_PIECE + 1]).unwrap();
    fs::rename(top.path().join("new"), &path).unwrap();
    assert_eq!(second(&mut server).unwrap_err(), "work/a.ko has changed");
    // An offset behind the end, or one that no file has, is the end.
    for offset in [u64::MAX, i64::MAX as u64, MAX_PIECE as u64 + 2] {
        assert_eq!(read(&mut server, offset, "-", "work/a.ko").unwrap().data, "");
    }
}

#[test]
fn nothing_outside_of_a_share_is_read() {
    let top = folders();
    let mut server = server(top.path());
    let work = top.path().join("work");
    symlink("sub/b", work.join("inside")).unwrap();
    symlink("../secret", work.join("up")).unwrap();
    symlink(top.path().join("secret"), work.join("absolute")).unwrap();
    symlink("../..", work.join("sub/out")).unwrap();
    symlink("/proc/self/root", work.join("magic")).unwrap();
    symlink("circle", work.join("circle")).unwrap();
    symlink("nowhere", work.join("dangling")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, work.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    assert!(has_openat2(), "this test needs openat2");
    assert_eq!(fetch(&mut server, "work/inside").unwrap(), b"below");
    for (name, part) in [
        ("work/up", "leads out of the share"),
        ("work/absolute", "leads out of the share"),
        ("work/sub/out/secret", "leads out of the share"),
        ("work/magic/etc/passwd", "leads out of the share"),
        ("work/circle", "in a circle"),
        ("work/dangling", "leads nowhere"),
        ("work/none", "not there"),
        ("work/a.ko/b", "is a file"),
        ("work/pipe", "not a regular file"),
        ("work/sub", "is a folder"),
        ("work", "is a folder"),
        ("secret", "is not shared"),
        ("out", "is not shared"),
        ("../secret", "lead out"),
        ("work/../secret", "lead out"),
        ("work/sub/../../secret", "lead out"),
        ("/etc/passwd", "begins with a slash"),
        ("work//a.ko", "empty"),
        ("work/", "empty"),
        ("work/\u{0}", "control character"),
        ("work/\u{1b}[2J", "control character"),
    ] {
        let begun = Instant::now();
        let error = read(&mut server, 0, "-", name).unwrap_err();
        assert!(error.contains(part) && !error.contains('\u{1b}'), "{name:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "{name:?}");
    }
    let kinds: Vec<_> = list(&mut server, 0, "work")
        .entries
        .into_iter()
        .map(|entry| (entry.name, entry.kind, entry.size))
        .collect();
    let other = |name: &str| (name.to_owned(), EntryKind::Other, 0);
    assert_eq!(
        kinds,
        [
            ("a.ko".to_owned(), EntryKind::File, 6),
            other("absolute"),
            other("circle"),
            other("dangling"),
            ("inside".to_owned(), EntryKind::File, 5),
            other("magic"),
            other("pipe"),
            ("sub".to_owned(), EntryKind::Folder, 0),
            other("up"),
        ]
    );
}

#[test]
fn a_folder_of_many_files_is_listed_in_parts() {
    let top = folders();
    let mut server = server(top.path());
    let many = top.path().join("work/many");
    fs::create_dir(&many).unwrap();
    let name = |number: usize| format!("{number:05}-{}", "n".repeat(200));
    for number in 0..1000 {
        fs::write(many.join(name(number)), "").unwrap();
    }
    let (mut names, mut parts) = (Vec::new(), 0);
    loop {
        let listing = list(&mut server, names.len(), "work/many");
        names.extend(listing.entries.into_iter().map(|entry| entry.name));
        parts += 1;
        if !listing.more {
            break;
        }
    }
    assert!(parts > 1, "{parts}");
    assert_eq!(names, (0..1000).map(name).collect::<Vec<_>>());
    assert_eq!(list(&mut server, usize::MAX, "work/many"), Listing::default());
    for number in 1000..=MAX_ENTRIES {
        fs::write(many.join(number.to_string()), "").unwrap();
    }
    let refused = server.answer("share list 0 work/many");
    assert!(refused.starts_with("fail ") && refused.contains("share less"), "{refused}");
}

#[test]
fn shares_have_names_of_their_own() {
    let top = folders();
    let path = |name: &str| top.path().join(name);
    let names = |paths: &[&str]| {
        let paths: Vec<_> = paths.iter().map(|name| path(name)).collect();
        Exchange::new(&paths, None)
            .map(|exchange| exchange.shares.into_iter().map(|share| share.name).collect::<Vec<_>>())
    };
    assert_eq!(names(&["work/a.ko", "secret", "work/"]).unwrap(), ["a.ko", "secret", "work"]);
    assert_eq!(names(&["work/sub/.."]).unwrap(), ["work"]);
    assert_eq!(names(&["work/."]).unwrap(), ["work"]);
    symlink("work", path("latest")).unwrap();
    assert_eq!(names(&["latest"]).unwrap(), ["latest"]);
    fs::create_dir(path("other")).unwrap();
    fs::write(path("other/a.ko"), "").unwrap();
    assert!(names(&["work/a.ko", "other/a.ko"]).unwrap_err().contains("the same name, a.ko"));
    assert!(names(&["none"]).unwrap_err().contains("cannot be shared"));
    assert!(Exchange::new(&["/".into()], None).unwrap_err().contains("has no name"));
    assert!(Exchange::new(&["/dev/null".into()], None).unwrap_err().contains("neither"));
    // A link of the user's own may lead anywhere, also later.
    let exchange = Exchange::new(&[path("latest")], None).unwrap();
    assert_eq!(exchange.without_paths().shares[0].path, Path::new(""));
    let mut server = Server::new(&exchange).unwrap();
    assert_eq!(fetch(&mut server, "latest/a.ko").unwrap(), b"module");
    fs::remove_file(path("latest")).unwrap();
    symlink("other", path("latest")).unwrap();
    assert_eq!(fetch(&mut server, "latest/a.ko").unwrap(), b"");
}

fn put(server: &mut Server, name: &str, content: &[u8]) -> Result<String, String> {
    let mut ask = |line: &str| {
        assert!(line.len() <= MAX_REQUEST);
        let answer = server.answer(line);
        match answer.strip_prefix("ok") {
            Some(rest) => Ok(rest.trim_start().to_owned()),
            None => Err(answer),
        }
    };
    let number = ask(&format!("result begin file {name}"))?;
    let mut offset = 0;
    for piece in content.chunks(1000) {
        let data = STANDARD.encode(piece);
        // An answer may get lost, and the request comes again.
        for _ in 0..2 {
            ask(&format!("result write {number} {offset} {data}"))?;
        }
        offset += piece.len();
    }
    let path = ask(&format!("result end {number} {offset}"))?;
    Ok(serde_json::from_str(&path).unwrap())
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn results_arrive_whole_or_not_at_all() {
    let top = folders();
    let out = top.path().join("out");
    let mut server = server(top.path());
    let content: Vec<u8> = (0..10_000_u32).map(|i| ((i * 7) >> 3).to_le_bytes()[0]).collect();
    let path = put(&mut server, "log 1.txt", &content).unwrap();
    assert_eq!(path, out.join("log 1.txt").display().to_string());
    assert_eq!(fs::read(out.join("log 1.txt")).unwrap(), content);
    put(&mut server, "log 1.txt", b"").unwrap();
    assert_eq!(fs::read(out.join("log 1.txt")).unwrap(), b"");
    for (lines, part) in [
        (&["result begin file a", "result end 3 1"][..], "1 bytes were announced, 0 have come"),
        (&["result write 3 5 QUI="], "does not begin where"),
        (&["result write 3 0 Q!"], "not Base64"),
        (&["result write 99 0 QUI="], "not being written"),
        (&["result end 99 0"], "not being written"),
    ] {
        let mut last = String::new();
        for line in lines {
            last = server.answer(line);
        }
        assert!(last.starts_with("fail ") && last.contains(part), "{last}");
    }
    // One that is never ended is nothing, and too many of them end the oldest.
    for _ in 0..2 * MAX_OPEN {
        assert!(server.answer("result begin program x").starts_with("ok "));
    }
    assert_eq!(files(&out).len(), MAX_OPEN + 1);
    drop(server);
    assert_eq!(files(&out), ["log 1.txt"]);
}

#[test]
fn a_hostile_guest_writes_nothing_else() {
    let top = folders();
    let out = top.path().join("out");
    let mut server = server(top.path());
    symlink("../secret", out.join("link")).unwrap();
    fs::create_dir(out.join("folder")).unwrap();
    for name in ["../x", "/x", "a/b", "..", ".", "a/", "x\u{1b}", &"n".repeat(300)] {
        let refused = put(&mut server, name, b"x").unwrap_err();
        assert!(refused.contains("name of a result"), "{name:?}: {refused}");
    }
    assert!(put(&mut server, "folder", b"x").unwrap_err().contains("out"));
    // A link is replaced, not followed.
    put(&mut server, "link", b"mine").unwrap();
    assert_eq!(fs::read(top.path().join("secret")).unwrap(), b"secret");
    server.limit_results(3);
    assert!(put(&mut server, "a", b"1234").unwrap_err().contains("GiB"));
    assert!(MAX_BYTES.is_power_of_two());
    put(&mut server, "b", b"123").unwrap();
    assert!(put(&mut server, "c", b"4").unwrap_err().contains("GiB"));
    drop(server);
    assert_eq!(files(&out), ["b", "folder", "link"]);
    assert_eq!(files(top.path()), ["out", "secret", "work"]);
    // And without a folder nothing at all.
    let mut server = Server::new(&Exchange::new(&[], None).unwrap()).unwrap();
    assert!(put(&mut server, "a", b"").unwrap_err().contains("--results FOLDER"));
}

#[test]
fn a_folder_that_is_gone_is_reported() {
    let mut server = server(folders().path());
    assert!(put(&mut server, "a", b"x").unwrap_err().contains("the host's folder"));
}

#[test]
fn lines_of_a_test_host_are_answered_and_nonsense_ends_it() {
    let top = folders();
    let mut server = server(top.path());
    let mut serve = |text: &[u8]| {
        let mut answers = Vec::new();
        let result = server.serve_lines(text, &mut answers);
        (result.map_err(|error| error.kind()), String::from_utf8(answers).unwrap())
    };
    let (result, answers) = serve(b"share list 0\nexit 3\nhello\n\nshare list 0\ncut");
    result.unwrap();
    let answers: Vec<_> = answers.lines().collect();
    assert_eq!(answers.len(), 5);
    assert!(answers[0].starts_with("ok {") && answers[0] == answers[4]);
    assert!(answers[1..4].iter().all(|answer| answer.starts_with("fail ")));
    let invalid = Err(std::io::ErrorKind::InvalidData);
    assert_eq!(serve(b"\xff\n"), (invalid, String::new()));
    assert_eq!(serve(&vec![b'x'; 1 << 20]), (invalid, String::new()));
    let longest = [vec![b'x'; MAX_REQUEST], b"\n".to_vec()].concat();
    assert!(serve(&longest).1.starts_with("fail "));
}

#[test]
fn a_host_that_takes_its_time_does_not_keep_a_processor() {
    let (go, gate) = sync_channel::<()>(0);
    let mut link = Link::start(move |line| {
        if line == "slow" {
            gate.recv().unwrap();
        }
        format!("ok {line}")
    })
    .unwrap();
    assert_eq!(link.ask("quick"), "ok quick");
    let begun = Instant::now();
    assert_eq!(link.ask("slow"), "ok later");
    // Another program's request waits, and does not take its answer.
    assert_eq!(link.ask("other"), "ok later");
    assert_eq!(link.ask("slow"), "ok later");
    assert!(begun.elapsed() < Duration::from_secs(5));
    go.send(()).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(link.ask("other"), "ok other");
    assert_eq!(link.ask("slow"), "ok slow");
    // An answer that was not fetched in time is not given to a later request.
    assert_eq!(link.ask("slow"), "ok later");
    go.send(()).unwrap();
    thread::sleep(Duration::from_millis(20));
    assert_eq!(link.ask("other"), "ok other");
    link.keep = Duration::ZERO;
    assert_eq!(link.ask("slow"), "ok later");
    go.send(()).unwrap();
    // A thread that is gone is an answer, too.
    let end = |line: &str| if line == "end" { panic!("on purpose") } else { "ok".into() };
    let mut link = Link::start(end).unwrap();
    while link.ask("end") == "ok later" {}
    assert!(link.ask("more").starts_with("fail "));
}
