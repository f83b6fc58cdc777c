//! The report in Markdown: a table of the tests and their notes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use guest_protocol::Traffic;
use peerdma_machine::runtime::{traffic, watched};
use peerdma_topology::{Client, Plan};

use super::catalogue;
use super::ktap::plain;
use super::merge::MergedReport;
use super::model::{FindingReport, RunReport, ScenarioReport, Status};
use super::observed::Setup;

/// Writes `report` to `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &RunReport, path: &Path) -> io::Result<()> {
    super::write_whole(path, to_markdown(report).as_bytes())
}

/// Writes several kernels' runs to `path`, each as it would stand there alone.
///
/// # Errors
/// When the file cannot be written.
pub fn write_merged(report: &MergedReport, path: &Path) -> io::Result<()> {
    let runs: Vec<_> = report.runs.iter().map(to_markdown).collect();
    super::write_whole(path, runs.join("\n").as_bytes())
}

/// The text: a section for each scenario, a row for each test.
pub fn to_markdown(report: &RunReport) -> String {
    let jitter = report.jitter.map_or_else(String::new, |seed| format!(" Jitter: seed {seed}."));
    let mut text = format!(
        "# peerdma test\n\nHost: {}. Kernel: {}.{jitter} {}.\n",
        cell(&report.host),
        cell(&report.kernel),
        report.totals
    );
    if !report.unused_suppressions.is_empty() {
        let _ = writeln!(text, "\nUnused suppressions:\n");
    }
    for unused in &report.unused_suppressions {
        let _ = writeln!(text, "- {}", cell(unused));
    }
    report.scenarios.iter().for_each(|scenario| section(&mut text, scenario));
    text.push_str(&catalogue::section(report).unwrap_or_default());
    text
}

fn section(text: &mut String, scenario: &ScenarioReport) {
    let _ = writeln!(text, "\n## {}: {}\n", cell(&scenario.name), word(scenario.status));
    if let Some(setup) = &scenario.setup {
        machine(text, setup);
    }
    for failure in &scenario.failures {
        let _ = writeln!(text, "- {}", cell(failure));
    }
    for note in &scenario.notes {
        let _ = writeln!(text, "- note: {}", cell(note));
    }
    if let [Some(devices), Some(processors)] =
        ["stalls-devices", "stalls-processors"].map(|name| scenario.counters.get(name))
    {
        let _ =
            writeln!(text, "Stood still: devices {devices} times, processors {processors} times.");
    }
    let _ = writeln!(text, "\n| Test | Result | ms | Detail |\n|---|---|---|---|");
    for case in &scenario.cases {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} |",
            cell(&case.name),
            word(case.status),
            case.milliseconds,
            cell(&case.detail)
        );
    }
    findings(text, scenario);
    scene(text, scenario);
    decisions(text, scenario);
    traffic(text, scenario);
    if let Some(watched) = watched::sentence(&scenario.counters) {
        let _ = writeln!(text, "\n{}", cell(&watched));
    }
}

/// What the guest was.
fn machine(text: &mut String, setup: &Setup) {
    let Setup { topology, guest } = setup;
    let parameters = match guest.parameters.is_empty() {
        true => String::new(),
        false => format!(" Kernel parameters: `{}`.", cell(&guest.parameters.join(" "))),
    };
    let (name, iommu) = (cell(&topology.name), guest.iommu.name());
    let _ = writeln!(text, "Topology: {name}. IOMMU: {iommu}.{parameters}\n");
}

/// What the checker found and no test expected, and what it noted.
fn findings(text: &mut String, scenario: &ScenarioReport) {
    let of_cases = scenario.cases.iter().flat_map(|case| {
        case.findings.iter().map(move |finding| (format!("`{}`", cell(&case.name)), finding))
    });
    let stray = scenario.stray_findings.iter();
    let all: Vec<_> =
        of_cases.chain(stray.map(|finding| ("outside of any test".into(), finding))).collect();
    let mut list = |title: &str, is_of_it: fn(&FindingReport) -> bool| {
        let mut listed = all.iter().filter(|(_, finding)| is_of_it(finding)).peekable();
        if listed.peek().is_some() {
            let _ = writeln!(text, "\n{title}:\n");
        }
        for (whose, finding) in listed {
            let _ = writeln!(text, "- {whose}: {}", cell(&finding.to_string()));
            if let Some(suppressed) = &finding.suppressed {
                let _ = writeln!(text, "  - reason: {}", cell(&suppressed.to_string()));
            }
            for event in &finding.before {
                let _ = writeln!(text, "  - before: {}", cell(event));
            }
        }
    };
    list("Unexpected findings", FindingReport::is_mistake);
    list("Suppressed findings", |finding| finding.suppressed.is_some());
    list("Notes", |finding| finding.note && finding.suppressed.is_none());
    for case in scenario.cases.iter().filter(|case| !case.expectations.is_empty()) {
        let _ = writeln!(text, "\nExpectations of `{}`:\n", cell(&case.name));
        for expectation in &case.expectations {
            let _ = writeln!(text, "- {}", cell(expectation));
        }
        let expected = case.findings.iter().filter(|finding| finding.expected && !finding.note);
        for finding in expected {
            let _ = writeln!(text, "- found: {}", cell(&finding.to_string()));
        }
    }
}

/// What was to be seen when the guest was frozen.
fn scene(text: &mut String, scenario: &ScenarioReport) {
    if scenario.scene.is_empty() {
        return;
    }
    let _ = writeln!(text, "\nWhere the guest was frozen:\n");
    for line in &scenario.scene {
        // Indented, it is code whatever it holds.
        let _ = writeln!(text, "    {}", plain(line));
    }
}

/// What the kernel decided about each path, as far as a test asked.
fn decisions(text: &mut String, scenario: &ScenarioReport) {
    if scenario.decisions.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n| DMA by | into the memory of | The kernel decided |\n|---|---|---|");
    let names = Names::of(scenario);
    for decision in &scenario.decisions {
        let (client, owner) = (names.client(decision.client), names.peer(decision.owner));
        let _ = writeln!(text, "| {} | {} | {decision} |", cell(&client), cell(&owner));
    }
}

/// The devices of a scenario by their names in the topology, as findings name them.
struct Names(Option<Plan>);

impl Names {
    fn of(scenario: &ScenarioReport) -> Self {
        let setup = scenario.setup.as_deref();
        let plan = |setup: &Setup| Plan::new(&setup.topology, setup.guest.iommu.has_iommu()).ok();
        Self(setup.and_then(plan))
    }

    fn client(&self, client: Client) -> String {
        match client {
            Client::Peer(instance) => self.peer(instance),
            Client::Function(bdf) => {
                let find = |plan: &Plan| plan.find(&bdf.to_string());
                self.function(find).unwrap_or_else(|| client.to_string())
            }
        }
    }

    fn peer(&self, instance: u8) -> String {
        let find = |plan: &Plan| plan.peers().get(usize::from(instance)).copied();
        self.function(find).unwrap_or_else(|| Client::Peer(instance).to_string())
    }

    fn function(&self, find: impl FnOnce(&Plan) -> Option<usize>) -> Option<String> {
        let plan = self.0.as_ref()?;
        Some(plan.functions.get(find(plan)?)?.name.clone())
    }
}

/// Where the devices' data went, from the VMM's own counters: all of the scenario's tests together.
fn traffic(text: &mut String, scenario: &ScenarioReport) {
    let Traffic { read, written } = traffic::from_counters(&scenario.counters);
    let targets: BTreeSet<_> = read.keys().chain(written.keys()).collect();
    if targets.is_empty() {
        return;
    }
    let _ =
        writeln!(text, "\n| Target | Bytes read from it | Bytes written to it |\n|---|---|---|");
    for target in targets {
        let bytes = |by_target: &BTreeMap<String, u64>| by_target.get(target).copied().unwrap_or(0);
        let _ = writeln!(text, "| {} | {} | {} |", cell(target), bytes(&read), bytes(&written));
    }
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Passed => "passed",
        Status::Failed => "**failed**",
        Status::Skipped => "skipped",
    }
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    plain(text).replace('|', "\\|").replace('`', "'")
}

#[cfg(test)]
mod tests {
    use peerdma_topology::Topology;
    use peerdma_topology::assembly::IommuMode;
    use peerdma_topology::linux::Guest;

    use super::*;
    use crate::report::ObservedPath;
    use crate::report::model::{CaseReport, Repeated, Suppressed, Totals};

    #[test]
    fn each_test_has_a_row_whatever_it_is_called() {
        let case = |name: &str, status, detail: &str| CaseReport {
            expectations: Vec::new(),
            name: name.into(),
            status,
            detail: detail.into(),
            milliseconds: 12,
            findings: Vec::new(),
        };
        let mut scenario = ScenarioReport::new("matrix");
        scenario.cases = vec![
            case("a", Status::Passed, "IOVA, 5 | 6 bytes"),
            case("b`|", Status::Failed, "broken\nmore"),
        ];
        let finding = |text: &str, expected| FindingReport {
            text: text.into(),
            expected,
            ..FindingReport::default()
        };
        scenario.cases[1].findings = vec![finding("#1 wanted", true), finding("#2 bad", false)];
        scenario.cases[1].findings[1].repeated =
            Some(Repeated { count: 7, range: Some((0x1000, 0x1fff)), bytes: 4096 });
        scenario.cases[0].findings =
            vec![FindingReport { note: true, ..finding("#4 left over", false) }];
        scenario.cases[1].findings[1].before = vec!["kernel: mapped | x".into()];
        let suppressed = Some(Suppressed { reason: "bug 7".into(), place: "k.txt:3".into() });
        scenario.cases[0].findings.push(FindingReport { suppressed, ..finding("#5 known", false) });
        scenario.scene = vec!["frozen".into()];
        scenario.stray_findings = vec![finding("#3 late", false)];
        scenario.failures = vec!["it hung".into()];
        scenario.counters = [
            ("bytes-written-to-peer1".to_owned(), 9),
            ("stalls-devices".to_owned(), 4),
            ("stalls-processors".to_owned(), 5),
        ]
        .into();
        scenario.conclude();
        let report = RunReport {
            version: 1,
            host: "nested".into(),
            host_reason: String::new(),
            jitter: Some(7),
            kernel: "7.3".into(),
            scenarios: vec![scenario],
            totals: Totals::default(),
            milliseconds: 0,
            shard: None,
            split: Vec::new(),
            unused_suppressions: vec!["iommu.stale (at k.txt:1): x".into()],
        };
        let text = to_markdown(&report);
        assert!(
            text.starts_with(
                "# peerdma test\n\nHost: nested. Kernel: 7.3. Jitter: seed 7. 0 passed"
            ),
            "{text}"
        );
        assert!(text.contains("## matrix: **failed**"), "{text}");
        assert!(text.contains("Stood still: devices 4 times, processors 5 times."), "{text}");
        assert!(text.contains("| `a` | passed | 12 | IOVA, 5 \\| 6 bytes |\n"), "{text}");
        assert!(text.contains("| peer1 | 0 | 9 |\n"), "{text}");
        let row = text.lines().find(|line| line.contains("**failed** | 12")).unwrap();
        let list = "Unexpected findings:\n\n- `b'\\|`: #2 bad; 7 times in all, 0x1000..=0x1fff, 4096 bytes\n  \
                    - before: kernel: mapped \\| x\n- outside of any test: #3 late\n\nSuppressed findings:\n\n\
                    - `a`: #5 known\n  - reason: bug 7 (k.txt:3)\n\nNotes:\n\n- `a`: #4 left over\n";
        assert!(text.contains("\nWhere the guest was frozen:\n\n    frozen\n"), "{text}");
        assert!(text.contains("Unused suppressions:\n\n- iommu.stale (at k.txt:1): x\n"), "{text}");
        assert!(text.contains(list) && !text.contains("#1 wanted"), "{text}");
        assert_eq!(row.matches('|').count() - row.matches("\\|").count(), 5, "{row}");
    }
    #[test]
    fn decisions_name_devices_as_the_topology_does() {
        let topology = Topology::preset_text("root-ports").unwrap();
        // The lower address has the name that a number would give the other one.
        let topology = topology.replace("\"peer0\"", "\"x\"").replace("\"peer1\"", "\"peer0\"");
        let mut topology = Topology::parse("t", &topology.replace("\"x\"", "\"gpu\"")).unwrap();
        topology.add(&"ioat,name=engine".parse().unwrap()).unwrap();
        let guest = Guest { iommu: IommuMode::Strict, cpu: topology.cpu, parameters: Vec::new() };
        let mut scenario = ScenarioReport::new("s");
        let path = |owner, client| ObservedPath { owner, client, distance: 4, address: None };
        let engine = Client::Function("03:00.0".parse().unwrap());
        scenario.decisions = vec![path(1, Client::Peer(0)), path(0, engine)];
        let table = |scenario: &ScenarioReport| {
            let mut text = String::new();
            decisions(&mut text, scenario);
            text
        };
        // Where the topology is not known an index has to do.
        assert!(table(&scenario).contains("| peer0 | peer1 | distance 4"), "{}", table(&scenario));
        scenario.setup = Some(Box::new(Setup { topology, guest }));
        let text = table(&scenario);
        assert!(text.contains("| gpu | peer0 | distance 4"), "{text}");
        assert!(text.contains("| engine | gpu | distance 4"), "{text}");
    }
}
