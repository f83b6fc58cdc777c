//! One function: what is mapped for it, and whether that is all.

use super::cache::Cache;
use super::counters::Gap;
use super::ledger::{Dead, End, Ended, Ledger, Mapping};
use super::record::{Event, Record};
use super::segments::{Byte, Segments, TooMany};
use crate::AddressRange;
use crate::fabric::Kind;

const PAGE: u64 = 0x1000;

/// What was found allowed last: where a long range of addresses has got to.
#[derive(Debug, Clone, Copy, Default)]
struct Walk {
    generation: u32,
    group: u64,
    first: u64,
    last: u64,
}

/// What is wrong with an access, and with which of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// The first byte that is wrong.
    pub(crate) first: u64,
    /// The last one for the same reason.
    pub(crate) last: u64,
    pub(crate) reason: Reason,
}

/// Why an access is none that the guest's kernel has allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Nothing is mapped there, and nothing that is remembered was.
    Unmapped,
    /// What was mapped there is not any more.
    Stale(Dead),
    /// The same, and another function's mapping has come there since.
    Recycled(Dead),
    /// What is mapped there allows the other direction only; which group that is.
    Direction { group: u64 },
    /// The bytes before are in a mapping that ends here: its group.
    PastEnd { group: u64 },
}

/// A function. See the module.
#[derive(Debug)]
pub(super) struct Tracked {
    /// It is given physical addresses, whatever is mapped for it.
    pub(super) physical: bool,
    /// Whether all mappings of the function are known; why not.
    pub(super) coverage: Result<(), Gap>,
    pub(super) segments: Segments,
    pub(super) ledger: Ledger,
    /// Counts what stops being allowed; never 0.
    generation: u32,
    caches: [Cache; 2],
    walks: [Walk; 2],
}

impl Default for Tracked {
    fn default() -> Self {
        Self {
            physical: false,
            coverage: Err(Gap::BoundBefore),
            segments: Segments::default(),
            ledger: Ledger::default(),
            generation: 1,
            caches: Default::default(),
            walks: Default::default(),
        }
    }
}

impl Tracked {
    /// One of which nothing has been reported.
    pub(super) fn begin_anew(&self) -> Self {
        Self { physical: self.physical, ..Self::default() }
    }

    /// Whether a missing mapping is a mistake; why not.
    #[inline]
    pub(super) fn is_covered(&self) -> Result<(), Gap> {
        if self.physical { Err(Gap::Physical) } else { self.coverage }
    }

    /// A mapping was made. `translated`: its addresses are the IOMMU's, which has none of them
    /// twice; otherwise identical mappings and such that overlap are counted.
    pub(super) fn map(
        &mut self,
        mapping: Mapping,
        bus: bool,
        translated: bool,
    ) -> Result<(), TooMany> {
        if translated && !bus {
            self.retire(mapping.range, Some(mapping.group), mapping.event)?;
        }
        if !bus && self.ledger.was_unmapped_early(&mapping) {
            self.ledger.bury(mapping, End::Translation, false);
            return Ok(());
        }
        if let Some(twin) = self.ledger.add(mapping, bus) {
            self.uncover(&twin)?;
        }
        self.segments.add(mapping.range, mapping.direction, mapping.group)
    }

    /// The IOMMU's addresses around `range` have been given to another mapping: what was mapped
    /// there before is over, whatever else has been reported of it.
    pub(super) fn retire(
        &mut self,
        range: AddressRange,
        group: Option<u64>,
        event: Event,
    ) -> Result<(), TooMany> {
        // Addresses are given by the page.
        let AddressRange { first, last } = range;
        let pages = AddressRange { first: first & !(PAGE - 1), last: last | (PAGE - 1) };
        for old in self.ledger.take_overlapping(pages, group) {
            self.end(old, End::Reused(event), true)?;
        }
        Ok(())
    }

    /// The IOMMU does not translate `range` any more.
    pub(super) fn end_translation(&mut self, range: AddressRange) -> Result<(), TooMany> {
        for old in self.ledger.take_inside(range) {
            self.end(old, End::Translation, true)?;
        }
        Ok(())
    }

    /// An unmap was reported. Whether it was one of something that was mapped.
    pub(super) fn unmap(
        &mut self,
        record: &Record,
        range: AddressRange,
        bus: bool,
        translated: bool,
    ) -> Result<bool, TooMany> {
        match self.ledger.unmap(record, range, bus, translated && !bus) {
            Ended::One(mapping) => self.end(mapping, End::Unmapped(record.event), false)?,
            Ended::Parts(mappings) => {
                for mapping in mappings {
                    self.end(mapping, End::Unmapped(record.event), false)?;
                }
            }
            Ended::Already => {}
            Ended::Unknown => return Ok(false),
        }
        Ok(true)
    }

    fn end(&mut self, mapping: Mapping, end: End, awaited: bool) -> Result<(), TooMany> {
        self.ledger.bury(mapping, end, awaited);
        self.uncover(&mapping)
    }

    fn uncover(&mut self, mapping: &Mapping) -> Result<(), TooMany> {
        if !mapping.covers {
            return Ok(());
        }
        self.forget_allowed();
        self.segments.remove(mapping.range, mapping.direction, mapping.group)
    }

    /// A segment of a dma-buf's table takes the place of what is mapped there and `is_one`.
    pub(super) fn cover(
        &mut self,
        mapping: &Mapping,
        is_one: impl Fn(&Mapping) -> bool,
    ) -> Result<(), TooMany> {
        for old in self.ledger.supersede(mapping.range, is_one) {
            self.forget_allowed();
            self.segments.remove(old.range, old.direction, old.group)?;
        }
        self.segments.add(mapping.range, mapping.direction, mapping.group)
    }

    /// A segment of a dma-buf's table is over.
    pub(super) fn end_cover(&mut self, mapping: &Mapping, end: End) -> Result<(), TooMany> {
        self.ledger.bury(*mapping, end, false);
        self.uncover(mapping)
    }

    /// A segment of a dma-buf's table may only be read from now on.
    pub(super) fn write_protect(&mut self, mapping: &mut Mapping) -> Result<(), TooMany> {
        self.uncover(mapping)?;
        mapping.direction = if mapping.direction.allows(Kind::MemoryRead) {
            super::Direction::ToDevice
        } else {
            super::Direction::None
        };
        self.segments.add(mapping.range, mapping.direction, mapping.group)
    }

    /// Forgets what is in force. What is remembered of the dead stays.
    pub(super) fn clear(&mut self) {
        self.forget_allowed();
        self.ledger.clear();
        self.segments = Segments::default();
    }

    /// Whether an access to the bytes from `at` to `last` is allowed, as a part of what begins at
    /// `begun` and is to lie in what was mapped in one go.
    #[inline]
    pub(super) fn allows(&mut self, kind: Kind, begun: u64, at: u64, last: u64) -> bool {
        self.caches[kind as usize].holds(self.generation, begun, at, last)
            || self.finds(kind, begun, at, last)
    }

    /// Something is not allowed any more.
    fn forget_allowed(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            self.generation = 1;
            self.caches.iter_mut().for_each(Cache::clear);
            self.walks = Default::default();
        }
    }

    fn finds(&mut self, kind: Kind, begun: u64, at: u64, last: u64) -> bool {
        let walk = self.walks[kind as usize];
        let known = walk.generation == self.generation
            && walk.first <= begun
            && begun <= walk.last
            && at <= walk.last.saturating_add(1);
        let further = known
            .then(|| self.segments.reach_of(walk.group, at, last, kind))
            .flatten()
            .filter(|reach| *reach >= last);
        let (first, reach, group) = match further {
            Some(reach) => (walk.first, reach, walk.group),
            None => match self.segments.reach(begun, last, kind) {
                Some((reach, group)) if reach >= last => {
                    let segment = self.segments.segment_of(group, begun, kind);
                    (segment.map_or(begun, |segment| segment.first), reach, group)
                }
                _ => return false,
            },
        };
        let generation = self.generation;
        self.walks[kind as usize] = Walk { generation, group, first, last: reach };
        self.caches[kind as usize].insert(generation, at, first, reach);
        true
    }

    /// What is wrong with an access that [`allows`](Self::allows) does not allow. None if that is
    /// not certain: the bytes themselves are mapped, and nothing is known of those before.
    pub(super) fn mistake(&self, kind: Kind, begun: u64, at: u64, last: u64) -> Option<Mistake> {
        let Some(wrong) = self.segments.first_not_allowed(at, last, kind) else {
            return self.not_in_one_go(kind, begun, at, last);
        };
        let dead = self.ledger.dead_at(wrong);
        // What the bytes before are in, if that ends here.
        let before = wrong
            .checked_sub(1)
            .filter(|before| *before >= begun)
            .and_then(|before| self.segments.reach(begun, before, kind).filter(|r| r.0 >= before))
            .map(|(_, group)| group);
        if let Some(group) = before
            && dead.is_none_or(|dead| dead.mapping.group != group)
            && !self.is_of(group, wrong)
        {
            return Some(Mistake { first: wrong, last, reason: Reason::PastEnd { group } });
        }
        let (reach, reason) = match self.segments.byte(wrong, kind) {
            Byte::Forbidden { last, group } => (last, Reason::Direction { group }),
            Byte::Bare { last } => match dead {
                Some(dead) => (last.min(dead.mapping.range.last), Reason::Stale(*dead)),
                None => (last, Reason::Unmapped),
            },
            Byte::Allowed { .. } => return None,
        };
        Some(Mistake { first: wrong, last: last.min(reach), reason })
    }

    /// Every byte is allowed, but they were not mapped in one go with those before.
    fn not_in_one_go(&self, kind: Kind, begun: u64, at: u64, last: u64) -> Option<Mistake> {
        match self.segments.reach(begun, last, kind) {
            Some((reach, group)) => {
                let first = reach.saturating_add(1).max(at);
                (first <= last).then_some(Mistake {
                    first,
                    last,
                    reason: Reason::PastEnd { group },
                })
            }
            None => {
                let dead = self.ledger.dead_at(begun)?;
                Some(Mistake { first: at, last, reason: Reason::Stale(*dead) })
            }
        }
    }

    /// Whether `address` is mapped in `group`, for whatever direction.
    fn is_of(&self, group: u64, address: u64) -> bool {
        [Kind::MemoryRead, Kind::MemoryWrite]
            .iter()
            .any(|kind| self.segments.segment_of(group, address, *kind).is_some())
    }
}
