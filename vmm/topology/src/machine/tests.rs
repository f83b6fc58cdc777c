//! The real machines of `peerdma-capture`, with what their kernels said; and small ones that show
//! one rule each.

use std::fs;
use std::path::{Path, PathBuf};

use peerdma_capture::{Machine, read};

use super::RealMachine;
use crate::linux::MapType;

mod kinds;
mod unknown;
mod what_if;

/// What a line `# expect: CLIENT PROVIDER ANSWER [distance N]` says.
fn expectations(text: &str) -> Vec<(String, String, Option<MapType>, Option<u32>)> {
    let lines = text.lines().filter_map(|line| line.strip_prefix("# expect: "));
    let read = |line: &str| {
        let (line, _) = line.split_once(';').unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let map = match words[2] {
            "bus-address" => Some(MapType::BusAddress),
            "host-bridge" => Some(MapType::ThroughHostBridge),
            "not-supported" => Some(MapType::NotSupported),
            "unknown" => None,
            other => panic!("{other}"),
        };
        let distance = words.get(4).map(|number| number.parse().unwrap());
        (words[0].to_owned(), words[1].to_owned(), map, distance)
    };
    lines.map(read).collect()
}

/// The folder of the real machines, which belongs to another package: without it the test is skipped.
fn machines() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../capture/tests/machines");
    if folder.exists() {
        return Some(folder);
    }
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let line = format!("SKIP {name}: {} is not part of the package\n", folder.display());
    // Not captured by libtest; `make test` counts it.
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    None
}

#[test]
fn real_machines_are_decided_as_their_kernels_did() {
    let Some(folder) = machines() else { return };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "txt") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let machine = read(text.as_bytes()).unwrap();
        let real = RealMachine::new(&machine);
        for (client, provider, map, distance) in expectations(&text) {
            let [a, b] = [&client, &provider].map(|name| real.find(name).unwrap());
            let verdict = real.decide(a, b);
            let said = real.pair_text(a, b);
            assert_eq!(verdict.certain(), map, "{}:\n{said}", path.display());
            if let Some(distance) = distance {
                assert_eq!(verdict.cases[0].decision.distance, distance, "{said}");
            }
            count += 1;
        }
    }
    assert!(count >= 12, "{count}");
}

/// A host bridge, and two GPUs below a switch; `acs` stands at both downstream ports.
fn small(host: &str, acs: &str, more: &str) -> Machine {
    let function = |address: &str, parent: &str, port: &str, class: &str, acs: &str| {
        format!(
            r#"{{ "address": "{address}", "parent": {parent}, "port": "{port}", "class": "{class}",
               "vendor": "1234", "device": "0001", "acs": {acs} }}"#
        )
    };
    let below = |above: &str| format!(r#"{{ "below": "{above}" }}"#);
    let functions = [
        format!(
            r#"{{ "address": "0000:00:00.0", "parent": "root", "port": "conventional", "class": "0600",
               {host} "acs": "absent" }}"#
        ),
        function("0000:00:01.0", r#""root""#, "root-port", "0604", r#""absent""#),
        function("0000:01:00.0", &below("0000:00:01.0"), "upstream", "0604", r#""absent""#),
        function("0000:02:00.0", &below("0000:01:00.0"), "downstream", "0604", acs),
        function("0000:02:01.0", &below("0000:01:00.0"), "downstream", "0604", acs),
        function("0000:03:00.0", &below("0000:02:00.0"), "endpoint", "0300", r#""absent""#),
        function("0000:04:00.0", &below("0000:02:01.0"), "endpoint", "0300", r#""absent""#),
    ];
    let text = format!(
        r#"{{ "schema": "peerdma-machine/1", {more} "functions": [{}] }}"#,
        functions.join(",")
    );
    Machine::from_json(&text).unwrap()
}

const LISTED: &str = r#""vendor": "8086", "device": "2020","#;
const UNLISTED: &str = r#""vendor": "8086", "device": "1234","#;

fn present(rr: &str) -> String {
    let rest = r#""SV": false, "TB": false, "CR": false, "UF": false, "EC": false, "DT": false"#;
    let all =
        r#""SV": true, "TB": true, "RR": true, "CR": true, "UF": true, "EC": false, "DT": false"#;
    format!(r#"{{ "present": {{ "capabilities": {{ {all} }}, "control": {{ {rr} {rest} }} }} }}"#)
}

fn decide(machine: &Machine) -> Vec<MapType> {
    let real = RealMachine::new(machine);
    let [a, b] = ["gpu0", "gpu1"].map(|name| real.find(name).unwrap());
    real.decide(a, b).cases.iter().map(|case| case.decision.map).collect()
}

#[test]
fn what_is_known_gives_one_answer() {
    use MapType::{BusAddress, NotSupported, ThroughHostBridge};
    let off = present(r#""RR": false,"#);
    let on = present(r#""RR": true,"#);
    assert_eq!(decide(&small(LISTED, &off, "")), [BusAddress]);
    assert_eq!(decide(&small(UNLISTED, &off, "")), [BusAddress], "no host bridge is asked");
    assert_eq!(decide(&small(LISTED, &on, "")), [ThroughHostBridge]);
    assert_eq!(decide(&small(UNLISTED, &on, "")), [NotSupported]);
    let zen = r#""cpu": { "vendor": "AuthenticAMD", "family": 25 },"#;
    assert_eq!(decide(&small(UNLISTED, &on, zen)), [ThroughHostBridge]);
    let older = r#""cpu": { "vendor": "AuthenticAMD", "family": 22 },"#;
    assert_eq!(decide(&small(UNLISTED, &on, older)), [NotSupported]);
}

#[test]
fn what_is_not_known_gives_every_answer() {
    use MapType::{BusAddress, NotSupported, ThroughHostBridge};
    let unknown = r#""unknown""#;
    assert_eq!(decide(&small(LISTED, unknown, "")), [BusAddress, ThroughHostBridge]);
    assert_eq!(decide(&small(UNLISTED, unknown, "")), [BusAddress, NotSupported]);
    // A field that the text does not show is as good as none.
    assert_eq!(decide(&small(UNLISTED, &present(""), "")), [BusAddress, NotSupported]);
    let on = present(r#""RR": true,"#);
    assert_eq!(decide(&small("", &on, "")), [NotSupported, ThroughHostBridge]);
    let all = decide(&small("", unknown, ""));
    assert_eq!(all, [BusAddress, NotSupported, ThroughHostBridge]);
    let machine = small("", unknown, "");
    let real = RealMachine::new(&machine);
    let text = real.pair_text(5, 6);
    for part in [
        "depends on what the record does not have",
        "To know: the ACS controls of",
        "ACS not known",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn advice_is_for_the_kernel_only() {
    let on = present(r#""RR": true,"#);
    let machine = small(UNLISTED, &on, "");
    let report = RealMachine::new(&machine).pair_report(5, 6);
    let advice: Vec<_> = report.cases[0].explanation.advice.iter().map(|it| it.kind).collect();
    assert_eq!(advice, ["add-parameter", "add-parameter"]);
}

#[test]
fn the_table_has_every_pair() {
    let machine = small(LISTED, &present(r#""RR": true,"#), "");
    let real = RealMachine::new(&machine);
    let matrix = real.matrix(real.devices());
    assert_eq!(matrix.report().pairs.len(), 2);
    let text = matrix.to_text();
    assert!(text.contains("gpu0 <-> gpu1: H4 ACS redirects at"), "{text}");
    for picture in [matrix.to_html(), matrix.to_svg()] {
        assert_eq!(picture.matches(">H4<").count(), 2, "{picture}");
    }
}

#[test]
fn a_twin_decides_as_the_machine() {
    let Some(folder) = machines() else { return };
    for (file, a, b) in [
        ("compute-runtime-935-direct.txt", "12:00.0", "0e:00.0"),
        ("compute-runtime-935-redirect.txt", "12:00.0", "0e:00.0"),
        ("zephyrus-g14.txt", "04:00.0", "05:00.0"),
        ("imac-2020.txt", "04:00.0", "03:00.0"),
    ] {
        let machine = read(&fs::read(folder.join(file)).unwrap()).unwrap();
        let real = RealMachine::new(&machine);
        let [a, b] = [a, b].map(|name| real.find(name).unwrap());
        let text = match real.twin(a, b) {
            Ok(text) => text,
            Err(error) => panic!("{file}: {error}"),
        };
        let topology = crate::Topology::parse(file, &text).unwrap();
        let append = text.split('\'').nth(1).map(str::to_owned);
        let guest = crate::linux::Guest {
            iommu: crate::assembly::IommuMode::Strict,
            cpu: topology.cpu,
            parameters: append.into_iter().collect(),
        };
        let plan = crate::Plan::new(&topology, true).unwrap();
        let explained = crate::Explanation::new(&plan, &guest, "peer0", "peer1").unwrap();
        let verdict = real.decide(a, b);
        assert_eq!(
            Some(explained.report().decision.map_type),
            verdict.certain().map(crate::explain::map_id),
            "{text}"
        );
    }
}

#[test]
fn a_root_bus_without_00_0_is_believed_only_where_the_record_is_whole() {
    use MapType::{NotSupported, ThroughHostBridge};
    let on = present(r#""RR": true,"#);
    let mut machine = small(UNLISTED, &on, "");
    machine.functions.remove(0);
    assert_eq!(decide(&machine), [NotSupported, ThroughHostBridge], "it may be an extract");
    machine.source = "sysfs".into();
    machine.cpu = Some(peerdma_capture::Cpu::default());
    if let Some(cpu) = &mut machine.cpu {
        cpu.vendor = Some("GenuineIntel".into());
    }
    assert_eq!(decide(&machine), [NotSupported], "Linux goes by the root port then");
    machine.functions[0].vendor = Some(0x8086);
    machine.functions[0].device = Some(0x2030);
    assert_eq!(decide(&machine), [ThroughHostBridge]);
}
