//! `peerdma explain --machine` as a user runs it, and what its JSON is documented to have.

#![allow(clippy::unwrap_used, reason = "tests")]

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use program::run;
use serde_json::Value;

/// Two GPUs below a switch that redirects, as people post it.
const BOX: &str = "\
00:00.0 Host bridge [0600]: Intel Corporation Device [8086:4c43]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap- 66MHz- UDF-

00:01.0 PCI bridge [0604]: Intel Corporation Device [8086:4c01]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tBus: primary=00, secondary=01, subordinate=04, sec-latency=0
\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00
\tCapabilities: [100 v1] Advanced Error Reporting

01:00.0 PCI bridge [0604]: Broadcom Device [1000:c030]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tBus: primary=01, secondary=02, subordinate=04, sec-latency=0
\tCapabilities: [68] Express (v2) Upstream Port, MSI 00
\tCapabilities: [100 v1] Advanced Error Reporting

02:00.0 PCI bridge [0604]: Broadcom Device [1000:c030]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tBus: primary=02, secondary=03, subordinate=03, sec-latency=0
\tCapabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
\tCapabilities: [100 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-

02:01.0 PCI bridge [0604]: Broadcom Device [1000:c030]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tBus: primary=02, secondary=04, subordinate=04, sec-latency=0
\tCapabilities: [68] Express (v2) Downstream Port (Slot+), MSI 00
\tCapabilities: [100 v1] Access Control Services
\t\tACSCap:\tSrcValid+ TransBlk+ ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans+
\t\tACSCtl:\tSrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+ EgressCtrl- DirectTrans-

03:00.0 VGA compatible controller [0300]: NVIDIA Corporation Device [10de:2684]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tCapabilities: [78] Express (v2) Endpoint, MSI 00
\tCapabilities: [100 v1] Virtual Channel

04:00.0 VGA compatible controller [0300]: NVIDIA Corporation Device [10de:2684]
\tControl: I/O- Mem+ BusMaster+ SpecCycle-
\tStatus: Cap+ 66MHz- UDF-
\tCapabilities: [78] Express (v2) Endpoint, MSI 00
\tCapabilities: [100 v1] Virtual Channel

";

const DISABLE: &str = "pci=disable_acs_redir=02:00.0;02:01.0";

struct Dump {
    _folder: tempfile::TempDir,
    path: String,
}

fn file(text: &str) -> Dump {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("box.txt");
    fs::write(&path, text).unwrap();
    Dump { path: path.to_str().unwrap().to_owned(), _folder: folder }
}

#[test]
fn the_answer_comes_first_and_what_changes_it_works() {
    let file = file(BOX);
    let explain = |more: &[&str]| {
        run(&[&["explain", "gpu0", "gpu1", "--machine", &file.path], more].concat())
    };
    let (code, out, err) = explain(&[]);
    assert_eq!(code, 0, "{err}");
    assert!(out.starts_with("gpu0 (0000:03:00.0) -> gpu1 (0000:04:00.0): not supported"), "{out}");
    let change = format!("kernel parameter '{DISABLE}': bus address\n");
    assert!(out.contains(&change), "{out}");
    assert!(out.contains("costs: SV UF off besides"), "{out}");
    let (code, out, err) = explain(&["--append", DISABLE]);
    assert!(code == 0 && err.is_empty(), "{err}");
    assert!(out.contains("gpu1 (0000:04:00.0): bus address"), "{out}");
    assert!(out.contains(&format!("with {DISABLE}; without: not supported")), "{out}");
    let (_, _, err) = explain(&["--append", "pci=disable_acs_redir=09:00.0"]);
    assert!(err.contains("\"09:00.0\" names no function of the file"), "{err}");
    // Of all pairs, too.
    let all = ["explain", "--all", "--machine", &file.path, "--append", DISABLE];
    assert!(run(&all).1.contains("gpu0 <-> gpu1: B4"));
}

#[test]
fn options_that_a_pair_does_not_have_are_refused() {
    let file = file(BOX);
    let pair = ["explain", "gpu0", "gpu1", "--machine", &file.path];
    let lab = ["explain", "peer0", "peer1"];
    for (line, more, part) in [
        (&pair[..], ["--only", "gpu"], "--only is for the table"),
        (&lab[..], ["--only", "gpu"], "--only is for the table"),
        (&pair[..], ["--format", "svg"], "--format html and svg are for the table"),
        (&lab[..], ["--format", "html"], "--format html and svg are for the table"),
        (&["explain", "--all"][..], ["--format", "svg"], "for the table of a machine"),
    ] {
        let (code, out, err) = run(&[line, &more].concat());
        assert!(code == 2 && out.is_empty() && err.contains(part), "{line:?} {more:?}: {err}");
    }
    for line in [&pair[..], &lab[..]] {
        let with = |more: &[&str]| run(&[line, more].concat());
        assert_eq!(with(&["--format", "text"]), with(&[]));
        assert_eq!(with(&["--format", "json"]), with(&["--json"]));
    }
}

#[test]
fn messages_say_what_was_asked_for_and_what_there_is() {
    let file = file(BOX);
    let all = |more: &[&str]| run(&[&["explain", "--all", "--machine", &file.path], more].concat());
    let (code, _, err) = all(&["--only", "nvme,nic"]);
    assert!(code == 2, "{err}");
    for part in ["asked for nvme, nic, found none", "7 functions: 2 gpu, 0 nic, 0 nvme"] {
        assert!(err.contains(part), "{part:?} is not in {err}");
    }
    // A folder is not a file, and stdin has a name.
    let folder = Path::new(&file.path).parent().unwrap().to_str().unwrap();
    let (code, _, err) = run(&["explain", "a", "b", "--machine", folder]);
    assert!(code == 2 && err.contains("a folder, not a file") && err.contains("capture --root"));
    let (code, _, err) = run(&["machine", "show", "-"]);
    assert!(code == 2 && err.contains("error: standard input: no PCI function found"), "{err}");
    // Notes name what they are about.
    let cut = file_without_status();
    let (_, _, err) = run(&["explain", "--all", "--machine", &cut.path]);
    assert!(err.contains("its lines Control and Status are missing"), "{err}");
    assert!(err.contains("(0000:00:01.0, 0000:01:00.0, "), "{err}");
}

fn file_without_status() -> Dump {
    let keep = |line: &&str| !line.starts_with("\tStatus") && !line.starts_with("\tControl");
    let lines: Vec<_> = BOX.lines().filter(keep).collect();
    file(&(lines.join("\n") + "\n\n"))
}

/// The paths of all values that are not objects, or lists of objects.
fn paths(value: &Value, above: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
                paths(value, &path, found);
            }
        }
        Value::Array(all) if all.iter().any(Value::is_object) => {
            all.iter().for_each(|one| paths(one, above, found));
        }
        _ => {
            found.insert(above.to_owned());
        }
    }
}

/// The page that documents the schemas; none in the package, which does not have it.
fn page() -> Option<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    docs.exists().then(|| fs::read_to_string(docs.join("why-refused.md")).unwrap())
}

/// The fields that the table below a heading names.
fn documented(page: &str, schema: &str) -> BTreeSet<String> {
    let (_, table) = page.split_once(&format!("### {schema}\n")).unwrap();
    let rows = table.split("\n## ").next().unwrap().split("\n### ").next().unwrap();
    let rows = rows.lines().filter(|line| line.starts_with("| `"));
    let fields = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    fields.map(|field| field.trim().trim_matches('`').to_owned()).collect()
}

#[test]
fn the_schemas_are_what_the_page_says() {
    let Some(page) = page() else {
        let line = "SKIP the_schemas_are_what_the_page_says: the page is not part of the package\n";
        // Not captured by libtest; `make test` counts it.
        std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
        return;
    };
    let file = file(BOX);
    let machine = ["--machine", &file.path, "--json", "--append", DISABLE];
    let unforwarded = "pci=config_acs=111x1@02:00.0;111x1@02:01.0";
    let lab = |more: &[&'static str]| {
        [&["explain", "peer0", "peer1", "--topology", "switch-acs", "--json"], more].concat()
    };
    for (schema, runs) in [
        (
            "peerdma-explain/1",
            vec![
                lab(&[]),
                lab(&["--iommu", "none", "--append", unforwarded]),
                vec!["explain", "peer0", "peer1", "--topology", "refused", "--json"],
                vec!["explain", "peer0", "peer1", "--topology", "switch", "--json"],
            ],
        ),
        ("peerdma-explain-machine/1", vec![[&["explain", "gpu0", "gpu1"], &machine[..]].concat()]),
        ("peerdma-matrix/1", vec![[&["explain", "--all"], &machine[..]].concat()]),
    ] {
        let mut found = BTreeSet::new();
        for line in runs {
            let (code, out, err) = run(&line);
            assert_eq!(code, 0, "{err}");
            let value: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(value["schema"], schema);
            paths(&value, "", &mut found);
        }
        let nested = |path: &String| path.starts_with("cases.explanation.");
        if found.iter().any(nested) {
            found.retain(|path| !nested(path));
            found.insert("cases.explanation".into());
        }
        // An empty list, or null, where another run had objects.
        let all = found.clone();
        found.retain(|path| !all.iter().any(|other| other.starts_with(&format!("{path}."))));
        assert_eq!(found, documented(&page, schema), "{schema}");
    }
}
