//! The fabric's state for each function, and how delivery and resets change it.

use std::sync::Arc;

use super::{
    AddressMap, CompletionStatus, DetectedError, Fabric, FunctionId, Input, InterruptPolicy,
    Message, Observer, Stats, Tag,
};
use crate::checker::{Cause, FindingClass};
use crate::endpoint::ResetKind;
use crate::iommu::VirtioIommu;
use crate::pci::Abort;

impl Fabric {
    /// The address map in force.
    pub(crate) fn map(&self) -> &Arc<AddressMap> {
        &self.map
    }

    /// What went where since power-on.
    pub(crate) fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The virtio-iommu; none if another IOMMU, or none, translates.
    pub(crate) fn virtio_iommu(&mut self) -> Option<&mut VirtioIommu> {
        self.iommu.as_virtio()
    }

    /// The virtio-iommu's own function, whose requests are not translated.
    pub(crate) fn untranslated(&self) -> Option<FunctionId> {
        self.exempt
    }

    /// From now on the requests of `function` are not translated: it is the virtio-iommu's own.
    pub(crate) fn set_untranslated(&mut self, function: FunctionId) {
        self.exempt = Some(function);
    }

    pub(crate) fn set_interrupt_policy(&mut self, policy: InterruptPolicy) {
        self.policy = policy;
    }

    pub(crate) fn leave_data(&mut self) {
        self.leaves_data = true;
    }

    pub(crate) fn add_observer(&mut self, observer: Box<dyn Observer>) {
        self.watch.add(observer);
    }

    /// Shows an input to the observers.
    pub(crate) fn observe_input(&mut self, input: &Input<'_>) {
        if let Some(observer) = self.watch.observer() {
            observer.input(input);
        }
    }

    /// `function` has its turn from here to [`end_turn`](Self::end_turn).
    pub(crate) fn begin_turn(&mut self, function: FunctionId) {
        self.watch.begin_turn(function);
    }

    /// The turn is over; the observers hear of it if it `worked`, even if nothing else was to see.
    pub(crate) fn end_turn(&mut self, worked: bool) {
        self.watch.end_turn(worked);
    }

    /// The errors that were detected since the last call, in order.
    pub(crate) fn take_errors(&mut self) -> Vec<DetectedError> {
        std::mem::take(&mut self.errors)
    }

    /// The reads that were answered with an error since the last call, by requester, in order.
    pub(crate) fn take_aborts(&mut self) -> Vec<(FunctionId, Abort)> {
        std::mem::take(&mut self.aborts)
    }

    /// Takes the next message for `function`.
    pub(crate) fn next_message(&mut self, function: FunctionId) -> Option<Message> {
        self.inboxes[function.index()].pop()
    }

    /// Device-to-device register writes in a row, of which the one to `function` is the last; 0
    /// after a CPU's. What the function does next goes on from there.
    pub(crate) fn set_hops(&mut self, function: FunctionId, hops: u8) {
        self.hops[function.index()] = hops;
    }

    /// Whether reads of `function` wait for completions.
    pub(crate) fn has_outstanding_reads(&self, function: FunctionId) -> bool {
        !self.outstanding[function.index()].is_empty()
    }

    /// A completion has come to `function`. False: a reset, or a time-out, has given up waiting;
    /// the completion is unexpected and dropped.
    pub(crate) fn take_completion(
        &mut self,
        function: FunctionId,
        tag: Tag,
        status: CompletionStatus,
        data: &[u8],
    ) -> bool {
        let Some(read) = self.outstanding[function.index()].remove(tag) else { return false };
        self.read_completed(&read, status, data);
        if status == CompletionStatus::Timeout {
            let mapping = read.mapping;
            let cause = read
                .completer()
                .map_or(Cause::Function, |function| Cause::Target { function, mapping });
            self.report(
                function,
                FindingClass::CompletionTimeout,
                cause,
                Some(read.transaction),
                "the completer was reset or taken away before it answered".to_owned(),
            );
        }
        true
    }

    /// `function` was reset: its reads are forgotten, what waits for it and what it has held back
    /// are lost.
    ///
    /// Reads that wait for an answer of it end in a time-out. On hardware their requesters wait for
    /// one (PCIe 6.0, 2.8); here it is known at once that no completion can come.
    pub(crate) fn reset_function(&mut self, function: FunctionId, kind: ResetKind) {
        let index = function.index();
        self.outstanding[index].clear();
        let answers = std::mem::take(&mut self.answers[index]);
        let answered = answers.into_iter().map(|answer| (answer.reader, answer.tag));
        for (requester, tag) in answered.chain(self.inboxes[index].clear()) {
            let (status, data) = (CompletionStatus::Timeout, Box::default());
            self.inboxes[requester.index()].complete(Message::Completion { tag, status, data });
        }
        let class = match kind {
            ResetKind::FunctionLevel => FindingClass::NotInD0,
            _ => FindingClass::LinkDown,
        };
        self.discard_held(function, class);
        self.hops[index] = 0;
        if let Some(table) = &mut self.interrupts[index].msix {
            table.reset();
        }
    }
}
