//! The records of the guest's witness: taken before each request is held against them.

use std::sync::Arc;

use super::resolve::ResolveOutcome;
use super::transaction::tlp_count;
use super::{Fabric, FunctionId, Input, Kind, Purpose, Transaction, WitnessInput};
use crate::AddressRange;
use crate::checker::{Cause, FindingClass, RunKind};
use crate::iommu::VirtioIommu;
use crate::memory::Memory;
use crate::pci::Bdf;
use crate::witness::{
    BadHeader, Bytes, Clock, Context, Counters, Explanation, Judgement, LeadsTo, Mistake, Notice,
    Placed, Reason, Record, Rings, Witness,
};

impl Fabric {
    pub(crate) fn set_witness_clock(&mut self, clock: Box<dyn Clock>) {
        self.witness.clock.set(clock);
    }

    /// Whether `function` is given physical addresses.
    pub(crate) fn set_physical(&mut self, function: FunctionId, physical: bool) {
        self.witness.set_physical(function, physical);
    }

    /// What the witness has seen, and what was held against it.
    pub(crate) fn witness_counters(&self) -> &Counters {
        self.witness.counters()
    }

    /// See [`Witness::mappings_near`].
    pub(crate) fn witnessed_mappings(
        &self,
        function: FunctionId,
        address: u64,
        most: usize,
    ) -> Option<(Vec<String>, usize)> {
        self.witness.mappings_near(function, address, most)
    }

    /// The header of a witness is in this page frame; 0: the witness that there is goes.
    pub(crate) fn attach_witness(&mut self, frame: u32) {
        if self.witness.is_attached() {
            self.observe_input(&Input::Witness { kind: WitnessInput::Detach, data: &[] });
            self.witness.detach();
            self.note_unmaps(false);
        }
        if frame == 0 {
            return;
        }
        match self.witness_rings(u64::from(frame) << 12) {
            Ok(rings) => {
                let data = &rings.now().to_le_bytes();
                self.observe_input(&Input::Witness { kind: WitnessInput::Attach, data });
                self.witness.attach(rings.now(), Some(rings));
                self.note_unmaps(true);
            }
            Err(error) => self.witness.refuse(&error),
        }
    }

    fn note_unmaps(&mut self, on: bool) {
        if let Some(iommu) = self.iommu.as_virtio() {
            iommu.note_unmaps(on);
        }
    }

    fn witness_rings(&self, address: u64) -> Result<Rings, BadHeader> {
        let map = &self.map;
        Rings::attach(address, &|address, length| -> Option<(Memory, u64)> {
            let wanted = AddressRange::new(address, length)?;
            let (index, range) = map.ram_at(address)?;
            let memory = map.memories.get(index).filter(|_| range.contains(wanted.last))?;
            Some((memory.clone(), address - range.first))
        })
    }

    /// For replays.
    pub(crate) fn replay_witness(&mut self, kind: WitnessInput, data: &[u8]) {
        self.observe_input(&Input::Witness { kind, data });
        match kind {
            WitnessInput::Attach => {
                let now = <[u8; 8]>::try_from(data).map_or(0, u64::from_le_bytes);
                self.witness.attach(now, None);
                self.note_unmaps(true);
            }
            WitnessInput::Detach => {
                self.witness.detach();
                self.note_unmaps(false);
            }
            WitnessInput::Drain => self.drain_slowly(),
            WitnessInput::Record => {}
        }
    }

    /// The guest asks for room in its rings.
    pub(crate) fn drain_witness_for_guest(&mut self) {
        if self.witness.has_records() {
            self.observe_input(&Input::Witness { kind: WitnessInput::Drain, data: &[] });
            self.drain_slowly();
        }
    }

    /// Takes what the guest has reported so far.
    #[inline]
    pub(crate) fn drain_witness(&mut self) {
        if self.witness.is_attached()
            && (self.witness.has_records() || (!self.witness.has_rings() && self.watch.is_on()))
        {
            self.drain_slowly();
        }
    }

    #[cold]
    fn drain_slowly(&mut self) {
        match self.witness.take_rings() {
            Some(mut rings) => {
                rings.begin();
                let mut seen = 0;
                while let Some(bytes) = rings.take() {
                    seen = Record::of(&bytes).event.time.max(seen);
                    let (kind, data) = (WitnessInput::Record, &bytes[..]);
                    self.observe_input(&Input::Witness { kind, data });
                    self.take_record(&bytes);
                }
                rings.end();
                self.witness.clock.catch_up(seen);
                self.witness.put_rings(rings);
            }
            None => {
                let mut bytes = [0; size_of::<Bytes>()];
                while let Some(observer) = self.watch.observer()
                    && observer.next_record(&mut bytes)
                {
                    let (kind, data) = (WitnessInput::Record, &bytes[..]);
                    observer.input(&Input::Witness { kind, data });
                    self.take_record(&bytes);
                }
            }
        }
    }

    fn take_record(&mut self, bytes: &Bytes) {
        let record = Record::of(bytes);
        let map = Arc::clone(&self.map);
        let bdf = record.bdf();
        let function = bdf.and_then(|bdf| {
            map.functions().find(|(_, node)| node.requester == bdf).map(|(function, _)| function)
        });
        let Self { witness, iommu, .. } = self;
        let iommu = iommu.as_virtio().map(|iommu| &*iommu);
        let domain_of = |bdf: Bdf| iommu.and_then(|iommu| iommu.translating_domain(bdf));
        let domain = bdf.and_then(domain_of);
        let mut context = Context {
            function,
            translated: domain.is_some(),
            is_with: &mut |other| domain_of(map.node(other).requester) == domain,
        };
        witness.apply(&record, &mut context);
        if witness.has_notices() {
            self.report_notices();
        }
    }

    #[cold]
    fn report_notices(&mut self) {
        for mut notice in self.witness.take_notices() {
            if let Notice::Placed(placed) = &mut notice {
                placed.place = self.place_of(placed);
                if placed.takes_peer_to_peer || placed.place == LeadsTo::Unknown {
                    continue;
                }
            }
            let now = self.guest_now(notice.function());
            let (function, severity, Explanation { class, cause, text }) = notice.explain(now);
            let cause = cause.unwrap_or(Cause::Function);
            self.report_as(severity, function, class, cause, None, text);
        }
    }

    /// Where a table of a dma-buf leads to, by its first byte.
    fn place_of(&mut self, placed: &Placed) -> LeadsTo {
        let Placed { function, buffer, mapping, .. } = *placed;
        // What is mapped for the other direction only is resolved, too.
        let kind = match mapping.direction.allows(Kind::MemoryWrite) {
            true => Kind::MemoryWrite,
            false => Kind::MemoryRead,
        };
        let outcome = self.resolve(function, kind, mapping.range.first, 1).outcome;
        let ResolveOutcome::Reached { target, .. } = outcome else { return LeadsTo::Unknown };
        match target.owner() {
            Some(owner) if owner != function => {
                // What was mapped there for others is a mistake of its own.
                if placed.takes_peer_to_peer {
                    self.witness.found_in_device(buffer);
                }
                LeadsTo::Device
            }
            None if self.witness.was_in_device(buffer) => LeadsTo::Memory,
            _ => LeadsTo::Unknown,
        }
    }

    /// The guest's clock in nanoseconds, 0 if it is unknown: a value from outside, which a record
    /// keeps.
    fn guest_now(&mut self, function: FunctionId) -> u64 {
        let mut value = self.witness.clock.now().to_le_bytes();
        if let Some(observer) = self.watch.observer() {
            observer.replace_outside(function, &mut value);
            observer.input(&Input::Outside { function, data: &value });
        }
        u64::from_le_bytes(value)
    }

    /// Holds a request that arrives against what the guest's kernel has mapped; what was found.
    /// `begun` is where the addresses begin that the function was given.
    #[inline]
    pub(super) fn witnessed(
        &mut self,
        begun: u64,
        transaction: &Transaction,
    ) -> Option<FindingClass> {
        let Transaction { function, kind, purpose, address, length, .. } = *transaction;
        if purpose == Purpose::Interrupt || self.exempt == Some(function) {
            return None;
        }
        self.drain_witness();
        let last = address.saturating_add(length.saturating_sub(1));
        let range = AddressRange { first: address, last };
        let tlps = transaction.tlp_count();
        match self.witness.judge(function, kind, begun, range, tlps) {
            Judgement::Fine => None,
            Judgement::Wrong(mistake) => Some(self.report_mistake(begun, transaction, &mistake)),
        }
    }

    /// Whether the IOMMU translates for `function` at present.
    fn is_translated(&mut self, function: FunctionId) -> bool {
        let requester = self.map.node(function).requester;
        let iommu = self.iommu.as_virtio();
        iommu.is_some_and(|iommu| iommu.translating_domain(requester).is_some())
    }

    #[cold]
    fn report_mistake(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        mistake: &Mistake,
    ) -> FindingClass {
        let Transaction { function, kind, address, tlp_limit, .. } = *transaction;
        let mistake = &match self.is_translated(function) {
            true => *mistake,
            false => self.witness.unless_recycled(function, mistake),
        };
        let Mistake { first, last, .. } = *mistake;
        let now = if Witness::tells_time(mistake) { self.guest_now(function) } else { 0 };
        let explained = self.witness.explain(function, kind, begun, mistake, now);
        let Explanation { class, cause, mut text } = explained;
        let before = tlp_count(address, (first - address).saturating_add(1), tlp_limit) - 1;
        let wrong = Transaction {
            sequence: transaction.sequence + before,
            address: first,
            length: (last - first).saturating_add(1),
            ..*transaction
        };
        let cause = match cause {
            Some(cause) => {
                if let Reason::Stale(_) = mistake.reason {
                    text += &self.mapped_for_another(function, first).unwrap_or_default();
                }
                cause
            }
            None => {
                text += &self.unmapped_meaning(function, first);
                let range = AddressRange { first, last };
                let kind = RunKind { function, class, domain: None, target: None };
                Cause::Addresses { set: self.runs.take(kind, range, 0, |_, _, _| false).id }
            }
        };
        self.stale = match mistake.reason {
            Reason::Stale(_) => Some((function, cause)),
            _ => self.stale,
        };
        self.report(function, class, cause, Some(wrong), text);
        class
    }

    /// The IOMMU has refused a request, and the witness knows better what it comes from: under which
    /// class and cause it is told. A request behind the end of its mapping comes from that mapping,
    /// whatever the IOMMU once had there; and what the witness has told of before, because the IOMMU
    /// was told late of an unmap, is still the same mistake.
    pub(super) fn known_better(
        &mut self,
        begun: u64,
        transaction: &Transaction,
        class: FindingClass,
    ) -> Option<(FindingClass, Cause)> {
        let Transaction { function, kind, address, .. } = *transaction;
        match self.witness.look(function, kind, begun, address)?.reason {
            Reason::PastEnd { group } => Some((class, Cause::Mapped { group })),
            Reason::Stale(dead) => {
                let told = Some((function, Cause::Mapped { group: dead.mapping.group }));
                let same = class == FindingClass::Stale && self.stale == told;
                told.filter(|_| same).map(|(_, cause)| (FindingClass::WitnessStale, cause))
            }
            _ => None,
        }
    }

    /// What an address that is not mapped can be.
    fn unmapped_meaning(&self, function: FunctionId, address: u64) -> String {
        let meant = || self.meant(address, None, None).map(|(_, text)| text);
        self.mapped_for_another(function, address).or_else(meant).unwrap_or_default()
    }

    /// The mapping of another function that `address` is in.
    fn mapped_for_another(&self, function: FunctionId, address: u64) -> Option<String> {
        let (other, mapping) = self.witness.mapped_for_another(function, address)?;
        let (other, function, mapping) = (self.call(other), self.call(function), mapping.words());
        Some(format!("; it is in {mapping} for {other}; used by {function}"))
    }

    /// What the witness knows about a request that has failed: the end of its sentence, empty or
    /// from a semicolon on.
    pub(super) fn witness_hint(&mut self, begun: u64, transaction: &Transaction) -> String {
        let Transaction { function, kind, purpose, address, .. } = *transaction;
        if purpose == Purpose::Interrupt || self.exempt == Some(function) {
            return String::new();
        }
        self.drain_witness();
        let Some(mistake) = self.witness.look(function, kind, begun, address) else {
            return String::new();
        };
        let now = self.guest_now(function);
        let explained = self.witness.explain(function, kind, begun, &mistake, now);
        format!("; {}", explained.text)
    }

    /// The IOMMU has served requests: what it does not translate any more is over.
    pub(crate) fn follow_unmaps(&mut self) {
        let unmapped = self.iommu.as_virtio().map(VirtioIommu::take_unmapped);
        let Some(unmapped) = unmapped.filter(|unmapped| !unmapped.is_empty()) else { return };
        self.drain_witness();
        if !self.witness.has_mappings() {
            return;
        }
        let map = Arc::clone(&self.map);
        let Self { witness, iommu, .. } = self;
        let Some(iommu) = iommu.as_virtio() else { return };
        for (domain, range) in unmapped {
            witness.translation_ended(range, |function| {
                iommu.translating_domain(map.node(function).requester) == Some(domain)
            });
        }
    }
}
