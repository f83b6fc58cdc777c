//! A direct-mapped cache of routing and translation, one per requester and direction.
//!
//! Never observable: an entry counts only as long as neither the address map nor the IOMMU has
//! changed since, as its epochs show.

use super::route::Target;
use super::{FunctionId, RouteKind};

/// 256 KiB for a function that reads, and as much for one that writes; nothing for all others.
const ENTRIES: usize = 1 << ENTRY_BITS;
const ENTRY_BITS: u32 = 12;
const PAGE_SHIFT: u32 = 12;

/// A resolved run of addresses that ends in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// First address, as the requester sees it.
    pub(super) first: u64,
    /// Last address, inclusive.
    pub(super) last: u64,
    /// The address of `first` at the target's side.
    pub(super) address: u64,
    /// Where `first` lies in the memory.
    pub(super) offset: u64,
    /// Index into the map's memories.
    pub(super) memory: u32,
    /// The function whose BAR it is; none for RAM.
    pub(super) owner: Option<FunctionId>,
    /// How it gets there.
    pub(super) route: RouteKind,
}

impl Resolved {
    /// What stands `skip` bytes behind the first address.
    pub(super) fn target(&self, skip: u64) -> Target {
        Target::Memory {
            memory: self.memory as usize,
            offset: self.offset + skip,
            function: self.owner,
        }
    }
}

/// One line of the processor's cache, and no more: large copies push these out of it, and each
/// costs a miss then.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Entry {
    epochs: (u64, u64),
    resolved: Resolved,
}

const _: () = assert!(size_of::<Entry>() == 64);

impl Entry {
    /// No epoch ever gets this far.
    const EMPTY: Self = Self {
        epochs: (u64::MAX, u64::MAX),
        resolved: Resolved {
            first: 0,
            last: 0,
            address: 0,
            offset: 0,
            memory: 0,
            owner: None,
            route: RouteKind::Memory,
        },
    };
}

/// The cache; empty until its first use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Vec<Entry>,
}

impl Cache {
    /// What is known about `address` under these epochs.
    #[inline]
    pub(super) fn lookup(&self, address: u64, epochs: (u64, u64)) -> Option<&Resolved> {
        let entry = self.entries.get(slot(address))?;
        let hit = entry.epochs == epochs
            && entry.resolved.first <= address
            && address <= entry.resolved.last;
        hit.then_some(&entry.resolved)
    }

    /// Remembers a run under the page of `address`.
    pub(super) fn insert(&mut self, address: u64, epochs: (u64, u64), resolved: Resolved) {
        if self.entries.is_empty() {
            self.entries = vec![Entry::EMPTY; ENTRIES];
        }
        self.entries[slot(address)] = Entry { epochs, resolved };
    }
}

/// The upper bits of the product depend on all bits of the page number: buffers that lie at equal
/// distances, as those of drivers do, do not fall on top of each other.
#[allow(clippy::cast_possible_truncation, reason = "twelve bits are left")]
fn slot(address: u64) -> usize {
    let page = address >> PAGE_SHIFT;
    (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (u64::BITS - ENTRY_BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(first: u64) -> Resolved {
        Resolved { first, last: first + 0xfff, address: first, ..Entry::EMPTY.resolved }
    }

    #[test]
    fn an_entry_counts_under_its_epochs_only() {
        let mut cache = Cache::default();
        assert!(cache.lookup(0, (u64::MAX, u64::MAX)).is_none());
        cache.insert(0x5000, (3, 4), resolved(0x5000));
        assert_eq!(cache.lookup(0x5fff, (3, 4)).map(|found| found.address), Some(0x5000));
        for epochs in [(2, 4), (3, 5), (4, 3)] {
            assert!(cache.lookup(0x5000, epochs).is_none(), "{epochs:?}");
        }
    }

    #[test]
    fn an_address_beside_an_entry_is_unknown() {
        let mut cache = Cache::default();
        cache.insert(0x5000, (1, 1), Resolved { last: 0x50ff, ..resolved(0x5010) });
        assert!(cache.lookup(0x500f, (1, 1)).is_none());
        assert!(cache.lookup(0x5100, (1, 1)).is_none());
        assert!(cache.lookup(0x50ff, (1, 1)).is_some());
    }

    #[test]
    fn buffers_at_equal_distances_spread() {
        for distance in [1, 16, 512, 1 << 18] {
            let slots: std::collections::BTreeSet<_> =
                (0..256).map(|index| slot((index * distance) << PAGE_SHIFT)).collect();
            assert!(slots.len() > 200, "{distance}: {}", slots.len());
        }
    }
}
