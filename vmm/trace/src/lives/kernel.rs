//! Mappings that the guest's witness reports.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use device_models::fabric::WitnessInput;
use device_models::witness::Record;
use guest_protocol::witness::{Kind, flags};

use super::{Life, MAX_PASSED, MappedBy, Out, pick};
use crate::filter::Context;
use crate::reader::Entry;
use crate::witnessed;

/// Function, first address, length: the oldest of what is alike is unmapped first.
type Key = (u32, u64, u64);

/// Segments that an exporter returned in one go.
#[derive(Debug)]
struct Table {
    first: u64,
    lives: Vec<Arc<Life>>,
    /// More of its segments follow.
    open: bool,
}

/// An attachment with what is mapped for it.
#[derive(Debug, Default)]
struct Attachment {
    buffer: u64,
    tables: VecDeque<Table>,
}

/// Follows them.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    live: BTreeMap<Key, VecDeque<Arc<Life>>>,
    attachments: BTreeMap<u64, Attachment>,
    /// Buffers with the attachments that they have.
    buffers: BTreeSet<(u64, u64)>,
    count: usize,
    /// The host's time and the guest's clock, when the witness came.
    clock: Option<(Duration, u64)>,
}

impl Kernel {
    /// Mappings that are followed.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn input(
        &mut self,
        kind: WitnessInput,
        data: &[u8],
        entry: &Entry,
        context: &Context,
        out: &mut Out<'_>,
    ) {
        match kind {
            WitnessInput::Attach => {
                let clock = data.first_chunk().map(|clock| u64::from_le_bytes(*clock));
                self.clock = clock.map(|clock| (entry.time, clock));
            }
            WitnessInput::Record => {
                if let Some(record) = witnessed::record(kind, data) {
                    self.record(&record, entry, context, out);
                }
            }
            WitnessInput::Detach | WitnessInput::Drain => {}
        }
    }

    /// When something was reported: witness records are read some time later, but its time is the guest's, and not believed
    /// where it cannot be.
    fn time(&self, record: &Record, entry: &Entry) -> Duration {
        let Some((begun, clock)) = self.clock else { return entry.time };
        let since = Duration::from_nanos(record.event.time.saturating_sub(clock));
        begun.saturating_add(since).min(entry.time)
    }

    fn record(&mut self, record: &Record, entry: &Entry, context: &Context, out: &mut Out<'_>) {
        let time = self.time(record, entry);
        let life = |by| Life {
            id: 0,
            by,
            function: record.bdf().map_or_else(|| "?".into(), |bdf| context.of(bdf.0).into()),
            address: record.address,
            length: record.length,
            buffer: record.buffer,
            entry: entry.number,
            begun: time,
        };
        match record.kind {
            Some(Kind::Map) if record.range().is_some() => {
                let Some(life) = out.begin(life(MappedBy::Kernel)) else { return };
                let key = (record.function, record.address, record.length);
                self.live.entry(key).or_default().push_back(life);
                self.count += 1;
            }
            Some(Kind::Unmap) => self.unmap(record, time, out),
            Some(Kind::Unbind | Kind::Gone | Kind::Bind) => {
                let function = record.function;
                self.end_all((function, 0, 0)..=(function, u64::MAX, u64::MAX), time, out);
            }
            Some(Kind::BufferMap) if record.range().is_some() => {
                let Some(life) = out.begin(life(MappedBy::Buffer)) else { return };
                self.count += 1;
                let attachment = self.attachments.entry(record.group).or_default();
                self.buffers.remove(&(attachment.buffer, record.group));
                self.buffers.insert((record.buffer, record.group));
                attachment.buffer = record.buffer;
                let open = record.has(flags::MORE);
                match attachment.tables.back_mut().filter(|table| table.open) {
                    Some(table) => {
                        table.lives.push(life);
                        table.open = open;
                    }
                    None => {
                        let table = Table { first: record.address, lives: vec![life], open };
                        attachment.tables.push_back(table);
                    }
                }
            }
            Some(Kind::BufferUnmap) => {
                let Some(attachment) = self.attachments.get_mut(&record.group) else { return };
                let tables = &mut attachment.tables;
                let near = tables.iter().take(MAX_PASSED);
                let at = near.into_iter().position(|table| table.first == record.address);
                let table = tables.remove(at.unwrap_or(0));
                if tables.is_empty() {
                    self.buffers.remove(&(attachment.buffer, record.group));
                    self.attachments.remove(&record.group);
                }
                if let Some(table) = table {
                    self.end_table(table, time, out);
                }
            }
            Some(Kind::Detach) => self.detach(record.group, time, out),
            Some(Kind::Release) => {
                let its = self.buffers.range((record.buffer, 0)..=(record.buffer, u64::MAX));
                let groups: Vec<u64> = its.map(|(_, group)| *group).collect();
                groups.into_iter().for_each(|group| self.detach(group, time, out));
            }
            _ => {}
        }
    }

    /// Exactly the same addresses; failing that, all that lies within them.
    fn unmap(&mut self, record: &Record, time: Duration, out: &mut Out<'_>) {
        let (function, first) = (record.function, record.address);
        let key = (function, first, record.length);
        if let Some(alike) = self.live.get_mut(&key) {
            if let Some(life) = alike.pop_front() {
                self.count -= 1;
                out.end(life, time);
            }
            if alike.is_empty() {
                self.live.remove(&key);
            }
            return;
        }
        let Some(range) = record.range() else { return };
        let within = |(_, address, length): &Key| {
            let room = record.length.checked_sub(address.saturating_sub(first));
            room.is_some_and(|room| *length <= room)
        };
        let near = self.live.range((function, first, 0)..=(function, range.last, u64::MAX));
        let keys = pick(near.map(|(key, _)| *key), within);
        keys.into_iter().for_each(|key| self.end_all(key..=key, time, out));
    }

    fn end_all(&mut self, keys: std::ops::RangeInclusive<Key>, time: Duration, out: &mut Out<'_>) {
        let keys: Vec<Key> = self.live.range(keys).map(|(key, _)| *key).collect();
        for life in keys.iter().filter_map(|key| self.live.remove(key)).flatten() {
            self.count -= 1;
            out.end(life, time);
        }
    }

    fn detach(&mut self, group: u64, time: Duration, out: &mut Out<'_>) {
        let Some(attachment) = self.attachments.remove(&group) else { return };
        self.buffers.remove(&(attachment.buffer, group));
        attachment.tables.into_iter().for_each(|table| self.end_table(table, time, out));
    }

    fn end_table(&mut self, table: Table, time: Duration, out: &mut Out<'_>) {
        self.count -= table.lives.len();
        table.lives.into_iter().for_each(|life| out.end(life, time));
    }
}
