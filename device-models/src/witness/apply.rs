//! What each record changes.

use guest_protocol::witness::{Kind, flags};

use super::counters::Gap;
use super::function::Tracked;
use super::ledger::{End, Mapping};
use super::segments::TooMany;
use super::{Context, LeadsTo, MAX_LIVE, Notice, Placed, Record, Witness};
use crate::AddressRange;
use crate::fabric::FunctionId;

impl Witness {
    /// Takes a record in.
    pub(crate) fn apply(&mut self, record: &Record, context: &mut Context<'_>) {
        self.counters.records += 1;
        let Some(kind) = record.kind else { return };
        match kind {
            Kind::Map => self.map(record, context),
            Kind::Unmap => self.unmap(record, context),
            Kind::Bind => self.bind(record, context.function),
            Kind::Unbind => self.unbind(record, context.function, false),
            Kind::Gone => self.unbind(record, context.function, true),
            Kind::Missed => self.lose_all(),
            Kind::Export => {
                let room = self.buffers.export(record);
                self.check(room);
            }
            Kind::Attach => {
                // The numbers of an attachment may come back.
                self.detach_buffer(record, End::Unmapped(record.event));
                let room = self.buffers.attach(record, context.function);
                self.check(room);
            }
            Kind::Detach => self.detach_buffer(record, End::Unmapped(record.event)),
            Kind::BufferMap => self.map_buffer(record, context),
            Kind::BufferUnmap => self.unmap_buffer(record),
            Kind::Invalidate => {
                let places = self.buffers.invalidate(record);
                self.write_protect(&places);
            }
            Kind::Release => self.release(record),
            Kind::FenceAdd => {
                let room = self.buffers.add_fence(record);
                self.check(room);
            }
            Kind::FenceSignaled => {
                let places = self.buffers.signal(record.address);
                self.write_protect(&places);
            }
            // What a coherent device has no use for, and what changes no right.
            Kind::Loaded | Kind::SyncForCpu | Kind::SyncForDevice | Kind::Pin | Kind::Unpin => {}
        }
    }

    /// Changes what is known of a function; one for which something is too much is not watched any
    /// more.
    pub(super) fn change<R: Default>(
        &mut self,
        function: FunctionId,
        work: impl FnOnce(&mut Tracked) -> Result<R, TooMany>,
    ) -> R {
        let Some(tracked) = self.functions.get_mut(function.index()) else { return R::default() };
        let before = tracked.ledger.len() as u64;
        let done = work(tracked);
        if done.is_err() {
            tracked.clear();
            if tracked.coverage.is_ok() {
                tracked.coverage = Err(Gap::Lost);
            }
            if !std::mem::replace(&mut self.overflowed, true) {
                log::warn!(
                    "the guest maps more for DMA, or in a more tangled way, than is followed: what \
                     it maps for function {} is not watched any more",
                    function.index()
                );
            }
        }
        let after = tracked.ledger.len() as u64;
        self.counters.live = (self.counters.live + after).saturating_sub(before);
        done.unwrap_or_default()
    }

    fn map(&mut self, record: &Record, context: &mut Context<'_>) {
        self.counters.mappings += 1;
        let Some(range) = record.range() else { return };
        let Some(function) = context.function else {
            self.counters.elsewhere += 1;
            return;
        };
        if self.counters.live >= MAX_LIVE {
            self.change(function, |_| Err::<(), _>(TooMany));
            return;
        }
        let bus = record.has(flags::BUS_ADDRESS);
        let translated = context.translated;
        if translated && !bus {
            self.retire_for_others(function, range, record, context);
        }
        let mapping = Mapping::of(record, range, record.has(flags::COHERENT));
        self.change(function, |tracked| tracked.map(mapping, bus, translated));
    }

    /// Other functions in the same domain have the same addresses.
    fn retire_for_others(
        &mut self,
        function: FunctionId,
        range: AddressRange,
        record: &Record,
        context: &mut Context<'_>,
    ) {
        for index in 0..self.functions.len() {
            let other = FunctionId(u16::try_from(index).unwrap_or(u16::MAX));
            let busy = other != function && self.functions[index].ledger.len() > 0;
            if busy && (context.is_with)(other) {
                let group = Some(record.group);
                self.change(other, |tracked| tracked.retire(range, group, record.event));
            }
        }
    }

    fn unmap(&mut self, record: &Record, context: &Context<'_>) {
        let Some(range) = record.range() else { return };
        let Some(function) = context.function else { return };
        let bus = record.has(flags::BUS_ADDRESS);
        let translated = context.translated;
        let known = self.change(function, |tracked| tracked.unmap(record, range, bus, translated));
        // What was mapped before the driver was bound, or before something was lost, is not known.
        let covered = self.functions.get(function.index()).is_some_and(|f| f.coverage.is_ok());
        if !known && covered {
            self.counters.unknown_unmaps += 1;
        }
    }

    fn bind(&mut self, record: &Record, function: Option<FunctionId>) {
        let Some(function) = function else { return };
        self.forget(record, function);
        if let Some(tracked) = self.functions.get_mut(function.index()) {
            tracked.coverage = if record.has(flags::UNSEEN) { Err(Gap::Unseen) } else { Ok(()) };
        }
    }

    fn unbind(&mut self, record: &Record, function: Option<FunctionId>, gone: bool) {
        let Some(function) = function else { return };
        if let Some(tracked) = self.functions.get(function.index())
            && tracked.coverage.is_ok()
        {
            let left = || tracked.ledger.iter().filter(|mapping| mapping.covers);
            if let Some(&mapping) = left().next() {
                let bytes = left().fold(0, |sum: u64, mapping| {
                    let AddressRange { first, last } = mapping.range;
                    sum.saturating_add((last - first).saturating_add(1))
                });
                let count = left().count() as u64;
                self.notices.push(Notice::Leaked { function, count, bytes, mapping, gone });
            }
        }
        self.forget(record, function);
        if let Some(tracked) = self.functions.get_mut(function.index()) {
            tracked.coverage = Err(if gone { Gap::BoundBefore } else { Gap::NoDriver });
        }
    }

    /// Nothing is mapped for a function any more.
    fn forget(&mut self, record: &Record, function: FunctionId) {
        for attachment in self.buffers.of(function) {
            self.buffers.detach(attachment);
        }
        self.change(function, |tracked| {
            let left: Vec<_> = tracked.ledger.iter().take(64).copied().collect();
            for mapping in left {
                tracked.ledger.bury(mapping, End::Unbound(record.event), false);
            }
            tracked.clear();
            Ok(())
        });
    }

    /// Something was missed: from here on nothing is complete, until drivers are bound anew.
    fn lose_all(&mut self) {
        for tracked in &mut self.functions {
            if tracked.coverage.is_ok() {
                tracked.coverage = Err(Gap::Lost);
            }
        }
    }

    /// Without room for a buffer nothing is certain any more.
    fn check(&mut self, room: bool) {
        if !room {
            self.lose_all();
            if !std::mem::replace(&mut self.overflowed, true) {
                log::warn!("the guest has more dma-bufs or fences than are followed");
            }
        }
    }

    fn map_buffer(&mut self, record: &Record, context: &Context<'_>) {
        let Some(range) = record.range() else { return };
        let mapping = Mapping::of(record, range, false);
        if !self.buffers.attachments.contains_key(&record.group) {
            // Attached before the witness was there: nothing is held against it.
            let attach = Record { flags: flags::PEER2PEER, ..*record };
            let room = self.buffers.attach(&attach, context.function);
            self.check(room);
        }
        let Some(attachment) = self.buffers.attachments.get(&record.group) else { return };
        let Some(function) = attachment.function else {
            self.counters.elsewhere += 1;
            return;
        };
        let (buffer, peer) = (attachment.buffer, attachment.takes_peer_to_peer());
        let attached = attachment.ticket;
        let mapping = Mapping { buffer, ..mapping };
        if !peer || !self.buffers.was_in_device(buffer) {
            let name = self.buffers.name(buffer);
            self.notices.push(Notice::Placed(Box::new(Placed {
                function,
                attachment: record.group,
                buffer,
                name,
                mapping,
                takes_peer_to_peer: peer,
                place: LeadsTo::Unknown,
            })));
        }
        let room = self.buffers.map(record, mapping);
        self.check(room);
        if room {
            // Without an IOMMU the same memory may be mapped for something else, too: then only what
            // the exporter can have mapped for this attachment.
            let translated = context.translated && !record.has(flags::BUS_ADDRESS);
            let pid = record.event.pid;
            let is_one =
                |old: &Mapping| translated || (old.event.pid == pid && old.ticket > attached);
            self.change(function, |tracked| tracked.cover(&mapping, is_one));
        }
    }

    fn unmap_buffer(&mut self, record: &Record) {
        let Some((table, function)) = self.buffers.unmap(record.group, record.address) else {
            return;
        };
        let Some(function) = function else { return };
        self.end_cover(function, &table.segments, End::Unmapped(record.event));
    }

    fn end_cover(&mut self, function: FunctionId, segments: &[Mapping], end: End) {
        self.change(function, |tracked| {
            segments.iter().try_for_each(|segment| tracked.end_cover(segment, end))
        });
    }

    fn detach_buffer(&mut self, record: &Record, end: End) {
        let Some(attachment) = self.buffers.detach(record.group) else { return };
        let Some(function) = attachment.function else { return };
        for table in &attachment.tables {
            self.end_cover(function, &table.segments, end);
        }
    }

    fn write_protect(&mut self, places: &[super::buffers::Place]) {
        for &place in places {
            let Some((table, function)) = self.buffers.table(place) else { continue };
            let mut segments = std::mem::take(&mut table.segments);
            self.change(function, |tracked| {
                segments.iter_mut().try_for_each(|segment| tracked.write_protect(segment))
            });
            if let Some((table, _)) = self.buffers.table(place) {
                table.segments = segments;
            }
        }
    }

    fn release(&mut self, record: &Record) {
        let name = self.buffers.name(record.buffer);
        for group in self.buffers.release(record.buffer) {
            let Some(attachment) = self.buffers.detach(group) else { continue };
            let Some(function) = attachment.function else { continue };
            let event = record.event;
            for table in &attachment.tables {
                if let Some(&mapping) = table.segments.first() {
                    let (attachment, buffer) = (group, name.clone());
                    self.notices.push(Notice::Freed {
                        function,
                        attachment,
                        buffer,
                        mapping,
                        event,
                    });
                }
                self.end_cover(function, &table.segments, End::Freed(event));
            }
        }
    }
}
