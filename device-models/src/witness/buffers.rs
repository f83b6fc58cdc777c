//! dma-bufs: who is attached, what is mapped, and which moves are under way.
//!
//! After `dma_buf_invalidate_mappings()` an importer may use what it has mapped until the fences
//! that were then in the buffer's reservation have signalled; from there until it unmaps, its device
//! may read, and what it reads means nothing. It may not write.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use guest_protocol::witness::flags;

use super::ledger::Mapping;
use super::record::{Event, Record, Text};
use crate::fabric::FunctionId;

/// Buffers, attachments, segments of tables, and fences, each at most.
const MAX_BUFFERS: usize = 1 << 14;
const MAX_ATTACHMENTS: usize = 1 << 14;
const MAX_SEGMENTS: usize = 1 << 18;
const MAX_FENCES: usize = 1 << 16;

/// A buffer.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    exporter: Option<Text<40>>,
    /// It was mapped in another device's memory.
    in_device: bool,
    /// Fences in its reservation that have not signalled.
    fences: BTreeSet<u64>,
    /// Moves whose fences have not all signalled.
    moves: Vec<Move>,
}

#[derive(Debug)]
struct Move {
    /// The ticket of the invalidation: what was mapped before is meant.
    ticket: u64,
    event: Event,
    waits_for: BTreeSet<u64>,
}

/// What the exporter returned for one map.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) segments: Vec<Mapping>,
    /// More segments follow.
    open: bool,
    /// Ticket of its first record.
    ticket: u64,
    /// The buffer was moved, and all fences have signalled: the invalidation.
    revoked: Option<Event>,
}

/// An attachment.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) buffer: u64,
    /// The function that is attached; none for a device that is not a PCI function.
    pub(super) function: Option<FunctionId>,
    pub(super) ticket: u64,
    flags: u8,
    /// The oldest first.
    pub(super) tables: VecDeque<Table>,
}

impl Attachment {
    /// Whether its importer takes peer-to-peer addresses.
    pub(super) fn takes_peer_to_peer(&self) -> bool {
        self.flags & flags::PEER2PEER != 0
    }
}

/// All buffers of the guest.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    buffers: BTreeMap<u64, Buffer>,
    pub(super) attachments: BTreeMap<u64, Attachment>,
    /// By fence, the buffers whose reservations it is in.
    fences: BTreeMap<u64, BTreeSet<u64>>,
    segments: usize,
}

/// A table that may not be written through any more: its attachment and its place there.
pub(super) type Place = (u64, usize);

impl Buffers {
    /// The segments of all tables that are mapped for `function`, and whether each has been invalidated.
    pub(super) fn mapped_for(
        &self,
        function: FunctionId,
    ) -> impl Iterator<Item = (&Mapping, bool)> {
        let its = self.attachments.values().filter(move |one| one.function == Some(function));
        let tables = its.flat_map(|attachment| &attachment.tables);
        tables.flat_map(|table| {
            table.segments.iter().map(|segment| (segment, table.revoked.is_some()))
        })
    }

    /// What the buffer is called in sentences.
    pub(super) fn name(&self, buffer: u64) -> String {
        let exporter = self.buffers.get(&buffer).and_then(|buffer| buffer.exporter);
        match exporter.filter(|exporter| !exporter.is_empty()) {
            Some(exporter) => format!("dma-buf {buffer} of {exporter}"),
            None => format!("dma-buf {buffer}"),
        }
    }

    fn buffer(&mut self, number: u64) -> Option<&mut Buffer> {
        if self.buffers.len() >= MAX_BUFFERS && !self.buffers.contains_key(&number) {
            return None;
        }
        Some(self.buffers.entry(number).or_default())
    }

    pub(super) fn set_in_device(&mut self, number: u64) {
        if let Some(buffer) = self.buffer(number) {
            buffer.in_device = true;
        }
    }

    pub(super) fn was_in_device(&self, number: u64) -> bool {
        self.buffers.get(&number).is_some_and(|buffer| buffer.in_device)
    }

    /// A buffer was exported. False: there are too many.
    pub(super) fn export(&mut self, record: &Record) -> bool {
        self.forget(record.buffer);
        let buffer = self.buffer(record.buffer);
        buffer.map(|buffer| buffer.exporter = Some(record.event.caller)).is_some()
    }

    /// A function was attached. False: there are too many attachments.
    pub(super) fn attach(&mut self, record: &Record, function: Option<FunctionId>) -> bool {
        if self.attachments.len() >= MAX_ATTACHMENTS {
            return false;
        }
        let Record { buffer, ticket, flags, .. } = *record;
        let attachment = Attachment { buffer, function, ticket, flags, tables: VecDeque::new() };
        self.attachments.insert(record.group, attachment);
        true
    }

    /// An attachment is over: what of it is still mapped.
    pub(super) fn detach(&mut self, attachment: u64) -> Option<Attachment> {
        let attachment = self.attachments.remove(&attachment)?;
        self.segments -= attachment.tables.iter().map(|table| table.segments.len()).sum::<usize>();
        Some(attachment)
    }

    /// A segment of a table. False: there are too many.
    pub(super) fn map(&mut self, record: &Record, mapping: Mapping) -> bool {
        let Some(attachment) = self.attachments.get_mut(&record.group) else { return true };
        if self.segments >= MAX_SEGMENTS {
            return false;
        }
        self.segments += 1;
        let open = record.has(flags::MORE);
        match attachment.tables.back_mut().filter(|table| table.open) {
            Some(table) => {
                table.segments.push(mapping);
                table.open = open;
            }
            None => {
                let (segments, ticket) = (vec![mapping], record.ticket);
                attachment.tables.push_back(Table { segments, open, ticket, revoked: None });
            }
        }
        true
    }

    /// A table of an attachment is over: the one that begins at `address`, or else the oldest.
    pub(super) fn unmap(
        &mut self,
        attachment: u64,
        address: u64,
    ) -> Option<(Table, Option<FunctionId>)> {
        let attachment = self.attachments.get_mut(&attachment)?;
        let begins = |table: &Table| {
            table.segments.first().is_some_and(|segment| segment.range.first == address)
        };
        let index = attachment.tables.iter().position(begins).unwrap_or(0);
        let table = attachment.tables.remove(index)?;
        self.segments -= table.segments.len();
        Some((table, attachment.function))
    }

    /// A fence was added to a buffer's reservation. False: there are too many.
    pub(super) fn add_fence(&mut self, record: &Record) -> bool {
        if self.fences.len() >= MAX_FENCES && !self.fences.contains_key(&record.address) {
            return false;
        }
        let Some(buffer) = self.buffer(record.buffer) else { return false };
        buffer.fences.insert(record.address);
        self.fences.entry(record.address).or_default().insert(record.buffer);
        true
    }

    /// A fence has signalled: tables that may not be written through from now on.
    pub(super) fn signal(&mut self, fence: u64) -> Vec<Place> {
        let Some(buffers) = self.fences.remove(&fence) else { return Vec::new() };
        let mut places = Vec::new();
        for number in buffers {
            let Some(buffer) = self.buffers.get_mut(&number) else { continue };
            buffer.fences.remove(&fence);
            buffer.moves.iter_mut().for_each(|a_move| {
                a_move.waits_for.remove(&fence);
            });
            let (over, moves) = std::mem::take(&mut buffer.moves)
                .into_iter()
                .partition(|a_move| a_move.waits_for.is_empty());
            buffer.moves = moves;
            let over: Vec<Move> = over;
            for a_move in over {
                self.revoke(number, a_move.ticket, a_move.event, &mut places);
            }
        }
        places
    }

    /// The exporter invalidates all mappings of a buffer: tables that may not be written through
    /// from now on, as no fence is outstanding.
    pub(super) fn invalidate(&mut self, record: &Record) -> Vec<Place> {
        /// Moves of one buffer that wait: an exporter waits for one before it begins another.
        const MAX_MOVES: usize = 16;
        let mut places = Vec::new();
        let Some(buffer) = self.buffers.get_mut(&record.buffer) else { return places };
        let Record { ticket, event, .. } = *record;
        if buffer.fences.is_empty() {
            self.revoke(record.buffer, ticket, event, &mut places);
        } else if buffer.moves.len() < MAX_MOVES {
            let waits_for = buffer.fences.clone();
            buffer.moves.push(Move { ticket, event, waits_for });
        }
        places
    }

    fn revoke(&mut self, buffer: u64, ticket: u64, event: Event, places: &mut Vec<Place>) {
        // Static importers have no callback: they pin the buffer, and it does not move.
        let dynamic = |attachment: &Attachment| attachment.flags & flags::DYNAMIC != 0;
        for (&group, attachment) in &mut self.attachments {
            if attachment.buffer != buffer || !dynamic(attachment) {
                continue;
            }
            for (index, table) in attachment.tables.iter_mut().enumerate() {
                if table.ticket < ticket && table.revoked.is_none() {
                    table.revoked = Some(event);
                    places.push((group, index));
                }
            }
        }
    }

    /// The table at a place, and the function that is attached.
    pub(super) fn table(&mut self, (group, index): Place) -> Option<(&mut Table, FunctionId)> {
        let attachment = self.attachments.get_mut(&group)?;
        Some((attachment.tables.get_mut(index)?, attachment.function?))
    }

    /// The table of an attachment that has an address: its buffer, its segment, and the invalidation
    /// since which it may not be written through.
    pub(super) fn find(&self, group: u64, address: u64) -> Option<(u64, Mapping, Option<Event>)> {
        let attachment = self.attachments.get(&group)?;
        attachment.tables.iter().find_map(|table| {
            let segment = table.segments.iter().find(|segment| segment.range.contains(address))?;
            Some((attachment.buffer, *segment, table.revoked))
        })
    }

    /// The last reference to a buffer is gone: the attachments through which it is still mapped.
    pub(super) fn release(&mut self, buffer: u64) -> Vec<u64> {
        self.forget(buffer);
        let mapped = |(_, attachment): &(&u64, &Attachment)| {
            attachment.buffer == buffer && !attachment.tables.is_empty()
        };
        self.attachments.iter().filter(mapped).map(|(group, _)| *group).collect()
    }

    fn forget(&mut self, buffer: u64) {
        for fence in self.buffers.remove(&buffer).unwrap_or_default().fences {
            if let Some(buffers) = self.fences.get_mut(&fence) {
                buffers.remove(&buffer);
                if buffers.is_empty() {
                    self.fences.remove(&fence);
                }
            }
        }
    }

    /// The attachments of a function.
    pub(super) fn of(&self, function: FunctionId) -> Vec<u64> {
        let of = self.attachments.iter().filter(|(_, a)| a.function == Some(function));
        of.map(|(group, _)| *group).collect()
    }
}
