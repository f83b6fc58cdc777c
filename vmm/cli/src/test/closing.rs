//! The end of a run's output: what failed, and what to do next.

use std::path::{Path, PathBuf};

use peerdma_suite::report::{RunReport, ScenarioReport, Status};
use peerdma_support::say;

/// The example that [`after_success`] proposes, if this is the source tree.
const EXAMPLE: &str = "examples/first-finding";

/// After a failure: what failed, and which files say more.
pub(super) fn failures(report: &RunReport, out: &Path) {
    for scenario in failed(report) {
        let failed = scenario.cases.iter().filter(|case| case.status == Status::Failed);
        for case in failed {
            say!("{}: {} failed: {}", scenario.name, case.name, case.detail);
        }
        for failure in &scenario.failures {
            say!("{}: {failure}", scenario.name);
        }
        for line in &scenario.scene {
            say!("{}: {line}", scenario.name);
        }
        if let Some(finding) = scenario.findings().find(|finding| finding.is_mistake()) {
            say!(
                "{}: findings: {}; `peerdma findings {}` explains the first",
                scenario.name,
                out.join("report.md").display(),
                finding.class
            );
        }
        say!(
            "{}: console log: {}",
            scenario.name,
            out.join(&scenario.name).join("console.log").display()
        );
    }
}

/// What else is to be known.
pub(super) fn notes(report: &RunReport) {
    for scenario in &report.scenarios {
        for note in &scenario.notes {
            say!("{}: note: {note}", scenario.name);
        }
    }
}

/// What was known of findings, and what of that is not needed any more. A part of a run does not know the latter.
pub(super) fn suppressions(report: &RunReport) {
    match report.suppressed() {
        0 => {}
        1 => say!("1 finding suppressed, report.md has the reason"),
        count => say!("{count} findings suppressed, report.md has the reasons"),
    }
    if report.shard.is_none() {
        for unused in &report.unused_suppressions {
            say!("warning: nothing was found for the suppression {unused}");
        }
    }
}

/// What to do next, in three lines.
pub(super) fn next(report: &RunReport, out: &Path) {
    let program = std::env::args().next().unwrap_or_else(|| "peerdma".into());
    let in_source_tree = Path::new(EXAMPLE).is_dir() && Path::new("Makefile").is_file();
    let out = relative(out);
    let lines = match failed(report).next() {
        Some(scenario) => after_failure(&program, scenario, &out),
        None => after_success(&program, in_source_tree, &out),
    };
    for (index, line) in lines.iter().enumerate() {
        say!("{}{line}", if index == 0 { "next: " } else { "      " });
    }
}

fn failed(report: &RunReport) -> impl Iterator<Item = &ScenarioReport> {
    report.scenarios.iter().filter(|scenario| scenario.status == Status::Failed)
}

/// As short as it can be written from here.
fn relative(path: &Path) -> PathBuf {
    let here = std::env::current_dir().and_then(|here| here.canonicalize());
    match here.ok().and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned)) {
        Some(inside) if inside != Path::new("") => inside,
        _ => path.to_owned(),
    }
}

fn after_success(program: &str, in_source_tree: bool, out: &Path) -> [String; 3] {
    let look = format!("look at {}: it has a row for each test", out.join("report.md").display());
    if in_source_tree {
        let file = format!("--file {EXAMPLE}/check.sh -- check.sh copy_physical");
        [
            look,
            format!("break a driver: {program} test --module {EXAMPLE} {file}"),
            "open a console: make vm (Ctrl-A x leaves); docs/tutorial.md explains all three".into(),
        ]
    } else {
        [
            look,
            format!("test your driver: {program} test --module DRIVER.ko --file TEST -- TEST"),
            format!("open a console: {program} boot (Ctrl-A x leaves)"),
        ]
    }
}

fn after_failure(program: &str, scenario: &ScenarioReport, out: &Path) -> [String; 3] {
    let name = &scenario.name;
    let case = scenario.cases.iter().find(|case| case.status == Status::Failed);
    let first = case.map_or_else(|| name.clone(), |case| format!("{name}: {}", case.name));
    [
        format!("look at the first failure, {first}, in {}", out.join("report.md").display()),
        format!("read what the guest printed: {}", out.join(name).join("console.log").display()),
        format!(
            "repeat it: the same command with --scenario {name}, or look around: {program} boot"
        ),
    ]
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use peerdma_suite::report::CaseReport;

    use super::*;

    /// The command in a line, as far as the remark in parentheses or the end.
    fn command(line: &str) -> Vec<String> {
        let (_, command) = line.rsplit_once(": ").unwrap();
        let command = command.split(" (").next().unwrap();
        command.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn the_commands_that_are_proposed_are_right() {
        for in_source_tree in [true, false] {
            let lines = after_success("peerdma", in_source_tree, Path::new("out"));
            assert_eq!(lines[0], "look at out/report.md: it has a row for each test");
            for line in &lines[1..] {
                let command = command(line);
                if command[0] == "make" {
                    continue;
                }
                assert!(crate::Arguments::try_parse_from(&command).is_ok(), "{line}");
            }
        }
        let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        if tree.join("Makefile").exists() {
            assert!(tree.join(EXAMPLE).join("check.sh").exists());
            let driver = std::fs::read_to_string(tree.join(EXAMPLE).join("first_finding.c"));
            assert!(driver.unwrap().contains("DEVICE_ATTR_RO(copy_physical)"));
        }
    }

    #[test]
    fn after_a_failure_the_first_failed_test_is_named() {
        let case = |name: &str, status| CaseReport {
            name: name.into(),
            status,
            detail: String::new(),
            milliseconds: 0,
            findings: Vec::new(),
            expectations: Vec::new(),
        };
        let mut scenario = ScenarioReport::new("basic");
        scenario.cases = vec![case("a.one", Status::Passed), case("a.two", Status::Failed)];
        let lines = after_failure("peerdma", &scenario, Path::new("out"));
        assert_eq!(lines[0], "look at the first failure, basic: a.two, in out/report.md");
        assert!(lines[1].ends_with("out/basic/console.log"), "{lines:?}");
        assert!(lines[2].contains("--scenario basic"), "{lines:?}");
        // A guest that never came as far as a test.
        scenario.cases.clear();
        let lines = after_failure("peerdma", &scenario, Path::new("out"));
        assert_eq!(lines[0], "look at the first failure, basic, in out/report.md");
    }
}
