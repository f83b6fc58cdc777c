//! The program from outside: exit codes, streams, and a clear line for every kind of bad input. No guest is run.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use guest_agent::{cases, command_line};
use rustix::fs::{FlockOperation, flock};
use vmm::assembly::{IommuMode, LabConfig};
use vmm::report::{
    CaseReport, ObservedPath, RunReport, ScenarioReport, Setup, Status, Totals, markdown,
};
use vmm::suite::scenario::Scenario;
use vmm::suite::shard::Shard;
use vmm::topology::Topology;
use vmm::topology::linux::Guest;

fn peerdma(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerdma"));
    command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// Runs it; its exit code, what went to stdout, what went to stderr.
fn run(arguments: &[&str]) -> (i32, String, String) {
    outcome(&peerdma(arguments).output().unwrap())
}

fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

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

#[test]
fn topologies_are_drawn_and_explained_without_a_guest() {
    let (code, out, err) = run(&["topology", "--list"]);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("switch-acs ") && err.contains("+translated"), "{out}{err}");
    let (code, out, _) = run(&["topology", "two-bridges", "--format", "json"]);
    let drawing: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, drawing["host_bridges"][1]["below"].as_array().unwrap().len()), (0, 2));
    let (code, out, _) =
        run(&["explain", "peer0", "peer1", "--topology", "switch-acs", "--iommu", "none"]);
    assert_eq!(code, 0);
    assert!(out.contains("PCI_P2PDMA_MAP_BUS_ADDR") && out.contains("--iommu strict"), "{out}");
}

#[test]
fn a_wrong_topology_file_is_refused_with_its_line_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let path = path.to_str().unwrap();
    let text = "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n[[peer]]\nname = 'p'\nbelow = 'h'\n\
                device = 4\nlocal-memory = 0x2000000000\n";
    fs::write(path, text).unwrap();
    for arguments in
        [&["topology", path][..], &["test", "--topology", path], &["boot", "--topology", path]]
    {
        let (code, out, err) = run(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{err}");
        assert!(err.contains("t.toml: line 9: peer number 1: ") && err.contains("64 GiB"), "{err}");
    }
    fs::write(
        path,
        text.replace("0x2000000000", "0x1000000000").replace("'h'\nd", "'h'\nslot = 1\nd"),
    )
    .unwrap();
    let (code, _, err) = run(&["explain", "p", "p", "--topology", path]);
    assert_eq!(code, 2);
    assert!(err.contains("t.toml: line 8: unknown field `slot`"), "{err}");
}

#[test]
fn what_cannot_be_built_is_named_with_its_line_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let path = path.to_str().unwrap();
    let bridge = "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n";
    let peer = |name: &str, on: &str, rest: &str| {
        let device = 4 + name.len();
        format!("[[peer]]\nname = '{name}'\nbelow = '{on}'\ndevice = {device}\n{rest}")
    };
    let huge = "local-memory = 0x1000000000\n";
    let small = "{ first = 0x1000000000, last = 0x10000fffff }\n";
    let second = "[[host-bridge]]\nname = 'i'\nid = '1ae0:0001'\n";
    for (text, part) in [
        (peer("p", "h", "local-memory = 3_000_000\n"), "line 9: peer number 1: p: 3000000 bytes"),
        (peer("p", "h", huge) + &peer("qq", "h", ""), "line 11: peer number 2: BAR2 of qq"),
        (peer("p", "h", huge) + &peer("qq", "h", huge), "line 14: peer number 2: BAR2 of qq"),
        // A window that the file chose.
        (
            format!("translation = 0\nprefetchable = {small}{}", peer("p", "h", "")),
            "line 6: host-bridge number 1: BAR2 of p",
        ),
        (
            format!(
                "{second}[host-bridge.prefetchable]\nfirst = 0x1800000000\nlast = 0x18000fffff\n{}",
                peer("p", "i", "")
            ),
            "line 8: host-bridge number 2: BAR2 of p",
        ),
        (
            format!("[host-bridge.memory]\nfirst = 0xc0000000\nlast = 0xc00fffff\n{}", {
                (0..16).fold(String::new(), |all, n| {
                    all + &format!("[[peer]]\nname = 'p{n}'\nbelow = 'h'\ndevice = {}\n", 4 + n)
                })
            }),
            "line 5: host-bridge number 1: BAR0 of ",
        ),
    ] {
        fs::write(path, format!("{bridge}{text}")).unwrap();
        for arguments in [&["topology", path][..], &["explain", "p", "h", "--topology", path]] {
            let (code, _, err) = run(arguments);
            let part = format!("t.toml: {part}");
            assert!(code == 2 && err.contains(&part), "{arguments:?} {part}: {err}\n{text}");
        }
    }
}

#[test]
fn a_file_that_is_none_is_no_misspelt_preset() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("switch-a")).unwrap();
    fs::write(folder.path().join("text"), b"name = '\xff'\n").unwrap();
    fs::write(folder.path().join("long"), vec![b'#'; (1 << 20) + 1]).unwrap();
    for (name, part) in [
        ("./swich", "./swich: No such file"),
        ("swich.toml", "swich.toml: No such file"),
        ("swich.toml+translated", "swich.toml: No such file"),
        ("switch-a", "switch-a: it is a folder"),
        ("switch-a/", "switch-a/: it is a folder"),
        ("text", "text: stream did not contain valid UTF-8"),
        ("long", "long: it is longer than"),
        ("text/x", "text/x: Not a directory"),
    ] {
        for arguments in [&["topology", name][..], &["explain", "a", "b", "--topology", name]] {
            let output = peerdma(arguments).current_dir(&folder).output().unwrap();
            let (code, out, err) = outcome(&output);
            assert!(code == 2 && out.is_empty() && err.contains(part), "{arguments:?}: {err}");
            assert!(!err.contains("presets"), "{arguments:?}: {err}");
        }
    }
    let (code, _, err) = run(&["topology", "swich"]);
    assert!(code == 2 && err.contains("did you mean \"switch\"?"), "{err}");
}

#[test]
fn a_device_is_added_where_the_command_line_says_so() {
    let line =
        ["topology", "switch", "--device", "ioat,channels=1", "--device", "peer,below=host-bridge"];
    let (code, out, err) = run(&line);
    assert_eq!(code, 0, "{err}");
    for part in ["ioat0-port", "ioat0", "peer2"] {
        assert!(out.contains(part), "{part}: {out}");
    }
    let (code, out, _) = run(&["topology", "root-ports", "--device", "ioat", "--format", "toml"]);
    assert_eq!(code, 0);
    assert!(out.contains("kind = \"ioat\"") && out.contains("on = \"host-bridge\""), "{out}");
    let (_, out, _) = run(&["boot", "--help"]);
    assert!(
        out.contains("ioat: Intel I/OAT DMA engine; options model") && out.contains("below ="),
        "{out}"
    );
}

#[test]
fn a_device_that_cannot_be_added_is_refused_before_anything_starts() {
    for (device, part) in [
        ("iota", "there is no kind of device \"iota\", did you mean \"ioat\"?"),
        ("ioat,channels", "\"channels\" is no KEY=VALUE"),
        ("ioat,chanels=2", "no key \"chanels\", did you mean \"channels\"?"),
        ("ioat,channels=9", "channels is \"9\"; take 1 to 4"),
        ("ioat,below=prot1", "no port, switch or host bridge \"prot1\", did you mean \"port1\"?"),
        ("ioat,below=port1", "\"peer1\" is below \"port1\" already"),
        ("peer,local-memory=0x2000000000", "64 GiB"),
    ] {
        for command in ["test", "boot", "topology"] {
            let (code, out, err) = run(&[command, "--device", device]);
            assert_eq!((code, out.as_str()), (2, ""), "{command} {device}: {err}");
            assert!(err.contains(part) && err.contains("--device"), "{command} {device}: {err}");
        }
    }
    // In a topology that has it, the same port is right.
    let (code, _, err) = run(&["topology", "ioat", "--device", "ioat,below=port2"]);
    assert!(code == 2 && err.contains("\"ioat0\" is below \"port2\""), "{err}");
}

#[test]
fn only_paths_into_the_memory_of_a_device_are_explained() {
    for (a, b, part) in [
        ("peer1", "port0", "port0 (root port) has no memory"),
        ("peer1", "00:00.0", "host-bridge (host bridge) has no memory"),
        ("peer1", "virtio-rng", "virtio-rng (virtio function) has no memory"),
        ("peer1", "ioat0", "ioat0 (device) has no memory"),
        ("port0", "peer1", "port0 (root port) does no DMA"),
    ] {
        let (code, out, err) = run(&["explain", a, b, "--device", "ioat"]);
        assert!(code == 2 && out.is_empty() && err.contains(part), "{a} {b}: {err}");
        assert!(err.contains("peer0, peer1"), "{err}");
    }
}

#[test]
fn devices_that_are_added_are_explained_too() {
    let line = ["explain", "ioat0", "peer2", "--topology", "switch", "--device", "ioat"];
    let (code, out, err) = run(&[&line[..], &["--device", "peer"]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("ioat0 (05:00.0) -> peer2 (06:00.0): through the host"), "{out}");
    let (code, _, err) = run(&line);
    assert!(code == 2 && err.contains("\"peer2\" is no function"), "{err}");
    let (code, _, err) = run(&["explain", "a", "b", "--run", "x", "--device", "ioat"]);
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
}

/// A run of one guest that was asked about one path, and found `distance`.
fn summary(distance: i32) -> String {
    serde_json::to_string(&report(distance)).unwrap()
}

fn report(distance: i32) -> RunReport {
    report_of("root-ports", &format!("1 0 {distance} iova 0xfffe0000"))
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
    scenario.decisions = vec![ObservedPath::parse(decision).unwrap()];
    RunReport {
        version: 1,
        host: "nested".into(),
        host_reason: String::new(),
        kernel: "7.3".into(),
        scenarios: vec![scenario],
        totals: Totals::default(),
        milliseconds: 0,
        shard: None,
        split: Vec::new(),
    }
}

#[test]
fn a_merged_report_has_the_tables_of_the_whole_run() {
    let mut whole = report(4);
    whole.scenarios[0].cases = vec![CaseReport {
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
    // An engine is a client, too, and owns nothing that anybody could ask for.
    let engine = || summary_of("ioat", "0 03:00.0 4 iova 0xfffe0000");
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
    let (code, _, err) = run(&["explain", "peer0", "peer1", "--kernel-parameter", "iommu=pt"]);
    assert!(code == 2 && err.contains("--iommu"), "{code} {err}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        peerdma(&["test", "--list"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_from_both_streams_is_no_error_either() {
    for arguments in [&["test", "--list"][..], &["topology", "--list"], &["topology", "swich"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = peerdma(arguments);
        command.stdout(writer.try_clone().unwrap()).stderr(writer);
        let code = command.status().unwrap().code();
        assert_eq!(code, Some(if arguments.contains(&"swich") { 2 } else { 0 }), "{arguments:?}");
    }
}

#[test]
fn wrong_names_and_flags_are_usage_errors_with_the_nearest_name() {
    for (arguments, part) in [
        (&["test", "--scenario", "baisc"][..], "did you mean \"basic\"?"),
        (&["test", "--scenaro", "basic"], "'--scenario'"),
        (&["tset"], "'test'"),
        (&["test", "--host", "moon"], "possible values"),
        (&["test", "--scenario", "user"], "has no tests of its own"),
        (&["topology", "--list", "--format", "json"], "cannot be used with"),
        (&["kernel", "build", "--clean", "--json"], "cannot be used with"),
        (&["test", "--scenario", "basic", "--scenario", "lazy", "--", "x"], "one guest"),
        // The kernel ends it early, should it begin.
        (
            &["test", "--all", "--kernel", "/no", "--", "x"],
            "'--all' cannot be used with '[CMD]...'",
        ),
        (
            &["test", "--shard", "1/2", "--kernel", "/no", "--", "x"],
            "cannot be used with '[CMD]...'",
        ),
        (&["boot", "--modprobe", "dmatest x=\"a b"], "a double quote is not closed"),
        (&["replay", "/no/such/record"], "/no/such/record"),
        (&[], "Usage: peerdma"),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
        assert!(out.is_empty(), "{out}");
    }
}

/// What the user names is wrong: 2, whichever command it is, and never what a machine lacks.
#[test]
fn bad_input_is_a_usage_error_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let record = |name: &str, ram: &str, lab: &str| {
        let lab = if lab.is_empty() {
            serde_json::to_string(&LabConfig::default()).unwrap()
        } else {
            serde_json::to_string(&LabConfig::default()).unwrap().replacen("268435456", lab, 1)
        };
        let line = format!(
            "{{\"format\":\"peerdma-trace\",\"version\":3,\"lab\":{lab},\"ram\":{ram}}}\n{{\"event\":\"end\",\"events\":0}}\n"
        );
        fs::write(path(name), line).unwrap();
        path(name)
    };
    let here = path("");
    fs::write(path("noise"), [0xff; 100]).unwrap();
    fs::write(path("summary.json"), "{}").unwrap();
    let good = record("good", "[[0,1048576]]", "");
    let (code, _, err) = run(&["replay", &good]);
    assert_eq!(code, 0, "{err}");
    let event = |name: &str, event: &str| {
        let path = record(name, "[[0,1048576]]", "");
        let header = fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
        fs::write(&path, format!("{header}\n{event}\n")).unwrap();
        path
    };
    let long = format!("{{\"event\":\"step\",\"function\":0{}}}", " ".repeat(300_000));
    let wide = r#"{"event":"register-write","address":0,"data":"000000000000000000"}"#;
    for (arguments, part) in [
        (vec!["replay", &event("i", r#"{"event":"\u001b[2J"}"#)], "line 2 is not an event"),
        (vec!["replay", &event("j", &long)], "line 2 is not an event: it is longer than"),
        (vec!["replay", &event("k", wide)], "not a record made with --record: line 2: a register"),
        (vec!["replay", &here], "it is a folder"),
        (vec!["replay", &path("noise")], "not a record"),
        (vec!["replay", &record("a", "[[0,18446744073709551615]]", "")], "RAM that no guest has"),
        (vec!["replay", &record("b", "[[0,99999999999999]]", "")], "RAM that no guest has"),
        (vec!["replay", &record("c", "[[0,0]]", "")], "RAM that no guest has"),
        (vec!["replay", &record("d", "[]", "")], "RAM that no guest has"),
        (vec!["replay", &record("e", "[[0,8192],[4096,8192]]", "")], "RAM that no guest has"),
        (vec!["replay", &record("f", "[[0,4096],[18446744073709551615,4096]]", "")], "RAM that no"),
        (vec!["replay", &record("g", "[[0,-1]]", "")], "not a record"),
        (vec!["replay", &record("h", "[[0,1048576]]", "3")], "power of two"),
        (vec!["explain", "peer0", "peer1", "--run", &path("noise")], "is no report"),
        (vec!["explain", "peer0", "peer1", "--run", &here], "is no report"),
        (vec!["report", "merge", &here, "--out", &path("out")], "is no report"),
        (vec!["report", "merge", &path("none"), "--out", &path("out")], "cannot be read"),
        (vec!["topology", &path("noise")], "UTF-8"),
        (vec!["topology", &here], "it is a folder"),
        (vec!["boot", "--record", &here, "--", "true"], "is a folder"),
        (vec!["test", "--shard", "3/2"], "3/2"),
        (vec!["kernel", "build", "--kernel", "nothing"], "nothing"),
    ] {
        let (code, out, err) = run(&arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
        assert!(!err.contains('\u{1b}'), "{arguments:?}: {err}");
    }
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    assert!(out.contains("Exit codes:") && out.contains("peerdma boot -- lspci -vvv"), "{out}");
    assert!(!out.contains("nested-init"), "{out}");
    for command in ["doctor", "test", "boot", "kernel", "replay"] {
        assert_eq!(run(&[command, "--help"]).0, 0, "{command}");
    }
}

/// Runs `test` with its output in a folder of its own and a QEMU that need not be there.
fn test_run(folder: &Path, arguments: &[&str]) -> (i32, String, String) {
    let mut command = peerdma(&["test", "--host", "nested", "--out"]);
    command.arg(folder.join("out")).args(arguments).env("XDG_CACHE_HOME", folder.join("cache"));
    // Any QEMU that answers: it is not started.
    let qemu = folder.join("qemu");
    fs::write(&qemu, "#!/bin/sh\necho QEMU emulator version 7.2.0\n").unwrap();
    fs::set_permissions(&qemu, Permissions::from_mode(0o755)).unwrap();
    outcome(&command.env("PEERDMA_QEMU", qemu).output().unwrap())
}

#[test]
fn kernels_and_modules_that_are_none_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let truncated = folder.path().join("truncated");
    let program = fs::read("/proc/self/exe").unwrap();
    fs::write(&truncated, &program[..200]).unwrap();
    let truncated = truncated.to_str().unwrap();
    for (arguments, part) in [
        (&["--kernel", "/no/such/kernel"][..], "the kernel /no/such/kernel is not there"),
        (&["--kernel", "/bin/sh"], "/bin/sh"),
        (&["--kernel", truncated], truncated),
        (&["--kernel", "/etc/passwd"], "/etc/passwd"),
        (&["--module", "/no/such.ko", "--", "true"], "the module /no/such.ko is not there"),
        (
            &["--module", "/etc/passwd", "--", "true"],
            "the module /etc/passwd is none: it is no ELF",
        ),
        (&["--module", "/bin/sh", "--", "true"], "the module /bin/sh is none: it is a program"),
        (&["--file", "/etc", "--", "true"], "the file /etc is not there"),
        (&["--file", "/no/such", "--", "true"], "the file /no/such is not there"),
    ] {
        let (code, out, err) = test_run(folder.path(), arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(part) && err.contains("error: "), "{arguments:?}: {err}");
        assert!(out.is_empty(), "{out}");
    }
}

#[test]
fn no_kvm_and_no_qemu_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = peerdma(&["test", "--host", "nested", "--out"]);
    command.arg(&out).env("PEERDMA_QEMU", "/no/such/qemu");
    let (code, _, err) = outcome(&command.output().unwrap());
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("PEERDMA_QEMU names /no/such/qemu"), "{err}");
}

#[test]
fn a_second_run_beside_the_first_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    let lock = File::create(out.join(".lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let (code, _, err) = test_run(folder.path(), &[]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("another run writes to") && err.contains("--out"), "{err}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("out"), "a file").unwrap();
    let (code, _, err) = test_run(folder.path(), &[]);
    assert_eq!(code, 3, "{err}");
    assert!(err.contains("the output folder"), "{err}");
}

#[test]
fn the_doctor_says_where_guests_run() {
    let (_, out, err) = run(&["doctor"]);
    assert!(out.lines().last().is_some_and(|line| line.contains("guests")), "{out}{err}");
    let (code, out, _) = run(&["doctor", "--json"]);
    let diagnosis: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(diagnosis["conclusion"].is_string());
    for check in diagnosis["checks"].as_array().unwrap() {
        let fine = check["level"] == "ok";
        assert_eq!(fine, check.get("fix").is_none(), "{check}");
    }
    assert!(code == 0 || code == 3, "{code}");
}

#[test]
fn the_test_host_s_own_command_is_not_for_users() {
    let (code, _, err) = run(&["nested-init"]);
    assert_eq!(code, 2, "{err}");
}
