//! What the kernel's test programs and KUnit report: TAP and KTAP, taken apart and summed up.

use super::known::Known;
use crate::cases::{Stop, Verdict};
use std::fmt;

/// How a test of another project's ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum TestEnd {
    Passed,
    Failed,
    /// Not run, with the reason.
    Skipped(String),
}

/// The results on one level of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tap {
    /// How many results were announced.
    planned: Option<usize>,
    /// Names, and how they ended.
    results: Vec<(String, TestEnd)>,
}

/// The figures of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    passed: usize,
    failed: usize,
    pub(crate) known: usize,
    skipped: usize,
}

impl Figures {
    fn total(self) -> usize {
        self.passed + self.failed + self.known + self.skipped
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { passed, failed, known, skipped } = self;
        write!(f, "{passed} of {} passed", self.total())?;
        for (count, what) in
            [(failed, "failed"), (known, "failed as is known"), (skipped, "skipped")]
        {
            if *count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

/// What a report comes to.
#[derive(Debug)]
pub(super) struct Judged {
    /// The figures.
    pub(super) figures: Figures,
    /// What is worth a line: why tests were skipped, known failures that pass.
    pub(super) remarks: Vec<String>,
    /// Whether it is good enough.
    pub(super) verdict: Verdict,
}

impl Tap {
    /// The results that stand `indent` blanks deep in `text`.
    pub(super) fn parse(text: &str, indent: usize) -> Self {
        let mut tap = Self::default();
        for line in text.lines() {
            let Some(line) = at(line, indent) else { continue };
            if let Some(count) = line.strip_prefix("1..") {
                let digits = count.split(' ').next().unwrap_or_default();
                tap.planned = digits.parse().ok().or(tap.planned);
            } else if let Some(rest) = line.strip_prefix("not ok ") {
                tap.results.push((split(rest).0, TestEnd::Failed));
            } else if let Some(rest) = line.strip_prefix("ok ") {
                let (name, comment) = split(rest);
                let skipped = comment
                    .get(..4)
                    .is_some_and(|directive| directive.eq_ignore_ascii_case("skip"));
                let outcome = if skipped {
                    TestEnd::Skipped(comment[4..].trim().to_owned())
                } else {
                    TestEnd::Passed
                };
                tap.results.push((name, outcome));
            }
        }
        tap
    }

    /// Sums up the report of `program`, with what is known to fail in it.
    pub(super) fn judge(&self, program: &str, known: &Known) -> Judged {
        let mut figures = Figures::default();
        // What asks for a change of the list comes first: the host cuts what is too long.
        let (mut news, mut remarks, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for (name, outcome) in &self.results {
            let expected = known.reason(program, name);
            match (outcome, expected) {
                (TestEnd::Passed, None) => figures.passed += 1,
                (TestEnd::Passed, Some(reason)) => {
                    figures.passed += 1;
                    news.push(format!(
                        "{name} passes although vmm/suite/known-failures.toml has it ({reason}): take it off the list"
                    ));
                }
                (TestEnd::Skipped(reason), _) => {
                    figures.skipped += 1;
                    remarks.push(format!("{name} skipped: {reason}"));
                }
                (TestEnd::Failed, Some(reason)) => {
                    figures.known += 1;
                    remarks.push(format!("{name} fails as is known: {reason}"));
                }
                (TestEnd::Failed, None) => {
                    figures.failed += 1;
                    reasons.push(format!("{name} failed"));
                }
            }
        }
        for test in known.tests(program) {
            if !self.results.iter().any(|(name, _)| name == test) {
                news.push(format!(
                    "{test} stands in vmm/suite/known-failures.toml, and no such test was reported"
                ));
            }
        }
        match self.planned {
            Some(planned) if planned != self.results.len() => {
                reasons.push(format!("{planned} tests announced, {} reported", self.results.len()));
            }
            _ if self.results.is_empty() => reasons.push("no test reported".to_owned()),
            _ => {}
        }
        let least = known.least(program);
        if figures.passed < least {
            reasons.push(format!(
                "{least} tests of {program} pass on such a kernel, says vmm/suite/known-failures.toml; here {} did",
                figures.passed
            ));
        }
        let remarks = [news, remarks].concat();
        let verdict = if !reasons.is_empty() {
            Err(Stop::Fail(format!("{figures}: {}", reasons.join("\n"))))
        } else if figures.skipped == figures.total() {
            Err(Stop::Skip(format!("{figures}: {}", remarks.join("; "))))
        } else {
            Ok(())
        };
        Judged { figures, remarks, verdict }
    }
}

/// The lines that sum a report up, wherever they stand: totals, and what failed.
pub(super) fn summary_lines(text: &str) -> impl Iterator<Item = &str> {
    let sums_up = |line: &&str| {
        let plain = line.trim_start();
        plain.starts_with("not ok")
            || plain.starts_with("Bail out!")
            || plain.starts_with("# Totals:")
            || plain.starts_with("# PASSED:")
            || plain.starts_with("# FAILED:")
            || plain.starts_with("1..")
            // KUnit: `# dma-buf-fence: pass:12 fail:0 skip:0 total:12`.
            || (plain.starts_with('#') && plain.contains(" pass:") && plain.contains(" fail:"))
    };
    text.lines().filter(sums_up)
}

/// What follows exactly n blanks.
fn at(line: &str, indent: usize) -> Option<&str> {
    let rest = line.get(indent..)?;
    let blank = line.bytes().take(indent).all(|byte| byte == b' ');
    (blank && !rest.starts_with(' ')).then_some(rest)
}

/// Takes `NUMBER NAME # COMMENT` apart.
fn split(rest: &str) -> (String, &str) {
    let (name, comment) = match rest.find(" # ") {
        Some(place) => (&rest[..place], rest[place + 3..].trim()),
        None => (rest, ""),
    };
    let name = name.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    (name.strip_prefix("- ").unwrap_or(name).trim().to_owned(), comment)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = "\
TAP version 13
1..4
# Starting 4 tests from 2 test cases.
#  RUN           a.one ...
#            OK  a.one
ok 1 a.one
not ok 2 a.two
ok 3 a.three # SKIP no such thing
not ok 4 b.four
# FAILED: 1 / 4 tests passed.
# Totals: pass:1 fail:2 xfail:0 xpass:0 skip:1 error:0
";

    fn known(tests: &[&str]) -> Known {
        Known::new(tests.iter().map(|test| ("p", *test, "a bug upstream")))
    }

    #[test]
    fn a_failure_fails_unless_it_is_known() {
        let tap = Tap::parse(REPORT, 0);
        let judged = tap.judge("p", &known(&["a.two"]));
        assert_eq!(
            judged.figures.to_string(),
            "1 of 4 passed, 1 failed, 1 failed as is known, 1 skipped"
        );
        let Err(Stop::Fail(reason)) = judged.verdict else { panic!("{judged:?}") };
        assert!(reason.ends_with("b.four failed"), "{reason}");
        assert_eq!(tap.judge("p", &known(&["a.two", "b.four"])).verdict, Ok(()));
        // What is known of one program says nothing of another.
        assert!(tap.judge("q", &known(&["a.two", "b.four"])).verdict.is_err());
    }

    #[test]
    fn a_known_failure_that_passes_is_reported() {
        let judged = Tap::parse("1..1\nok 1 a.one\n", 0).judge("p", &known(&["a.one"]));
        assert_eq!(judged.verdict, Ok(()));
        assert!(judged.remarks[0].contains("take it off the list"), "{judged:?}");
        // Renamed, or gone.
        let two = "1..2\nnot ok 1 a.two\nok 2 a.one\n";
        let judged = Tap::parse(two, 0).judge("p", &known(&["a.two", "a.1"]));
        assert_eq!(judged.verdict, Ok(()));
        assert!(judged.remarks[0].contains("a.1 stands in"), "{judged:?}");
        assert_eq!(judged.remarks.len(), 2);
    }

    #[test]
    fn a_report_that_stops_early_does_not_pass() {
        let none = known(&[]);
        for text in ["1..2\nok 1 a\n", "1..2\n", "", "killed\n", "1..1\nok 1 a\nok 2 b\n"] {
            let verdict = Tap::parse(text, 0).judge("p", &none).verdict;
            assert!(matches!(verdict, Err(Stop::Fail(_))), "{text:?}: {verdict:?}");
        }
    }

    #[test]
    fn what_was_only_skipped_is_skipped() {
        let all_skipped = Tap::parse("1..1\nok 1 a # SKIP no device\n", 0);
        assert!(matches!(
            all_skipped.judge("p", &known(&[]).with_least("p", 1)).verdict,
            Err(Stop::Fail(_))
        ));
        let judged = all_skipped.judge("p", &known(&[]));
        assert!(matches!(judged.verdict, Err(Stop::Skip(_))), "{judged:?}");
    }

    #[test]
    fn one_level_of_a_nested_report() {
        let text = "KTAP version 1\n1..1\n    KTAP version 1\n    # Subtest: s\n    1..2\n        1..1\n        \
                    not ok 1 deep\n    ok 1 t\n    ok 2 u\n# s: pass:2 fail:0 skip:0 total:2\nok 1 s\n";
        let judged = Tap::parse(text, 4).judge("s", &known(&[]));
        assert_eq!(
            (judged.figures.to_string().as_str(), judged.verdict),
            ("2 of 2 passed", Ok(()))
        );
        assert_eq!(summary_lines(text).count(), 5);
    }
}
