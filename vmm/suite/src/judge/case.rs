//! One test while it runs: what it expects, what was found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use device_models::checker::{Finding, FindingClass, Severity};

use super::folds::{Fold, Folds, Keep};
use super::{CaseReport, FindingReport, Status, milliseconds, shorten};
use crate::expectation::Expectation;
use crate::found::Found;
use crate::report::Suppressed;
use crate::suppression::{Suppression, Suppressions};

/// Most objections to one test whose text is kept.
const MAX_OBJECTIONS: usize = 8;

/// Most expectations of one test.
const MAX_EXPECTATIONS: usize = 256;

/// Where the expectation of a finding comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A test of the lab's own.
    Test,
    /// The command line, or a scenario file.
    Outside,
    /// The guest, while its command ran.
    Guest,
}

/// A test that has begun; or everything that belongs to none.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    begun: Instant,
    wanted: Vec<(Expectation, Origin)>,
    /// Each single one, by class and function.
    counts: BTreeMap<(FindingClass, Arc<str>), u64>,
    /// Notes, likewise.
    notes: BTreeMap<(FindingClass, Arc<str>), u64>,
    findings: Folds,
    /// Findings of other tests that count for what this one demands.
    elsewhere: BTreeMap<(FindingClass, Arc<str>), u64>,
    lists_own: bool,
    told_full: bool,
    /// What is wrong with the test itself.
    objections: Vec<String>,
    suppressions: Arc<Suppressions>,
    /// Whether it stands for what happens outside of all tests.
    outside: bool,
}

impl Case {
    pub(super) fn new(name: &str, keep: Keep, suppressions: Arc<Suppressions>) -> Self {
        Self {
            name: name.into(),
            begun: Instant::now(),
            wanted: Vec::new(),
            counts: BTreeMap::new(),
            notes: BTreeMap::new(),
            findings: Folds::new(keep),
            elsewhere: BTreeMap::new(),
            lists_own: false,
            told_full: false,
            objections: Vec::new(),
            suppressions,
            outside: false,
        }
    }

    /// What happens outside of all tests.
    pub(super) fn outside(keep: Keep, suppressions: Arc<Suppressions>) -> Self {
        Self { outside: true, ..Self::new("", keep, suppressions) }
    }

    /// Findings that do not count, from here on.
    pub(super) fn suppress(&mut self, suppressions: Arc<Suppressions>) {
        self.suppressions = suppressions;
    }

    /// The name; none outside of all tests.
    pub(super) fn test(&self) -> Option<&str> {
        (!self.outside).then_some(self.name.as_str())
    }

    pub(super) fn list_each_finding(&mut self) {
        self.findings.keep_each();
    }

    /// Takes in a finding; what is kept of it, unless it is one more of those that are known.
    pub(super) fn finding(&mut self, finding: &Finding) -> Option<&mut Fold> {
        let counts = match finding.severity {
            Severity::Finding => &mut self.counts,
            Severity::Note => &mut self.notes,
        };
        let count = counts.entry((finding.class, Arc::clone(&finding.function))).or_default();
        *count = count.saturating_add(1);
        self.findings.take(finding)
    }

    /// Whether the finding that was just taken in is the first for which there was no room.
    pub(super) fn is_first_dropped(&mut self) -> bool {
        self.findings.dropped > 0 && !std::mem::replace(&mut self.told_full, true)
    }

    /// What has come to its findings since that was last reported to programs.
    pub(super) fn grown(&mut self) -> Vec<Found> {
        let grown = self.findings.grown();
        grown
            .into_iter()
            .map(|(class, function, found)| self.judged(class, &function, found))
            .collect()
    }

    /// `found` with what this test thinks of it.
    pub(super) fn judged(&self, class: FindingClass, function: &str, found: Found) -> Found {
        Found {
            test: self.test().map(str::to_owned),
            expected: self.is_wanted(class, function),
            suppressed: self.suppressed(class, function).map(|suppressed| suppressed.reason),
            ..found
        }
    }

    /// Why findings of this class about this function do not count, if that is so. What a test expects does count.
    pub(super) fn suppressed(&self, class: FindingClass, function: &str) -> Option<Suppressed> {
        if self.is_wanted(class, function) {
            return None;
        }
        let Suppression { reason, place, .. } =
            self.suppressions.find(class, function, self.test())?;
        Some(Suppressed { reason: reason.clone(), place: place.clone() })
    }

    /// What has come to its findings since that was last reported.
    pub(super) fn sums(&mut self) -> Vec<(Severity, String)> {
        self.findings.sums()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.findings.len() == 0
    }

    /// Something is wrong with the test itself. The first few are kept.
    pub(super) fn object(&mut self, reason: &str) {
        match self.objections.len() {
            ..MAX_OBJECTIONS => self.objections.push(shorten(reason)),
            MAX_OBJECTIONS => self.objections.push("and more".into()),
            _ => {}
        }
    }

    /// Whether one more expectation may come, or takes the place of another.
    pub(super) fn has_room(&self, expectation: &Expectation, origin: Origin) -> bool {
        self.wanted.len() < MAX_EXPECTATIONS || self.place_of(expectation, origin).is_some()
    }

    /// The test wants or allows findings. What the same one says later about the same findings replaces what it said
    /// first; what others say stays, so that a guest cannot take back what the user demands.
    pub(super) fn expect(&mut self, expectation: Expectation, origin: Origin) {
        match self.place_of(&expectation, origin) {
            Some(place) => self.wanted[place] = (expectation, origin),
            None => self.wanted.push((expectation, origin)),
        }
    }

    fn place_of(&self, expectation: &Expectation, origin: Origin) -> Option<usize> {
        let same = |(known, by): &(Expectation, Origin)| {
            (known.class, &known.function, *by)
                == (expectation.class, &expectation.function, origin)
        };
        self.wanted.iter().position(same)
    }

    /// Lists what the test itself expects in the report, too: it is a guest's of which nothing is known.
    pub(super) fn list_own_expectations(&mut self) {
        self.lists_own = true;
    }

    /// Findings of other tests that count for what this one demands.
    pub(super) fn count_also(&mut self, other: &Self) {
        for (key, count) in &other.counts {
            let sum = self.elsewhere.entry(key.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
    }

    /// What speaks against this test, seen from outside of the guest, when that has `said` how it ended, for the guest
    /// itself: all that it has is this line, so the first finding stands in it.
    pub(super) fn objection(&self, said: Status) -> Option<String> {
        let mut unexpected = self.findings.iter().filter(|fold| self.is_unexpected(fold));
        let first = unexpected.next().map(|fold| fold.report(false, None));
        let others = unexpected.next().is_some();
        let unexpected = self.unexpected().map(|count| match (others, first) {
            (_, None) => count,
            (false, Some(first)) => format!("{count}: {}", first.text),
            (true, Some(first)) => format!("{count}, first: {}", first.text),
        });
        self.objection_with(said, unexpected)
    }

    fn is_unexpected(&self, fold: &Fold) -> bool {
        fold.severity == Severity::Finding && self.is_mistake(fold.class, &fold.function)
    }

    /// Whether findings of this class about this function are neither expected nor suppressed.
    pub(super) fn is_mistake(&self, class: FindingClass, function: &str) -> bool {
        !self.is_wanted(class, function) && self.suppressed(class, function).is_none()
    }

    fn is_wanted(&self, class: FindingClass, function: &str) -> bool {
        self.wanted.iter().any(|(expectation, _)| expectation.covers(class, function))
    }

    /// The same with `unexpected` for the findings that were not expected. A test that was not run
    /// to its end may lack what would have come.
    fn objection_with(&self, said: Status, unexpected: Option<String>) -> Option<String> {
        let mut reasons = self.objections.clone();
        for (wanted, origin) in &self.wanted {
            let count = |counts: &BTreeMap<(FindingClass, Arc<str>), u64>| {
                let covered = counts.iter().filter(|((class, of), _)| wanted.covers(*class, of));
                covered.map(|(_, count)| *count).fold(0, u64::saturating_add)
            };
            // A user who expects a finding may mean what is only a note. The lab's own tests know the difference.
            let noted = if *origin == Origin::Test { 0 } else { count(&self.notes) };
            let seen = count(&self.counts).saturating_add(count(&self.elsewhere));
            let Expectation { least, most, .. } = *wanted;
            let what = wanted.what();
            if seen.saturating_add(noted) < least && said != Status::Skipped {
                let (least, seen) = (at_least(least), times(seen));
                reasons.push(format!("{what} was expected {least} and found {seen}"));
            } else if seen > most {
                let seen = times(seen);
                reasons.push(format!("{what} was expected {most} times at most and found {seen}"));
            }
        }
        reasons.extend(unexpected);
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// How many findings were not expected, if there are any. What they say stands in lists of
    /// their own.
    pub(super) fn unexpected(&self) -> Option<String> {
        let unexpected =
            self.counts.iter().filter(|((class, function), _)| self.is_mistake(*class, function));
        let all = unexpected.map(|(_, count)| *count).fold(0, u64::saturating_add);
        let causes = self.findings.iter().filter(|fold| self.is_unexpected(fold)).count() as u64;
        match (causes, all) {
            (_, 0) => None,
            (_, 1) => Some("1 unexpected finding".into()),
            (1, all) => Some(format!("1 unexpected finding, {all} times")),
            (causes, all) if causes == all => Some(format!("{all} unexpected findings")),
            (causes, all) => Some(format!("{causes} unexpected findings, {all} times in all")),
        }
    }

    pub(super) fn finding_reports(&self) -> Vec<FindingReport> {
        let report = |fold: &Fold| {
            let Fold { class, function, .. } = fold;
            fold.report(self.is_wanted(*class, function), self.suppressed(*class, function))
        };
        self.findings.iter().map(report).collect()
    }

    /// What was expected or allowed from outside of the lab's own tests, for the report.
    fn expectations_told(&self) -> Vec<String> {
        let lines = self.wanted.iter().filter_map(|(expectation, origin)| {
            let verb = if expectation.least == 0 { "allowed" } else { "expected" };
            match origin {
                Origin::Test if !self.lists_own => None,
                Origin::Outside => Some(format!("{verb}: {}", expectation.what())),
                Origin::Test | Origin::Guest => {
                    Some(format!("{verb} from inside the guest: {}", expectation.what()))
                }
            }
        });
        lines.collect()
    }

    /// The report, if the guest `said` so; objections overrule it.
    pub(super) fn conclude(self, said: Status, detail: &str) -> CaseReport {
        let objection = self.objection_with(said, self.unexpected());
        let status = if objection.is_some() { Status::Failed } else { said };
        let parts = [Some(detail.to_owned()).filter(|detail| !detail.is_empty()), objection];
        let mut detail = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let dropped = self.findings.dropped;
        if dropped > 0 {
            let all = self.counts.values().copied().fold(0, u64::saturating_add);
            let listed = all.saturating_sub(dropped);
            detail.push_str(&format!(" ({listed} of {all} findings are listed)"));
        }
        CaseReport {
            status,
            detail: detail.trim().to_owned(),
            milliseconds: milliseconds(self.begun),
            findings: self.finding_reports(),
            expectations: self.expectations_told(),
            name: self.name,
        }
    }
}

fn times(count: u64) -> String {
    match count {
        0 => "never".into(),
        1 => "once".into(),
        count => format!("{count} times"),
    }
}

fn at_least(count: u64) -> String {
    match count {
        1 => "at least once".into(),
        count => format!("at least {count} times"),
    }
}
