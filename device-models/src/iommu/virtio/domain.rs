//! One address space: its mappings, and a history of removed ones.

use std::collections::VecDeque;

use super::super::Retired;
use super::spec::MapFlags;
use super::table::{Mapping, Table};
use crate::AddressRange;

/// How many removed mappings a domain remembers.
pub(super) const HISTORY: usize = 1024;

/// Why a domain refuses a MAP or an UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The range to map has an address in common with this mapping.
    Overlap(AddressRange),
    /// The range to unmap covers only a part of this mapping.
    Split(AddressRange),
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Domain {
    /// Does not translate, and holds no mappings.
    pub(super) bypass: bool,
    /// How many endpoints are attached. The domain ends with the last of them.
    pub(super) endpoints: usize,
    pub(super) table: Table,
    history: VecDeque<Retired>,
}

impl Domain {
    /// A domain of mappings that are aligned to `1 << page_shift` bytes.
    pub(super) fn new(bypass: bool, page_shift: u32) -> Self {
        Self { bypass, endpoints: 0, table: Table::new(page_shift), history: VecDeque::new() }
    }

    /// Adds a mapping of `range` that begins at `target`.
    pub(super) fn map(
        &mut self,
        range: AddressRange,
        target: u64,
        flags: MapFlags,
        request: u64,
    ) -> Result<(), Conflict> {
        if let Some(other) = self.table.overlap(range) {
            return Err(Conflict::Overlap(other.range));
        }
        self.table.insert(Mapping::new(range, target, flags, request));
        Ok(())
    }

    /// Removes all mappings inside `range` and returns their number.
    pub(super) fn unmap(&mut self, range: AddressRange, request: u64) -> Result<usize, Conflict> {
        // Nearly always the range is exactly that of one mapping: then no other can touch it.
        if let Some(mapping) = self.table.remove_exact(range) {
            self.retire(&mapping, request);
            return Ok(1);
        }
        // Mappings share no address, so only those at the two ends of the range can reach out of
        // it.
        for end in [range.first, range.last] {
            if let Some(Mapping { range: other, .. }) = self.table.find(end)
                && (other.first < range.first || other.last > range.last)
            {
                return Err(Conflict::Split(*other));
            }
        }
        let mut removed = 0;
        while let Some(mapping) = self.table.remove_overlap(range) {
            self.retire(&mapping, request);
            removed += 1;
        }
        Ok(removed)
    }

    fn retire(&mut self, mapping: &Mapping, died: u64) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Retired {
            range: mapping.range,
            target: mapping.target,
            born: mapping.born(),
            died,
        });
    }

    /// The mapping that covered `address` last, of those that are gone and not forgotten.
    pub(super) fn last_known(&self, address: u64) -> Option<&Retired> {
        self.history.iter().rev().find(|gone| gone.range.contains(address))
    }

    /// The request that removed the mapping that covered `address` last; where requests in a row
    /// have removed mappings side by side, upwards, the first of them.
    pub(super) fn gone_since(&self, address: u64) -> Option<u64> {
        let index = self.history.iter().rposition(|gone| gone.range.contains(address))?;
        let Retired { mut died, range, .. } = *self.history.get(index)?;
        // What the same request has removed stands in no particular order.
        let same = self.history.iter().skip(index).take_while(|gone| gone.died == died);
        let mut first = same.map(|gone| gone.range.first).min().unwrap_or(range.first);
        for gone in self.history.iter().take(index).rev() {
            if gone.died == died {
                first = first.min(gone.range.first);
            } else if gone.died + 1 == died && gone.range.last.checked_add(1) == Some(first) {
                (died, first) = (gone.died, gone.range.first);
            } else if gone.died + 1 < died {
                break;
            }
        }
        Some(died)
    }

    /// Whether a mapping in `range` may have been removed by a request after `request`.
    pub(super) fn lost_since(&self, range: AddressRange, request: u64) -> bool {
        let mut later = self.history.iter().rev().take_while(|gone| gone.died > request);
        let forgotten = self.history.len() == HISTORY
            && self.history.front().is_some_and(|oldest| oldest.died > request);
        forgotten || later.any(|gone| gone.range.overlaps(&range))
    }
}
