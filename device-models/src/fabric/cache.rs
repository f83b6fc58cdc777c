//! A small direct-mapped cache of routing and translation, one per requester and direction.
//!
//! Never observable: an entry counts only as long as neither the address map nor the IOMMU has changed since, which
//! its epochs tell.

use super::RouteKind;
use super::route::Target;

const ENTRIES: usize = 1024;
const PAGE_SHIFT: u32 = 12;

/// A resolved run of addresses that ends in memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved {
    /// First address, as the requester sees it.
    pub(super) first: u64,
    /// Last address, inclusive.
    pub(super) last: u64,
    /// Where `first` leads.
    pub(super) target: Target,
    /// The address of `first` at the target's side.
    pub(super) address: u64,
    /// How it gets there.
    pub(super) route: RouteKind,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    epochs: (u64, u64),
    resolved: Resolved,
}

/// The cache; empty until its first use.
#[derive(Debug, Default)]
pub(super) struct Cache {
    entries: Vec<Option<Entry>>,
}

impl Cache {
    /// What is known about `address` under these epochs.
    #[inline]
    pub(super) fn lookup(&self, address: u64, epochs: (u64, u64)) -> Option<&Resolved> {
        let entry = self.entries.get(slot(address))?.as_ref()?;
        let hit = entry.epochs == epochs
            && entry.resolved.first <= address
            && address <= entry.resolved.last;
        hit.then_some(&entry.resolved)
    }

    /// Remembers a run under the page of `address`.
    pub(super) fn insert(&mut self, address: u64, epochs: (u64, u64), resolved: Resolved) {
        if self.entries.is_empty() {
            self.entries = vec![None; ENTRIES];
        }
        self.entries[slot(address)] = Some(Entry { epochs, resolved });
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the mask keeps ten bits")]
fn slot(address: u64) -> usize {
    (address >> PAGE_SHIFT) as usize & (ENTRIES - 1)
}
