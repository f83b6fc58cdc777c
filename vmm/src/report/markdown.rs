//! The report as a table to be read: what each test had to say, in Markdown.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::ktap::plain;
use super::model::{RunReport, ScenarioReport, Status};

/// Writes `report` to `path`.
///
/// # Errors
/// When the file cannot be written.
pub fn write(report: &RunReport, path: &Path) -> io::Result<()> {
    super::collector::write_whole(path, to_markdown(report).as_bytes())
}

/// The text: a section for each scenario, a row for each test.
pub fn to_markdown(report: &RunReport) -> String {
    let mut text = format!(
        "# peerdma test\n\nHost: {}. Kernel: {}.\n",
        cell(&report.host),
        cell(&report.kernel)
    );
    report.scenarios.iter().for_each(|scenario| section(&mut text, scenario));
    text
}

fn section(text: &mut String, scenario: &ScenarioReport) {
    let _ = writeln!(text, "\n## {}: {}\n", cell(&scenario.name), word(scenario.status));
    for failure in &scenario.failures {
        let _ = writeln!(text, "- {}", cell(failure));
    }
    let _ = writeln!(text, "\n| Test | Result | ms | What it says |\n|---|---|---|---|");
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
    decisions(text, scenario);
}

/// What the kernel decided about each path, as far as a test asked.
fn decisions(text: &mut String, scenario: &ScenarioReport) {
    if scenario.decisions.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n| DMA by | into the memory of | The kernel decided |\n|---|---|---|");
    for decision in &scenario.decisions {
        let _ = writeln!(text, "| {} | peer{} | {decision} |", decision.client, decision.owner);
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
    use super::*;
    use crate::report::model::{CaseReport, Totals};

    #[test]
    fn each_test_has_a_row_whatever_it_is_called() {
        let case = |name: &str, status, detail: &str| CaseReport {
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
        scenario.failures = vec!["it hung".into()];
        scenario.conclude();
        let report = RunReport {
            version: 1,
            host: "nested".into(),
            host_reason: String::new(),
            kernel: "7.3".into(),
            scenarios: vec![scenario],
            totals: Totals::default(),
            milliseconds: 0,
            shard: None,
        };
        let text = to_markdown(&report);
        assert!(text.contains("## matrix: **failed**"), "{text}");
        assert!(text.contains("| `a` | passed | 12 | IOVA, 5 \\| 6 bytes |\n"), "{text}");
        let row = text.lines().find(|line| line.contains("**failed** | 12")).unwrap();
        assert_eq!(row.matches('|').count() - row.matches("\\|").count(), 5, "{row}");
    }
}
