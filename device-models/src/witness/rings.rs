//! The rings that the guest shares: one for each of its CPUs.
//!
//! # Which records are seen together
//!
//! A drain looks at the heads of all rings until it has seen them twice with nothing in between:
//! then they are the heads of one moment. So whatever had been reported when a record was written
//! is seen no later than that record: a map that has returned on one CPU comes before the unmap on
//! another. Where that does not succeed in a few attempts, because the guest reports all the time,
//! the last look counts, and [`Ledger`](super::ledger::Ledger) puts an unmap that comes before its
//! map right.
//!
//! The records of one look are taken in the order of their tickets. One that is missing is not
//! waited for: its operation has not returned yet.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::Ordering;

use guest_protocol::witness::{
    Kind, MAGIC, MAX_ENTRIES, MAX_RINGS, RECORD_SIZE, VERSION, header, record, slot,
};
use vm_memory::{Bytes as _, VolatileSlice};

use super::record::{Builder, Bytes, Record};
use crate::memory::Memory;

/// Records of all rings together at most: what one drain may have to take.
pub(super) const MAX_RECORDS: u64 = 1 << 20;

/// Looks at the heads, at most, until two in a row agree.
const LOOKS: usize = 8;

/// Why a header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    /// It is not in RAM.
    #[error("no RAM is at {0:#x}")]
    NotRam(u64),
    /// It does not begin as it should.
    #[error("its magic number is {0:#x}, not {MAGIC:#x}")]
    Magic(u32),
    /// It is of another version.
    #[error("its version is {0}; this VMM knows {VERSION}")]
    Version(u32),
    /// More rings, or larger ones, than there may be, or none.
    #[error(
        "{rings} rings of {entries} records: at most {MAX_RINGS} of {MAX_ENTRIES} are possible, a \
         power of two, and {MAX_RECORDS} in all"
    )]
    Size {
        /// How many rings.
        rings: u32,
        /// Records in each.
        entries: u32,
    },
    /// A ring does not begin at a multiple of a record's size.
    #[error("ring {0} is not aligned")]
    Unaligned(u32),
}

/// A piece of guest RAM.
#[derive(Debug)]
struct Piece {
    memory: Memory,
    offset: u64,
}

impl Piece {
    fn at(&self, offset: u64, length: usize) -> Option<VolatileSlice<'_>> {
        self.memory.slice(self.offset.checked_add(offset)?, length)
    }

    fn load(&self, offset: u64) -> Option<u32> {
        self.at(offset, 4)?.load(0, Ordering::Acquire).ok().map(u32::from_le)
    }

    fn store(&self, offset: u64, value: u32) {
        if let Some(slice) = self.at(offset, 4) {
            // Aligned, and in RAM, since the header was taken.
            let _ = slice.store(value.to_le(), 0, Ordering::Release);
        }
    }

    fn load_u64(&self, offset: u64) -> Option<u64> {
        self.at(offset, 8)?.load(0, Ordering::Relaxed).ok().map(u64::from_le)
    }
}

#[derive(Debug)]
struct Ring {
    slot: Piece,
    records: Piece,
    /// Records taken, modulo 2^32.
    tail: u32,
    /// The head up to which this drain takes them.
    head: u32,
    lost: u32,
    /// The next one, already read.
    next: Bytes,
}

/// Finds RAM: the memory that holds all `length` bytes from an address, and where in it they are.
pub type Find<'a> = &'a dyn Fn(u64, u64) -> Option<(Memory, u64)>;

/// The rings of a guest.
#[derive(Debug)]
pub struct Rings {
    rings: Vec<Ring>,
    entries: u32,
    /// The guest's clock at registration.
    now: u64,
    /// Rings with records that this drain has not taken yet, by the ticket of the next.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Records lost since the drain before.
    lost: u64,
}

impl Rings {
    /// Takes the header at `address`.
    ///
    /// # Errors
    /// When it cannot be used. Nothing is kept then.
    pub fn attach(address: u64, find: Find<'_>) -> Result<Self, BadHeader> {
        let piece = |address: u64, length: u64| {
            let (memory, offset) = find(address, length).ok_or(BadHeader::NotRam(address))?;
            Ok(Piece { memory, offset })
        };
        let head = piece(address, header::SLOTS)?;
        let word = |offset| head.load(offset).ok_or(BadHeader::NotRam(address));
        match (word(header::MAGIC)?, word(header::VERSION)?) {
            (MAGIC, VERSION) => {}
            (MAGIC, version) => return Err(BadHeader::Version(version)),
            (magic, _) => return Err(BadHeader::Magic(magic)),
        }
        let (count, entries) = (word(header::RINGS)?, word(header::ENTRIES)?);
        let fits = (1..=MAX_RINGS).contains(&count)
            && entries.is_power_of_two()
            && entries <= MAX_ENTRIES
            && u64::from(count) * u64::from(entries) <= MAX_RECORDS;
        if !fits {
            return Err(BadHeader::Size { rings: count, entries });
        }
        let bytes = u64::from(entries) * RECORD_SIZE as u64;
        let mut rings = Vec::new();
        for index in 0..count {
            let at = address
                .saturating_add(header::SLOTS)
                .saturating_add(u64::from(index) * header::SLOT_SIZE);
            let slot = piece(at, header::SLOT_SIZE)?;
            let first = slot.load_u64(slot::RING).ok_or(BadHeader::NotRam(at))?;
            if !first.is_multiple_of(RECORD_SIZE as u64) {
                return Err(BadHeader::Unaligned(index));
            }
            let records = piece(first, bytes)?;
            let tail = slot.load(slot::TAIL).unwrap_or(0);
            let lost = slot.load(slot::LOST).unwrap_or(0);
            rings.push(Ring { slot, records, tail, head: tail, lost, next: [0; RECORD_SIZE] });
        }
        let now = head.load_u64(header::NOW).ok_or(BadHeader::NotRam(address))?;
        let order = BinaryHeap::with_capacity(rings.len());
        Ok(Self { rings, entries, now, order, lost: 0 })
    }

    /// The guest's clock at registration, in nanoseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether there is nothing to take.
    #[inline]
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.rings.iter().all(|ring| ring.slot.load(slot::HEAD) == Some(ring.tail))
    }

    /// Begins a drain: what is in the rings now is what it takes.
    pub fn begin(&mut self) {
        let mut settled = false;
        for _ in 0..LOOKS {
            settled = true;
            for ring in &mut self.rings {
                let head = ring.slot.load(slot::HEAD).unwrap_or(ring.head);
                settled &= std::mem::replace(&mut ring.head, head) == head;
            }
            if settled {
                break;
            }
        }
        if !settled {
            log::debug!("the guest's CPUs report without a pause");
        }
        self.order.clear();
        for (index, ring) in self.rings.iter_mut().enumerate() {
            let lost = ring.slot.load(slot::LOST).unwrap_or(ring.lost);
            let more = lost.wrapping_sub(std::mem::replace(&mut ring.lost, lost));
            self.lost += u64::from(more);
            let waiting = ring.head.wrapping_sub(ring.tail);
            if waiting > self.entries {
                // No producer does that: what is there cannot be told from what was.
                self.lost += u64::from(waiting);
                ring.tail = ring.head;
            }
            if let Some(ticket) = ring.fetch(self.entries) {
                self.order.push(Reverse((ticket, index)));
            }
        }
    }

    /// The next record of this drain, in the order of tickets. The last one says how many were lost,
    /// if any were.
    pub fn take(&mut self) -> Option<Bytes> {
        let Some(Reverse((_, index))) = self.order.pop() else {
            let lost = std::mem::take(&mut self.lost);
            return (lost > 0).then(|| missed(lost, "records"));
        };
        let ring = self.rings.get_mut(index)?;
        let bytes = ring.next;
        ring.tail = ring.tail.wrapping_add(1);
        if let Some(ticket) = ring.fetch(self.entries) {
            self.order.push(Reverse((ticket, index)));
        }
        Some(bytes)
    }

    /// Ends a drain: the guest gets the room back.
    pub fn end(&mut self) {
        for ring in &self.rings {
            ring.slot.store(slot::TAIL, ring.tail);
        }
    }
}

impl Ring {
    /// Reads the next record; its ticket. None if the drain has taken all.
    fn fetch(&mut self, entries: u32) -> Option<u64> {
        if self.tail == self.head {
            return None;
        }
        let at = u64::from(self.tail & (entries - 1)) * RECORD_SIZE as u64;
        // Once, to a copy of our own: the guest may change the original.
        self.records.at(at, RECORD_SIZE)?.copy_to(&mut self.next[..]);
        Some(Record::of(&self.next).ticket)
    }
}

/// The record of records that were lost, in the guest's place.
fn missed(count: u64, what: &str) -> Bytes {
    Builder::new(Kind::Missed)
        .put_u64(record::LENGTH, count)
        .put(record::TEXT, what.as_bytes())
        .bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: u64 = 0x1000;
    const ENTRIES: u32 = 4;

    struct Guest {
        memory: Memory,
        heads: [u32; 2],
    }

    impl Guest {
        fn new() -> Self {
            let memory = Memory::new("test", 0x10000).unwrap();
            let guest = Self { memory, heads: [0; 2] };
            guest.word(HEADER + header::MAGIC, MAGIC);
            guest.word(HEADER + header::VERSION, VERSION);
            guest.word(HEADER + header::RINGS, 2);
            guest.word(HEADER + header::ENTRIES, ENTRIES);
            for ring in 0..2 {
                guest.word(Self::slot(ring) + slot::RING, 0x4000 + 0x1000 * ring);
            }
            guest
        }

        fn slot(ring: u32) -> u64 {
            HEADER + header::SLOTS + u64::from(ring) * header::SLOT_SIZE
        }

        fn word(&self, at: u64, value: u32) {
            self.memory.slice(at, 4).unwrap().write_obj(value, 0).unwrap();
        }

        fn read(&self, at: u64) -> u32 {
            self.memory.slice(at, 4).unwrap().read_obj(0).unwrap()
        }

        fn attach(&self) -> Result<Rings, BadHeader> {
            Rings::attach(HEADER, &|address, length| {
                (address.checked_add(length)? <= 0x10000).then(|| (self.memory.clone(), address))
            })
        }

        fn write(&mut self, ring: u32, ticket: u64) {
            let head = &mut self.heads[ring as usize];
            let at = 0x4000 + 0x1000 * u64::from(ring) + u64::from(*head & (ENTRIES - 1)) * 128;
            let bytes = Builder::new(Kind::Map).put_u64(record::TICKET, ticket).bytes();
            self.memory.slice(at, RECORD_SIZE).unwrap().copy_from(&bytes);
            *head = head.wrapping_add(1);
            self.word(Self::slot(ring) + slot::HEAD, self.heads[ring as usize]);
        }
    }

    fn drain(rings: &mut Rings) -> Vec<(Option<Kind>, u64)> {
        rings.begin();
        let taken = std::iter::from_fn(|| rings.take()).map(|bytes| Record::of(&bytes));
        let taken = taken
            .map(|record| {
                let missed = record.kind == Some(Kind::Missed);
                (record.kind, if missed { record.length } else { record.ticket })
            })
            .collect();
        rings.end();
        taken
    }

    #[test]
    fn records_of_all_rings_come_in_the_order_of_their_tickets() {
        let mut guest = Guest::new();
        let mut rings = guest.attach().unwrap();
        assert!(rings.is_idle());
        for (ring, ticket) in [(0, 1), (1, 2), (1, 3), (0, 5), (1, 6)] {
            guest.write(ring, ticket);
        }
        assert!(!rings.is_idle());
        let tickets: Vec<_> = drain(&mut rings).into_iter().map(|(_, ticket)| ticket).collect();
        assert_eq!(tickets, [1, 2, 3, 5, 6], "the gap is not waited for");
        assert!(rings.is_idle());
        assert_eq!(guest.read(Guest::slot(1) + slot::TAIL), 3);
        // Around the end of the ring.
        for ticket in 7..10 {
            guest.write(1, ticket);
        }
        assert_eq!(drain(&mut rings).len(), 3);
    }

    #[test]
    fn losses_are_reported() {
        let mut guest = Guest::new();
        guest.word(Guest::slot(1) + slot::LOST, 5);
        let mut rings = guest.attach().unwrap();
        guest.write(0, 1);
        guest.word(Guest::slot(1) + slot::LOST, 7);
        assert_eq!(drain(&mut rings), [(Some(Kind::Map), 1), (Some(Kind::Missed), 2)]);
        // A head that no producer can have.
        guest.word(Guest::slot(0) + slot::HEAD, 1 + ENTRIES + 1);
        assert_eq!(drain(&mut rings), [(Some(Kind::Missed), u64::from(ENTRIES) + 1)]);
        assert!(rings.is_idle());
    }

    #[test]
    fn heads_may_wrap() {
        let mut guest = Guest::new();
        guest.heads[0] = u32::MAX;
        for word in [slot::HEAD, slot::TAIL] {
            guest.word(Guest::slot(0) + word, u32::MAX);
        }
        let mut rings = guest.attach().unwrap();
        guest.write(0, 1);
        guest.write(0, 2);
        assert_eq!(drain(&mut rings).len(), 2);
        assert_eq!(guest.read(Guest::slot(0) + slot::TAIL), 1);
    }

    #[test]
    fn headers_that_make_no_sense_are_refused() {
        let refused = |at: u64, value: u32| {
            let guest = Guest::new();
            guest.word(HEADER + at, value);
            guest.attach().err().unwrap()
        };
        assert_eq!(refused(header::MAGIC, 1), BadHeader::Magic(1));
        assert_eq!(refused(header::VERSION, 9), BadHeader::Version(9));
        for (at, value) in [
            (header::RINGS, 0),
            (header::RINGS, MAX_RINGS + 1),
            (header::RINGS, u32::MAX),
            (header::ENTRIES, 0),
            (header::ENTRIES, 3),
            (header::ENTRIES, MAX_ENTRIES * 2),
        ] {
            assert!(matches!(refused(at, value), BadHeader::Size { .. }), "{at:#x} {value}");
        }
        let ring = header::SLOTS + slot::RING;
        assert_eq!(refused(ring, 0x4004), BadHeader::Unaligned(0));
        assert_eq!(refused(ring, 0xff80), BadHeader::NotRam(0xff80));
        assert_eq!(refused(ring + 4, u32::MAX), BadHeader::NotRam(0xffff_ffff_0000_4000));
    }
}
