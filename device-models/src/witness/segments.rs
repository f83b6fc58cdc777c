//! Which bytes are mapped for a function, for what, and what was mapped in one go: disjoint
//! segments, each with all that covers it.
//!
//! Neighbours that are covered alike are one segment. So a scatterlist that lies in a row is one,
//! and parts of a mapping that were mapped once more leave nothing behind when they are unmapped.

use std::collections::BTreeMap;

use super::Direction;
use crate::AddressRange;
use crate::fabric::Kind;

/// Segments that one mapping may be made of or cut through. A mapping that covers more of them is
/// of no driver: each has a few.
const MAX_TOUCHED: usize = 1 << 14;

/// Groups that may cover one byte. Real ones: a page of zeros that many requests write to disk.
const MAX_SHARES: usize = 1 << 10;

/// Of all segments together, what covers them.
const MAX_TOTAL: usize = 1 << 21;

/// More mappings overlap than are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooMany;

/// How often a group covers a segment, for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    group: u64,
    readers: u32,
    writers: u32,
    /// For neither: `DMA_NONE`.
    idle: u32,
}

impl Share {
    fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::MemoryRead => self.readers > 0,
            Kind::MemoryWrite => self.writers > 0,
        }
    }

    fn change(&mut self, direction: Direction, by: impl Fn(u32) -> u32) {
        let (reads, writes) =
            (direction.allows(Kind::MemoryRead), direction.allows(Kind::MemoryWrite));
        if reads {
            self.readers = by(self.readers);
        }
        if writes {
            self.writers = by(self.writers);
        }
        if !reads && !writes {
            self.idle = by(self.idle);
        }
    }

    fn is_empty(&self) -> bool {
        (self.readers, self.writers, self.idle) == (0, 0, 0)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    last: u64,
    /// In the order of their groups.
    shares: Vec<Share>,
}

impl Segment {
    fn allows(&self, group: u64, kind: Kind) -> bool {
        self.shares
            .binary_search_by_key(&group, |share| share.group)
            .is_ok_and(|index| self.shares[index].allows(kind))
    }
}

/// What one byte is mapped for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Byte {
    /// Nothing covers it, from here up to `last`.
    Bare { last: u64 },
    /// What covers it does not allow the access, from here up to `last`. The first group of it.
    Forbidden { last: u64, group: u64 },
    /// The access is allowed, from here up to `last`.
    Allowed { last: u64 },
}

/// The segments of a function.
#[derive(Debug, Default)]
pub(super) struct Segments {
    map: BTreeMap<u64, Segment>,
    shares: usize,
}

impl Segments {
    /// The segment of `address`: first, last, and what covers it.
    fn at(&self, address: u64) -> Option<(u64, &Segment)> {
        let (first, segment) = self.map.range(..=address).next_back()?;
        (segment.last >= address).then_some((*first, segment))
    }

    /// Cuts the segment of `address` in two, of which the second begins there.
    fn cut(&mut self, address: u64) -> Result<(), TooMany> {
        let Some((first, segment)) = self.map.range_mut(..=address).next_back() else {
            return Ok(());
        };
        if *first == address || segment.last < address {
            return Ok(());
        }
        let second = segment.clone();
        segment.last = address - 1;
        self.shares += second.shares.len();
        self.map.insert(address, second);
        if self.shares > MAX_TOTAL { Err(TooMany) } else { Ok(()) }
    }

    /// Makes one of the segment that begins at `first` and the one before it, if they touch and are
    /// covered alike.
    fn join(&mut self, first: u64) {
        let Some(segment) = self.map.get(&first) else { return };
        let Some((_, before)) = self.map.range(..first).next_back() else { return };
        if before.last.checked_add(1) != Some(first) || before.shares != segment.shares {
            return;
        }
        let Some(segment) = self.map.remove(&first) else { return };
        self.shares -= segment.shares.len();
        if let Some((_, before)) = self.map.range_mut(..first).next_back() {
            before.last = segment.last;
        }
    }

    /// Changes what covers `range`, which is cut out before and joined with its neighbours after.
    fn change(
        &mut self,
        range: AddressRange,
        add: bool,
        each: impl Fn(&mut Vec<Share>),
    ) -> Result<(), TooMany> {
        self.cut(range.first)?;
        if let Some(behind) = range.last.checked_add(1) {
            self.cut(behind)?;
        }
        let inside = self.map.range(range.first..=range.last).take(MAX_TOUCHED + 1);
        let old: Vec<_> = inside.map(|(first, segment)| (*first, segment.last)).collect();
        if old.len() > MAX_TOUCHED {
            return Err(TooMany);
        }
        let mut next = Some(range.first);
        let mut full = false;
        for &(first, last) in &old {
            if let Some(gap) = next.filter(|next| *next < first && add) {
                self.fill(gap, first - 1, &each);
            }
            next = last.checked_add(1);
            if let Some(segment) = self.map.get_mut(&first) {
                let before = segment.shares.len();
                each(&mut segment.shares);
                let now = segment.shares.len();
                self.shares = self.shares + now - before;
                full |= now > MAX_SHARES;
                if now == 0 {
                    self.map.remove(&first);
                }
            }
        }
        if let Some(gap) = next.filter(|next| *next <= range.last && add) {
            self.fill(gap, range.last, &each);
        }
        for &(first, last) in &old {
            self.join(first);
            if let Some(behind) = last.checked_add(1).filter(|behind| *behind < range.last) {
                self.join(behind);
            }
        }
        self.join(range.first);
        if let Some(behind) = range.last.checked_add(1) {
            self.join(behind);
        }
        if full || self.shares > MAX_TOTAL { Err(TooMany) } else { Ok(()) }
    }

    fn fill(&mut self, first: u64, last: u64, each: &impl Fn(&mut Vec<Share>)) {
        let mut shares = Vec::with_capacity(1);
        each(&mut shares);
        self.shares += shares.len();
        self.map.insert(first, Segment { last, shares });
    }

    /// Covers `range` by `group` once more. After an error nothing in here can be relied on.
    pub(super) fn add(
        &mut self,
        range: AddressRange,
        direction: Direction,
        group: u64,
    ) -> Result<(), TooMany> {
        self.change(range, true, |shares| {
            let index = match shares.binary_search_by_key(&group, |share| share.group) {
                Ok(index) => index,
                Err(index) => {
                    shares.insert(index, Share { group, readers: 0, writers: 0, idle: 0 });
                    index
                }
            };
            shares[index].change(direction, |count| count.saturating_add(1));
        })
    }

    /// Takes back one [`Segments::add`].
    pub(super) fn remove(
        &mut self,
        range: AddressRange,
        direction: Direction,
        group: u64,
    ) -> Result<(), TooMany> {
        self.change(range, false, |shares| {
            if let Ok(index) = shares.binary_search_by_key(&group, |share| share.group) {
                shares[index].change(direction, |count| count.saturating_sub(1));
                if shares[index].is_empty() {
                    shares.remove(index);
                }
            }
        })
    }

    /// What the byte at `address` is mapped for, and how far that holds.
    pub(super) fn byte(&self, address: u64, kind: Kind) -> Byte {
        let Some((_, segment)) = self.at(address) else {
            let next = self.map.range(address..).next();
            return Byte::Bare { last: next.map_or(u64::MAX, |(first, _)| first - 1) };
        };
        let last = segment.last;
        if segment.shares.iter().any(|share| share.allows(kind)) {
            Byte::Allowed { last }
        } else {
            let group = segment.shares.first().map_or(0, |share| share.group);
            Byte::Forbidden { last, group }
        }
    }

    /// The first byte from `first` to `last` that does not allow the access.
    pub(super) fn first_not_allowed(&self, first: u64, last: u64, kind: Kind) -> Option<u64> {
        let mut at = first;
        loop {
            match self.byte(at, kind) {
                Byte::Allowed { last: reach } if reach >= last => return None,
                Byte::Allowed { last: reach } => at = reach + 1,
                _ => return Some(at),
            }
        }
    }

    /// How far, from `first` on, one group allows the access without a gap, and which group: the one
    /// that reaches furthest, or the first that reaches `enough`. None if none does at all.
    pub(super) fn reach(&self, first: u64, enough: u64, kind: Kind) -> Option<(u64, u64)> {
        let (_, segment) = self.at(first)?;
        let mut best = None;
        for share in segment.shares.iter().filter(|share| share.allows(kind)) {
            let last = self.reach_of(share.group, first, enough, kind).unwrap_or(first);
            if best.is_none_or(|(furthest, _)| last > furthest) {
                best = Some((last, share.group));
            }
            if last >= enough {
                break;
            }
        }
        best
    }

    /// How far, from `first` on, `group` allows the access; at least up to `enough`, where it does.
    /// None if it does not even there.
    pub(super) fn reach_of(&self, group: u64, first: u64, enough: u64, kind: Kind) -> Option<u64> {
        let (start, _) = self.at(first)?;
        let mut reach = None;
        for (&start, segment) in self.map.range(start..) {
            let goes_on = reach.is_none_or(|reach: u64| reach.checked_add(1) == Some(start));
            if !goes_on || !segment.allows(group, kind) {
                break;
            }
            reach = Some(segment.last);
            if segment.last >= enough {
                break;
            }
        }
        reach
    }

    /// The segment of `address`, if `group` allows the access there.
    pub(super) fn segment_of(&self, group: u64, address: u64, kind: Kind) -> Option<AddressRange> {
        let (first, segment) = self.at(address)?;
        segment.allows(group, kind).then_some(AddressRange { first, last: segment.last })
    }

    /// Whether nothing is mapped.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// How many segments there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Kind = Kind::MemoryRead;
    const WRITE: Kind = Kind::MemoryWrite;

    fn range(first: u64, last: u64) -> AddressRange {
        AddressRange { first, last }
    }

    #[test]
    fn bytes_are_exact_and_directions_are_counted() {
        let mut segments = Segments::default();
        segments.add(range(0x1000, 0x103f), Direction::ToDevice, 1).unwrap();
        segments.add(range(0x1020, 0x105f), Direction::FromDevice, 2).unwrap();
        assert_eq!(segments.byte(0xfff, READ), Byte::Bare { last: 0xfff });
        assert_eq!(segments.byte(0x1000, READ), Byte::Allowed { last: 0x101f });
        assert_eq!(segments.byte(0x1000, WRITE), Byte::Forbidden { last: 0x101f, group: 1 });
        assert_eq!(segments.byte(0x1020, WRITE), Byte::Allowed { last: 0x103f });
        assert_eq!(segments.byte(0x105f, READ), Byte::Forbidden { last: 0x105f, group: 2 });
        assert_eq!(segments.byte(0x1060, READ), Byte::Bare { last: u64::MAX });
        assert_eq!(segments.first_not_allowed(0x1000, 0x105f, READ), Some(0x1040));
        segments.remove(range(0x1000, 0x103f), Direction::ToDevice, 1).unwrap();
        assert_eq!(segments.byte(0x1000, READ), Byte::Bare { last: 0x101f });
        segments.remove(range(0x1020, 0x105f), Direction::FromDevice, 2).unwrap();
        assert!(segments.is_empty() && segments.shares == 0);
    }

    #[test]
    fn identical_mappings_are_counted() {
        let mut segments = Segments::default();
        let page = range(0x1000, 0x1fff);
        segments.add(page, Direction::Both, 1).unwrap();
        segments.add(page, Direction::ToDevice, 2).unwrap();
        segments.add(page, Direction::ToDevice, 2).unwrap();
        segments.remove(page, Direction::ToDevice, 2).unwrap();
        segments.remove(page, Direction::Both, 1).unwrap();
        assert_eq!(segments.byte(0x1000, READ), Byte::Allowed { last: 0x1fff });
        assert_eq!(segments.byte(0x1000, WRITE), Byte::Forbidden { last: 0x1fff, group: 2 });
    }

    #[test]
    fn what_was_mapped_in_one_go_and_lies_in_a_row_is_one() {
        let mut segments = Segments::default();
        for page in [3, 1, 2] {
            segments.add(range(page << 12, (page << 12) + 0xfff), Direction::Both, 7).unwrap();
        }
        assert_eq!(segments.len(), 1);
        segments.add(range(0x4000, 0x4fff), Direction::Both, 8).unwrap();
        assert_eq!(segments.reach(0x1010, u64::MAX, READ), Some((0x3fff, 7)));
        segments.remove(range(0x2000, 0x2fff), Direction::Both, 7).unwrap();
        assert_eq!(segments.reach(0x1010, u64::MAX, READ), Some((0x1fff, 7)));
        assert_eq!(segments.reach(0x2000, u64::MAX, READ), None);
    }

    #[test]
    fn a_group_reaches_over_what_overlaps_it() {
        let mut segments = Segments::default();
        segments.add(range(0x1000, 0x3fff), Direction::ToDevice, 1).unwrap();
        segments.add(range(0x2000, 0x2fff), Direction::ToDevice, 2).unwrap();
        segments.add(range(0x3000, 0x5fff), Direction::ToDevice, 2).unwrap();
        assert_eq!(segments.reach(0x1000, u64::MAX, READ), Some((0x3fff, 1)));
        assert_eq!(segments.reach(0x2800, 0x5fff, READ), Some((0x5fff, 2)));
        // What overlapped it leaves nothing behind.
        segments.remove(range(0x2000, 0x2fff), Direction::ToDevice, 2).unwrap();
        segments.remove(range(0x3000, 0x5fff), Direction::ToDevice, 2).unwrap();
        assert_eq!(segments.len(), 1);
    }

    #[test]
    fn the_last_address_is_one_as_any_other() {
        let mut segments = Segments::default();
        segments.add(range(u64::MAX, u64::MAX), Direction::Both, 1).unwrap();
        segments.add(range(0, u64::MAX), Direction::ToDevice, 2).unwrap();
        assert_eq!(segments.byte(u64::MAX, WRITE), Byte::Allowed { last: u64::MAX });
        assert_eq!(segments.reach(0, u64::MAX, READ), Some((u64::MAX, 2)));
        segments.remove(range(0, u64::MAX), Direction::ToDevice, 2).unwrap();
        assert_eq!(segments.byte(0, READ), Byte::Bare { last: u64::MAX - 1 });
    }

    #[test]
    fn what_is_kept_and_done_has_bounds() {
        let mut segments = Segments::default();
        for index in 0..=MAX_TOUCHED as u64 {
            segments.add(range(index * 2, index * 2), Direction::Both, index).unwrap();
        }
        assert_eq!(segments.add(range(0, u64::MAX), Direction::Both, u64::MAX), Err(TooMany));
        let mut segments = Segments::default();
        let deep = (0..).find(|&group| segments.add(range(0, 9), Direction::Both, group).is_err());
        assert_eq!(deep, Some(MAX_SHARES as u64));
    }
}
