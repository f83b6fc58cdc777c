//! The mappings of a domain, exactly as the guest made them.
//!
//! Nearly all mappings are small and lie close together. So the table has a tree of regions of 64
//! pages, and each region holds for every page which mapping covers it: a lookup descends a tree
//! that is 64 times smaller than one of pages would be, and searches no further. Mappings that
//! reach over the edge of a region have a tree of their own; there are few of them.

use super::spec::MapFlags;
use crate::AddressRange;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::RangeInclusive;

/// Pages to a region, as a power of two: a byte for each fills a cache line.
const REGION: u32 = 6;
const PAGES: usize = 1 << REGION;

/// One MAP request that is still in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) range: AddressRange,
    /// The guest physical address of the first byte.
    pub(super) target: u64,
    /// The number of the MAP request in the upper 56 bits, its flags in the lower 8: the more
    /// mappings fit a cache line, the quicker one is found.
    stamp: u64,
}

impl Mapping {
    pub(super) fn new(range: AddressRange, target: u64, flags: MapFlags, born: u64) -> Self {
        Self { range, target, stamp: (born << 8) | u64::from(flags.bits() & 0xff) }
    }

    /// The number of the request that made it.
    pub(super) fn born(&self) -> u64 {
        self.stamp >> 8
    }

    pub(super) fn flags(&self) -> MapFlags {
        MapFlags::from_bits_truncate((self.stamp & 0xff) as u32)
    }
}

/// The mappings inside one region. There is at least one.
#[derive(Debug)]
struct Region {
    /// For each page the index of its mapping, or [`NONE`].
    pages: [u8; PAGES],
    /// In no particular order.
    mappings: Vec<Mapping>,
}

/// No mapping. As an index it is out of every range, since a region has fewer mappings.
const NONE: u8 = u8::MAX;
const _: () = assert!(PAGES < NONE as usize);

impl Region {
    fn new() -> Self {
        Self { pages: [NONE; PAGES], mappings: Vec::new() }
    }

    /// The first mapping among `pages`.
    fn first(&self, pages: RangeInclusive<usize>) -> Option<&Mapping> {
        let index = self.pages.get(pages)?.iter().find(|index| **index != NONE)?;
        self.mappings.get(usize::from(*index))
    }

    /// Says of `pages` which mapping covers them.
    fn fill(&mut self, pages: RangeInclusive<usize>, index: u8) {
        if let Some(pages) = self.pages.get_mut(pages) {
            pages.fill(index);
        }
    }
}

/// See the [module](self). No two mappings share an address.
#[derive(Debug)]
pub(super) struct Table {
    /// By number: the address above the bits inside a region.
    regions: BTreeMap<u64, Box<Region>>,
    /// The mappings that lie in several regions, by their first address.
    wide: BTreeMap<u64, Mapping>,
    page_shift: u32,
    len: usize,
}

impl Table {
    /// An empty table for mappings that are aligned to `1 << page_shift` bytes.
    pub(super) fn new(page_shift: u32) -> Self {
        // Were a page larger, all addresses would lie in one region anyway.
        let page_shift = page_shift.min(u64::BITS - REGION - 1);
        Self { regions: BTreeMap::new(), wide: BTreeMap::new(), page_shift, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All mappings, in no particular order, but always in the same.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.regions.values().flat_map(|region| &region.mappings).chain(self.wide.values())
    }

    /// The mapping that covers `address`.
    pub(super) fn find(&self, address: u64) -> Option<&Mapping> {
        let page = self.page(address);
        let region = self.regions.get(&self.region(address));
        region.and_then(|region| region.first(page..=page)).or_else(|| {
            let (_, mapping) = self.wide.range(..=address).next_back()?;
            (mapping.range.last >= address).then_some(mapping)
        })
    }

    /// A mapping that has an address in common with `range`.
    pub(super) fn overlap(&self, range: AddressRange) -> Option<&Mapping> {
        self.inside(range).or_else(|| {
            let (_, mapping) = self.wide.range(..=range.last).next_back()?;
            (mapping.range.last >= range.first).then_some(mapping)
        })
    }

    /// A mapping inside a region that has an address in common with `range`.
    fn inside(&self, range: AddressRange) -> Option<&Mapping> {
        let (first, last) = (self.region(range.first), self.region(range.last));
        let (start, end) = (self.page(range.first), self.page(range.last));
        if first == last {
            return self.regions.get(&first)?.first(start..=end);
        }
        // Any region that lies between the two ends has a mapping, by being there.
        let mut regions = self.regions.range(first..=last).take(3).map(|(number, region)| {
            let start = if *number == first { start } else { 0 };
            let end = if *number == last { end } else { PAGES - 1 };
            region.first(start..=end)
        });
        regions.find_map(|found| found)
    }

    /// An address at or above 4 GiB that is mapped and has `low` as its lower half. The search
    /// covers the lowest `HALVES` ranges of 4 GiB that have a mapping.
    pub(super) fn find_above(&self, low: u32) -> Option<u64> {
        const HALVES: usize = 64;
        let mut from = 1 << 32;
        for _ in 0..HALVES {
            let region = self.regions.range(self.region(from)..).next();
            let region = region.map(|(number, _)| number << (self.page_shift + REGION));
            let before = self.wide.range(..from).next_back().map(|(_, mapping)| mapping);
            let wide = match before.filter(|mapping| mapping.range.last >= from) {
                Some(_) => Some(from),
                None => self.wide.range(from..).next().map(|(first, _)| *first),
            };
            let next = [region, wide].into_iter().flatten().min()?.max(from);
            let address = next >> 32 << 32 | u64::from(low);
            if self.find(address).is_some() {
                return Some(address);
            }
            from = (next >> 32).checked_add(1)?.checked_mul(1 << 32)?;
        }
        None
    }

    /// Adds a mapping that overlaps no other.
    pub(super) fn insert(&mut self, mapping: Mapping) {
        self.len += 1;
        let Some((number, pages)) = self.place(mapping.range) else {
            self.wide.insert(mapping.range.first, mapping);
            return;
        };
        let region = self.regions.entry(number).or_insert_with(|| Box::new(Region::new()));
        let index = u8::try_from(region.mappings.len()).unwrap_or(NONE);
        region.fill(pages, index);
        region.mappings.push(mapping);
    }

    /// Removes the mapping that covers `range`, no more and no less.
    pub(super) fn remove_exact(&mut self, range: AddressRange) -> Option<Mapping> {
        let removed = match self.place(range) {
            Some((number, pages)) => {
                let Entry::Occupied(mut entry) = self.regions.entry(number) else { return None };
                let region = entry.get_mut();
                let index = *region.pages.get(*pages.start())?;
                let place = usize::from(index);
                if region.mappings.get(place)?.range != range {
                    return None;
                }
                region.fill(pages, NONE);
                let removed = region.mappings.swap_remove(place);
                // The last one has moved to where the removed one was.
                if let Some(moved) = region.mappings.get(place).map(|mapping| mapping.range) {
                    let page = |address| page_number(address, self.page_shift);
                    region.fill(page(moved.first)..=page(moved.last), index);
                } else if region.mappings.is_empty() {
                    entry.remove();
                }
                removed
            }
            None => {
                let Entry::Occupied(entry) = self.wide.entry(range.first) else { return None };
                if entry.get().range != range {
                    return None;
                }
                entry.remove()
            }
        };
        self.len -= 1;
        Some(removed)
    }

    /// Removes a mapping that has an address in common with `range`.
    pub(super) fn remove_overlap(&mut self, range: AddressRange) -> Option<Mapping> {
        let found = self.overlap(range)?.range;
        self.remove_exact(found)
    }

    /// The region that `range` lies in, and its pages there; none if it reaches over an edge.
    fn place(&self, range: AddressRange) -> Option<(u64, RangeInclusive<usize>)> {
        let number = self.region(range.first);
        let pages = self.page(range.first)..=self.page(range.last);
        (number == self.region(range.last)).then_some((number, pages))
    }

    fn region(&self, address: u64) -> u64 {
        address >> (self.page_shift + REGION)
    }

    /// The page of `address` in its region.
    fn page(&self, address: u64) -> usize {
        page_number(address, self.page_shift)
    }
}

#[allow(clippy::cast_possible_truncation, reason = "the mask keeps six bits")]
fn page_number(address: u64, page_shift: u32) -> usize {
    (address >> page_shift) as usize & (PAGES - 1)
}
