//! Findings that come from the same mistake, as one: the first with its sentence, the others as a
//! count.
//!
//! They are folded before they are kept, so that a flood of one does not push out another.

use std::sync::Arc;

use device_models::checker::{Cause, Finding, FindingClass, Severity};

use device_models::fabric::Kind;

use super::{MAX_FINDINGS, shorten};
use crate::found::Found;
use crate::report::{FindingReport, Repeated, Suppressed};

/// Most findings that are kept where each is wanted on its own.
const MAX_EACH: usize = 10_000;

/// How findings are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    /// Those with the same cause as one, [`MAX_FINDINGS`] causes.
    Folded,
    /// Each finding, n of them.
    Each(usize),
}

impl Keep {
    pub(super) const EACH: Self = Self::Each(MAX_EACH);

    /// What is left of it after `kept` have been kept.
    pub(super) fn after(self, kept: usize) -> Self {
        match self {
            Self::Folded => Self::Folded,
            Self::Each(most) => Self::Each(most.saturating_sub(kept)),
        }
    }

    fn most(self) -> usize {
        match self {
            Self::Folded => MAX_FINDINGS,
            Self::Each(most) => most.max(1),
        }
    }
}

/// The findings of one function and class with the same cause.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) function: Arc<str>,
    pub(super) class: FindingClass,
    pub(super) severity: Severity,
    cause: Cause,
    /// The first, whole.
    pub(super) text: String,
    /// The first without what it says.
    head: String,
    repeated: Repeated,
    /// How many there were when that was last reported.
    reported: u64,
    /// The first, for programs.
    pub(super) found: Found,
    /// How many there were when that was last reported to programs.
    sent: u64,
}

impl Fold {
    fn new(finding: &Finding) -> Self {
        let text = finding.to_string();
        let end = text.len().saturating_sub(finding.explanation.len() + ": ".len());
        Self {
            function: Arc::clone(&finding.function),
            class: finding.class,
            severity: finding.severity,
            cause: finding.cause,
            head: shorten(text.get(..end).unwrap_or_default()),
            text: shorten(&text),
            repeated: repeated(finding),
            reported: 1,
            found: found(finding),
            sent: 1,
        }
    }

    fn is_same(&self, finding: &Finding) -> bool {
        self.cause == finding.cause
            && self.class == finding.class
            && self.severity == finding.severity
            && self.function == finding.function
    }

    pub(super) fn report(&self, expected: bool, suppressed: Option<Suppressed>) -> FindingReport {
        // What explains a mistake; there may be many of all others.
        let is_mistake = self.severity == Severity::Finding && !expected && suppressed.is_none();
        FindingReport {
            before: if is_mistake { self.found.before.clone() } else { Vec::new() },
            suppressed,
            class: self.class.name().into(),
            function: self.function.to_string(),
            text: self.text.clone(),
            expected,
            note: self.severity == Severity::Note,
            repeated: Some(self.repeated).filter(|repeated| repeated.count > 1),
        }
    }
}

/// A finding as programs get it, without what only the judge knows.
fn found(finding: &Finding) -> Found {
    let transaction = finding.transaction.as_ref();
    let operation = |kind: Kind| match kind {
        Kind::MemoryRead => "read",
        Kind::MemoryWrite => "write",
    };
    Found {
        class: finding.class.name().into(),
        severity: finding.severity.name().into(),
        function: finding.function.to_string(),
        requester: finding.requester.to_string(),
        sequence: transaction.map(|transaction| transaction.sequence),
        operation: transaction.map(|transaction| operation(transaction.kind).into()),
        purpose: transaction.map(|transaction| transaction.purpose.name().into()),
        address: transaction.map(|transaction| format!("{:#x}", transaction.address)),
        length: transaction.map(|transaction| transaction.length),
        message: shorten(&finding.explanation),
        count: 1,
        bytes: transaction.map_or(0, |transaction| transaction.length),
        ..Found::default()
    }
}

/// A finding on its own, in numbers.
fn repeated(finding: &Finding) -> Repeated {
    let range = finding.transaction.map(|transaction| {
        let last = transaction.address.saturating_add(transaction.length.saturating_sub(1));
        (transaction.address, last)
    });
    Repeated {
        count: 1,
        range,
        bytes: finding.transaction.map_or(0, |transaction| transaction.length),
    }
}

/// What was found in one test.
#[derive(Debug)]
pub(super) struct Folds {
    keep: Keep,
    folds: Vec<Fold>,
    /// Findings, notes aside, that stand in none of them.
    pub(super) dropped: u64,
}

impl Folds {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, folds: Vec::new(), dropped: 0 }
    }

    pub(super) fn keep_each(&mut self) {
        self.keep = Keep::EACH;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Fold> {
        self.folds.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.folds.len()
    }

    /// Takes in a finding; what is kept of it if that is on its own.
    pub(super) fn take(&mut self, finding: &Finding) -> Option<&mut Fold> {
        let folds = self.keep == Keep::Folded;
        if folds && let Some(fold) = self.folds.iter_mut().rfind(|fold| fold.is_same(finding)) {
            fold.repeated.add(&repeated(finding));
            return None;
        }
        // Notes do not take room from findings, and a flood does not hide the first of another class or function.
        let alike = self.folds.iter().filter(|fold| fold.severity == finding.severity);
        let has_room = alike.clone().count() < self.keep.most()
            || !alike
                .clone()
                .any(|fold| (fold.class, &fold.function) == (finding.class, &finding.function));
        if !has_room {
            let counts = finding.severity == Severity::Finding;
            self.dropped = self.dropped.saturating_add(u64::from(counts));
            return None;
        }
        self.folds.push(Fold::new(finding));
        self.folds.last_mut()
    }

    /// Those to which more have come since that was last reported to programs, each with its sum.
    pub(super) fn grown(&mut self) -> Vec<(FindingClass, Arc<str>, Found)> {
        let grown = self.folds.iter_mut().filter(|fold| fold.repeated.count > fold.sent);
        grown
            .map(|fold| {
                let Repeated { count, bytes, .. } = fold.repeated;
                fold.sent = count;
                let found = Found { count, bytes, ..fold.found.clone() };
                (fold.class, Arc::clone(&fold.function), found)
            })
            .collect()
    }

    /// What has come to the folds since that was last reported, a line for each.
    pub(super) fn sums(&mut self) -> Vec<(Severity, String)> {
        let grown = self.folds.iter_mut().filter(|fold| fold.repeated.count > fold.reported);
        grown
            .map(|fold| {
                fold.reported = fold.repeated.count;
                (fold.severity, format!("{}: {}", fold.head, fold.repeated))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(cause: Cause) -> Finding {
        Finding {
            class: FindingClass::Stale,
            severity: Severity::Finding,
            cause,
            transaction: None,
            requester: device_models::pci::Bdf::new(1, 0, 0),
            function: "peer0".into(),
            explanation: "why".into(),
        }
    }

    const UNMAPPING: Cause = Cause::Unmapping { request: 9 };

    #[test]
    fn one_cause_is_one_and_what_differs_is_not() {
        let mut folds = Folds::new(Keep::Folded);
        let first = finding(UNMAPPING);
        assert_eq!(
            folds.take(&first).map(|fold| fold.text.as_str()),
            Some("peer0: iommu.stale: why")
        );
        assert!(folds.take(&first).is_none());
        let others = [
            finding(Cause::Unmapping { request: 10 }),
            Finding { function: "peer1".into(), ..first.clone() },
            Finding { class: FindingClass::Unmapped, ..first.clone() },
            Finding { severity: Severity::Note, ..first.clone() },
        ];
        for other in &others {
            assert!(folds.take(other).is_some(), "{other:?}");
            assert!(folds.take(&first).is_none());
        }
        let counts: Vec<_> = folds.iter().map(|fold| fold.repeated.count).collect();
        assert_eq!(counts, [6, 1, 1, 1, 1]);
        assert_eq!(
            folds.sums(),
            [(Severity::Finding, "peer0: iommu.stale: 6 times in all".into())]
        );
        assert_eq!(folds.sums(), []);
    }

    #[test]
    fn a_flood_of_one_cause_leaves_room_for_all_others() {
        let mut folds = Folds::new(Keep::Folded);
        for request in 0..MAX_FINDINGS as u64 {
            for _ in 0..1000 {
                folds.take(&finding(Cause::Unmapping { request }));
            }
        }
        assert_eq!((folds.len(), folds.dropped), (MAX_FINDINGS, 0));
        folds.take(&finding(Cause::Unmapping { request: 1 << 40 }));
        assert_eq!((folds.len(), folds.dropped), (MAX_FINDINGS, 1));
        let another = Finding { class: FindingClass::LinkDown, ..finding(Cause::Function) };
        assert!(folds.take(&another).is_some(), "the first of its class");
    }

    #[test]
    fn each_is_kept_where_that_is_wanted_and_no_more_than_that() {
        let mut folds = Folds::new(Keep::Each(3));
        let kept = (0..5).filter(|_| folds.take(&finding(UNMAPPING)).is_some()).count();
        assert_eq!((kept, folds.dropped), (3, 2));
        assert_eq!(folds.sums(), []);
    }
}
