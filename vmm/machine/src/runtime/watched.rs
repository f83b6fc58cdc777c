//! What was held against the guest's mappings: as counters of a report, and as a sentence.

use std::collections::BTreeMap;
use std::fmt::Write;

use device_models::witness::{Counters, Gap};

/// How the names of a report's counters begin.
const WITNESS: &str = "witness-";
const NOT_WITNESSED: &str = "not-witnessed-";

/// As counters of a report; those that are 0 are left out.
pub fn counters(witness: &Counters) -> impl Iterator<Item = (String, u64)> {
    let Counters { records, mappings, live, transactions, bytes, .. } = *witness;
    let seen = [
        ("records", records),
        ("mappings", mappings),
        ("live", live),
        ("transactions", transactions),
        ("bytes", bytes),
        ("unknown-unmaps", witness.unknown_unmaps),
        ("elsewhere", witness.elsewhere),
    ];
    let seen = seen.map(|(name, count)| (format!("{WITNESS}{name}"), count));
    let gaps = Gap::ALL.iter().zip(witness.not_witnessed);
    let gaps = gaps.map(|(gap, count)| (format!("{NOT_WITNESSED}{}", gap.name()), count));
    seen.into_iter().chain(gaps.collect::<Vec<_>>()).filter(|(_, count)| *count > 0)
}

/// What a report's counters say about what was watched, for people; none if no device did anything.
pub fn sentence(counters: &BTreeMap<String, u64>) -> Option<String> {
    let of = |begin: &str, name: &str| {
        counters.get(&format!("{begin}{name}")).copied().unwrap_or_default()
    };
    let (mappings, transactions) = (of(WITNESS, "mappings"), of(WITNESS, "transactions"));
    let gaps = Gap::ALL.iter().map(|gap| (gap, of(NOT_WITNESSED, gap.name())));
    let gaps: Vec<_> = gaps.filter(|(_, count)| *count > 0).collect();
    if mappings == 0 && transactions == 0 && gaps.is_empty() {
        return None;
    }
    let bytes = of(WITNESS, "bytes");
    let mut text = format!(
        "witness: {mappings} mappings, {transactions} transactions ({bytes} bytes) checked"
    );
    let mut separator = "; not witnessed: ";
    for (gap, count) in gaps {
        // Into a string: cannot fail.
        let _ = write!(text, "{separator}{count} ({})", gap.meaning());
        separator = ", ";
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_watched_is_said_and_what_was_not_and_why() {
        let witness = Counters {
            mappings: 3,
            transactions: 7,
            bytes: 448,
            not_witnessed: [2, 0, 0, 0, 0, 5],
            ..Counters::default()
        };
        let counters: BTreeMap<_, _> = counters(&witness).collect();
        assert_eq!(counters["not-witnessed-no-access-platform"], 5);
        assert_eq!(
            sentence(&counters).unwrap(),
            "witness: 3 mappings, 7 transactions (448 bytes) checked; not witnessed: 2 (no \
             witness), 5 (virtio without ACCESS_PLATFORM)"
        );
        assert_eq!(sentence(&BTreeMap::new()), None);
    }
}
