//! What was found to be allowed, direct-mapped by page.
//!
//! Never observable: an entry counts only as long as nothing of its function was unmapped since.

/// 256 KiB for each function and direction that is used. As many mappings as `make bench` has are
/// all in it.
const ENTRIES: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = if cfg!(test) { 8 } else { 14 };
const PAGE_SHIFT: u32 = 12;

/// Four to a line of the processor's cache, and none in two.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(16))]
struct Entry {
    first: u64,
    /// Of the last byte from the first, at most.
    reach: u32,
    /// 0 for none.
    generation: u32,
}

/// The cache; empty until its first use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Vec<Entry>,
}

impl Cache {
    /// Whether the addresses from `begun` to `last`, which `at` lies among, are known to be in one
    /// mapping.
    #[inline]
    pub(super) fn holds(&self, generation: u32, begun: u64, at: u64, last: u64) -> bool {
        self.entries.get(slot(at)).is_some_and(|entry| {
            entry.generation == generation
                && entry.first <= begun
                && last.checked_sub(entry.first).is_some_and(|reach| reach <= entry.reach.into())
        })
    }

    /// Remembers, under the page of `at`, that the addresses from `first` to `last`, which it lies
    /// among, are; of a mapping that is longer than an entry can say, those around it.
    pub(super) fn insert(&mut self, generation: u32, at: u64, first: u64, last: u64) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); ENTRIES];
        }
        let first = first.max(at.saturating_sub(u64::from(u32::MAX / 2)));
        let reach = u32::try_from(last.saturating_sub(first)).unwrap_or(u32::MAX);
        self.entries[slot(at)] = Entry { generation, first, reach };
    }

    /// Forgets everything: generations begin anew.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }
}

/// See `fabric/cache.rs`.
#[allow(clippy::cast_possible_truncation, reason = "fourteen bits are left")]
fn slot(address: u64) -> usize {
    let page = address >> PAGE_SHIFT;
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ENTRY_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_mapping_is_known_around_the_address() {
        const GIB: u64 = 1 << 30;
        let mut cache = Cache::default();
        let at = 100 * GIB;
        cache.insert(1, at, 0, u64::MAX);
        assert!(cache.holds(1, at, at, at + 4095));
        assert!(cache.holds(1, at - GIB, at, at + GIB));
        assert!(!cache.holds(1, at - 3 * GIB, at, at));
        assert!(!cache.holds(1, at, at, at + 3 * GIB));
        assert!(!cache.holds(2, at, at, at));
    }

    #[test]
    fn the_edges_are_exact() {
        let mut cache = Cache::default();
        cache.insert(1, 0x1000, 0xff0, 0x100f);
        assert!(cache.holds(1, 0xff0, 0x1000, 0x100f));
        assert!(!cache.holds(1, 0xfef, 0x1000, 0x100f));
        assert!(!cache.holds(1, 0xff0, 0x1000, 0x1010));
        cache.insert(1, u64::MAX, u64::MAX, u64::MAX);
        assert!(cache.holds(1, u64::MAX, u64::MAX, u64::MAX));
        cache.clear();
        assert!(!cache.holds(1, u64::MAX, u64::MAX, u64::MAX));
    }
}
