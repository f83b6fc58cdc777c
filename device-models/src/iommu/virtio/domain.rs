//! One address space: its mappings, exactly as the guest made them, and a memory of those that are gone.

use std::collections::{BTreeMap, VecDeque};

use super::super::{Extent, Retired};
use super::spec::MapFlags;

/// How many removed mappings a domain remembers.
pub(super) const HISTORY: usize = 1024;

/// One MAP request that is still in force. Its first address is the key under which it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) last: u64,
    pub(super) target: u64,
    /// The number of the MAP request in the upper 56 bits, its flags in the lower 8: a node of the tree stays small,
    /// which is what a lookup among a million mappings costs.
    stamp: u64,
}

impl Mapping {
    fn new(last: u64, target: u64, born: u64, flags: MapFlags) -> Self {
        Self { last, target, stamp: (born << 8) | u64::from(flags.bits() & 0xff) }
    }

    pub(super) fn born(&self) -> u64 {
        self.stamp >> 8
    }

    pub(super) fn flags(&self) -> MapFlags {
        MapFlags::from_bits_truncate((self.stamp & 0xff) as u32)
    }
}

/// Why a domain refuses a MAP or an UNMAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// The range to map has an address in common with this mapping.
    Overlap(Extent),
    /// The range to unmap covers only a part of this mapping.
    Split(Extent),
}

/// The mappings of a domain. No two share an address.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Does not translate, and holds no mappings.
    pub(super) bypass: bool,
    /// How many endpoints are attached. The domain ends with the last of them.
    pub(super) endpoints: usize,
    mappings: BTreeMap<u64, Mapping>,
    history: VecDeque<Retired>,
}

impl Domain {
    pub(super) fn new(bypass: bool) -> Self {
        Self { bypass, ..Self::default() }
    }

    /// How many mappings are in force.
    pub(super) fn len(&self) -> usize {
        self.mappings.len()
    }

    /// The mapping that covers `address`, with its first address.
    pub(super) fn find(&self, address: u64) -> Option<(u64, &Mapping)> {
        let (first, mapping) = self.mappings.range(..=address).next_back()?;
        (mapping.last >= address).then_some((*first, mapping))
    }

    /// All mappings in the order of their addresses.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Mapping)> {
        self.mappings.iter().map(|(first, mapping)| (*first, mapping))
    }

    /// Adds a mapping of `extent` that begins at `target`.
    pub(super) fn map(
        &mut self,
        extent: Extent,
        target: u64,
        flags: MapFlags,
        number: u64,
    ) -> Result<(), Conflict> {
        if let Some((first, mapping)) = self.mappings.range(..=extent.last).next_back()
            && mapping.last >= extent.first
        {
            return Err(Conflict::Overlap(Extent { first: *first, last: mapping.last }));
        }
        self.mappings.insert(extent.first, Mapping::new(extent.last, target, number, flags));
        Ok(())
    }

    /// Removes all mappings inside `extent` and says how many they were.
    pub(super) fn unmap(&mut self, extent: Extent, number: u64) -> Result<usize, Conflict> {
        // Nearly always the range is exactly that of one mapping: then no other can touch it.
        if let std::collections::btree_map::Entry::Occupied(entry) =
            self.mappings.entry(extent.first)
            && entry.get().last == extent.last
        {
            let mapping = entry.remove();
            self.retire(extent.first, &mapping, number);
            return Ok(1);
        }
        // Mappings share no address, so only those at the two ends of the range can reach out of it.
        for end in [extent.first, extent.last] {
            if let Some((first, mapping)) = self.find(end)
                && (first < extent.first || mapping.last > extent.last)
            {
                return Err(Conflict::Split(Extent { first, last: mapping.last }));
            }
        }
        let mut removed = 0;
        while let Some((first, mapping)) = self.mappings.range(extent.first..=extent.last).next() {
            let (first, mapping) = (*first, *mapping);
            self.mappings.remove(&first);
            self.retire(first, &mapping, number);
            removed += 1;
        }
        Ok(removed)
    }

    fn retire(&mut self, first: u64, mapping: &Mapping, died: u64) {
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.push_back(Retired {
            extent: Extent { first, last: mapping.last },
            target: mapping.target,
            born: mapping.born(),
            died,
        });
    }

    /// The mapping that covered `address` last, of those that are gone and not forgotten.
    pub(super) fn last_known(&self, address: u64) -> Option<&Retired> {
        self.history.iter().rev().find(|gone| gone.extent.contains(address))
    }
}
