//! Transactions with the class of what was found about them.

use device_models::checker::{Finding, FindingClass, Severity};

use super::TlpRun;

/// A finding about a transaction that comes behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead {
    requester: u16,
    sequence: u64,
    class: FindingClass,
}

impl Ahead {
    /// None if the finding is about no transaction.
    pub(crate) fn new(finding: &Finding) -> Option<Self> {
        let about = finding.transaction.as_ref()?;
        let (requester, sequence) = (about.requester.0, about.sequence);
        Some(Self { requester, sequence, class: finding.class })
    }
}

impl TlpRun {
    /// Whether a TLP with this number and requester is one of these.
    fn has(&self, requester: u16, sequence: u64) -> bool {
        self.requester == requester
            && sequence.wrapping_sub(self.sequence) < self.tlp_count().unwrap_or(1)
    }

    /// Gives it the class of a finding that came in front of it, if that is about it.
    pub(crate) fn found_ahead(&mut self, ahead: Option<Ahead>) {
        if let Some(Ahead { requester, sequence, class }) = ahead
            && self.has(requester, sequence)
        {
            self.verdict = Some(class);
        }
    }

    /// Gives it the class of a finding that comes behind it; whether that is about it. A note does
    /// not take the place of a finding.
    pub(crate) fn found(&mut self, finding: &Finding) -> bool {
        let is_mistake = finding.severity == Severity::Finding;
        let about = finding.transaction.as_ref();
        let fits = about.is_some_and(|about| self.has(about.requester.0, about.sequence))
            && (self.verdict.is_none() || is_mistake);
        if fits {
            self.verdict = self.verdict.filter(|_| !is_mistake).or(Some(finding.class));
        }
        fits
    }
}
