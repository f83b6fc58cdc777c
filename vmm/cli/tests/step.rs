//! `peerdma replay --step`, driven by a script on stdin.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use program::{outcome, peerdma};

/// A stale mapping: mapped by the cause at entry 37, unmapped by that at entry 45, used by the turn at entry 59.
fn case() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../trace/tests/cases/iommu.stale-basic.pcapng.zst");
    if !path.exists() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let line = format!("SKIP {name}: the trace is not part of the package\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    path.exists().then_some(path)
}

fn steps(trace: &Path, arguments: &[&str], script: &str) -> (i32, String, String) {
    let mut child = peerdma(&["replay", trace.to_str().unwrap(), "--step"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // One that has ended reads nothing any more.
    let _ = child.stdin.take().unwrap().write_all(script.as_bytes());
    outcome(&child.wait_with_output().unwrap())
}

#[test]
fn it_stops_at_a_finding_and_goes_on_to_the_end() {
    let Some(trace) = case() else { return };
    let (code, out, err) = steps(&trace, &[], "");
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<_> = out.lines().collect();
    assert_eq!(lines.len(), 9, "{out}");
    assert_eq!(lines[1], "      59 turn of peer0");
    assert!(lines[4].starts_with("      62 finding: #41 01:00.0 peer0 MRd"), "{out}");
    assert_eq!(lines[8], "identical: 64 entries, 44 transactions, 1 findings");
    let (code, before, _) = steps(&trace, &["--until", "44"], "step 2\nquit\nstep\n");
    assert!(code == 0 && before.ends_with("\nstopped after entry 54\n"), "{before}");
    let (code, all, err) = steps(&trace, &[], "continue\nstep\nmappings peer0\n");
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(all.contains("the replay is at its end\nthe replay is at its end\n"), "{all}");
    assert!(all.ends_with("\nidentical: 64 entries, 44 transactions, 1 findings\n"), "{all}");
    // The same places, named in other ways.
    for place in ["iommu.stale", "iommu", "#41", "60"] {
        let (code, other, _) = steps(&trace, &["--until", place], "");
        assert_eq!((code, other.as_str()), (0, out.as_str()), "{place}");
    }
    for place in ["witness", "#99", "1000"] {
        let (code, other, _) = steps(&trace, &["--until", place], "quit\n");
        assert!(code == 0 && other.starts_with("the replay is at its end\n"), "{place}: {other}");
    }
}

#[test]
fn mappings_come_and_go_and_registers_hold_what_was_written() {
    let Some(trace) = case() else { return };
    let mapped = "0xfff9f000..=0xfff9ffff for reading";
    let script = "mappings peer0\nstep\nmappings peer0 0xfff9f000\nquit\n";
    let (code, out, err) = steps(&trace, &["--until", "44"], script);
    assert_eq!((code, err.as_str()), (0, ""));
    let (before, behind) = out.split_once("      45 register write").unwrap();
    assert!(before.contains(mapped), "{out}");
    assert!(!behind.contains(mapped) && behind.contains("the IOMMU maps for peer0"), "{out}");
    let script = "registers peer0\ncontinue finding\nregisters peer0\ntopology\n";
    let (code, out, _) = steps(&trace, &["--until", "54"], script);
    assert_eq!(code, 0);
    let (before, behind) = out.split_once("      59 turn of peer0").unwrap();
    assert!(before.contains("  BAR 0+0x1008: 0xffffc000, written by entry 54\n"), "{out}");
    assert!(!before.contains("0+0x1018") && behind.contains("0+0x1018: 0x00000001"), "{out}");
    assert!(before.contains("peer0 (01:00.0): Bus Master Enable on, "), "{out}");
    assert!(before.contains("\n  00: f4 1a f0 10 "), "{out}");
    assert!(behind.contains("\n  00:04.0 port0, root port, buses 01-01"), "{out}");
    assert!(behind.contains("\n    01:00.0 peer0"), "{out}");
}

#[test]
fn a_command_that_makes_no_sense_is_named_and_fails_a_script() {
    let Some(trace) = case() else { return };
    for (command, part) in [
        ("frob", "there is no command \"frob\"; `help` lists them"),
        ("mappings", "it is `mappings FUNCTION [ADDRESS]`"),
        ("mappings peer0 here", "\"here\" is not an address"),
        ("registers peer9", "there is no function \"peer9\", did you mean"),
        ("registers xyzzy", "there are host-bridge, "),
        ("step many", "\"many\" is not a number of steps"),
        ("continue iommu.stael", "\"iommu.stael\" is not `finding`"),
        ("continue #", "\"#\" is not the number of a TLP"),
        ("show \u{1b}[31m", "it is `show`"),
    ] {
        let (code, out, err) = steps(&trace, &[], &format!("{command}\nshow\n"));
        assert_eq!(code, 2, "{command}");
        assert!(err.contains(part) && !err.contains('\u{1b}'), "{command}: {err}");
        // It goes on all the same.
        assert_eq!(out.matches("turn of peer0").count(), 2, "{out}");
    }
    let (code, _, err) = steps(&trace, &[], &"x".repeat(10_000));
    assert!(code == 2 && err.contains("longer than 4096 bytes"), "{err}");
    let (code, _, err) = steps(&trace, &["--until", "never"], "");
    assert!(code == 2 && err.contains("not `finding`"), "{err}");
    let (code, out, _) = steps(&trace, &[], "\n# a remark\nhelp\n");
    assert!(code == 0 && out.contains("continue [UNTIL]"), "{out}");
}

#[test]
fn a_trace_that_ends_early_or_is_damaged_is_an_error_or_an_end() {
    let Some(trace) = case() else { return };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.pcapng.zst");
    let mut bytes = std::fs::read(&trace).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() - 200]).unwrap();
    let (code, out, _) = steps(&path, &["--until", "1000"], "show\n");
    assert!(code == 0 && out.contains("the trace has no end mark"), "{out}");
    assert!(out.contains("identical as far as the trace goes: "), "{out}");
    let middle = bytes.len() * 3 / 4;
    bytes[middle] ^= 0xff;
    std::fs::write(&path, &bytes).unwrap();
    let (code, _, err) = steps(&path, &["--until", "1000"], "");
    assert!(code == 2 && err.contains("damaged"), "{err}");
}
