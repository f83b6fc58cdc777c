//! The mappings of a function, one by one: which unmap belongs to which map, and what became of
//! those that are gone.

use std::collections::{BTreeMap, VecDeque};

use super::record::{Direction, Event, Record};
use crate::AddressRange;

/// Dead mappings that are remembered. For explanations only.
const MAX_HISTORY: usize = 4096;

/// Mappings that were ended by something else than their unmap, whose unmap is still to come.
const MAX_EXPECTED: usize = 1 << 14;

/// Unmaps that came before their map.
const MAX_EARLY: usize = 64;

/// A mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    /// Its addresses.
    pub range: AddressRange,
    /// What the device may do there.
    pub direction: Direction,
    /// What was mapped in one go has the same.
    pub group: u64,
    /// The ticket of its record.
    pub ticket: u64,
    /// Who made it.
    pub event: Event,
    /// The dma-buf that it is of; 0 for none.
    pub buffer: u64,
    /// A coherent allocation.
    pub coherent: bool,
    /// It counts. One of the same addresses that a dma-buf's table has taken the place of does not.
    pub covers: bool,
}

impl Mapping {
    /// The mapping of a record with these addresses.
    pub(super) fn of(record: &Record, range: AddressRange, coherent: bool) -> Self {
        let Record { direction, group, ticket, event, buffer, .. } = *record;
        Self { range, direction, group, ticket, event, buffer, coherent, covers: true }
    }

    fn key(&self) -> Key {
        (self.range.first, self.range.last, self.direction, self.ticket)
    }
}

/// How a mapping ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was unmapped.
    Unmapped(Event),
    /// The IOMMU has served the request to unmap it; nothing else is known yet.
    Translation,
    /// Its addresses were mapped for something else; its unmap has not been reported yet.
    Reused(Event),
    /// The driver was unbound, or the device is gone.
    Unbound(Event),
    /// The dma-buf was freed.
    Freed(Event),
}

impl End {
    /// When, and who did it, where that is known.
    pub(super) fn event(&self) -> Option<Event> {
        match *self {
            Self::Unmapped(event)
            | Self::Reused(event)
            | Self::Unbound(event)
            | Self::Freed(event) => Some(event),
            Self::Translation => None,
        }
    }
}

/// A mapping that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dead {
    /// What it was.
    pub mapping: Mapping,
    /// How it ended.
    pub end: End,
}

/// First and last address, direction, ticket: those that are alike follow each other by age.
type Key = (u64, u64, Direction, u64);

/// The mappings of a function.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    live: BTreeMap<Key, Mapping>,
    /// Those whose addresses are bus addresses: another address space than that of the IOMMU.
    bus: BTreeMap<Key, Mapping>,
    /// Ended already, with the number in the history, and unmapped later.
    expected: BTreeMap<Key, u64>,
    /// Unmaps without a map: addresses, direction and ticket.
    early: VecDeque<Key>,
    history: VecDeque<Dead>,
    /// Number of the first in the history.
    oldest: u64,
}

/// The keys of what has exactly these addresses and this direction.
fn alike(range: AddressRange, direction: Direction) -> std::ops::RangeInclusive<Key> {
    let AddressRange { first, last } = range;
    (first, last, direction, 0)..=(first, last, direction, u64::MAX)
}

impl Ledger {
    /// Mappings in force, those that do not count included.
    pub(super) fn len(&self) -> usize {
        self.live.len() + self.bus.len()
    }

    /// A new mapping. The one whose place it takes, if its record was there before: of a hostile
    /// guest only.
    pub(super) fn add(&mut self, mapping: Mapping, bus: bool) -> Option<Mapping> {
        let map = if bus { &mut self.bus } else { &mut self.live };
        map.insert(mapping.key(), mapping)
    }

    /// Whether the unmap of `mapping` has come already: it is over, and only explains.
    pub(super) fn was_unmapped_early(&mut self, mapping: &Mapping) -> bool {
        let (first, last, direction, ticket) = mapping.key();
        let found = self.early.iter().position(|&(its_first, its_last, its_direction, later)| {
            (its_first, its_last, its_direction) == (first, last, direction) && later > ticket
        });
        found.is_some_and(|index| self.early.remove(index).is_some())
    }

    /// Takes out the mapping that an unmap ends: exactly the same addresses and direction, and the
    /// oldest of these; failing that, of any direction; failing that, if `parts`, all that lie in
    /// its addresses. None are taken out for the unmap of a mapping that has ended already.
    pub(super) fn unmap(
        &mut self,
        record: &Record,
        range: AddressRange,
        bus: bool,
        parts: bool,
    ) -> Ended {
        if !bus && let Some(key) = self.next_expected(range, record.direction) {
            if let Some(id) = self.expected.remove(&key)
                && let Some(dead) = self.remembered(id)
            {
                dead.end = End::Unmapped(record.event);
            }
            return Ended::Already;
        }
        let map = if bus { &mut self.bus } else { &mut self.live };
        let any = [Direction::Both, Direction::ToDevice, Direction::FromDevice, Direction::None];
        let mut directions = std::iter::once(record.direction).chain(any);
        let found = directions
            .find_map(|direction| map.range(alike(range, direction)).next().map(|(key, _)| *key));
        if let Some(mapping) = found.and_then(|key| map.remove(&key)) {
            return Ended::One(mapping);
        }
        if parts {
            let keys: Vec<_> = inside(map, range).collect();
            let gone: Vec<_> = keys.iter().filter_map(|key| map.remove(key)).collect();
            if !gone.is_empty() {
                return Ended::Parts(gone);
            }
        }
        if self.early.len() == MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((range.first, range.last, record.direction, record.ticket));
        Ended::Unknown
    }

    fn next_expected(&self, range: AddressRange, direction: Direction) -> Option<Key> {
        self.expected.range(alike(range, direction)).next().map(|(key, _)| *key)
    }

    /// Takes out what is translated by the IOMMU, has an address in `range`, and is not of `group`.
    pub(super) fn take_overlapping(
        &mut self,
        range: AddressRange,
        group: Option<u64>,
    ) -> Vec<Mapping> {
        // Of what the IOMMU translates nothing overlaps, so that only the one before can reach in.
        let first = (range.first, 0, Direction::Both, 0);
        let before = self.live.range(..first).next_back();
        let before = before.filter(|((_, last, ..), _)| *last >= range.first);
        let after = self.live.range(first..=(range.last, u64::MAX, Direction::None, u64::MAX));
        let keys: Vec<_> = before
            .into_iter()
            .chain(after)
            .filter(|(_, mapping)| group != Some(mapping.group))
            .map(|(key, _)| *key)
            .collect();
        keys.iter().filter_map(|key| self.live.remove(key)).collect()
    }

    /// Takes out what the IOMMU has translated and lies in `range`.
    pub(super) fn take_inside(&mut self, range: AddressRange) -> Vec<Mapping> {
        let keys: Vec<_> = inside(&self.live, range).collect();
        keys.iter().filter_map(|key| self.live.remove(key)).collect()
    }

    /// Those of the same addresses that a dma-buf's table takes the place of: they do not count any
    /// more.
    pub(super) fn supersede(
        &mut self,
        range: AddressRange,
        is_one: impl Fn(&Mapping) -> bool,
    ) -> Vec<Mapping> {
        let mut gone = Vec::new();
        for map in [&mut self.live, &mut self.bus] {
            let keys: Vec<_> = inside(map, range).collect();
            for key in keys {
                if let Some(mapping) = map.get_mut(&key)
                    && mapping.covers
                    && is_one(mapping)
                {
                    gone.push(*mapping);
                    mapping.covers = false;
                }
            }
        }
        gone
    }

    /// Remembers a mapping that is over. `awaited`: its unmap is still to be reported.
    pub(super) fn bury(&mut self, mapping: Mapping, end: End, awaited: bool) {
        if self.history.len() == MAX_HISTORY {
            self.history.pop_front();
            self.oldest += 1;
        }
        let id = self.oldest + self.history.len() as u64;
        self.history.push_back(Dead { mapping, end });
        if awaited {
            if self.expected.len() == MAX_EXPECTED {
                self.expected.pop_first();
            }
            self.expected.insert(mapping.key(), id);
        }
    }

    fn remembered(&mut self, id: u64) -> Option<&mut Dead> {
        self.history.get_mut(usize::try_from(id.checked_sub(self.oldest)?).ok()?)
    }

    /// The last one that had `address`.
    pub(super) fn dead_at(&self, address: u64) -> Option<&Dead> {
        self.history.iter().rev().find(|dead| dead.mapping.range.contains(address))
    }

    /// One in force that has `address`, of `group` if that is given. For explanations.
    pub(super) fn find(&self, address: u64, group: Option<u64>) -> Option<&Mapping> {
        /// Those that begin before an address and are looked at.
        const LOOKS: usize = 256;
        [&self.live, &self.bus].into_iter().find_map(|map| {
            let before = map.range(..=(address, u64::MAX, Direction::None, u64::MAX)).rev();
            before.take(LOOKS).map(|(_, mapping)| mapping).find(|mapping| {
                mapping.covers
                    && mapping.range.contains(address)
                    && group.is_none_or(|group| mapping.group == group)
            })
        })
    }

    /// All in force, by address; those of bus addresses last.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Mapping> {
        self.live.values().chain(self.bus.values())
    }

    /// Forgets all that is in force, and what was expected.
    pub(super) fn clear(&mut self) {
        self.live.clear();
        self.bus.clear();
        self.expected.clear();
        self.early.clear();
    }
}

/// What an unmap has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// One mapping.
    One(Mapping),
    /// All that lay inside.
    Parts(Vec<Mapping>),
    /// It had ended already.
    Already,
    /// Nothing that is known.
    Unknown,
}

fn inside(map: &BTreeMap<Key, Mapping>, range: AddressRange) -> impl Iterator<Item = Key> + '_ {
    let first = (range.first, 0, Direction::Both, 0);
    let last = (range.last, u64::MAX, Direction::None, u64::MAX);
    map.range(first..=last).map(|(key, _)| *key).filter(move |(_, last, ..)| *last <= range.last)
}
