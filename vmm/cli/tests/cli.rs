//! The program from outside: exit codes, streams, and a clear line for every kind of bad input. No guest is run.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use peerdma_topology::assembly::SystemConfig;
use program::{outcome, peerdma, run};
use rustix::fs::{FlockOperation, flock};

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

/// On a machine that has just been set up; nothing is fetched before all of this is known.
#[test]
fn a_scenario_that_needs_the_lab_kernel_says_so_where_there_is_none() {
    let cache = tempfile::tempdir().unwrap();
    let fresh = |arguments: &[&str]| {
        let mut command = peerdma(arguments);
        command.env("XDG_CACHE_HOME", cache.path()).env_remove("PEERDMA_KERNEL_TREE");
        // Should it go on to fetch something.
        command.env("PEERDMA_DEBIAN_MIRROR", "file:///no/such/mirror");
        command.env("PEERDMA_QEMU", "/no/such/qemu");
        outcome(&command.output().unwrap())
    };
    let (code, _, err) = fresh(&["test", "--scenario", "basic", "--scenario", "kunit-dmabuf"]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("\"kunit-dmabuf\" needs CONFIG_DMABUF_KUNIT_TEST"), "{err}");
    assert!(err.contains("peerdma kernel build") && err.contains("--kernel stock"), "{err}");
    assert!(fs::read_dir(cache.path()).unwrap().all(|entry| entry.unwrap().path().is_dir()));
    // A kernel that is named is what is used: what is wrong there is something else.
    for line in [&["--kernel", "stock"][..], &["--kernel", "lab"], &["--", "true"]] {
        let (code, _, err) =
            fresh(&[&["test", "--scenario", "kunit-dmabuf", "--host", "nested"], line].concat());
        assert!(code == 3 && !err.contains("needs CONFIG"), "{line:?}: {err}");
    }
}

#[test]
fn tests_that_a_topology_is_not_for_are_refused_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    let path = path.to_str().unwrap();
    fs::write(path, "name = 't'\n[[host-bridge]]\nname = 'h'\nid = '1ae0:0001'\n").unwrap();
    let (code, _, err) = run(&["test", "--topology", path]);
    assert_eq!(code, 2, "{err}");
    assert!(err.contains("use 2 peer devices, the topology") && err.contains("has 0"), "{err}");
    assert!(err.contains("peerdma test --topology FILE -- CMD"), "{err}");
    assert!(err.contains("add --device peer --device peer, or"), "{err}");
    // What is wrong with the topology itself, or with the user's device, is not the scenario's business.
    let line = ["test", "--scenario", "topology-switch", "--topology", "/no/such.toml"];
    let (code, _, err) = run(&line);
    assert!(code == 2 && !err.contains("brings"), "{err}");
    let (code, _, err) = run(&[&line[..3], &["--device", "ioat,below=nowhere"]].concat());
    assert!(code == 2 && !err.contains("brings"), "{err}");
    // The scenario's own device does not fit, and the user has named none.
    let (code, _, err) =
        run(&["test", "--scenario", "topology-switch", "--topology", "root-ports"]);
    assert_eq!(code, 2, "{err}");
    let why = "the scenario topology-switch brings ioat,below=switch0,channels=1: ";
    assert!(err.contains(why) && err.contains("`--scenario topology`"), "{err}");
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
        // The one that takes it all, in whichever order they stand.
        (peer("p", "h", huge) + &peer("qq", "h", ""), "line 9: peer number 1: BAR2 of p "),
        (peer("p", "h", "") + &peer("qq", "h", huge), "line 13: peer number 2: BAR2 of qq"),
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
fn a_missing_file_is_not_taken_for_a_misspelt_preset() {
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
        ("ioat,channels", "\"channels\" is not of the form KEY=VALUE"),
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
    assert!(code == 2 && err.contains("\"peer2\" is no"), "{err}");
    let (code, _, err) = run(&["explain", "a", "b", "--run", "x", "--device", "ioat"]);
    assert!(code == 2 && err.contains("cannot be used with"), "{err}");
}

#[test]
fn a_reader_that_goes_away_is_not_an_error() {
    let mut child =
        peerdma(&["test", "--list"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_reader_that_goes_away_from_both_streams_is_not_an_error_either() {
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
        (&["replay", "/no/such/trace"], "/no/such/trace"),
        (&[], "Usage: peerdma"),
    ] {
        let (code, out, err) = run(arguments);
        assert_eq!(code, 2, "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
        assert!(out.is_empty(), "{out}");
    }
}

/// A trace of a few entries is shown, added up, checked, cut and compared.
#[test]
fn traces_are_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let lab = serde_json::to_string(&SystemConfig::default()).unwrap();
    let lines = [
        format!(
            "{{\"format\":\"peerdma-trace\",\"version\":4,\"lab\":{lab},\"ram\":[[0,1048576]]}}"
        ),
        r#"{"event":"config-write","function":256,"offset":4,"length":2,"value":6}"#.into(),
        r#"{"event":"step","function":3}"#.into(),
        r#"{"event":"end","events":2}"#.into(),
    ];
    fs::write(path("old"), lines.join("\n") + "\n").unwrap();
    let trace = path("t.pcapng.zst");
    assert_eq!(run(&["trace", "convert", &path("old"), &trace]).1, "2 entries\n");
    let (code, out, err) = run(&["trace", "show", &trace]);
    let wanted = "       1     0.000000 configuration  configuration write of 2 bytes, 0x6, at 01:00.0+0x4\n";
    assert!(out.starts_with(wanted) && out.lines().count() == 3, "{out}");
    assert!(!out.contains('\u{1b}'), "a pipe gets no colours");
    assert_eq!((code, err.as_str()), (0, ""));
    let (_, out, _) = run(&["trace", "show", &trace, "kind=turn", "--json"]);
    let line: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&line["event"], &line["entry"]), (&"step".into(), &2.into()), "{out}");
    assert_eq!(run(&["trace", "show", &trace, "--limit", "1"]).1.lines().count(), 1);
    assert_eq!(run(&["trace", "export", "--to", "jsonl", &trace]).1.lines().count(), 3);
    let (_, out, _) = run(&["trace", "stats", &trace, "--json"]);
    let stats: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(stats["kinds"]["turn"], 1, "{out}");
    assert!(run(&["trace", "stats", &trace]).1.contains("entries by kind:"));
    let (code, out, _) = run(&["trace", "verify", &trace]);
    assert!(code == 0 && out.contains("the trace is complete"), "{out}");
    assert_eq!(run(&["trace", "diff", &trace, &trace]).0, 0);
    let whole = fs::read(&trace).unwrap();
    let cut = path("cut.pcapng.zst");
    // Without its seek table, within its first frame, and with a byte changed.
    for (bytes, code, what) in [
        (&whole[..whole.len() - 3], 1, "seek table is missing"),
        (&whole[..whole.len() - 60], 1, "it ends before entry"),
        (&[&whole[..200], &[!whole[200]], &whole[201..]].concat(), 2, ""),
    ] {
        fs::write(&cut, bytes).unwrap();
        let (status, out, err) = run(&["trace", "verify", &cut]);
        assert_eq!(status, code, "{out}{err}");
        assert!(out.contains(what), "{out}{err}");
    }
    let (code, out, err) = run(&["trace", "cut", &trace, &cut, "--from", "0.0"]);
    assert_eq!((code, out.as_str()), (0, "2 entries\n"), "{err}");
    assert_eq!(run(&["trace", "diff", &trace, &cut]).0, 0);
}

/// What the user names is wrong: 2, whichever command it is, and never what a machine lacks.
#[test]
fn bad_input_is_a_usage_error_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let record = |name: &str, ram: &str, lab: &str| {
        let lab = if lab.is_empty() {
            serde_json::to_string(&SystemConfig::default()).unwrap()
        } else {
            serde_json::to_string(&SystemConfig::default()).unwrap().replacen("268435456", lab, 1)
        };
        let line = format!(
            "{{\"format\":\"peerdma-trace\",\"version\":5,\"lab\":{lab},\"ram\":{ram}}}\n{{\"event\":\"end\",\"events\":0}}\n"
        );
        fs::write(path(name), line).unwrap();
        path(name)
    };
    let here = path("");
    fs::write(path("noise"), [0xff; 100]).unwrap();
    fs::write(path("summary.json"), "{}").unwrap();
    let good = record("good", "[[0,1048576]]", "");
    let (new, packed) = (path("new.pcapng.zst"), path("good.pcapng.zst"));
    let (code, _, err) = run(&["trace", "convert", &good, &packed]);
    assert_eq!(code, 0, "{err}");
    let (code, out, err) = run(&["replay", &packed]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    assert!(err.contains("nothing was compared"), "{err}");
    let event = |name: &str, event: &str| {
        let path = record(name, "[[0,1048576]]", "");
        let header = fs::read_to_string(&path).unwrap().lines().next().unwrap().to_owned();
        fs::write(&path, format!("{header}\n{event}\n")).unwrap();
        path
    };
    let long = format!("{{\"event\":\"step\",\"function\":0{}}}", " ".repeat(300_000));
    let wide = r#"{"event":"register-write","address":0,"data":"000000000000000000"}"#;
    for (arguments, part) in [
        (
            vec!["trace", "convert", &event("i", r#"{"event":"\u001b[2J"}"#), &new],
            "line 2 is not an event",
        ),
        (
            vec!["trace", "convert", &event("j", &long), &new],
            "line 2 is not an event: it is longer than",
        ),
        (
            vec!["trace", "convert", &event("k", wide), &new],
            "line 2 is not an event: a CPU accesses 1 to 8 bytes",
        ),
        (vec!["replay", &here], "it is a folder"),
        (vec!["replay", &path("noise")], "not a trace"),
        (
            vec!["trace", "convert", &record("a", "[[0,18446744073709551615]]", ""), &new],
            "RAM that no guest has",
        ),
        (
            vec!["trace", "convert", &record("b", "[[0,99999999999999]]", ""), &new],
            "RAM that no guest has",
        ),
        (vec!["trace", "convert", &record("c", "[[0,0]]", ""), &new], "RAM that no guest has"),
        (vec!["trace", "convert", &record("d", "[]", ""), &new], "RAM that no guest has"),
        (
            vec!["trace", "convert", &record("e", "[[0,8192],[4096,8192]]", ""), &new],
            "RAM that no guest has",
        ),
        (
            vec![
                "trace",
                "convert",
                &record("f", "[[0,4096],[18446744073709551615,4096]]", ""),
                &new,
            ],
            "RAM that no",
        ),
        (vec!["trace", "convert", &record("g", "[[0,-1]]", ""), &new], "not a trace"),
        (vec!["trace", "convert", &record("h", "[[0,1048576]]", "3"), &new], "power of two"),
        (vec!["replay", &good], "`peerdma trace convert`"),
        (vec!["trace", "verify", &path("noise")], "not a trace"),
        (vec!["trace", "show", &here], "it is a folder"),
        (vec!["trace", "show", &packed, "colour=red"], "there is no key \"colour\""),
        (vec!["trace", "stats", &packed, "kind=TLP"], "there is no kind"),
        (vec!["trace", "cut", &packed, &here], "it is a folder"),
        (vec!["trace", "cut", &packed, &new, "--test", "none"], "nothing in the trace"),
        (vec!["trace", "diff", &packed, &good], "`peerdma trace convert`"),
        (vec!["explain", "peer0", "peer1", "--run", &path("noise")], "is not a peerdma report"),
        (vec!["explain", "peer0", "peer1", "--run", &here], "is not a peerdma report"),
        (vec!["report", "merge", &here, "--out", &path("out")], "is not a peerdma report"),
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
fn files_that_are_not_kernels_or_modules_are_named() {
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
            "the module /etc/passwd cannot be used: it is not an ELF",
        ),
        (
            &["--module", "/bin/sh", "--", "true"],
            "the module /bin/sh cannot be used: it is a program",
        ),
        (&["--file", "/etc", "--", "true"], "the file /etc is a folder"),
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
fn a_second_run_beside_the_first_gets_an_error_with_a_hint() {
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

/// What people post about a real machine, shown and converted.
#[test]
fn files_about_real_machines_are_shown_and_converted() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let text = path("report.txt");
    fs::write(
        &text,
        "> 3c:08.0 PCI bridge [0604]: PLX Technology, Inc. PEX 8747 [10b5:8747]\n\
         >   Capabilities: <access denied>\n",
    )
    .unwrap();
    let (code, out, err) = run(&["machine", "show", &text]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("0000:3c:08.0") && out.contains("run it as root"), "{out}");
    let (code, record, err) = run(&["machine", "show", &text, "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let json: serde_json::Value = serde_json::from_str(&record).unwrap();
    assert_eq!(json["functions"][0]["device"], "8747");
    let copy = path("box.json");
    fs::write(&copy, &record).unwrap();
    assert_eq!(run(&["machine", "show", &copy, "--json"]), (0, record.clone(), String::new()));

    // What is not a machine: one line, and code 2.
    fs::write(&text, "Dear all,\nit is slow.\n").unwrap();
    let (code, out, err) = run(&["machine", "show", &text]);
    assert_eq!((code, out.as_str()), (2, ""));
    assert!(err.contains("no PCI function found") && err.contains("hint:"), "{err}");
    fs::write(&copy, record.replace("peerdma-machine/1", "peerdma-machine/9")).unwrap();
    let (code, _, err) = run(&["machine", "show", &copy]);
    assert!(code == 2 && err.contains("peerdma-machine/9"), "{err}");
    let (code, _, err) = run(&["machine", "show", &path("none")]);
    assert!(code == 2 && err.contains("none: "), "{err}");
    // A machine without sysfs lacks something.
    let (code, _, err) = run(&["machine", "capture", "--root", folder.path().to_str().unwrap()]);
    assert!(code == 3 && err.contains("sys/bus/pci/devices"), "{err}");
}
