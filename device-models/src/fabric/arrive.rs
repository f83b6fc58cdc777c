//! How delayed writes get under way, and how they arrive.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::cache::Resolved;
use super::delayed::{Destination, Held, Overtaken, Signal};
use super::inbox::Message;
use super::request::Registers;
use super::route::{self, Refusal, Target, Upward};
use super::{CompletionStatus, Delivery, Fabric, FunctionId, PostedDelay, RouteKind, Transaction};
use crate::checker::FindingClass;
use crate::pci::Bdf;

/// The destination has no room for a write.
pub(super) struct Full;

impl Fabric {
    /// Arms a path, or disarms it. Whether there was room for it.
    pub(crate) fn delay_posted(
        &mut self,
        (requester, target): (FunctionId, Option<FunctionId>),
        bdfs: (Bdf, Option<Bdf>),
        delay: PostedDelay,
    ) -> bool {
        if !self.delayed.set((requester, target), bdfs, delay) {
            return false;
        }
        if delay == PostedDelay::Off
            && let Some(index) = self.delayed.find(requester, target)
        {
            // No push can come any more: what has been overtaken is reported now.
            self.report_overtaken_on(index);
            self.deliver_due(index);
            self.delayed.clear_up();
        }
        true
    }

    /// The armed path of these two functions; failing that, the one whose functions had these BDFs
    /// when it was armed: they may have lost them since.
    pub(crate) fn armed_path(
        &self,
        path: Option<(FunctionId, Option<FunctionId>)>,
        bdfs: (Bdf, Option<Bdf>),
    ) -> Option<(FunctionId, Option<FunctionId>)> {
        let here = path.filter(|&(from, to)| self.delayed.find(from, to).is_some());
        here.or_else(|| self.delayed.armed_as(bdfs))
    }

    /// The index of the path, if it is armed.
    #[inline]
    pub(super) fn delayed_path(
        &self,
        requester: FunctionId,
        target: Option<FunctionId>,
    ) -> Option<usize> {
        if self.delayed.is_off() { None } else { self.delayed.find(requester, target) }
    }

    /// Puts a write on a path; its sequence number is that of its issue.
    #[cold]
    pub(super) fn hold(
        &mut self,
        path: usize,
        transaction: &Transaction,
        destination: Destination,
        source: &VolatileSlice<'_>,
    ) -> Result<(), Full> {
        while self.delayed.get(path).is_some_and(|path| !path.has_room(source.len())) {
            self.deliver_next(path)?;
        }
        let mut data = vec![0; source.len()].into_boxed_slice();
        source.copy_to(&mut data[..]);
        self.issue(transaction);
        let (epoch, from) = (self.map.epoch, transaction.function);
        let mapping = self.mapping_of(from, transaction.address, destination.route());
        if let Some(path) = self.delayed.get(path) {
            path.hold(*transaction, destination, epoch, mapping, data);
        }
        Ok(())
    }

    /// A read of `requester`, or a read completion, takes this path: everything on it goes before
    /// it. False: not everything found room.
    #[inline]
    pub(super) fn push(&mut self, requester: FunctionId, target: Option<FunctionId>) -> bool {
        self.delayed.is_off() || self.push_before(requester, target, u64::MAX)
    }

    /// The same for writes with sequence numbers below `sequence` only.
    #[cold]
    pub(super) fn push_before(
        &mut self,
        requester: FunctionId,
        target: Option<FunctionId>,
        sequence: u64,
    ) -> bool {
        let Some(index) = self.delayed_path(requester, target) else { return true };
        loop {
            let Some(path) = self.delayed.get(index) else { return true };
            match path.next() {
                Some(held) if held.transaction.sequence >= sequence => return true,
                Some(_) => {}
                None => {
                    let (target, late) = (path.target, path.pushed());
                    self.report_all_overtaken(late, target);
                    return true;
                }
            }
            if self.deliver_next(index).is_err() {
                return false;
            }
        }
    }

    /// Everything on a path goes before a CPU's request. False: not everything found room.
    pub(super) fn push_path_for_cpu(&mut self, index: usize) -> bool {
        loop {
            let Some(path) = self.delayed.get(index) else { return true };
            if path.next().is_none() {
                path.pushed_by_cpu();
                return true;
            }
            if self.deliver_next(index).is_err() {
                return false;
            }
        }
    }

    /// If the IOMMU's translations have changed: what it has translated for RAM arrives before
    /// it answers the request. Real ones drain writes in the same way before they complete an
    /// invalidation, so that an unmapped page is not written to.
    pub(crate) fn drain_translated(&mut self) {
        let epoch = self.iommu.epoch();
        if std::mem::replace(&mut self.drained, epoch) == epoch {
            return;
        }
        for requester in self.delayed.to_root() {
            self.push(requester, None);
        }
    }

    /// `target` is reset, or its link goes down: what is under way to it is discarded (2.9.1,
    /// 6.6.2), and one finding a path says so. No AER: neither the link nor the requests are at fault.
    pub(crate) fn discard_held(&mut self, target: FunctionId, class: FindingClass) {
        if self.delayed.is_off() {
            return;
        }
        for index in self.delayed.to(target) {
            // The data never comes: software that has seen the signal was misled, whatever is read
            // later.
            self.report_overtaken_on(index);
            let Some(path) = self.delayed.get(index) else { continue };
            let lost = path.take_all();
            for held in &lost {
                let status = CompletionStatus::UnsupportedRequest;
                self.observe(&held.transaction, &Delivery::Failed(status), None);
            }
            if let Some(first) = lost.front() {
                let bytes = lost.iter().map(|held| held.data.len()).sum();
                self.report_discarded(first, target, bytes, class);
            }
        }
        self.delayed.clear_up();
    }

    /// A turn of `requester` is over; `at_rest`: it will do nothing more by itself. Whether time
    /// passes for what is under way.
    pub(crate) fn delayed_turn(&mut self, requester: FunctionId, at_rest: bool) -> bool {
        if self.delayed.is_off() {
            return false;
        }
        let mut waits = false;
        for index in self.delayed.of(requester) {
            if at_rest {
                // Coming to rest happens in a turn: without that turn a trace would not replay.
                waits |= self.comes_to_rest(index);
            }
            waits |= self.delayed.get(index).is_some_and(super::delayed::Path::tick);
            self.deliver_due(index);
        }
        self.delayed.clear_up();
        waits
    }

    /// Software has seen a fence that stands for the work of `requester`.
    pub(crate) fn fence_seen(&mut self, requester: FunctionId) {
        for index in self.delayed.of(requester) {
            let Some(path) = self.delayed.get(index) else { continue };
            let target = path.target;
            if let Some(overtaken) = path.fence_seen(self.sequence) {
                self.report_overtaken(&overtaken, target);
            }
        }
    }

    /// A write has arrived. If it signals the end of a transfer, finds what it has overtaken.
    #[inline]
    pub(super) fn arrived(&mut self, transaction: &Transaction) {
        if !self.delayed.is_off()
            && let Some(signal) = Signal::of(transaction.purpose)
        {
            self.delayed.signalled(transaction.function, signal, transaction.sequence);
        }
    }

    fn report_overtaken_on(&mut self, index: usize) {
        let Some(path) = self.delayed.get(index) else { return };
        let (target, overtaken) = (path.target, path.take_overtaken());
        self.report_all_overtaken(overtaken, target);
    }

    fn report_all_overtaken(
        &mut self,
        overtaken: [Option<Overtaken>; 2],
        target: Option<FunctionId>,
    ) {
        for overtaken in overtaken.iter().flatten() {
            self.report_overtaken(overtaken, target);
        }
    }

    /// The requester of a path will push nothing any more by itself. A CPU may, on its way to a
    /// function; where RAM is, CPUs read it without the fabric. Returns whether anything changed
    /// that no observer sees.
    fn comes_to_rest(&mut self, index: usize) -> bool {
        match self.delayed.get(index) {
            Some(path) if path.target.is_some() => path.rests(),
            _ => {
                self.report_overtaken_on(index);
                false
            }
        }
    }

    fn deliver_due(&mut self, index: usize) {
        while self.delayed.get(index).is_some_and(|path| path.is_due()) {
            if self.deliver_next(index).is_err() {
                return;
            }
        }
    }

    /// The oldest write of a path arrives, unless there is no room for it.
    fn deliver_next(&mut self, index: usize) -> Result<(), Full> {
        let Some(path) = self.delayed.get(index) else { return Ok(()) };
        let Some(&Held { transaction, destination, epoch, mapping, .. }) = path.next() else {
            return Ok(());
        };
        let found = if epoch == self.map.epoch {
            Ok(destination)
        } else {
            self.route_again(&transaction, destination)
        };
        if found.is_ok_and(|destination| self.is_full(&transaction, destination)) {
            return Err(Full);
        }
        let taken = self.delayed.get(index).and_then(super::delayed::Path::take);
        let Some(Held { mut data, .. }) = taken else { return Ok(()) };
        match found {
            Err(refusal) => {
                let physical = destination.address().filter(|_| mapping.is_some());
                self.lose(&transaction, Refusal { physical, mapping, ..refusal });
                return Ok(());
            }
            Ok(Destination::Memory(resolved, skip)) => {
                self.fill(&transaction, &resolved, skip, &data);
            }
            Ok(Destination::Registers(registers, hops)) => {
                self.queue_held(&transaction, &registers, data, hops);
            }
            Ok(Destination::Window) => {
                self.interrupt(transaction, &VolatileSlice::from(&mut data[..]));
            }
        }
        Ok(())
    }

    /// Whether there is no room for a write at its destination, or something of its requester's is
    /// in front of it.
    fn is_full(&self, transaction: &Transaction, destination: Destination) -> bool {
        match destination {
            Destination::Memory(resolved, _) => {
                self.held_back(transaction.function, resolved.owner)
            }
            Destination::Registers(registers, _) => {
                !self.inboxes[registers.function.index()].has_room()
            }
            Destination::Window => false,
        }
    }

    /// Carries out a held write to memory.
    fn fill(&mut self, transaction: &Transaction, to: &Resolved, skip: u64, data: &[u8]) {
        let map = Arc::clone(&self.map);
        let memory = map.memories.get(to.memory as usize);
        let Some(memory) = memory.and_then(|memory| memory.slice(to.offset + skip, data.len()))
        else {
            return;
        };
        memory.copy_from(data);
        self.delivered(transaction, to.route, to.owner);
        let shown = transaction.purpose != super::Purpose::Data;
        if !shown
            && self.watch.wants_bulk()
            && let Some(observer) = self.watch.observer()
        {
            observer.bulk(data);
        }
        let delivery = Delivery::Delivered {
            route: to.route,
            target: Some(to.target(skip)),
            address: to.address.wrapping_add(skip),
        };
        self.observe(transaction, &delivery, shown.then_some(data));
        self.arrived(transaction);
    }

    /// Those of one for registers, which have room for it, are queued there.
    fn queue_held(
        &mut self,
        transaction: &Transaction,
        to: &Registers,
        mut data: Box<[u8]>,
        hops: u8,
    ) {
        let Registers { function, bar, offset, msix, .. } = *to;
        self.replace_bulk(transaction, &mut data);
        let shown = self.watch.is_on().then(|| data.clone());
        let from = transaction.function;
        let message = Message::Write { from, bar, offset, msix, data, hops };
        if self.inboxes[function.index()].offer(message).is_err() {
            return;
        }
        self.delivered(transaction, to.route, Some(function));
        self.observe(transaction, &to.delivery, shown.as_deref());
        self.arrived(transaction);
    }

    /// The address map has changed while the write was under way: finds the function that takes it
    /// now. It has been translated already.
    fn route_again(
        &self,
        transaction: &Transaction,
        destination: Destination,
    ) -> Result<Destination, Refusal> {
        let route = destination.route();
        let Some(address) = destination.address() else { return Ok(destination) };
        let (from, length) = (transaction.function, transaction.length);
        let no_target = Refusal::new(FindingClass::NoTarget, None);
        let (target, reach) = match route {
            RouteKind::BusAddress => {
                let up = route::upward(&self.map, from, address, length);
                match up.outcome? {
                    Upward::Direct(target) => (target, up.length),
                    Upward::RootComplex => return Err(no_target),
                }
            }
            _ => {
                let down = route::at_root(&self.map, from, address, length);
                (down.outcome?, down.length)
            }
        };
        match (target, destination) {
            _ if reach < length => Err(no_target),
            (Target::Memory { memory, offset, function }, _) => {
                let memory = u32::try_from(memory).unwrap_or(u32::MAX);
                let last = transaction.address.saturating_add(length - 1);
                let first = transaction.address;
                let owner = function;
                let found = Resolved { first, last, address, offset, memory, owner, route };
                Ok(Destination::Memory(found, 0))
            }
            (
                Target::Registers { function, bar, offset, msix },
                Destination::Registers(_, hops),
            ) => {
                let delivery = Delivery::Delivered { route, target: Some(target), address };
                let found = Registers { function, bar, offset, msix, delivery, route };
                Ok(Destination::Registers(found, hops))
            }
            // Registers take one TLP at a time, and this is a run of them.
            (Target::Registers { .. }, _) => Err(no_target),
        }
    }

    /// A held write fails. It is posted: its requester does not notice.
    fn lose(&mut self, transaction: &Transaction, refusal: Refusal) {
        let status = CompletionStatus::UnsupportedRequest;
        self.observe(transaction, &Delivery::Failed(status), None);
        self.detect(transaction, refusal);
        self.report_refused(transaction.address, transaction, refusal);
    }
}
