//! Findings of a free replay, and which of them are the same.

use std::collections::HashMap;
use std::sync::Arc;

use device_models::checker::{Cause, Finding, FindingClass, Severity};
use device_models::fabric::{FunctionId, Kind, Purpose};

/// What makes two findings the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Signature {
    class: FindingClass,
    severity: Severity,
    function: Arc<str>,
    kind: Option<Kind>,
    /// A descriptor that is fetched from a wrong address is not the data that was.
    purpose: Option<Purpose>,
    target: Option<FunctionId>,
}

/// A finding of a run.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) class: FindingClass,
    signature: Signature,
    /// The first of its TLPs, and how many there are.
    tlps: Option<(u64, u64)>,
    /// The function that is its requester.
    pub(super) requester: Option<FunctionId>,
    pub(super) target: Option<FunctionId>,
    /// In which scene it came.
    pub(super) scene: usize,
}

impl Found {
    pub(super) fn new(finding: &Finding, scene: usize) -> Self {
        let target = match finding.cause {
            Cause::Target { function, .. } => Some(function),
            _ => None,
        };
        let transaction = finding.transaction.as_ref();
        let signature = Signature {
            class: finding.class,
            severity: finding.severity,
            function: Arc::clone(&finding.function),
            kind: transaction.map(|transaction| transaction.kind),
            purpose: transaction.map(|transaction| transaction.purpose),
            target,
        };
        Self {
            class: finding.class,
            signature,
            tlps: transaction.map(|it| (it.sequence, it.tlp_count())),
            requester: transaction.map(|transaction| transaction.function),
            target,
            scene,
        }
    }

    /// Two findings are the same: class, requester, target and kind of request.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.signature == other.signature
    }

    /// Whether it is about this TLP.
    pub(super) fn is_about(&self, tlp: u64) -> bool {
        self.tlps.is_some_and(|(first, count)| tlp.wrapping_sub(first) < count)
    }
}

/// How many findings of each kind there are; notes do not count.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(HashMap<Signature, usize>);

impl Tally {
    pub(super) fn of(all: &[Found]) -> Self {
        let mut tally = Self::default();
        all.iter().for_each(|found| tally.add(found));
        tally
    }

    pub(super) fn add(&mut self, found: &Found) {
        if found.signature.severity == Severity::Finding {
            *self.0.entry(found.signature.clone()).or_default() += 1;
        }
    }

    /// Whether `other` has each of these at least as often.
    pub(super) fn is_within(&self, other: &Self) -> bool {
        let most = |signature| other.0.get(signature).copied().unwrap_or(0);
        self.0.iter().all(|(signature, count)| *count <= most(signature))
    }
}
