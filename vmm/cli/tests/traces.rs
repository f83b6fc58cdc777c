//! What the program says about a trace: one count everywhere, answers first, errors that name what the user named.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::io::Write;
use std::path::Path;

use program::run;

/// A trace with 64 entries, one of them a finding.
fn case() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../trace/tests/cases/iommu.stale-basic.pcapng.zst");
    if !path.exists() {
        let name = std::thread::current().name().unwrap_or("test").to_owned();
        let line = format!("SKIP {name}: the trace is not part of the package\n");
        std::io::stderr().write_all(line.as_bytes()).unwrap();
    }
    path.exists().then(|| path.to_str().unwrap().to_owned())
}

#[test]
fn a_trace_has_as_many_entries_whatever_counts_them() {
    let Some(trace) = case() else { return };
    let folder = tempfile::tempdir().unwrap();
    let part = folder.path().join("part").to_str().unwrap().to_owned();
    for arguments in [
        &["trace", "stats", &trace][..],
        &["trace", "verify", &trace],
        &["trace", "diff", &trace, &trace],
        &["trace", "cut", &trace, &part, "--from", "0"],
        &["trace", "stats", &part],
        &["replay", &trace],
    ] {
        let (_, out, err) = run(arguments);
        let words: Vec<_> = out.split_whitespace().collect();
        let at = words.iter().position(|word| word.starts_with("entries")).unwrap();
        assert_eq!(words[at - 1], "64", "{arguments:?}: {out} {err}");
    }
}

#[test]
fn the_answer_to_a_what_if_question_comes_first_and_without_the_findings() {
    let Some(trace) = case() else { return };
    let (code, out, _) = run(&["replay", &trace, "--what-if", "port0.acs=+EC"]);
    let wanted = "no verdict or route changes\n\
                  as recorded it replays: 64 entries, 44 transactions, 1 findings\n";
    assert_eq!((code, out.as_str()), (0, wanted));
    for (change, part) in [
        ("peer0.acs=RR", "--what-if peer0.acs=RR: peer0 is an endpoint: name the root port"),
        ("down9.acs=RR", "--what-if down9.acs=RR: the trace has no port down9; it has port0, "),
        ("lazy", "invalid value 'lazy' for '--what-if <CHANGE>': not a change that a trace can"),
    ] {
        let (code, _, err) = run(&["replay", &trace, "--what-if", change]);
        assert!(code == 2 && err.contains(part), "{err}");
    }
}

#[test]
fn errors_name_what_the_user_named() {
    let Some(trace) = case() else { return };
    for arguments in [
        &["trace", "cut", &trace, "/no/such/x", "--to", "1"][..],
        &["trace", "export", &trace, "--to", "jsonl", "--out", "/no/such/x"],
    ] {
        let (code, _, err) = run(arguments);
        assert_eq!((code, err.contains("/no/such/x: "), err.contains(".tmp")), (3, true, false));
    }
    let (code, _, err) = run(&["test", "--record", &trace]);
    assert!(code == 2 && err.contains("that is a file; name a folder"), "{err}");
    let (code, _, err) = run(&["boot", "--record", "/tmp"]);
    assert!(code == 2 && err.contains("--record /tmp: that is a folder; name a file"), "{err}");
}
