//! `peerdma test --list`: scenarios and the tests in them, as the guest's agent names them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use guest_agent::{cases, command_line};
use peerdma_suite::report::Shard;
use peerdma_suite::scenario::Scenario;
use program::{outcome, peerdma, run};

#[test]
fn the_list_goes_to_stdout_and_has_a_form_for_programs() {
    let (code, out, err) = run(&["test", "--list"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("* basic  "), "{out}");
    let (code, out, _) = run(&["test", "--list", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, list[0]["name"].as_str()), (0, Some("basic")));
}

/// A program that lists tests as the guest's agent does, with the agent's own tables: that one may not be built.
fn agent(folder: &Path) -> PathBuf {
    let all = Scenario::all().unwrap();
    let answers: String = all
        .iter()
        .filter(|scenario| !scenario.groups.is_empty())
        .map(|Scenario { groups, .. }| {
            let list = command_line::list(&cases::select(groups).unwrap());
            format!("'list {}') cat <<END\n{list}END\n;;\n", groups.join(" "))
        })
        .collect();
    let path = folder.join("agent");
    fs::write(&path, format!("#!/bin/sh\ncase \"$*\" in\n{answers}*) exit 2\nesac\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    path
}

#[test]
fn the_list_shows_every_test_of_the_matrix() {
    let folder = tempfile::tempdir().unwrap();
    let agent = agent(folder.path());
    let list = |arguments: &[&str]| {
        let mut command = peerdma(&["test", "--list"]);
        outcome(&command.args(arguments).env("PEERDMA_AGENT", &agent).output().unwrap())
    };
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
fn without_the_agent_the_list_says_how_to_get_it() {
    let list = |agent: &str, arguments: &[&str]| {
        let mut command = peerdma(&["test", "--list"]);
        outcome(&command.args(arguments).env("PEERDMA_AGENT", agent).output().unwrap())
    };
    for agent in ["/no/such/agent", "/bin/false", "/bin/true", "/bin/echo"] {
        let (code, out, err) = list(agent, &[]);
        assert!(code == 0 && out.contains("* basic  ") && err.contains("without their"), "{err}");
        let (code, out, err) = list(agent, &["--scenario", "basic"]);
        assert_eq!((code, out.as_str()), (3, ""), "{agent}: {err}");
        assert!(err.contains(agent), "{err}");
        let (code, out, _) = list(agent, &["--json"]);
        let listed: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(code == 0 && listed[0].get("cases").is_none(), "{out}");
    }
    let (_, _, err) = list("/no/such/agent", &["--all"]);
    assert!(err.contains("run `make build`"), "{err}");
    let (code, _, err) = list("/no/such/agent", &["--", "x"]);
    assert!(code == 2 && err.contains("'--list' cannot be used with '[CMD]...'"), "{err}");
}
