//! What was found to be allowed, direct-mapped by page.
//!
//! Never observable: an entry counts only as long as nothing of its function was unmapped since.

/// 384 KiB for each function and direction that is used. As many mappings as `make bench` has are
/// all in it.
const ENTRIES: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = if cfg!(test) { 8 } else { 14 };
const PAGE_SHIFT: u32 = 12;

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// 0 for none.
    generation: u64,
    first: u64,
    last: u64,
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
    pub(super) fn holds(&self, generation: u64, begun: u64, at: u64, last: u64) -> bool {
        self.entries.get(slot(at)).is_some_and(|entry| {
            entry.generation == generation && entry.first <= begun && last <= entry.last
        })
    }

    /// Remembers, under the page of `at`, that the addresses from `first` to `last` are.
    pub(super) fn insert(&mut self, generation: u64, at: u64, first: u64, last: u64) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::default(); ENTRIES];
        }
        self.entries[slot(at)] = Entry { generation, first, last };
    }
}

/// See `fabric/cache.rs`.
#[allow(clippy::cast_possible_truncation, reason = "fourteen bits are left")]
fn slot(address: u64) -> usize {
    let page = address >> PAGE_SHIFT;
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ENTRY_BITS)) as usize
}
