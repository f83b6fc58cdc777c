//! One test while it runs: what it expects, what was found.

use std::collections::BTreeMap;
use std::time::Instant;

use device_models::checker::FindingClass;
use guest_protocol::Expectation;

use super::{CaseReport, FindingReport, MAX_FINDINGS, Status, milliseconds, shorten};
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
    counts: BTreeMap<FindingClass, u64>,
    findings: Vec<(FindingClass, String)>,
    /// What is wrong with the test itself.
    objections: Vec<String>,
}

impl Case {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            begun: Instant::now(),
            wanted: BTreeMap::new(),
            counts: BTreeMap::new(),
            findings: Vec::new(),
            objections: Vec::new(),
        }
    }

    pub(super) fn finding(&mut self, class: FindingClass, text: impl FnOnce() -> String) {
        let count = self.counts.entry(class).or_default();
        *count = count.saturating_add(1);
        // A flood of one class must not hide the first of another.
        if self.findings.len() < MAX_FINDINGS || *count == 1 {
            self.findings.push((class, shorten(&text())));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Something is wrong with the test itself. The first few are kept.
    pub(super) fn object(&mut self, reason: &str) {
        match self.objections.len() {
            ..MAX_OBJECTIONS => self.objections.push(shorten(reason)),
            MAX_OBJECTIONS => self.objections.push("and more".into()),
            _ => {}
        }
    }

    /// The test wants findings.
    pub(super) fn expect(&mut self, expectation: &Expectation<'_>) -> Result<(), String> {
        let Expectation { class: name, min: least, max: most, .. } = *expectation;
        let class: FindingClass = name.parse().map_err(|error| {
            let near = nearest_name(name, FindingClass::ALL.iter().map(|class| class.name()));
            match near {
                Some(near) => format!("{error}; did the test mean {near}?"),
                None => format!("{error}"),
            }
        })?;
        self.wanted.insert(class, Wanted { least, most });
        Ok(())
    }

    /// What speaks against this test, seen from outside of the guest, when that has `said` how it ended, for the guest
    /// itself: all that it has is this line, so the first finding stands in it.
    pub(super) fn objection(&self, said: Status) -> Option<String> {
        let unexpected = |class: &FindingClass| !self.wanted.contains_key(class);
        let first = self.findings.iter().find(|(class, _)| unexpected(class));
        let unexpected = self.unexpected().map(|count| match (self.unexpected_count(), first) {
            (_, None) => count,
            (1, Some((_, first))) => format!("{count}: {first}"),
            (_, Some((_, first))) => format!("{count}, first: {first}"),
        });
        self.objection_with(said, unexpected)
    }

    /// The same with `unexpected` for the findings that nobody expected. A test that was not run to its end may lack
    /// what would have come.
    fn objection_with(&self, said: Status, unexpected: Option<String>) -> Option<String> {
        let mut reasons = self.objections.clone();
        for (class, wanted) in &self.wanted {
            let seen = self.counts.get(class).copied().unwrap_or_default();
            if seen < wanted.least && said != Status::Skipped {
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
        match self.unexpected_count() {
            0 => None,
            1 => Some("1 unexpected finding".into()),
            count => Some(format!("{count} unexpected findings")),
        }
    }

    fn unexpected_count(&self) -> u64 {
        let unexpected = self.counts.iter().filter(|(class, _)| !self.wanted.contains_key(class));
        unexpected.map(|(_, count)| *count).fold(0, u64::saturating_add)
    }

    pub(super) fn finding_reports(&self) -> Vec<FindingReport> {
        let report = |(class, text): &(FindingClass, String)| FindingReport {
            class: class.name().into(),
            text: text.clone(),
            expected: self.wanted.contains_key(class),
        };
        self.findings.iter().map(report).collect()
    }

    /// The report, if the guest `said` so; objections overrule it.
    pub(super) fn conclude(self, said: Status, detail: &str) -> CaseReport {
        let objection = self.objection_with(said, self.unexpected());
        let status = if objection.is_some() { Status::Failed } else { said };
        let parts = [Some(detail.to_owned()).filter(|detail| !detail.is_empty()), objection];
        let mut detail = parts.into_iter().flatten().collect::<Vec<_>>().join("; ");
        let total: u64 = self.counts.values().sum();
        if total > self.findings.len() as u64 {
            detail.push_str(&format!(" ({} of {total} findings are listed)", self.findings.len()));
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
