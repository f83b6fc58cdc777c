//! One test while it runs: what it expects, what was found.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use device_models::checker::{Finding, FindingClass, Severity};

use super::folds::{Fold, Folds, Keep};
use super::{CaseReport, FindingReport, Status, milliseconds, shorten};
use crate::nearest::nearest_name;

/// Most objections to one test whose text is kept.
const MAX_OBJECTIONS: usize = 8;

/// How many findings of one class a test wants.
#[derive(Debug, Clone, Copy)]
struct Wanted {
    least: u64,
    most: u64,
}

/// A test that has begun; or everything that belongs to none.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: String,
    begun: Instant,
    wanted: BTreeMap<FindingClass, Wanted>,
    /// Each single one, by class and function.
    counts: BTreeMap<(FindingClass, Arc<str>), u64>,
    /// Notes, by class.
    notes: BTreeMap<FindingClass, u64>,
    findings: Folds,
    /// What is wrong with the test itself.
    objections: Vec<String>,
}

impl Case {
    pub(super) fn new(name: &str, keep: Keep) -> Self {
        Self {
            name: name.into(),
            begun: Instant::now(),
            wanted: BTreeMap::new(),
            counts: BTreeMap::new(),
            notes: BTreeMap::new(),
            findings: Folds::new(keep),
            objections: Vec::new(),
        }
    }

    pub(super) fn list_each_finding(&mut self) {
        self.findings.keep_each();
    }

    /// Takes in a finding; its text, unless it is one more of those that are known.
    pub(super) fn finding(&mut self, finding: &Finding) -> Option<&str> {
        let count = match finding.severity {
            Severity::Finding => {
                self.counts.entry((finding.class, Arc::clone(&finding.function))).or_default()
            }
            Severity::Note => self.notes.entry(finding.class).or_default(),
        };
        *count = count.saturating_add(1);
        self.findings.take(finding)
    }

    /// What has come to its findings since that was last told.
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

    /// Takes in `CLASS [MIN [MAX]]`. Without MIN one is enough, without MAX any number is fine.
    pub(super) fn expect(&mut self, text: &str) -> Result<(), String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let class: FindingClass = name.parse().map_err(|error| {
            let near = nearest_name(name, FindingClass::ALL.iter().map(|class| class.name()));
            match near {
                Some(near) => format!("{error}; did the test mean {near}?"),
                None => format!("{error}"),
            }
        })?;
        let number = |word: &str| {
            word.parse::<u64>().map_err(|_| format!("{:?} is no number of findings", shorten(word)))
        };
        let least = words.next().map_or(Ok(1), number)?;
        let most = words.next().map_or(Ok(u64::MAX), number)?;
        if most < least || words.next().is_some() {
            return Err(format!("expect wants CLASS [MIN [MAX]], not {:?}", shorten(text)));
        }
        self.wanted.insert(class, Wanted { least, most });
        Ok(())
    }

    /// What speaks against this test, seen from outside of the guest, when that has `said` how it ended, for the guest
    /// itself: all that it has is this line, so the first finding stands in it.
    pub(super) fn objection(&self, said: Status) -> Option<String> {
        let mut unexpected = self.findings.iter().filter(|fold| self.is_unexpected(fold));
        let first = unexpected.next().map(|fold| fold.report(false));
        let others = unexpected.next().is_some();
        let unexpected = self.unexpected().map(|count| match (others, first) {
            (_, None) => count,
            (false, Some(first)) => format!("{count}: {}", first.text),
            (true, Some(first)) => format!("{count}, first: {}", first.text),
        });
        self.objection_with(said, unexpected)
    }

    fn is_unexpected(&self, fold: &Fold) -> bool {
        fold.severity == Severity::Finding && !self.wanted.contains_key(&fold.class)
    }

    /// How many findings of a class there were, folded ones each.
    fn count_of(&self, class: FindingClass) -> u64 {
        let of_class = self.counts.iter().filter(|((of, _), _)| *of == class);
        of_class.map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    /// The same with `unexpected` for the findings that nobody expected. A test that was not run to its end may lack
    /// what would have come.
    fn objection_with(&self, said: Status, unexpected: Option<String>) -> Option<String> {
        let mut reasons = self.objections.clone();
        for (class, wanted) in &self.wanted {
            let seen = self.count_of(*class);
            // Who expects a finding can have meant what is only a note.
            let noted = self.notes.get(class).copied().unwrap_or_default();
            if seen.saturating_add(noted) < wanted.least && said != Status::Skipped {
                reasons.push(format!(
                    "{class} was expected {} times or more and found {seen} times",
                    wanted.least
                ));
            } else if seen > wanted.most {
                reasons.push(format!(
                    "{class} was expected {} times at most and found {seen} times",
                    wanted.most
                ));
            }
        }
        reasons.extend(unexpected);
        (!reasons.is_empty()).then(|| reasons.join("; "))
    }

    /// How many findings nobody expected, if there are any. What they say stands in lists of their own.
    pub(super) fn unexpected(&self) -> Option<String> {
        let unexpected =
            self.counts.iter().filter(|((class, _), _)| !self.wanted.contains_key(class));
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
        let report = |fold: &Fold| fold.report(self.wanted.contains_key(&fold.class));
        self.findings.iter().map(report).collect()
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
            name: self.name,
        }
    }
}
