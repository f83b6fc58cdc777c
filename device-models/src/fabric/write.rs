//! Memory writes: posted, so the requester learns nothing; the checker, the IOMMU and the ports do.

use vm_memory::VolatileSlice;

use super::cache::Resolved;
use super::inbox::Message;
use super::resolve::{Outcome, fault_class};
use super::route::{Refusal, Target};
use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Kind, MAX_HOPS, Purpose, Transaction,
    WriteOutcome,
};
use crate::checker::FindingClass;

const WRITE: Kind = Kind::MemoryWrite;

/// A piece of a write.
enum Piece {
    Memory(Resolved),
    /// `u64` bytes left the device, whatever became of them.
    Left(u64, Option<FindingClass>),
    Retry,
}

impl Fabric {
    /// Writes `source` to `address`.
    pub(super) fn write(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        address: u64,
        source: &VolatileSlice<'_>,
    ) -> WriteOutcome {
        let length = source.len() as u64;
        if !self.may_issue(from, WRITE, purpose, address, length) {
            return WriteOutcome::NotEmitted;
        }
        let mut verdict = None;
        let mut bytes = 0;
        while bytes < length {
            let left = length - bytes;
            let Some(at) = address.checked_add(bytes) else {
                // Past the top of the address space is nobody, and certainly not address 0.
                verdict = verdict.or(Some(self.off_the_top(from, WRITE, purpose, left)));
                break;
            };
            let cached = self.caches[from.index()][1].lookup(at, self.epochs()).copied();
            let piece = match cached {
                Some(resolved) => Piece::Memory(resolved),
                None => self.write_slowly(from, purpose, at, left, source, bytes),
            };
            match piece {
                Piece::Memory(resolved) => {
                    if self.held_back(from, &resolved.target) {
                        return WriteOutcome::Retry { bytes, verdict };
                    }
                    let run = left.min((resolved.last - at).saturating_add(1));
                    self.write_memory(from, purpose, &resolved, at, run, source, bytes);
                    bytes += run;
                }
                Piece::Left(run, found) => {
                    verdict = verdict.or(found);
                    bytes += run.clamp(1, left);
                }
                Piece::Retry => return WriteOutcome::Retry { bytes, verdict },
            }
        }
        WriteOutcome::Posted { verdict }
    }

    fn write_slowly(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        at: u64,
        left: u64,
        source: &VolatileSlice<'_>,
        done: u64,
    ) -> Piece {
        let epochs = self.epochs();
        let resolution = self.resolve_page(from, WRITE, at);
        let run = left.min(resolution.length);
        let transaction = self.describe(from, WRITE, purpose, at, run);
        match resolution.outcome {
            Outcome::Reached {
                target: target @ Target::Memory { .. },
                address,
                route,
                mmio_flag_on_ram,
            } => {
                let last = at.saturating_add(resolution.length - 1);
                let resolved = Resolved { first: at, last, target, address, route };
                if mmio_flag_on_ram {
                    let found = self.mmio_flag_on_ram(&transaction);
                    self.write_memory(from, purpose, &resolved, at, run, source, done);
                    return Piece::Left(run, Some(found));
                }
                self.caches[from.index()][1].insert(at, epochs, resolved);
                Piece::Memory(resolved)
            }
            Outcome::Reached { target, address, route, .. } => {
                let resolved = Resolved { first: at, last: at, target, address, route };
                self.write_registers(&transaction, &resolved, source, done)
            }
            Outcome::InterruptWindow => {
                let Some(data) = part(source, done, run) else { return Piece::Left(run, None) };
                self.issue(&transaction);
                Piece::Left(run, self.interrupt(transaction, &data))
            }
            Outcome::Refused(refusal) => {
                self.issue(&transaction);
                self.observe(
                    &transaction,
                    &Delivery::Failed(CompletionStatus::UnsupportedRequest),
                    None,
                );
                self.detect(&transaction, refusal);
                self.find_refused(&transaction, refusal);
                Piece::Left(run, Some(refusal.class))
            }
            Outcome::Faulted(fault) => {
                let class = fault_class(&fault);
                self.issue(&transaction);
                self.observe(
                    &transaction,
                    &Delivery::Failed(CompletionStatus::UnsupportedRequest),
                    None,
                );
                self.iommu.report(&fault);
                self.detect(&transaction, Refusal::new(class, None));
                self.find(from, class, Some(transaction), fault.to_string());
                Piece::Left(run, Some(class))
            }
        }
    }

    /// Queues one TLP for a register BAR.
    fn write_registers(
        &mut self,
        transaction: &Transaction,
        resolved: &Resolved,
        source: &VolatileSlice<'_>,
        done: u64,
    ) -> Piece {
        let Target::Registers { function, bar, offset, msix } = resolved.target else {
            return Piece::Retry;
        };
        let from = transaction.function;
        let (_, _, length) = transaction.tlps().next().unwrap_or((0, transaction.address, 1));
        let transaction = Transaction { length: u64::from(length), ..*transaction };
        let run = u64::from(length);
        let hops = self.hops[from.index()].saturating_add(1);
        if hops > MAX_HOPS {
            self.issue(&transaction);
            self.observe(&transaction, &Delivery::Failed(CompletionStatus::CompleterAbort), None);
            let explanation = format!(
                "{MAX_HOPS} device-to-device register writes in a row caused each other without a CPU; the chain is \
                 cut here"
            );
            self.find(from, FindingClass::HopLimit, Some(transaction), explanation);
            return Piece::Left(run, Some(FindingClass::HopLimit));
        }
        let Some(slice) = part(source, done, run) else { return Piece::Left(run, None) };
        let mut data = vec![0; slice.len()].into_boxed_slice();
        slice.copy_to(&mut data[..]);
        if transaction.purpose == Purpose::Data
            && let Some(observer) = self.watch.observer()
        {
            // Bulk data is not in a record, but here it steers a device.
            observer.replace_read(&transaction, &mut data);
        }
        let shown = self.watch.is_on().then(|| data.clone());
        if self.inboxes[function.index()]
            .offer(Message::Write { from, bar, offset, msix, data, hops })
            .is_err()
        {
            return Piece::Retry;
        }
        self.issue(&transaction);
        self.stats.of_mut(from).delivered(WRITE, resolved.route, run);
        let delivery = self.delivery(resolved, 0);
        self.observe(&transaction, &delivery, shown.as_deref());
        Piece::Left(run, None)
    }

    #[allow(clippy::too_many_arguments, reason = "the run is described by them and nothing else")]
    #[inline]
    fn write_memory(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        resolved: &Resolved,
        at: u64,
        run: u64,
        source: &VolatileSlice<'_>,
        done: u64,
    ) {
        let Target::Memory { memory, offset, .. } = resolved.target else { return };
        let transaction = self.describe(from, WRITE, purpose, at, run);
        self.issue(&transaction);
        self.stats.of_mut(from).delivered(WRITE, resolved.route, run);
        let skip = at - resolved.first;
        let Some(source) = part(source, done, run) else { return };
        let Some(memory) = self.map.memories.get(memory) else { return };
        let Some(destination) = memory.slice(offset + skip, source.len()) else { return };
        source.copy_to_volatile_slice(destination);
        if self.watch.is_on() {
            let mut shown = None;
            if purpose != Purpose::Data {
                let mut bytes = vec![0; source.len()];
                source.copy_to(&mut bytes[..]);
                shown = Some(bytes);
            }
            let delivery = self.delivery(resolved, skip);
            self.observe(&transaction, &delivery, shown.as_deref());
        }
    }

    /// Writes a few bytes of the device's own making.
    pub(crate) fn write_bytes(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        address: u64,
        bytes: &mut [u8],
    ) -> WriteOutcome {
        self.write(from, purpose, address, &VolatileSlice::from(bytes))
    }
}

fn part<'a>(source: &VolatileSlice<'a>, done: u64, run: u64) -> Option<VolatileSlice<'a>> {
    source.subslice(usize::try_from(done).ok()?, usize::try_from(run).ok()?).ok()
}
