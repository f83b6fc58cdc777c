//! The report as data. Its JSON form is `summary.json` and what `peerdma test --json` prints.

use std::collections::BTreeMap;
use std::fmt;

use peerdma_machine::runtime::watched;
use serde::{Deserialize, Serialize};

use super::observed::{ObservedPath, Setup};
use super::shard::Shard;

/// How a test, or a scenario as a whole, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything was as expected.
    Passed,
    /// Something was not.
    Failed,
    /// It was not tried; the detail says what the kernel or the machine lacks.
    Skipped,
}

/// One finding of the checker, as reports show it; or several that come from the same mistake.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingReport {
    /// The class, for example `iommu.unmapped`.
    pub class: String,
    /// The name of the function concerned.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub function: String,
    /// The whole finding in one line: the first, where there are several.
    pub text: String,
    /// Whether the test had announced findings of this class.
    pub expected: bool,
    /// Worth knowing, and no mistake, or none for certain: no test fails for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub note: bool,
    /// All of them in numbers, where there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeated: Option<Repeated>,
    /// What happened before the first one, the oldest first; only where it fails its test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<String>,
    /// Why it fails no test although none expected it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<Suppressed>,
}

/// The suppression of a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppressed {
    /// The reason that its line gives.
    pub reason: String,
    /// The file and the line, `FILE:LINE`.
    pub place: String,
}

impl fmt::Display for Suppressed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.place)
    }
}

impl FindingReport {
    /// Whether it fails its test.
    pub fn is_mistake(&self) -> bool {
        !self.expected && !self.note && self.suppressed.is_none()
    }

    /// How many it stands for.
    pub fn count(&self) -> u64 {
        self.repeated.map_or(1, |repeated| repeated.count)
    }

    /// What it is to its test.
    pub fn kind(&self) -> &'static str {
        match (self.note, self.expected) {
            (true, _) if self.suppressed.is_some() => "suppressed note",
            (true, _) => "note",
            (false, true) => "expected finding",
            (false, false) if self.suppressed.is_some() => "suppressed finding",
            (false, false) => "unexpected finding",
        }
    }
}

impl fmt::Display for FindingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.repeated {
            Some(repeated) => write!(f, "{}; {repeated}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Findings of one function and class with the same cause, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repeated {
    /// How many.
    pub count: u64,
    /// The lowest and the highest address; none where no transaction was concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<(u64, u64)>,
    /// Bytes of all together.
    pub bytes: u64,
}

impl Repeated {
    /// Takes in others.
    pub fn add(&mut self, other: &Self) {
        self.count = self.count.saturating_add(other.count);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.range = match (self.range, other.range) {
            (Some((first, last)), Some((low, high))) => Some((first.min(low), last.max(high))),
            (range, None) | (None, range) => range,
        };
    }
}

impl fmt::Display for Repeated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} times in all", self.count)?;
        match self.range {
            Some((first, last)) => write!(f, ", {first:#x}..={last:#x}, {} bytes", self.bytes),
            None => Ok(()),
        }
    }
}

/// One test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseReport {
    /// The name, unique within its scenario.
    pub name: String,
    /// How it ended, findings considered.
    pub status: Status,
    /// Why it failed or was skipped; what the test had to say otherwise. May be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// From begin to end, in milliseconds.
    pub milliseconds: u64,
    /// What the checker found meanwhile, in order; cut off after a bound, which `detail` then says.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<FindingReport>,
    /// Which findings the user or the guest expected or allowed, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expectations: Vec<String>,
}

/// One guest's run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// The scenario's name.
    pub name: String,
    /// How it ended as a whole: failed if any test failed, or if anything in `failures` is said.
    pub status: Status,
    /// What went wrong outside of any test, in sentences: a hang, a kernel warning, a stray finding.
    pub failures: Vec<String>,
    /// What else is to be known of the run, in sentences: no failure.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the checker found outside of any test.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stray_findings: Vec<FindingReport>,
    /// The tests, in the order in which they ended.
    pub cases: Vec<CaseReport>,
    /// Whether the guest or its test host was killed because it no longer answered.
    pub hung: bool,
    /// Whether the guest was frozen at a finding, because the user wanted that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopped: bool,
    /// What was to be seen at that moment, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scene: Vec<String>,
    /// Whether the user's command, or the shell, was not run, or not to its end: the exit code is none of theirs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_run: bool,
    /// The guest's own exit code, if it came that far.
    pub exit_code: Option<i32>,
    /// From the VMM's start to the guest's end, in milliseconds.
    pub milliseconds: u64,
    /// From the VMM's start to the guest's first word, in milliseconds.
    pub boot_milliseconds: Option<u64>,
    /// The machine; what was not started has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setup: Option<Box<Setup>>,
    /// What the guest's kernel decided about paths between peer devices, where a test asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decisions: Vec<ObservedPath>,
    /// The counters at the end, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub counters: BTreeMap<String, u64>,
    /// Last lines of the guest's console, if something went wrong.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub console_tail: Vec<String>,
}

impl ScenarioReport {
    /// A report with nothing in it yet.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status: Status::Passed,
            failures: Vec::new(),
            notes: Vec::new(),
            stray_findings: Vec::new(),
            cases: Vec::new(),
            hung: false,
            stopped: false,
            scene: Vec::new(),
            not_run: false,
            exit_code: None,
            milliseconds: 0,
            boot_milliseconds: None,
            setup: None,
            decisions: Vec::new(),
            counters: BTreeMap::new(),
            console_tail: Vec::new(),
        }
    }

    /// All findings, those of tests first.
    pub fn findings(&self) -> impl Iterator<Item = &FindingReport> {
        self.cases.iter().flat_map(|case| &case.findings).chain(&self.stray_findings)
    }

    /// Says how the scenario ended, from its parts.
    pub fn conclude(&mut self) {
        let failed = !self.failures.is_empty()
            || self.cases.iter().any(|case| case.status == Status::Failed);
        let skipped =
            !self.cases.is_empty() && self.cases.iter().all(|case| case.status == Status::Skipped);
        self.status = match (failed, skipped) {
            (true, _) => Status::Failed,
            (false, true) => Status::Skipped,
            (false, false) => Status::Passed,
        };
    }
}

/// How many tests ended how.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Passed.
    pub passed: usize,
    /// Failed. What failed outside of any test counts as one per scenario.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// A whole run of `peerdma test`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this form; raised when a field changes its meaning.
    pub version: u32,
    /// Sums over all scenarios.
    pub totals: Totals,
    /// Where the guests ran: `kvm` or `nested`.
    pub host: String,
    /// Why there.
    pub host_reason: String,
    /// The guest kernel, as the user would name it.
    pub kernel: String,
    /// The seed by which devices and processors stood still now and then; `None`: they did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter: Option<u64>,
    /// From start to report, in milliseconds.
    pub milliseconds: u64,
    /// Which part of a run that was split; `None`: the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<Shard>,
    /// The names of all scenarios of the run that was split, in order; empty: the whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<String>,
    /// Suppressions that no finding needed, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused_suppressions: Vec<String>,
    /// The scenarios, in the order in which they were run.
    pub scenarios: Vec<ScenarioReport>,
}

impl RunReport {
    /// What was held against the guests' mappings in all scenarios together, as a sentence.
    pub fn watched(&self) -> Option<String> {
        let mut sum = BTreeMap::new();
        for (name, count) in self.scenarios.iter().flat_map(|scenario| &scenario.counters) {
            let total: &mut u64 = sum.entry(name.clone()).or_default();
            *total = total.saturating_add(*count);
        }
        watched::sentence(&sum)
    }

    /// How many findings were suppressed.
    pub fn suppressed(&self) -> u64 {
        let all = self.scenarios.iter().flat_map(ScenarioReport::findings);
        all.filter(|finding| finding.suppressed.is_some()).map(FindingReport::count).sum()
    }

    /// Version of the form that this program writes.
    pub const VERSION: u32 = 1;

    /// Sums up `scenarios`.
    pub fn totals_of(scenarios: &[ScenarioReport]) -> Totals {
        let mut totals = Totals::default();
        for scenario in scenarios {
            for case in &scenario.cases {
                match case.status {
                    Status::Passed => totals.passed += 1,
                    Status::Failed => totals.failed += 1,
                    Status::Skipped => totals.skipped += 1,
                }
            }
            totals.failed += usize::from(!scenario.failures.is_empty());
        }
        totals
    }

    /// The kernel without where it comes from.
    pub fn kernel_in_short(&self) -> &str {
        self.kernel.split_once(" (").map_or(&self.kernel, |(short, _)| short)
    }

    /// Whether anything hung and had to be killed, or a user's command could not be run.
    pub fn broke_down(&self) -> bool {
        self.scenarios.iter().any(|scenario| scenario.hung || scenario.not_run)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(status: Status) -> CaseReport {
        CaseReport {
            expectations: Vec::new(),
            name: "a".into(),
            status,
            detail: String::new(),
            milliseconds: 0,
            findings: Vec::new(),
        }
    }

    #[test]
    fn a_scenario_fails_for_what_happens_outside_of_its_tests() {
        let mut report = ScenarioReport::new("s");
        report.cases = vec![case(Status::Passed)];
        report.conclude();
        assert_eq!(report.status, Status::Passed);
        report.failures.push("a stray finding".into());
        report.conclude();
        assert_eq!(report.status, Status::Failed);
        assert_eq!(RunReport::totals_of(&[report]), Totals { passed: 1, failed: 1, skipped: 0 });
    }

    #[test]
    fn only_skips_make_a_skip_and_no_test_at_all_does_not() {
        let mut report = ScenarioReport::new("s");
        report.conclude();
        assert_eq!(report.status, Status::Passed);
        report.cases = vec![case(Status::Skipped)];
        report.conclude();
        assert_eq!(report.status, Status::Skipped);
        report.cases.push(case(Status::Failed));
        report.conclude();
        assert_eq!(report.status, Status::Failed);
    }

    #[test]
    fn what_is_repeated_is_summed_up() {
        let mut repeated = Repeated { count: 1, range: Some((0x2000, 0x20ff)), bytes: 0x100 };
        repeated.add(&Repeated { count: 1, range: Some((0x1000, 0x1000)), bytes: 1 });
        repeated.add(&Repeated { count: 1, range: None, bytes: 0 });
        assert_eq!(repeated.to_string(), "3 times in all, 0x1000..=0x20ff, 257 bytes");
        let finding = FindingReport { text: "#1 bad".into(), ..FindingReport::default() };
        assert_eq!(finding.to_string(), "#1 bad");
        let finding = FindingReport { repeated: Some(repeated), note: true, ..finding };
        assert!(finding.to_string().starts_with("#1 bad; 3 times in all, 0x1000"));
        assert_eq!((finding.kind(), finding.is_mistake()), ("note", false));
        let text = serde_json::to_string(&finding).unwrap();
        assert_eq!(serde_json::from_str::<FindingReport>(&text).unwrap(), finding);
    }

    #[test]
    fn the_json_form_is_read_back() {
        let mut scenario = ScenarioReport::new("s");
        scenario.cases = vec![case(Status::Skipped)];
        let report = RunReport {
            version: RunReport::VERSION,
            totals: Totals { passed: 1, failed: 2, skipped: 3 },
            host: "kvm".into(),
            host_reason: "it works".into(),
            jitter: None,
            kernel: "lab".into(),
            milliseconds: 5,
            shard: Some(Shard { index: 1, of: 2 }),
            unused_suppressions: Vec::new(),
            split: vec!["s".into(), "t".into()],
            scenarios: vec![scenario],
        };
        let text = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&text).unwrap(), report);
        assert_eq!(report.totals.to_string(), "1 passed, 2 failed, 3 skipped");
    }
}
