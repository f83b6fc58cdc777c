//! Memory reads.

use super::inbox::Message;
use super::outstanding::Read;
use super::request::{Next, Registers, Request};
use super::route::Refusal;
use super::{CompletionStatus, Delivery, Fabric, FunctionId, ReadOutcome, Tag, Transaction};
use crate::checker::FindingClass;

impl Fabric {
    /// Reads into the buffer of `request`; its length is the length of the read.
    pub(super) fn read(&mut self, request: &Request<'_>) -> ReadOutcome {
        let length = request.buffer.len() as u64;
        if !self.may_issue(request) {
            return ReadOutcome::NotEmitted;
        }
        let mut verdict = None;
        let mut bytes = 0;
        while bytes < length {
            match self.next(request, bytes, &mut verdict) {
                Next::Memory(resolved) => {
                    if !self.push(request.from, resolved.owner)
                        || self.held_back(request.from, resolved.owner)
                        || !self.completion_pushes(resolved.owner, request.from)
                    {
                        return ReadOutcome::Retry { bytes, verdict };
                    }
                    let run = self.move_memory(request, &resolved, bytes, &mut verdict);
                    self.moved_on(request, bytes);
                    bytes += run;
                }
                Next::Registers(transaction, registers) => {
                    return match self.read_registers(&transaction, &registers) {
                        Some(tag) => {
                            let verdict = verdict.or(self.witnessed(request.begun, &transaction));
                            ReadOutcome::Pending { tag, bytes, verdict }
                        }
                        None => ReadOutcome::Retry { bytes, verdict },
                    };
                }
                Next::Window(transaction) => {
                    let (class, status) =
                        (FindingClass::Malformed, CompletionStatus::UnsupportedRequest);
                    self.fail(&transaction, status, Refusal::new(class, None));
                    let explanation = "the interrupt window cannot be read".to_owned();
                    let cause = self.malformed(&transaction, "read");
                    self.report(request.from, class, cause, Some(transaction), explanation);
                    return ReadOutcome::Done { status, bytes, verdict: verdict.or(Some(class)) };
                }
                Next::Failed { class, status, .. } => {
                    return ReadOutcome::Done { status, bytes, verdict: verdict.or(Some(class)) };
                }
            }
        }
        ReadOutcome::Done { status: CompletionStatus::Success, bytes, verdict }
    }

    /// The completion of a read pushes what its completer has posted to the requester (2.4.1, rule
    /// D2a). RAM posts nothing. False: not everything is there yet.
    #[inline]
    fn completion_pushes(&mut self, completer: Option<FunctionId>, reader: FunctionId) -> bool {
        completer.is_none_or(|completer| {
            self.push(completer, Some(reader)) && !self.held_back(completer, Some(reader))
        })
    }

    /// Sends one read to a register BAR: one request TLP, one message. None when there is no room
    /// for it.
    fn read_registers(&mut self, transaction: &Transaction, to: &Registers) -> Option<Tag> {
        let from = transaction.function;
        if !self.push(from, Some(to.function)) || !self.outstanding[from.index()].has_room() {
            return None;
        }
        let tag = Tag(self.tag);
        let length = u16::try_from(transaction.length).unwrap_or(u16::MAX);
        let Registers { function, bar, offset, msix, .. } = *to;
        self.inboxes[function.index()]
            .offer(Message::Read { from, bar, offset, msix, length, tag })
            .ok()?;
        self.tag = self.tag.wrapping_add(1);
        self.issue(transaction);
        let mapping = self.mapping_of(from, transaction.address, to.route);
        let read =
            Read { transaction: *transaction, route: to.route, mapping, delivery: to.delivery };
        self.outstanding[from.index()].add(tag, read);
        Some(tag)
    }

    /// Completes a read that was answered by message; called by the system when it delivers the
    /// completion.
    pub(super) fn read_completed(&mut self, read: &Read, status: CompletionStatus, data: &[u8]) {
        let Read { transaction, route, delivery, .. } = read;
        if status == CompletionStatus::Success {
            self.delivered(transaction, *route, delivery.owner());
            self.observe(transaction, delivery, Some(data));
        } else {
            self.read_ended(transaction, status);
            self.observe(transaction, &Delivery::Failed(status), Some(data));
        }
    }
}
