//! `peerdma test --list`: scenarios and the tests in them, as the guest's agent names them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use guest_agent::cases;
use peerdma_suite::report::Shard;
use peerdma_suite::scenario::Scenario;
use program::{outcome, run};

#[test]
fn the_list_goes_to_stdout_and_has_a_form_for_programs() {
    let (code, out, err) = run(&["test", "--list"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("* basic  "), "{out}");
    let (code, out, _) = run(&["test", "--list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, list[0]["name"].as_str()), (0, Some("basic")));
}

#[test]
fn the_list_shows_every_test_of_the_matrix() {
    let list = |arguments: &[&str]| run(&[&["test", "--list"], arguments].concat());
    let names = |groups: &[String]| -> Vec<String> {
        cases::select(groups).unwrap().iter().map(cases::Case::full_name).collect()
    };
    let all = Scenario::all().unwrap();
    let (code, out, err) = list(&[]);
    assert_eq!((code, out.lines().count()), (0, all.len()), "{err}");
    for (line, Scenario { name, groups, .. }) in out.lines().zip(&all) {
        let count = match groups.as_slice() {
            [] => "-".into(),
            groups => names(groups).len().to_string(),
        };
        let words: Vec<_> = line[2..].split_whitespace().take(2).collect();
        assert_eq!(words, [name, &count], "{line}");
    }

    let (code, out, err) = list(&["--scenario", "matrix", "--scenario", "user"]);
    assert_eq!(code, 0, "{err}");
    let matrix = all.iter().find(|scenario| scenario.name == "matrix").unwrap();
    for name in names(&matrix.groups) {
        let is_it = |line: &&str| line.split_whitespace().nth(1) == Some(&name);
        assert_eq!(out.lines().filter(is_it).count(), 1, "{name}: {out}");
    }
    assert!(out.contains("  matrix.FROM-to-TO, 48 cells:\n"), "{out}");
    let row = out.lines().find(|line| line.starts_with("    zone-device ")).unwrap();
    assert_eq!(
        row.split_whitespace().collect::<Vec<_>>(),
        ["zone-device", "x", "x", "x", "x", "x", "x"]
    );
    assert!(out.contains("every DMA transaction checked: no test of its own\n"), "{out}");

    let (code, out, err) = list(&["--all", "--shard", "2/2", "--json"]);
    assert_eq!(code, 0, "{err}");
    let listed: Vec<serde_json::Value> = serde_json::from_str(&out).unwrap();
    let run: Vec<_> =
        all.iter().filter(|scenario| !scenario.groups.is_empty() && !scenario.long).collect();
    let mine = Shard { index: 2, of: 2 }.select(run);
    assert_eq!(listed.len(), mine.len());
    for (listed, scenario) in listed.iter().zip(mine) {
        assert_eq!(listed["name"], scenario.name.as_str());
        let cases = listed["cases"].as_array().unwrap().iter();
        let listed: Vec<_> = cases.map(|case| case["name"].as_str().unwrap()).collect();
        assert_eq!(listed, names(&scenario.groups));
    }
}

#[test]
fn a_list_takes_no_command() {
    let (code, _, err) = run(&["test", "--list", "--", "x"]);
    assert!(code == 2 && err.contains("'--list' cannot be used with '[CMD]...'"), "{err}");
}

#[test]
fn as_guest_agent_the_program_is_the_guest_s() {
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("guest-agent");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_peerdma"), &link).unwrap();
    let agent = |arguments: &[&str]| {
        outcome(&std::process::Command::new(&link).args(arguments).output().unwrap())
    };
    let (code, out, err) = agent(&["list", "matrix"]);
    assert_eq!((code, out.lines().count()), (0, cases::select(&["matrix".into()]).unwrap().len()));
    assert!(out.lines().all(|line| line.contains(" matrix.")), "{out}{err}");
    let (code, _, err) = agent(&["test", "nonsense"]);
    assert_eq!(code, i32::from(guest_agent::exit::USAGE));
    assert!(err.starts_with("guest-agent: ") && err.contains("nonsense"), "{err}");
}
