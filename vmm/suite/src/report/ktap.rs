//! KTAP, version 1: the kernel's test report format (Documentation/dev-tools/ktap.rst).
//!
//! Reading takes one line at a time, because the guest sends them so. Writing puts every scenario into a subtest.

use std::fmt;
use std::io::{self, Write};

use super::model::{CaseReport, FindingReport, ScenarioReport, Status};

/// Deepest nesting that is distinguished; a guest can send any number of blanks.
const MAX_DEPTH: usize = 8;

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// `KTAP version N`, or TAP's own.
    Version,
    /// `1..N`: N results follow.
    Plan(usize),
    /// `ok` or `not ok`.
    Result(TestResult),
    /// `# Subtest: NAME`.
    Subtest(String),
    /// `# ...`.
    Diagnostic(String),
    /// `Bail out!`, with the reason.
    BailOut(String),
    /// Anything else: the format says that it is to be ignored.
    Other(String),
}

/// A result line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestResult {
    /// Its number, if it has one.
    pub number: Option<usize>,
    /// The test's name; empty if it has none.
    pub name: String,
    /// How the guest says it ended. KTAP's directives for tests that are skipped or not expected to pass yet count as
    /// skipped, `TIMEOUT` and `ERROR` as failed.
    pub status: Status,
    /// What follows the directive, or the `#` if there is none.
    pub detail: String,
}

/// Takes one line apart; gives its depth of nesting too.
pub fn parse(line: &str) -> (usize, Line) {
    let text = line.trim_start_matches(' ');
    let depth = ((line.len() - text.len()) / 2).min(MAX_DEPTH);
    (depth, parse_text(text.trim_end()))
}

fn parse_text(text: &str) -> Line {
    if let Some(rest) = text.strip_prefix("not ok") {
        return result(rest, false).unwrap_or_else(|| Line::Other(text.into()));
    }
    if let Some(rest) = text.strip_prefix("ok") {
        return result(rest, true).unwrap_or_else(|| Line::Other(text.into()));
    }
    if let Some(rest) = text.strip_prefix('#') {
        let rest = rest.trim_start();
        return match rest.strip_prefix("Subtest:") {
            Some(name) => Line::Subtest(name.trim().into()),
            None => Line::Diagnostic(rest.into()),
        };
    }
    if let Some(count) = text.strip_prefix("1..") {
        // `1..N # SKIP reason` is TAP's way to skip everything.
        let digits = count.split([' ', '#']).next().unwrap_or_default();
        return digits.parse().map_or_else(|_| Line::Other(text.into()), Line::Plan);
    }
    if text.starts_with("KTAP version ") || text.starts_with("TAP version ") {
        return Line::Version;
    }
    match text.strip_prefix("Bail out!") {
        Some(reason) => Line::BailOut(reason.trim().into()),
        None => Line::Other(text.into()),
    }
}

/// What follows `ok` or `not ok`; `None` if the line is not a result after all, as in `okay`.
fn result(rest: &str, ok: bool) -> Option<Line> {
    if !rest.is_empty() && !rest.starts_with(' ') {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (word, after) = rest.split_at(digits);
    let (number, rest) = match word.parse() {
        Ok(number) if after.is_empty() || after.starts_with(' ') => {
            (Some(number), after.trim_start())
        }
        _ => (None, rest),
    };
    let (name, comment) = match rest.strip_prefix('#') {
        Some(comment) => ("", comment),
        None => rest.split_once(" #").unwrap_or((rest, "")),
    };
    let name = name.strip_prefix("- ").unwrap_or(name).trim();
    let comment = comment.trim();
    let (word, after) = comment.split_once(' ').unwrap_or((comment, ""));
    let plain = if ok { Status::Passed } else { Status::Failed };
    let (status, detail) = match word.to_ascii_uppercase().trim_end_matches(':') {
        // A test that failed is not made harmless by a directive that is meant for one that did not run.
        "SKIP" => (if ok { Status::Skipped } else { Status::Failed }, after.trim()),
        "TODO" => (Status::Skipped, after.trim()),
        "TIMEOUT" | "ERROR" => (Status::Failed, comment),
        _ => (plain, comment),
    };
    Some(Line::Result(TestResult { number, name: name.into(), status, detail: detail.into() }))
}

impl fmt::Display for TestResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.status == Status::Failed { "not ok" } else { "ok" })?;
        if let Some(number) = self.number {
            write!(f, " {number}")?;
        }
        if !self.name.is_empty() {
            write!(f, " {}", plain(&self.name))?;
        }
        match (self.status, self.detail.is_empty()) {
            (Status::Skipped, _) => write!(f, " # SKIP {}", plain(&self.detail)),
            (_, true) => Ok(()),
            (_, false) => write!(f, " # {}", plain(&self.detail)),
        }
    }
}

/// Text from a guest, fit for a terminal and for a place within one line: no control characters.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned()
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version => f.write_str("KTAP version 1"),
            Self::Plan(count) => write!(f, "1..{count}"),
            Self::Result(result) => result.fmt(f),
            Self::Subtest(name) => write!(f, "# Subtest: {name}"),
            Self::Diagnostic(text) => write!(f, "# {text}"),
            Self::BailOut(reason) => write!(f, "Bail out! {reason}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

/// Writes the report of a run as KTAP, while the run is going on.
#[derive(Debug)]
pub struct Printer<W> {
    out: W,
    /// Scenarios finished so far.
    scenarios: usize,
    /// Results printed of the scenario that is running.
    results: usize,
    /// Its findings are printed as they happen: no result repeats them.
    live: bool,
}

impl<W: Write> Printer<W> {
    /// Prints the head of a report over `scenarios` scenarios.
    ///
    /// # Errors
    /// As writing to `out` has them, here and below.
    pub fn new(mut out: W, scenarios: usize) -> io::Result<Self> {
        writeln!(out, "KTAP version 1\n1..{scenarios}")?;
        out.flush()?;
        Ok(Self { out, scenarios: 0, results: 0, live: false })
    }

    /// A scenario begins to report.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn begin(&mut self, name: &str) -> io::Result<()> {
        self.results = 0;
        self.live = false;
        writeln!(self.out, "  KTAP version 1\n  # Subtest: {}", plain(name))?;
        self.out.flush()
    }

    /// The scenario says how many results it will have.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn plan(&mut self, count: usize) -> io::Result<()> {
        writeln!(self.out, "  1..{count}")?;
        self.out.flush()
    }

    /// A test ended: what the checker found that it did not expect goes before its result, as the format wants it,
    /// unless it was printed when it happened.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn case(&mut self, case: &CaseReport) -> io::Result<()> {
        self.results = self.results.saturating_add(1);
        for expectation in &case.expectations {
            writeln!(self.out, "  # {}", plain(expectation))?;
        }
        // What a user or a guest expected is shown all the same: nothing can be hidden that way.
        let shown = |finding: &&FindingReport| {
            finding.note || !finding.expected || !case.expectations.is_empty()
        };
        for finding in case.findings.iter().filter(shown).filter(|_| !self.live) {
            writeln!(self.out, "  # {}: {}", finding.kind(), plain(&finding.to_string()))?;
        }
        let passed = case.status == Status::Passed;
        if passed && !case.detail.is_empty() {
            writeln!(self.out, "  # {}", plain(&case.detail))?;
        }
        let detail = if passed { String::new() } else { case.detail.clone() };
        let line = TestResult {
            number: Some(self.results),
            name: case.name.clone(),
            status: case.status,
            detail,
        };
        writeln!(self.out, "  {line}")?;
        self.out.flush()
    }

    /// Something to be read by people only.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn diagnostic(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "  # {}", plain(text))?;
        self.out.flush()
    }

    /// The checker found something just now.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn finding(&mut self, text: &str, note: bool, suppressed: Option<&str>) -> io::Result<()> {
        self.live = true;
        let kind = if note { "note" } else { "finding" };
        match suppressed {
            None => self.diagnostic(&format!("{kind}: {text}")),
            Some(reason) => self.diagnostic(&format!("suppressed {kind}: {text}; {reason}")),
        }
    }

    /// The scenario is over.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn end(&mut self, report: &ScenarioReport) -> io::Result<()> {
        self.scenarios = self.scenarios.saturating_add(1);
        for finding in report.stray_findings.iter().filter(|_| !self.live) {
            let kind = if finding.note { "note" } else { "finding" };
            let suppressed = if finding.suppressed.is_some() { "suppressed " } else { "" };
            let text = finding.to_string();
            writeln!(self.out, "  # {suppressed}{kind} outside of any test: {}", plain(&text))?;
        }
        for failure in &report.failures {
            writeln!(self.out, "  # {}", plain(failure))?;
        }
        for line in &report.console_tail {
            writeln!(self.out, "  # console: {}", plain(line))?;
        }
        let line = TestResult {
            number: Some(self.scenarios),
            name: report.name.clone(),
            status: report.status,
            detail: String::new(),
        };
        writeln!(self.out, "{line}")?;
        self.out.flush()
    }

    /// The closing line, alone on its line.
    ///
    /// # Errors
    /// See [`Printer::new`].
    pub fn close(&mut self, totals: impl fmt::Display) -> io::Result<()> {
        writeln!(self.out, "{totals}")?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{Repeated, Totals};

    fn result(line: &str) -> TestResult {
        match parse(line).1 {
            Line::Result(result) => result,
            other => panic!("{line:?} is {other:?}"),
        }
    }

    #[test]
    fn results_in_all_their_forms() {
        let cases = [
            ("ok 1 copy.small", Some(1), "copy.small", Status::Passed, ""),
            ("ok", None, "", Status::Passed, ""),
            ("not ok", None, "", Status::Failed, ""),
            ("ok 12", Some(12), "", Status::Passed, ""),
            ("ok 3 - dash and words", Some(3), "dash and words", Status::Passed, ""),
            ("ok 4 name # SKIP needs CONFIG_X", Some(4), "name", Status::Skipped, "needs CONFIG_X"),
            ("ok 4 name # skip", Some(4), "name", Status::Skipped, ""),
            ("not ok 4 name # SKIP trick", Some(4), "name", Status::Failed, "trick"),
            ("not ok 5 name # TODO later", Some(5), "name", Status::Skipped, "later"),
            ("ok 6 name # TIMEOUT 10 s", Some(6), "name", Status::Failed, "TIMEOUT 10 s"),
            ("not ok 7 name # wrong byte", Some(7), "name", Status::Failed, "wrong byte"),
            ("ok # SKIP all", None, "", Status::Skipped, "all"),
            ("ok 2nd try", None, "2nd try", Status::Passed, ""),
            ("ok 99999999999999999999999 x", None, "99999999999999999999999 x", Status::Passed, ""),
        ];
        for (line, number, name, status, detail) in cases {
            let expected = TestResult { number, name: name.into(), status, detail: detail.into() };
            assert_eq!(result(line), expected, "{line}");
        }
    }

    #[test]
    fn lines_that_are_no_results() {
        assert_eq!(parse("okay then").1, Line::Other("okay then".into()));
        assert_eq!(parse("1..7").1, Line::Plan(7));
        assert_eq!(parse("1..0 # SKIP nothing here").1, Line::Plan(0));
        assert_eq!(parse("1..x").1, Line::Other("1..x".into()));
        assert_eq!(parse("KTAP version 1").1, Line::Version);
        assert_eq!(parse("TAP version 13").1, Line::Version);
        assert_eq!(parse("  # Subtest: inner"), (1, Line::Subtest("inner".into())));
        assert_eq!(parse("# free text").1, Line::Diagnostic("free text".into()));
        assert_eq!(parse("Bail out! no device").1, Line::BailOut("no device".into()));
        assert_eq!(parse(&" ".repeat(10_000)), (MAX_DEPTH, Line::Other(String::new())));
    }

    #[test]
    fn what_is_written_is_read_back() {
        for line in [
            "ok 1 a",
            "not ok 2 b # why",
            "ok 3 c # SKIP no KVM",
            "1..4",
            "# Subtest: x",
            "Bail out! y",
        ] {
            assert_eq!(parse(line).1.to_string(), line);
        }
    }

    #[test]
    fn a_guest_cannot_forge_lines() {
        let case = CaseReport {
            expectations: Vec::new(),
            name: "a\nok 2 b".into(),
            status: Status::Failed,
            detail: "x\r\nok 3 \u{1b}[2J".into(),
            milliseconds: 0,
            findings: Vec::new(),
        };
        let mut text = Vec::new();
        let mut printer = Printer::new(&mut text, 1).unwrap();
        printer.case(&case).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert_eq!(text.lines().last(), Some("  not ok 1 a ok 2 b # x  ok 3  [2J"));
    }

    fn finding(text: &str, expected: bool, note: bool) -> FindingReport {
        FindingReport { text: text.into(), expected, note, ..FindingReport::default() }
    }

    #[test]
    fn a_whole_report() {
        let mut text = Vec::new();
        let mut printer = Printer::new(&mut text, 1).unwrap();
        printer.begin("basic").unwrap();
        printer.plan(2).unwrap();
        let mut case = CaseReport {
            expectations: Vec::new(),
            name: "copy".into(),
            status: Status::Passed,
            detail: "1 MiB".into(),
            milliseconds: 3,
            findings: Vec::new(),
        };
        printer.case(&case).unwrap();
        case.name = "stale".into();
        case.status = Status::Failed;
        case.detail = "1 unexpected finding".into();
        case.findings = vec![
            finding("expected", true, false),
            FindingReport {
                repeated: Some(Repeated { count: 2, range: None, bytes: 0 }),
                ..finding("#1 bad", false, false)
            },
            finding("#2 left over", false, true),
        ];
        printer.case(&case).unwrap();
        let mut report = ScenarioReport::new("basic");
        report.cases = vec![case];
        report.conclude();
        printer.end(&report).unwrap();
        printer.close(Totals { passed: 1, failed: 1, skipped: 0 }).unwrap();
        let expected = "KTAP version 1\n1..1\n  KTAP version 1\n  # Subtest: basic\n  1..2\n  # 1 MiB\n  ok 1 copy\n  \
                        # unexpected finding: #1 bad; 2 times in all\n  # note: #2 left over\n  not ok 2 stale # 1 unexpected finding\n\
                        not ok 1 basic\n1 passed, 1 failed, 0 skipped\n";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
