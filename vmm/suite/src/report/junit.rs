//! The report as JUnit XML, which CI systems show: a suite per scenario, a case per test.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use super::merge::MergedReport;
use super::model::{CaseReport, FindingReport, RunReport, ScenarioReport, Status};

/// The name of the case that stands for what went wrong outside of any test.
const SCENARIO_CASE: &str = "scenario";

/// Writes `report` to `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &RunReport, path: &Path) -> io::Result<()> {
    let text = to_xml(std::slice::from_ref(report))?;
    super::write_whole(path, text.as_bytes())
}

/// Writes several kernels' runs to `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write_merged(report: &MergedReport, path: &Path) -> io::Result<()> {
    let text = to_xml(&report.runs)?;
    super::write_whole(path, text.as_bytes())
}

/// The XML text. Where there are several runs, the names of their suites begin with the kernel's.
///
/// # Errors
/// When the serialiser fails, which it does for no content of ours.
pub fn to_xml(reports: &[RunReport]) -> io::Result<String> {
    let mut junit = Report::new("peerdma");
    let milliseconds = reports.iter().map(|report| report.milliseconds).sum();
    junit.set_time(Duration::from_millis(milliseconds));
    for report in reports {
        for scenario in &report.scenarios {
            let name = match reports {
                [_] => scenario.name.clone(),
                _ => format!("{}: {}", report.kernel_in_short(), scenario.name),
            };
            junit.add_test_suite(suite(&name, scenario, report));
        }
    }
    junit.to_string().map_err(io::Error::other)
}

fn suite(name: &str, scenario: &ScenarioReport, report: &RunReport) -> TestSuite {
    let mut suite = TestSuite::new(name);
    suite.set_time(Duration::from_millis(scenario.milliseconds));
    suite.add_property(("host", report.host.as_str()));
    suite.add_property(("kernel", report.kernel.as_str()));
    if let Some(seed) = report.jitter {
        suite.add_property(("jitter", seed.to_string().as_str()));
    }
    for (name, value) in &scenario.counters {
        suite.add_property((name.as_str(), value.to_string().as_str()));
    }
    for case in &scenario.cases {
        suite.add_test_case(test_case(name, case));
    }
    if scenario.failures.is_empty() && !scenario.stray_findings.is_empty() {
        // Notes, or the test would have failed.
        suite.set_system_out(findings(&scenario.stray_findings, true));
    }
    if !scenario.failures.is_empty() {
        let mut status = TestCaseStatus::non_success(NonSuccessKind::Error);
        status.set_message(scenario.failures.join("; "));
        let mut case = TestCase::new(SCENARIO_CASE, status);
        case.set_classname(name);
        let mut text = findings(&scenario.stray_findings, true);
        scenario.scene.iter().for_each(|line| text.extend([line, "\n"]));
        text.push_str(&scenario.console_tail.join("\n"));
        case.set_system_out(text);
        suite.add_test_case(case);
    }
    suite
}

fn test_case(suite: &str, case: &CaseReport) -> TestCase {
    let found = findings(&case.findings, false);
    let status = match case.status {
        Status::Passed => TestCaseStatus::success(),
        Status::Failed => {
            let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
            status.set_message(case.detail.as_str());
            let explained = findings(&case.findings, true);
            status.set_description(format!("{}\n{explained}", case.detail));
            status
        }
        Status::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(case.detail.as_str());
            status
        }
    };
    let mut test = TestCase::new(case.name.as_str(), status);
    test.set_classname(suite);
    test.set_time(Duration::from_millis(case.milliseconds));
    let said = if case.status == Status::Passed { case.detail.as_str() } else { "" };
    if !said.is_empty() || !found.is_empty() {
        test.set_system_out(format!("{said}\n{found}").trim_start().to_owned());
    }
    test
}

/// A line for each; if they are `explained`, and what happened before it.
fn findings(findings: &[FindingReport], explained: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}: {finding}", finding.kind());
        if let Some(suppressed) = &finding.suppressed {
            let _ = writeln!(text, "    reason: {suppressed}");
        }
        for event in finding.before.iter().filter(|_| explained) {
            let _ = writeln!(text, "    before: {event}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::Totals;

    fn case(name: &str, status: Status, detail: &str) -> CaseReport {
        let before = vec!["IOMMU: <1>".to_owned(), "kernel: 2".to_owned()];
        let text = "#7 <peer0> & co".to_owned();
        let finding = FindingReport { text, before, ..FindingReport::default() };
        CaseReport {
            expectations: Vec::new(),
            name: name.into(),
            status,
            detail: detail.into(),
            milliseconds: 1500,
            findings: vec![finding],
        }
    }

    #[test]
    fn suites_cases_and_findings_arrive_escaped() {
        let mut scenario = ScenarioReport::new("basic");
        scenario.cases = vec![
            case("good", Status::Passed, ""),
            case("bad", Status::Failed, "a < b \u{1}"),
            case("none", Status::Skipped, "needs CONFIG_X"),
        ];
        scenario.failures = vec!["the guest hung".into()];
        let report = RunReport {
            version: RunReport::VERSION,
            totals: Totals::default(),
            host: "nested".into(),
            host_reason: String::new(),
            jitter: Some(7),
            kernel: "lab".into(),
            milliseconds: 0,
            shard: None,
            split: Vec::new(),
            unused_suppressions: Vec::new(),
            scenarios: vec![scenario],
        };
        let xml = to_xml(std::slice::from_ref(&report)).unwrap();
        assert!(
            xml.contains(
                r#"<testsuite name="basic" tests="4" skipped="1" errors="1" failures="1""#
            ),
            "{xml}"
        );
        assert!(xml.contains("a &lt; b"), "{xml}");
        assert!(xml.contains(r#"<property name="jitter" value="7""#), "{xml}");
        assert!(xml.contains("#7 &lt;peer0&gt; &amp; co"), "{xml}");
        // In the failure's text only, and there for each finding.
        let events =
            "#7 &lt;peer0&gt; &amp; co\n    before: IOMMU: &lt;1&gt;\n    before: kernel: 2\n";
        assert_eq!(xml.matches(events).count(), 1, "{xml}");
        assert!(xml.contains(r#"<skipped message="needs CONFIG_X"#), "{xml}");
        assert!(!xml.contains('\u{1}'), "{xml}");

        let stock = RunReport { kernel: "stock 7.3 (x)".into(), ..report.clone() };
        let xml = to_xml(&[report, stock]).unwrap();
        assert!(xml.contains(r#"<testsuite name="lab: basic""#), "{xml}");
        assert!(xml.contains(r#"<testsuite name="stock 7.3: basic""#), "{xml}");
        assert!(xml.contains(r#"classname="stock 7.3: basic""#), "{xml}");
        assert!(xml.contains(r#"tests="8""#), "{xml}");
    }
}
