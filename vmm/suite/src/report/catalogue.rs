//! Which classes of findings the tests of a run have committed on purpose, by mode of the IOMMU.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use device_models::checker::FindingClass;

use super::model::{CaseReport, RunReport, ScenarioReport, Status};

/// Tests of this group commit a bug each.
const BUGS: &str = "bugs.";
/// Tests of this group go as far as the rules allow.
const LEGAL: &str = "legal.";

/// The section, if the run had such tests: a row for each class, a column for each mode.
pub(super) fn section(report: &RunReport) -> Option<String> {
    let of_group = |case: &&CaseReport, group| case.name.starts_with(group);
    let with_bugs: Vec<_> = report
        .scenarios
        .iter()
        .filter(|scenario| scenario.cases.iter().any(|case| of_group(&case, BUGS)))
        .collect();
    if with_bugs.is_empty() {
        return None;
    }
    let columns: Vec<_> = with_bugs.iter().map(|scenario| Column::of(scenario)).collect();
    let mut text = String::from(
        "\n## Bugs committed on purpose\n\nTests that committed a bug of this class and had it found, by \
         how the guest used its IOMMU; a test counts for each class that it provokes. The tests of the \
         group `legal` are near-misses, in which nothing may be found.\n\n| Class |",
    );
    for column in &columns {
        let _ = write!(text, " {} |", column.mode);
    }
    let _ = write!(text, "\n|---|{}", "---|".repeat(columns.len()));
    let mut absent = Vec::new();
    for class in FindingClass::ALL.iter().map(|class| class.name()) {
        let counts: Vec<_> = columns
            .iter()
            .map(|column| column.caught.get(class).map_or(0, BTreeSet::len))
            .collect();
        if counts.iter().all(|count| *count == 0) {
            absent.push(format!("`{class}`"));
            continue;
        }
        let _ = write!(text, "\n| `{class}` |");
        for count in counts {
            let _ = if count == 0 { write!(text, "  |") } else { write!(text, " {count} |") };
        }
    }
    let _ = write!(text, "\n| bugs missed |");
    columns.iter().for_each(|column| _ = write!(text, " {} |", column.missed));
    let _ = write!(text, "\n| near-misses silent |");
    columns.iter().for_each(|column| _ = write!(text, " {} of {} |", column.silent, column.legal));
    if !absent.is_empty() {
        let _ = write!(
            text,
            "\n\nNot committed in this run: {}. They need another topology, another mode of the \
             IOMMU, or a driver that this guest has not got; other scenarios and unit tests have most.",
            absent.join(", ")
        );
    }
    text.push('\n');
    Some(text)
}

/// One guest's.
struct Column<'r> {
    mode: &'static str,
    /// Names of the tests, by class.
    caught: BTreeMap<&'r str, BTreeSet<&'r str>>,
    missed: usize,
    silent: usize,
    legal: usize,
}

impl<'r> Column<'r> {
    fn of(scenario: &'r ScenarioReport) -> Self {
        let mode = scenario.setup.as_ref().map_or("unknown", |setup| setup.guest.iommu.name());
        let mut column = Self { mode, caught: BTreeMap::new(), missed: 0, silent: 0, legal: 0 };
        for case in scenario.cases.iter().filter(|case| case.status != Status::Skipped) {
            if case.name.starts_with(LEGAL) {
                column.legal += 1;
                column.silent += usize::from(case.findings.iter().all(|found| found.note));
            }
            if !case.name.starts_with(BUGS) {
                continue;
            }
            if case.status == Status::Failed {
                column.missed += 1;
                continue;
            }
            for finding in case.findings.iter().filter(|finding| finding.expected) {
                column.caught.entry(&finding.class).or_default().insert(&case.name);
            }
        }
        column
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::FindingReport;
    use super::*;

    fn case(name: &str, status: Status, findings: &[(&str, bool)]) -> CaseReport {
        let finding = |(class, expected): &(&str, bool)| FindingReport {
            class: (*class).into(),
            expected: *expected,
            ..FindingReport::default()
        };
        CaseReport {
            name: name.into(),
            status,
            detail: String::new(),
            milliseconds: 0,
            findings: findings.iter().map(finding).collect(),
            expectations: Vec::new(),
        }
    }

    fn report(cases: Vec<CaseReport>) -> RunReport {
        let mut scenario = ScenarioReport::new("x");
        scenario.cases = cases;
        RunReport {
            version: RunReport::VERSION,
            totals: Default::default(),
            host: String::new(),
            host_reason: String::new(),
            kernel: String::new(),
            jitter: None,
            milliseconds: 0,
            shard: None,
            split: Vec::new(),
            scenarios: vec![scenario],
            unused_suppressions: Vec::new(),
        }
    }

    #[test]
    fn a_bug_counts_when_its_test_has_passed_and_a_near_miss_when_nothing_was_found() {
        let text = section(&report(vec![
            case("bugs.a", Status::Passed, &[("iommu.stale", true)]),
            case("bugs.b", Status::Passed, &[("iommu.stale", true), ("iommu.stale", true)]),
            case("bugs.c", Status::Failed, &[("iommu.unmapped", true)]),
            case("bugs.d", Status::Skipped, &[]),
            case("legal.a", Status::Passed, &[]),
            case("legal.b", Status::Failed, &[("iommu.stale", false)]),
            case("copy.a", Status::Passed, &[("pci.no-target", true)]),
        ]))
        .unwrap();
        for line in
            ["| `iommu.stale` | 2 |", "| bugs missed | 1 |", "| near-misses silent | 1 of 2 |"]
        {
            assert!(text.contains(line), "{line}: {text}");
        }
        let absent = text.split("Not committed").nth(1).unwrap();
        assert!(
            absent.contains("`iommu.unmapped`") && absent.contains("`pci.no-target`"),
            "{text}"
        );
        assert!(!absent.contains("`iommu.stale`"), "{text}");
    }

    #[test]
    fn other_runs_have_no_such_section() {
        let copies = case("copy.a", Status::Passed, &[("pci.no-target", true)]);
        assert_eq!(section(&report(vec![copies])), None);
    }
}
