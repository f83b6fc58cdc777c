//! Memory reads.

use vm_memory::VolatileSlice;

use super::cache::Resolved;
use super::inbox::Message;
use super::resolve::{Outcome, fault_class};
use super::route::Target;
use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Kind, Purpose, ReadOutcome, RouteKind, Tag,
    Transaction,
};
use crate::checker::FindingClass;

const READ: Kind = Kind::MemoryRead;

/// A failed or finished piece of a read.
enum Piece {
    Memory(Resolved),
    Failed { class: FindingClass, status: CompletionStatus },
    Pending(Tag),
    Retry,
}

impl Fabric {
    /// Reads into `destination` from `address` on; its length is the length of the read.
    pub(super) fn read(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        address: u64,
        destination: &VolatileSlice<'_>,
    ) -> ReadOutcome {
        let length = destination.len() as u64;
        if !self.may_issue(from, READ, purpose, address, length) {
            return ReadOutcome::NotEmitted;
        }
        let mut verdict = None;
        let mut bytes = 0;
        while bytes < length {
            let left = length - bytes;
            let Some(at) = address.checked_add(bytes) else {
                let class = self.off_the_top(from, READ, purpose, left);
                let status = CompletionStatus::UnsupportedRequest;
                return ReadOutcome::Done {
                    status,
                    bytes,
                    verdict: Some(verdict.unwrap_or(class)),
                };
            };
            let cached = self.caches[from.index()][0].lookup(at, self.epochs()).copied();
            let piece = match cached {
                Some(resolved) => Piece::Memory(resolved),
                None => self.read_slowly(from, purpose, at, left, &mut verdict),
            };
            match piece {
                Piece::Memory(resolved) => {
                    if self.held_back(from, &resolved.target) {
                        return ReadOutcome::Retry { bytes };
                    }
                    let run = left.min((resolved.last - at).saturating_add(1));
                    self.read_memory(from, purpose, &resolved, at, run, destination, bytes);
                    bytes += run;
                }
                Piece::Failed { class, status } => {
                    return ReadOutcome::Done {
                        status,
                        bytes,
                        verdict: Some(verdict.unwrap_or(class)),
                    };
                }
                Piece::Pending(tag) => return ReadOutcome::Pending { tag, bytes },
                Piece::Retry => return ReadOutcome::Retry { bytes },
            }
        }
        ReadOutcome::Done { status: CompletionStatus::Success, bytes, verdict }
    }

    fn read_slowly(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        at: u64,
        left: u64,
        verdict: &mut Option<FindingClass>,
    ) -> Piece {
        let epochs = self.epochs();
        let resolution = self.resolve_page(from, READ, at);
        let run = left.min(resolution.length);
        let transaction = self.describe(from, READ, purpose, at, run);
        let status = CompletionStatus::UnsupportedRequest;
        match resolution.outcome {
            Outcome::Reached {
                target: target @ Target::Memory { .. },
                address,
                route,
                mmio_flag_on_ram,
            } => {
                if mmio_flag_on_ram {
                    verdict.get_or_insert(self.mmio_flag_on_ram(&transaction));
                }
                let last = at.saturating_add(resolution.length - 1);
                let resolved = Resolved { first: at, last, target, address, route };
                if !mmio_flag_on_ram {
                    self.caches[from.index()][0].insert(at, epochs, resolved);
                }
                Piece::Memory(resolved)
            }
            Outcome::Reached {
                target: Target::Registers { function, bar, offset, msix }, ..
            } => {
                // One request TLP, one message.
                let (_, _, length) = transaction.tlps().next().unwrap_or((0, at, 1));
                let transaction = Transaction { length: u64::from(length), ..transaction };
                if !self.outstanding[from.index()].has_room() {
                    return Piece::Retry;
                }
                let tag = Tag(self.tag);
                let length = u16::try_from(length).unwrap_or(u16::MAX);
                let message = Message::Read { from, bar, offset, msix, length, tag };
                if self.inboxes[function.index()].offer(message).is_err() {
                    return Piece::Retry;
                }
                self.tag = self.tag.wrapping_add(1);
                self.issue(&transaction);
                self.outstanding[from.index()].add(tag, transaction);
                Piece::Pending(tag)
            }
            Outcome::InterruptWindow => {
                let class = FindingClass::Malformed;
                self.fail_read(&transaction, status);
                self.find(
                    from,
                    class,
                    Some(transaction),
                    "the interrupt window cannot be read".to_owned(),
                );
                Piece::Failed { class, status }
            }
            Outcome::Refused(refusal) => {
                self.fail_read(&transaction, status);
                self.find_refused(&transaction, refusal);
                Piece::Failed { class: refusal.class, status }
            }
            Outcome::Faulted(fault) => {
                self.fail_read(&transaction, status);
                let class = fault_class(&fault);
                self.iommu.report(&fault);
                self.find(from, class, Some(transaction), fault.to_string());
                Piece::Failed { class, status }
            }
        }
    }

    /// A requester stops at the first completion that is not successful: one TLP was issued, not the whole run.
    fn fail_read(&mut self, transaction: &Transaction, status: CompletionStatus) {
        let (_, _, length) = transaction.tlps().next().unwrap_or_default();
        let transaction = Transaction { length: u64::from(length), ..*transaction };
        self.issue(&transaction);
        self.observe(&transaction, &Delivery::Failed(status), None);
    }

    #[allow(clippy::too_many_arguments, reason = "the run is described by them and nothing else")]
    #[inline]
    fn read_memory(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        resolved: &Resolved,
        at: u64,
        run: u64,
        destination: &VolatileSlice<'_>,
        done: u64,
    ) {
        let Target::Memory { memory, offset, .. } = resolved.target else { return };
        let transaction = self.describe(from, READ, purpose, at, run);
        self.issue(&transaction);
        self.stats.of_mut(from).delivered(READ, resolved.route, run);
        let skip = at - resolved.first;
        let (Ok(start), Ok(count)) = (usize::try_from(done), usize::try_from(run)) else { return };
        let Ok(destination) = destination.subslice(start, count) else { return };
        let Some(source) =
            self.map.memories.get(memory).and_then(|memory| memory.slice(offset + skip, count))
        else {
            return;
        };
        if !self.watch.is_on() {
            source.copy_to_volatile_slice(destination);
            return;
        }
        // Somebody looks on: what steers the device is read once and shown as it was read.
        let mut data = None;
        if purpose.is_control() {
            let mut bytes = vec![0; count];
            source.copy_to(&mut bytes[..]);
            if let Some(observer) = self.watch.observer() {
                observer.replace_read(&transaction, &mut bytes);
            }
            destination.copy_from(&bytes[..]);
            data = Some(bytes);
        } else {
            source.copy_to_volatile_slice(destination);
        }
        let delivery = self.delivery(resolved, skip);
        self.observe(&transaction, &delivery, data.as_deref());
    }

    pub(super) fn delivery(&self, resolved: &Resolved, skip: u64) -> Delivery {
        let target = match resolved.target {
            Target::Memory { memory, offset, function } => {
                Target::Memory { memory, offset: offset + skip, function }
            }
            registers @ Target::Registers { .. } => registers,
        };
        let address = resolved.address.wrapping_add(skip);
        Delivery::Delivered { route: resolved.route, target: Some(target), address }
    }

    /// Whether something of `from` is still on its way to the owner of `target`: nothing passes it.
    pub(super) fn held_back(&self, from: FunctionId, target: &Target) -> bool {
        let (Target::Memory { function: Some(owner), .. }
        | Target::Registers { function: owner, .. }) = target
        else {
            return false;
        };
        self.inboxes[owner.index()].holds_from(from)
    }

    /// Completes a read that was answered by message; called by the lab when it delivers the completion.
    pub(crate) fn read_completed(
        &mut self,
        transaction: &Transaction,
        status: CompletionStatus,
        data: &[u8],
    ) {
        let delivery = if status == CompletionStatus::Success {
            self.stats.of_mut(transaction.function).delivered(
                READ,
                RouteKind::ThroughHostBridge,
                transaction.length,
            );
            Delivery::Delivered {
                route: RouteKind::ThroughHostBridge,
                target: None,
                address: transaction.address,
            }
        } else {
            Delivery::Failed(status)
        };
        self.observe(transaction, &delivery, Some(data));
    }
}
