//! What is made of the reports of earlier runs: merged ones, and what the kernel decided below a prediction.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::fs;

use guest_protocol::Request;
use peerdma_suite::report::Shard;
use peerdma_suite::report::{
    CaseReport, ObservedPath, RunReport, ScenarioReport, Setup, Status, Totals, markdown,
};
use peerdma_topology::Topology;
use peerdma_topology::assembly::IommuMode;
use peerdma_topology::linux::Guest;
use program::run;

/// A run of one guest that was asked about one path, and found `distance`.
fn summary(distance: i32) -> String {
    serde_json::to_string(&report(distance)).unwrap()
}

fn report(distance: i32) -> RunReport {
    report_of("root-ports", &format!("path 1 0 {distance} iova 0xfffe0000"))
}

/// A run of one guest with this topology and this decision of its kernel's.
fn summary_of(topology: &str, decision: &str) -> String {
    serde_json::to_string(&report_of(topology, decision)).unwrap()
}

fn report_of(topology: &str, decision: &str) -> RunReport {
    let topology = Topology::load(topology).unwrap();
    let guest = Guest { iommu: IommuMode::Strict, cpu: topology.cpu, parameters: Vec::new() };
    let mut scenario = ScenarioReport::new("basic");
    scenario.setup = Some(Box::new(Setup { topology, guest }));
    scenario.decisions = vec![ObservedPath::of(&Request::parse(decision).unwrap()).unwrap()];
    RunReport {
        version: 1,
        host: "nested".into(),
        host_reason: String::new(),
        jitter: None,
        kernel: "7.3".into(),
        scenarios: vec![scenario],
        totals: Totals::default(),
        milliseconds: 0,
        shard: None,
        split: Vec::new(),
        unused_suppressions: Vec::new(),
    }
}

#[test]
fn a_merged_report_has_the_tables_of_the_whole_run() {
    let mut whole = report(4);
    whole.scenarios[0].cases = vec![CaseReport {
        expectations: Vec::new(),
        name: "copy".into(),
        status: Status::Passed,
        detail: "IOVA".into(),
        milliseconds: 7,
        findings: Vec::new(),
    }];
    whole.scenarios.push(ScenarioReport { name: "lazy".into(), ..whole.scenarios[0].clone() });
    whole.totals = RunReport::totals_of(&whole.scenarios);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    for index in 1..=2 {
        let part = RunReport {
            scenarios: vec![whole.scenarios[index - 1].clone()],
            shard: Some(Shard { index, of: 2 }),
            split: vec!["basic".into(), "lazy".into()],
            ..whole.clone()
        };
        let name = path(&format!("part{index}"));
        fs::create_dir(&name).unwrap();
        fs::write(format!("{name}/summary.json"), serde_json::to_vec(&part).unwrap()).unwrap();
    }
    let (code, _, err) =
        run(&["report", "merge", &path("part2"), &path("part1"), "--out", &path("all")]);
    assert_eq!(code, 0, "{err}");
    let text = fs::read_to_string(path("all/report.md")).unwrap();
    assert!(text.contains("| `copy` | passed | 7 | IOVA |"), "{text}");
    assert!(text.contains("| peer0 | peer1 | distance 4, IOVA 0xfffe0000 |"), "{text}");
    assert_eq!(text, markdown::to_markdown(&whole));
    // Part 2 of a run with fewer scenarios has the same numbers.
    let other = RunReport {
        scenarios: Vec::new(),
        shard: Some(Shard { index: 2, of: 2 }),
        split: vec!["basic".into()],
        ..whole
    };
    fs::write(path("part2/summary.json"), serde_json::to_vec(&other).unwrap()).unwrap();
    let (code, _, err) =
        run(&["report", "merge", &path("part1"), &path("part2"), "--out", &path("again")]);
    assert!(code == 2 && err.contains("\"lazy\" is in one of them only"), "{code} {err}");
}

#[test]
fn what_the_kernel_of_a_run_decided_stands_below_the_prediction() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    let folder = folder.path().to_str().unwrap();
    let explain = |pair: [&str; 2]| run(&["explain", pair[0], pair[1], "--run", folder]);
    assert_eq!(explain(["peer0", "peer1"]).0, 2, "nothing there yet");
    fs::write(&path, summary(4)).unwrap();
    let (code, out, err) = explain(["peer0", "peer1"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.ends_with("scenario basic): distance 4, IOVA 0xfffe0000; as predicted\n"), "{out}");
    let (code, out, _) = explain(["peer1", "peer0"]);
    assert!(code == 0 && out.ends_with("no test asked about this path\n"), "{out}");
    fs::write(&path, summary(5)).unwrap();
    let (code, out, _) = explain(["peer0", "peer1"]);
    assert!(code == 1 && out.ends_with("NOT as predicted\n"), "{code} {out}");
    assert_eq!(explain(["peer0", "peer0"]).0, 2);
    // An engine is a client, too, and owns no memory.
    let engine = || summary_of("ioat", "path 0 03:00.0 4 iova 0xfffe0000");
    fs::write(&path, engine()).unwrap();
    let (code, out, err) = explain(["ioat0", "peer0"]);
    assert!(code == 0 && out.ends_with("IOVA 0xfffe0000; as predicted\n"), "{code} {out} {err}");
    let (code, _, err) = explain(["peer0", "ioat0"]);
    assert!(code == 2 && err.contains("memory"), "{code} {err}");
    fs::write(&path, engine().replace("03:00.0", "00:08.0")).unwrap();
    let (code, out, _) = explain(["ioat1", "peer0"]);
    assert!(code == 1 && out.ends_with("NOT as predicted\n"), "{code} {out}");
    let (code, _, err) = run(&["report", "merge", folder, "--out", folder]);
    assert!(code == 2 && err.contains("another folder"), "{code} {err}");
    for (text, part) in [
        (summary(4).replace("\"version\":1", "\"version\":99"), "form 99"),
        ("{\"version\":1,\"runs\":[]}".into(), "merged report"),
    ] {
        fs::write(&path, text).unwrap();
        let (code, _, err) = explain(["peer0", "peer1"]);
        assert!(code == 2 && err.contains(part), "{code} {err}");
    }
    let (code, _, err) = run(&["explain", "peer0", "peer1", "--append", "iommu=pt"]);
    assert!(code == 2 && err.contains("--iommu"), "{code} {err}");
}

#[test]
fn kernel_parameters_have_one_spelling_and_an_older_one() {
    let switch = ["explain", "peer0", "peer1", "--topology", "switch-acs", "--iommu", "none"];
    let explain = |more: &[&str]| run(&[&switch[..], more].concat());
    let on = "pci=config_acs=111x1@02:00.0;111x1@02:01.0;111x1@00:04.0";
    for option in ["--append", "--kernel-parameter"] {
        let (code, out, err) = explain(&[option, on]);
        assert!(code == 0 && out.contains("through the host bridge"), "{option}: {out} {err}");
        assert!(!err.contains("warning"), "{err}");
    }
    let (_, out, _) = run(&["explain", "--help"]);
    assert!(out.contains("--append") && !out.contains("--kernel-parameter"), "{out}");

    // In one text as on two: the last one counts, and that is said.
    let both = format!("{on} pci=config_acs=000x0@02:00.0");
    for line in [vec!["--append", &both], vec!["--append", on, "--append", &both[on.len() + 1..]]] {
        let (code, out, err) = explain(&line);
        assert!(code == 0 && out.contains("bus address"), "{out}");
        assert!(err.contains("Linux takes the last, pci=config_acs=000x0@02:00.0"), "{err}");
    }
    let (_, _, err) = explain(&["--append", "pci=noacs,nommconf"]);
    assert!(err.contains("pci=noacs: Linux has no such option"), "{err}");
    assert!(err.contains("pci=nommconf: the prediction leaves it out"), "{err}");
    let (_, out, err) = run(&["topology", "switch-acs", "--append", "pci=noats"]);
    assert!(out.contains("SV+ TB+ RR+") && err.contains("Translation Blocking"), "{out} {err}");
    let (code, _, err) = run(&["test", "--scenario", "basic", "--append", "iommu.strict=0"]);
    assert!(code == 2 && err.contains("--iommu"), "{code} {err}");
}
