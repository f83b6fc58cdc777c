//! How long mappings of a function have lived, in memory that does not grow with their number.

use std::time::Duration;

use serde::Serialize;

/// Each power of two nanoseconds is cut into these parts: a length is kept to within 3 %.
const PARTS: usize = 32;
const PARTS_LOG: u32 = PARTS.ilog2();

/// Numbers, and a histogram of lengths.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Lengths {
    /// Mappings that were made.
    pub mappings: u64,
    /// Of those, never unmapped up to the trace's end.
    pub never_unmapped: u64,
    /// Longest of those that ended, in nanoseconds.
    pub longest_ns: u64,
    #[serde(serialize_with = "median", rename = "median-ns")]
    histogram: Vec<u64>,
}

fn median<S: serde::Serializer>(histogram: &[u64], out: S) -> Result<S::Ok, S::Error> {
    match median_of(histogram) {
        Some(median) => out.serialize_some(&median),
        None => out.serialize_none(),
    }
}

impl Default for Lengths {
    fn default() -> Self {
        let histogram = vec![0; (u64::BITS as usize + 1) * PARTS];
        Self { mappings: 0, never_unmapped: 0, longest_ns: 0, histogram }
    }
}

/// Where a length is counted: as it is where that is short, and else by its highest bits.
fn index(length: u64) -> usize {
    let shift = (u64::BITS - length.leading_zeros()).saturating_sub(PARTS_LOG + 1);
    let part = usize::try_from(length >> shift).unwrap_or(0);
    part + shift as usize * PARTS
}

/// The middle of what is counted there.
fn length(index: usize) -> u64 {
    let shift = (index / PARTS).saturating_sub(1);
    let part = index - shift * PARTS;
    let first =
        (part as u64).checked_shl(u32::try_from(shift).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
    first.saturating_add((1 << shift.min(63)) / 2)
}

fn median_of(histogram: &[u64]) -> Option<u64> {
    let all: u64 = histogram.iter().sum();
    let mut seen = 0;
    let middle = histogram.iter().position(|count| {
        seen += count;
        seen * 2 >= all
    });
    middle.filter(|_| all > 0).map(length)
}

impl Lengths {
    /// One was made.
    pub(crate) fn begin(&mut self) {
        self.mappings += 1;
        self.never_unmapped += 1;
    }

    /// One is over.
    pub(crate) fn end(&mut self, lived: Duration) {
        let lived = u64::try_from(lived.as_nanos()).unwrap_or(u64::MAX);
        self.never_unmapped = self.never_unmapped.saturating_sub(1);
        self.longest_ns = self.longest_ns.max(lived);
        if let Some(count) = self.histogram.get_mut(index(lived)) {
            *count += 1;
        }
    }

    /// The median of those that ended, in nanoseconds, to within 3 %.
    pub fn median_ns(&self) -> Option<u64> {
        median_of(&self.histogram).map(|median| median.min(self.longest_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_kept_to_within_three_percent() {
        let last = Lengths::default().histogram.len();
        for exponent in 0..64 {
            for step in 0..7_u64 {
                let exact = (1_u64 << exponent).saturating_add((1_u64 << exponent) / 7 * step);
                let (at, about) = (index(exact), length(index(exact)));
                assert!(at < last, "{exact}");
                assert!(exact.abs_diff(about) <= exact / 32, "{exact} {about}");
            }
        }
        assert_eq!((index(0), length(0), index(63), length(63)), (0, 0, 63, 63));
        assert!(index(u64::MAX) < last && index(64) > index(63));
    }

    #[test]
    fn the_median_is_that_of_those_that_ended() {
        let mut lengths = Lengths::default();
        assert_eq!((lengths.median_ns(), lengths.longest_ns), (None, 0));
        (0..4).for_each(|_| lengths.begin());
        [1000, 10, 20].iter().for_each(|&lived| lengths.end(Duration::from_nanos(lived)));
        assert_eq!((lengths.mappings, lengths.never_unmapped), (4, 1));
        assert_eq!((lengths.median_ns(), lengths.longest_ns), (Some(20), 1000));
    }
}
