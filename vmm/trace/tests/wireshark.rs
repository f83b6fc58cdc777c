//! Wireshark's own tools read a trace as it is, and filter it with the dissector.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod sample;

use std::io::Write;
use std::process::Command;

use sample::{events, write};

const DISSECTOR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/wireshark/peerdma.lua");

/// What tshark prints; none if it is not installed.
fn tshark(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("tshark").args(arguments).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let name = std::thread::current().name().unwrap_or("test").to_owned();
            // Not captured by libtest; `make test` counts it.
            let line = format!("SKIP {name}: tshark is not installed\n");
            std::io::stderr().write_all(line.as_bytes()).unwrap();
            return None;
        }
        output => output.unwrap(),
    };
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{err}");
    assert!(!err.contains("Lua"), "{err}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn tshark_opens_a_trace_without_a_dissector() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    write(&path);
    let path = path.to_str().unwrap();
    let fields = ["-r", path, "-T", "fields", "-e", "frame.number", "-e", "frame.interface_name"];
    let Some(out) = tshark(&fields) else { return };
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), events().len() + 2, "{out}");
    assert_eq!((lines[0], lines[2], lines[7]), ("1\ttrace", "3\tconfiguration", "8\tpeer0"));
    let found = tshark(&["-r", path, "-Y", "frame.comment contains \"stale mapping\""]).unwrap();
    assert_eq!(found.lines().count(), 1, "{found}");
}

/// Wireshark 4.0 finds a frame behind another only where its input buffer begins.
#[test]
fn tshark_reads_a_long_trace_of_many_frames_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    let frames = 150;
    sample::write_long(&path, frames);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size > 3 * 131_075, "{size}");
    let Some(out) = tshark(&["-r", path.to_str().unwrap(), "-T", "fields", "-e", "frame.number"])
    else {
        return;
    };
    assert_eq!(out.lines().count(), frames * 20 + 2);
}

#[test]
fn tshark_filters_with_the_dissector() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.pcapng.zst");
    write(&path);
    let (path, script) = (path.to_str().unwrap(), format!("lua_script:{DISSECTOR}"));
    let ask = |filter: &str, fields: &[&str]| {
        let mut all = vec!["-X", &script, "-r", path, "-Y", filter, "-T", "fields"];
        fields.iter().for_each(|field| all.extend(["-e", field]));
        tshark(&all)
    };
    let fields = [
        "peerdma.number",
        "peerdma.finding",
        "peerdma.bytes",
        "peerdma.tlps",
        "peerdma.route",
        "peerdma.status",
        "peerdma.digest",
        "tlp.type",
        "tlp.requester",
        "tlp.addr",
        "tlp.first_be",
        "tlp.completer",
        "peerdma.test",
        "peerdma.result",
        "peerdma.delay",
        "peerdma.entries",
        "peerdma.witness",
        "peerdma.record",
        "peerdma.address",
        "peerdma.length",
        "peerdma.buffer",
        "peerdma.task",
        "_ws.malformed",
        "_ws.lua.error",
    ];
    // tshark takes a second to start: all that can be asked at once is.
    let Some(out) = ask("peerdma", &fields) else { return };
    let lines: Vec<_> = out.lines().map(str::trim_end).collect();
    assert_eq!(lines.len(), events().len() + 2, "{out}");
    for (number, wanted) in [
        (1, "1\t\t\t\t\t\t\t\t\t\t\t\tunmap race\t0"),
        (2, "2\t\t\t\t\t\t\t0x44\t00:00.0\t\t0x03\t01:00.0"),
        (
            4,
            "4\t\t\t\t\t\t\t0x60\t00:00.0\t0x0000004100001008\t0x0f\t\t\t\t\t\t\t\t0x0000004100001008",
        ),
        (7, "7\t\t1000\t5\t3\t0\t0x12345678\t0x60\t01:00.0\t0x0000004000000ff2\t0x0c"),
        (9, "9\tiommu.stale\t5\t1\t0\t1\t\t0x00\t02:01.0\t0x00000000deadb003\t0x08"),
        (10, "10\tiommu.stale"),
        (16, "16\t\t\t\t\t\t\t\t\t\t\t\t\t\tpushed"),
        (17, "17\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t0"),
        (18, "18\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t2"),
        (19, "19\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t3\t19\t0x0000004000000000\t65536\t7\timporter"),
        (20, "20\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t1"),
        (22, "22\t\t\t\t\t\t\t\t\t\t\t\tunmap race\t2"),
        (23, "23\t\t\t\t\t\t\t\t\t\t\t\t\t\t\t22"),
    ] {
        assert_eq!(lines[number], wanted);
    }
    let names = [
        "peerdma.number",
        "peerdma.kind_name",
        "peerdma.function",
        "peerdma.target_name",
        "peerdma.purpose_name",
        "peerdma.route_name",
        "peerdma.status_name",
        "peerdma.target_address",
        "peerdma.target_function",
        "peerdma.bar",
    ];
    let out = ask("peerdma", &names).unwrap();
    let lines: Vec<_> = out.lines().map(str::trim_end).collect();
    for (number, wanted) in [
        (6, "6\tturn\tpeer0"),
        (7, "7\ttransaction\tpeer0\tpeer1\tdata\tbus-address\tSC\t0x0000004000000000\t1"),
        // One that failed has no target.
        (9, "9\ttransaction\tpeer0\t\tdata\tnone\tUR"),
        (10, "10\tfinding\tpeer1"),
    ] {
        assert_eq!(lines[number], wanted);
    }
    for (filter, wanted) in [
        ("peerdma.route_name == \"bus-address\" && peerdma.purpose_name == \"descriptor\"", "8"),
        ("peerdma.finding", "9\n10"),
        ("tlp.addr == 0xdeadb003", "9"),
        ("tlp.requester == \"02:01.0\"", "9"),
        ("peerdma.record == 19", "19"),
        ("peerdma.buffer == 7", "19"),
        ("_ws.malformed || _ws.lua.error", ""),
    ] {
        assert_eq!(ask(filter, &["peerdma.number"]).unwrap().trim_end(), wanted, "{filter}");
    }
}
