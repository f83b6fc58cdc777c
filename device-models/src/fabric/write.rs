//! Memory writes: posted, so the requester learns nothing; the checker, the IOMMU and the ports do.

use vm_memory::VolatileSlice;

use super::arrive::Full;
use super::delayed::Destination;
use super::inbox::Message;
use super::request::{Next, Registers, Request};
use super::{
    CompletionStatus, Delivery, Fabric, FunctionId, Kind, MAX_HOPS, Purpose, Transaction,
    WriteOutcome,
};
use crate::checker::{Cause, FindingClass};

impl Fabric {
    /// Writes the buffer of `request`.
    pub(super) fn write(&mut self, request: &Request<'_>) -> WriteOutcome {
        let length = request.buffer.len() as u64;
        if self.exempt == Some(request.from) {
            // Before the IOMMU answers.
            self.drain_translated();
        }
        if !self.may_issue(request) {
            return WriteOutcome::NotEmitted;
        }
        let mut verdict = None;
        let mut bytes = 0;
        while bytes < length {
            let (run, found) = match self.next(request, bytes, &mut verdict) {
                Next::Memory(resolved) => {
                    if self.held_back(request.from, resolved.owner) {
                        return WriteOutcome::Retry { bytes, verdict };
                    }
                    let run = match self.delayed_path(request.from, resolved.owner) {
                        Some(path) => {
                            match self.hold_memory(path, request, &resolved, bytes, &mut verdict) {
                                Ok(run) => run,
                                Err(Full) => return WriteOutcome::Retry { bytes, verdict },
                            }
                        }
                        None => self.move_memory(request, &resolved, bytes, &mut verdict),
                    };
                    self.moved_on(request, bytes);
                    (run, None)
                }
                Next::Registers(transaction, registers) => {
                    let Some(data) = request.part(bytes, transaction.length) else { break };
                    match self.send_to_registers(&transaction, &registers, &data) {
                        Ok(found) => {
                            let seen = self.witnessed(request.begun, &transaction);
                            (transaction.length, found.or(seen))
                        }
                        Err(Full) => return WriteOutcome::Retry { bytes, verdict },
                    }
                }
                Next::Window(transaction) => {
                    let Some(data) = request.part(bytes, transaction.length) else { break };
                    match self.write_window(&transaction, &data) {
                        Ok(found) => (transaction.length, found),
                        Err(Full) => return WriteOutcome::Retry { bytes, verdict },
                    }
                }
                Next::Failed { class, run, .. } => (run, Some(class)),
            };
            verdict = verdict.or(found);
            bytes += run;
        }
        WriteOutcome::Posted { verdict }
    }

    /// Queues one TLP for a register BAR; what was found.
    fn send_to_registers(
        &mut self,
        transaction: &Transaction,
        to: &Registers,
        source: &VolatileSlice<'_>,
    ) -> Result<Option<FindingClass>, Full> {
        let from = transaction.function;
        let hops = self.hops[from.index()].saturating_add(1);
        if hops > MAX_HOPS {
            self.issue(transaction);
            self.observe(transaction, &Delivery::Failed(CompletionStatus::CompleterAbort), None);
            let explanation = format!(
                "{MAX_HOPS} device-to-device register writes in a row caused each other without a \
                 CPU; the chain is \
                 cut here"
            );
            let mapping = self.mapping_of(from, transaction.address, to.route);
            let class = FindingClass::HopLimit;
            let cause = Cause::Target { function: to.function, mapping };
            self.report(from, class, cause, Some(*transaction), explanation);
            return Ok(Some(FindingClass::HopLimit));
        }
        let Registers { function, bar, offset, msix, .. } = *to;
        if let Some(path) = self.delayed_path(from, Some(function)) {
            let destination = Destination::Registers(*to, hops);
            return self.hold(path, transaction, destination, source).map(|()| None);
        }
        let mut data = vec![0; source.len()].into_boxed_slice();
        source.copy_to(&mut data[..]);
        self.replace_bulk(transaction, &mut data);
        let shown = self.watch.is_on().then(|| data.clone());
        self.inboxes[function.index()]
            .offer(Message::Write { from, bar, offset, msix, data, hops })
            .map_err(|_| Full)?;
        self.issue(transaction);
        self.delivered(transaction, to.route, Some(function));
        self.observe(transaction, &to.delivery, shown.as_deref());
        self.arrived(transaction);
        Ok(None)
    }

    /// Bulk data is not in a record, but what comes to registers steers a device: a replay puts in
    /// what did then.
    pub(super) fn replace_bulk(&mut self, transaction: &Transaction, data: &mut [u8]) {
        if transaction.purpose == Purpose::Data
            && let Some(observer) = self.watch.observer()
        {
            observer.replace_read(transaction, data);
        }
    }

    /// One run into the interrupt window; what was found.
    fn write_window(
        &mut self,
        transaction: &Transaction,
        data: &VolatileSlice<'_>,
    ) -> Result<Option<FindingClass>, Full> {
        if let Some(path) = self.delayed_path(transaction.function, None) {
            return self.hold(path, transaction, Destination::Window, data).map(|()| None);
        }
        self.issue(transaction);
        Ok(self.interrupt(*transaction, data))
    }

    /// Writes a few bytes of the device's own making.
    pub(crate) fn write_bytes(
        &mut self,
        from: FunctionId,
        purpose: Purpose,
        address: u64,
        bytes: &mut [u8],
    ) -> WriteOutcome {
        let buffer = VolatileSlice::from(bytes);
        let begun = address;
        self.write(&Request { from, kind: Kind::MemoryWrite, purpose, address, begun, buffer })
    }
}
