//! Completions of register reads on their way back, behind posted writes of their completer on the
//! same path.
//!
//! A read completion does not pass a posted write (PCIe 6.0, 2.4.1, rule D2a; relaxed and ID-based
//! ordering are not modelled). Where such a write finds no room at the reader, the completion waits
//! with it. The completer goes on taking requests meanwhile: two functions that read from each
//! other would wait for ever otherwise.

use super::{CompletionStatus, Fabric, FunctionId, Message, Tag};

/// A completion that waits.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) reader: FunctionId,
    pub(super) tag: Tag,
    data: Box<[u8]>,
    /// Writes with lower sequence numbers go before it.
    sequence: u64,
}

impl Fabric {
    /// `completer` has answered a read of its registers.
    pub(crate) fn answer(
        &mut self,
        completer: FunctionId,
        reader: FunctionId,
        tag: Tag,
        data: Box<[u8]>,
    ) {
        let sequence = self.sequence;
        self.answers[completer.index()].push_back(Answer { reader, tag, data, sequence });
        self.send_answers(completer);
    }

    /// Sends what `completer` has answered, as far as the writes before it find room; whether
    /// anything moved.
    pub(crate) fn send_answers(&mut self, completer: FunctionId) -> bool {
        let mut any = false;
        while let Some(&Answer { reader, sequence, .. }) = self.answers[completer.index()].front() {
            let before = self.under_way(completer, reader);
            let all = self.push_before(completer, Some(reader), sequence);
            any |= self.under_way(completer, reader) != before;
            if !all {
                break;
            }
            let Some(answer) = self.answers[completer.index()].pop_front() else { break };
            let Answer { tag, data, .. } = answer;
            let status = CompletionStatus::Success;
            self.inboxes[reader.index()].complete(Message::Completion { tag, status, data });
            any = true;
        }
        any
    }

    /// Writes of `from` that are under way to `to`.
    fn under_way(&mut self, from: FunctionId, to: FunctionId) -> usize {
        let path = self.delayed_path(from, Some(to));
        path.and_then(|path| self.delayed.get(path)).map_or(0, |path| path.len())
    }

    /// Whether a completion of `completer` for a CPU has anything to push.
    pub(crate) fn cpu_read_pushes(&self, completer: FunctionId) -> bool {
        self.delayed_path(completer, None).is_some()
    }

    /// A CPU has read from `completer`: what that has posted to the root complex comes before the
    /// completion.
    pub(crate) fn completed_to_cpu(&mut self, completer: FunctionId) {
        // RAM and the interrupt window always have room. What finds none has been led to another
        // function since, by a new address map, and no longer goes to the CPU.
        self.push(completer, None);
    }
}
