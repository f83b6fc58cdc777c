//! Findings about addresses that decode to nothing: which of them belong together.
//!
//! Without a mapping or a target, the addresses alone distinguish mistakes. So findings of one
//! function and class are one as long as their addresses touch, or lie in BARs of one function or
//! in one mapping of another requester, and nothing was mapped or unmapped there since.

use super::{FindingClass, Said};
use crate::AddressRange;
use crate::fabric::FunctionId;
use crate::pci::Bdf;

/// Sets of addresses that are kept apart at a time; the one without a finding for the longest
/// is forgotten.
const MAX_RUNS: usize = 64;

/// What the findings of a set have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// The function that issued the requests.
    pub(crate) function: FunctionId,
    pub(crate) class: FindingClass,
    /// The requester's domain; none without one.
    pub(crate) domain: Option<u32>,
    /// The function whose BARs have the addresses.
    pub(crate) target: Option<FunctionId>,
}

/// Another requester's mapping of the addresses: its requester ID, and the MAP request.
pub(crate) type Owner = (Bdf, u64);

#[derive(Debug)]
struct Run {
    kind: Kind,
    range: AddressRange,
    id: u64,
    /// How many requests the IOMMU had served at the last finding.
    requests: u64,
    /// Its last explanation.
    explanation: Option<Said>,
    /// The requester that has mapped the addresses instead.
    owner: Option<Owner>,
}

/// The sets of addresses that are known, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    last: u64,
}

/// The set that a finding belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    pub(crate) id: u64,
    /// The last explanation of the set.
    pub(crate) known: Option<Said>,
}

impl Runs {
    /// Takes in a finding about `range` after `requests` requests to the IOMMU. `changed` says of a
    /// range, a number of requests and an owner whether anything was mapped or unmapped there
    /// since.
    pub(crate) fn take(
        &mut self,
        kind: Kind,
        range: AddressRange,
        requests: u64,
        changed: impl Fn(AddressRange, u64, Option<Owner>) -> bool,
    ) -> Membership {
        let index = self.runs.iter().rposition(|run| {
            // What lies in BARs of one function, or in another requester's mapping, is one wherever
            // it lies there.
            let anywhere = kind.target.is_some() || run.owner.is_some();
            let all = if anywhere { range } else { run.range.hull(&range) };
            run.kind == kind
                && (anywhere || run.range.touches(&range))
                && !changed(all, run.requests, run.owner)
        });
        let mut run = match index {
            Some(index) => self.runs.remove(index),
            None => {
                self.last += 1;
                Run { kind, range, id: self.last, requests, explanation: None, owner: None }
            }
        };
        run.range = run.range.hull(&range);
        run.requests = requests;
        let membership = Membership { id: run.id, known: run.explanation.clone() };
        if self.runs.len() == MAX_RUNS {
            self.runs.remove(0);
        }
        self.runs.push(run);
        membership
    }

    /// Keeps what is said of the set of the last finding. The first time it decides whether the
    /// set is that of `owner`'s mapping.
    pub(crate) fn explain(&mut self, id: u64, said: Said, owner: Option<Owner>) {
        if let Some(run) = self.runs.last_mut().filter(|run| run.id == id)
            && run.explanation.replace(said).is_none()
        {
            run.owner = owner;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = Kind {
        function: FunctionId(1),
        class: FindingClass::Unmapped,
        domain: Some(1),
        target: None,
    };

    fn take(runs: &mut Runs, kind: Kind, first: u64, last: u64) -> u64 {
        runs.take(kind, AddressRange { first, last }, 7, |_, _, _| false).id
    }

    #[test]
    fn neighbours_are_one_and_what_lies_apart_is_not() {
        let mut runs = Runs::default();
        assert_eq!(take(&mut runs, KIND, 0x1000, 0x1fff), 1);
        assert_eq!(take(&mut runs, KIND, 0x2000, 0x2fff), 1);
        assert_eq!(take(&mut runs, KIND, 0x0, 0xfff), 1);
        assert_eq!(take(&mut runs, KIND, 0x1800, 0x18ff), 1, "the same once more");
        assert_eq!(take(&mut runs, KIND, 0x3001, 0x3fff), 2, "a byte in between");
        assert_eq!(take(&mut runs, Kind { function: FunctionId(2), ..KIND }, 0x1000, 0x1fff), 3);
        assert_eq!(take(&mut runs, Kind { domain: Some(2), ..KIND }, 0x1000, 0x1fff), 4);
        assert_eq!(take(&mut runs, Kind { class: FindingClass::NoTarget, ..KIND }, 0, 0xfff), 5);
        assert_eq!(take(&mut runs, KIND, u64::MAX, u64::MAX), 6);
        assert_eq!(take(&mut runs, KIND, u64::MAX - 9, u64::MAX - 1), 6);
    }

    #[test]
    fn addresses_of_one_target_are_one_wherever_they_lie() {
        let mut runs = Runs::default();
        let kind = Kind { target: Some(FunctionId(3)), ..KIND };
        assert_eq!(take(&mut runs, kind, 0x1000, 0x1fff), 1);
        assert_eq!(take(&mut runs, kind, 0x9000, 0x9fff), 1);
        assert_eq!(
            take(&mut runs, Kind { target: Some(FunctionId(4)), ..KIND }, 0x1000, 0x1001),
            2
        );
        assert_eq!(take(&mut runs, KIND, 0x1000, 0x1fff), 3);
    }

    #[test]
    fn what_was_mapped_or_unmapped_since_is_another() {
        let mut runs = Runs::default();
        let range = |first, last| AddressRange { first, last };
        runs.take(KIND, range(0x1000, 0x1fff), 5, |_, _, _| false);
        let next = runs.take(KIND, range(0x2000, 0x2fff), 9, |all, since, owner| {
            assert_eq!((all, since, owner), (range(0x1000, 0x2fff), 5, None));
            true
        });
        assert_eq!(next, Membership { id: 2, known: None });
        let owner = Some((Bdf::new(2, 0, 0), 4));
        let said = Said { text: "why".into(), range: range(0x2000, 0x2fff), state: (0, 0, 9) };
        runs.explain(2, said.clone(), owner);
        let next = runs
            .take(KIND, range(0x3000, 0x3fff), 9, |_, since, known| since < 9 || known != owner);
        assert_eq!(next, Membership { id: 2, known: Some(said.clone()) });
    }

    #[test]
    fn only_the_first_explanation_makes_a_set_that_of_a_mapping() {
        let mut runs = Runs::default();
        let said = |text: &str| Said {
            text: text.into(),
            range: AddressRange { first: 0, last: 0 },
            state: (0, 0, 0),
        };
        assert_eq!(take(&mut runs, KIND, 0x1000, 0x1fff), 1);
        runs.explain(1, said("nothing"), None);
        runs.explain(1, said("mapped"), Some((Bdf::new(2, 0, 0), 4)));
        let next =
            runs.take(KIND, AddressRange { first: 0x2000, last: 0x2fff }, 7, |_, _, owner| {
                owner.is_some()
            });
        assert_eq!(next, Membership { id: 1, known: Some(said("mapped")) });
        assert_eq!(take(&mut runs, KIND, 0x9000, 0x9fff), 2, "it does not touch");
    }

    #[test]
    fn a_flood_of_different_addresses_takes_no_more_room() {
        let mut runs = Runs::default();
        for index in 0..10_000 {
            assert_eq!(take(&mut runs, KIND, index << 13, index << 13), index + 1);
        }
        assert_eq!(runs.runs.len(), MAX_RUNS);
        assert_eq!(take(&mut runs, KIND, 9_999 << 13, 9_999 << 13), 10_000);
    }
}
