//! What reads and writes have in common: the target of the next bytes, and how requests fail.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::arrive::Full;
use super::cache::Resolved;
use super::delayed::Destination;
use super::resolve::{ResolveOutcome, fault_class};
use super::route::{Refusal, Target};
use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Kind, Purpose, RouteKind, Transaction,
};
use crate::checker::FindingClass;

/// Bulk data is shown to observers in pieces of this size, in bytes.
const PIECE: usize = 4096;

/// A request to a [`Port`](super::Port), as asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) from: FunctionId,
    pub(super) kind: Kind,
    pub(super) purpose: Purpose,
    /// Of the first byte.
    pub(super) address: u64,
    /// Where the addresses begin that the function was given, of which this request is a part; at
    /// or before `address`.
    pub(super) begun: u64,
    /// Where the bytes go to, or come from.
    pub(super) buffer: VolatileSlice<'a>,
}

impl<'a> Request<'a> {
    /// `run` bytes of the buffer behind the first `done`.
    pub(super) fn part(&self, done: u64, run: u64) -> Option<VolatileSlice<'a>> {
        self.buffer.subslice(usize::try_from(done).ok()?, usize::try_from(run).ok()?).ok()
    }
}

/// A register BAR, and the route there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registers {
    pub(super) function: FunctionId,
    pub(super) bar: u8,
    pub(super) offset: u64,
    pub(super) msix: bool,
    pub(super) delivery: Delivery,
    pub(super) route: RouteKind,
}

impl Registers {
    /// The address at the target's side.
    pub(super) fn address(&self) -> u64 {
        match self.delivery {
            Delivery::Delivered { address, .. } => address,
            Delivery::Failed(_) => 0,
        }
    }
}

/// What stands at the next bytes of a request.
pub(super) enum Next {
    /// Memory.
    Memory(Resolved),
    /// A register BAR, which takes one TLP at a time: this one.
    Registers(Transaction, Registers),
    /// The interrupt window, up to its end.
    Window(Transaction),
    /// Nothing takes the next `run` bytes. The finding, and the errors that functions detect, have
    /// been reported.
    Failed {
        /// What the checker calls it.
        class: FindingClass,
        /// The status of the completion.
        status: CompletionStatus,
        /// Bytes, at least one.
        run: u64,
    },
}

impl Fabric {
    /// Finds out what stands `done` bytes into `request`, and carries out the failure if that is
    /// nothing.
    #[inline]
    pub(super) fn next(
        &mut self,
        request: &Request<'_>,
        done: u64,
        verdict: &mut Option<FindingClass>,
    ) -> Next {
        let left = (request.buffer.len() as u64).saturating_sub(done);
        let Some(at) = request.address.checked_add(done) else {
            // Nothing lies past the top of the address space; in particular, it does not wrap
            // around to address 0.
            let class = self.off_the_top(request, left);
            return Next::Failed { class, status: CompletionStatus::UnsupportedRequest, run: left };
        };
        let cache = &self.caches[request.from.index()][request.kind as usize];
        match cache.lookup(at, self.epochs()) {
            Some(resolved) => Next::Memory(*resolved),
            None => self.next_slowly(request, at, left, verdict),
        }
    }

    fn next_slowly(
        &mut self,
        request: &Request<'_>,
        at: u64,
        left: u64,
        verdict: &mut Option<FindingClass>,
    ) -> Next {
        let Request { from, kind, purpose, .. } = *request;
        let epochs = self.epochs();
        let resolution = self.resolve_page(from, kind, at);
        let run = left.min(resolution.length).max(1);
        let transaction = self.describe(from, kind, purpose, at, run);
        match resolution.outcome {
            ResolveOutcome::Reached {
                target: Target::Memory { memory, offset, function },
                address,
                route,
                mmio_flag_on_ram,
            } => {
                let resolved = Resolved {
                    first: at,
                    last: at.saturating_add(resolution.length - 1),
                    address,
                    offset,
                    memory: u32::try_from(memory).unwrap_or(u32::MAX),
                    owner: function,
                    route,
                };
                if mmio_flag_on_ram {
                    // Each use of it is a finding: it is not remembered.
                    let class = self.mmio_flag_on_ram(&transaction);
                    verdict.get_or_insert(class);
                } else {
                    self.caches[from.index()][kind as usize].insert(at, epochs, resolved);
                }
                Next::Memory(resolved)
            }
            ResolveOutcome::Reached {
                target: target @ Target::Registers { function, bar, offset, msix },
                address,
                route,
                ..
            } => {
                let (_, _, length) = transaction.tlps().next().unwrap_or((0, at, 1));
                let transaction = Transaction { length: u64::from(length), ..transaction };
                let delivery = Delivery::Delivered { route, target: Some(target), address };
                Next::Registers(
                    transaction,
                    Registers { function, bar, offset, msix, delivery, route },
                )
            }
            ResolveOutcome::InterruptWindow => Next::Window(transaction),
            ResolveOutcome::Refused(refusal) => {
                let status = refusal.status();
                self.fail(&transaction, status, refusal);
                self.report_refused(request.begun, &transaction, refusal);
                Next::Failed { class: refusal.class, status, run: or_all(run, at, left) }
            }
            ResolveOutcome::Faulted(fault) => {
                let (class, status) = (fault_class(&fault), CompletionStatus::UnsupportedRequest);
                self.fail(&transaction, status, Refusal::new(class, None));
                self.iommu.report(&fault);
                let hint = self.explain_fault(request.begun, &transaction, &fault, class);
                let known = self.witness_hint(request.begun, &transaction);
                let explanation = format!("{fault}{}{known}", hint.text);
                let known = self.known_better(request.begun, &transaction, class);
                let (class, cause) = known.unwrap_or((class, hint.cause));
                self.report(from, class, cause, Some(transaction), explanation);
                Next::Failed { class, status, run: or_all(run, at, left) }
            }
        }
    }

    /// A request fails: the requester, the observers and the port that detects it learn of it.
    pub(super) fn fail(
        &mut self,
        transaction: &Transaction,
        status: CompletionStatus,
        refusal: Refusal,
    ) {
        let mut emitted = *transaction;
        if emitted.kind == Kind::MemoryRead {
            // A requester stops at the first completion that is not successful: one TLP, not the
            // whole run.
            let (_, _, length) = transaction.tlps().next().unwrap_or_default();
            emitted.length = u64::from(length);
            self.read_ended(&emitted, status);
        }
        self.issue(&emitted);
        self.observe(&emitted, &Delivery::Failed(status), None);
        self.detect(&emitted, refusal);
    }

    /// Moves up to `run` bytes between `request`'s buffer, behind the first `done`, and memory; how
    /// many, at least one.
    #[inline]
    pub(super) fn move_memory(
        &mut self,
        request: &Request<'_>,
        resolved: &Resolved,
        done: u64,
        verdict: &mut Option<FindingClass>,
    ) -> u64 {
        let Request { from, kind, purpose, .. } = *request;
        let at = request.address + done;
        let left = request.buffer.len() as u64 - done;
        let run = left.min((resolved.last - at).saturating_add(1));
        let transaction = self.describe(from, kind, purpose, at, run);
        *verdict = verdict.or(self.witnessed(request.begun, &transaction));
        self.issue(&transaction);
        self.delivered(&transaction, resolved.route, resolved.owner);
        let skip = at - resolved.first;
        let Some(buffer) = request.part(done, run) else { return run };
        if kind == Kind::MemoryWrite {
            self.arrived(&transaction);
        }
        if self.watch.is_on() {
            self.move_watched(&transaction, &buffer, resolved, skip);
            return run;
        }
        let Some(memory) = self.map.memories.get(resolved.memory as usize) else { return run };
        let Some(memory) = memory.slice(resolved.offset + skip, buffer.len()) else { return run };
        match kind {
            Kind::MemoryRead => memory.copy_to_volatile_slice(buffer),
            Kind::MemoryWrite => buffer.copy_to_volatile_slice(memory),
        }
        run
    }

    /// Takes up to `run` bytes under way to memory instead; how many, at least one.
    #[cold]
    pub(super) fn hold_memory(
        &mut self,
        path: usize,
        request: &Request<'_>,
        resolved: &Resolved,
        done: u64,
        verdict: &mut Option<FindingClass>,
    ) -> Result<u64, Full> {
        let Request { from, kind, purpose, .. } = *request;
        let at = request.address + done;
        let left = request.buffer.len() as u64 - done;
        let run = left.min((resolved.last - at).saturating_add(1));
        let Some(data) = request.part(done, run) else { return Ok(run) };
        let transaction = self.describe(from, kind, purpose, at, run);
        let destination = Destination::Memory(*resolved, at - resolved.first);
        let found = self.witnessed(request.begun, &transaction);
        self.hold(path, &transaction, destination, &data)?;
        *verdict = verdict.or(found);
        Ok(run)
    }

    /// The same with observers: what steers a device is read once, and shown as it was read.
    fn move_watched(
        &mut self,
        transaction: &Transaction,
        buffer: &VolatileSlice<'_>,
        resolved: &Resolved,
        skip: u64,
    ) {
        let map = Arc::clone(&self.map);
        let Some(memory) = map.memories.get(resolved.memory as usize) else { return };
        let Some(memory) = &memory.slice(resolved.offset + skip, buffer.len()) else { return };
        let is_read = transaction.kind == Kind::MemoryRead;
        let (from, to) = if is_read { (memory, buffer) } else { (buffer, memory) };
        let wanted = if is_read {
            transaction.purpose.is_control()
        } else {
            transaction.purpose != Purpose::Data
        };
        let mut shown = None;
        if wanted {
            let mut bytes = vec![0; from.len()];
            from.copy_to(&mut bytes[..]);
            if is_read && let Some(observer) = self.watch.observer() {
                observer.replace_read(transaction, &mut bytes);
            }
            to.copy_from(&bytes[..]);
            shown = Some(bytes);
        } else if self.watch.wants_bulk() {
            self.move_shown(from, to);
        } else if !self.leaves_data {
            from.copy_to_volatile_slice(*to);
        }
        let delivery = Delivery::Delivered {
            route: resolved.route,
            target: Some(resolved.target(skip)),
            address: resolved.address.wrapping_add(skip),
        };
        self.observe(transaction, &delivery, shown.as_deref());
    }

    /// Moves bulk data by way of a buffer: what observers see is what arrives, whatever the guest
    /// does to the source meanwhile.
    fn move_shown(&mut self, from: &VolatileSlice<'_>, to: &VolatileSlice<'_>) {
        let (mut small, mut whole) = ([0; PIECE], Vec::new());
        // Where they overlap, nothing may be written before all is read.
        let (source, destination) = (from.ptr_guard().as_ptr(), to.ptr_guard().as_ptr());
        let apart = source.addr().abs_diff(destination.addr()) >= from.len();
        let buffer = if apart {
            &mut small[..]
        } else {
            whole.resize(from.len(), 0);
            &mut whole[..]
        };
        let mut done = 0;
        while done < from.len() {
            let length = buffer.len().min(from.len() - done);
            let (Ok(source), Ok(destination)) =
                (from.subslice(done, length), to.subslice(done, length))
            else {
                return;
            };
            let bytes = &mut buffer[..length];
            source.copy_to(bytes);
            destination.copy_from(bytes);
            if let Some(observer) = self.watch.observer() {
                observer.bulk(bytes);
            }
            done += length;
        }
    }

    /// Bytes of `request` behind the first `done` have been moved: a look at the mappings, where it
    /// comes from the page before.
    #[inline]
    pub(super) fn moved_on(&mut self, request: &Request<'_>, done: u64) {
        let at = request.address.wrapping_add(done);
        // Where the guest's kernel says what it has mapped, nothing has to be guessed.
        if at > request.begun
            && at.is_multiple_of(0x1000)
            && request.purpose == Purpose::Data
            && self.witness.coverage(request.from).is_err()
        {
            self.note_edge(request, done);
        }
    }

    /// Whether something of `from` is still on its way to the owner of what is next: nothing passes
    /// it.
    #[inline]
    pub(super) fn held_back(&self, from: FunctionId, owner: Option<FunctionId>) -> bool {
        owner.is_some_and(|owner| self.inboxes[owner.index()].holds_from(from))
    }
}

/// How many bytes fail together: all `left` ones at the last address that there is, so that one
/// mistake is reported once.
fn or_all(run: u64, at: u64, left: u64) -> u64 {
    if at == u64::MAX { left.max(1) } else { run }
}
