//! A function's undelivered messages: accesses to its registers and completions of its
//! reads.
//!
//! One queue per target, first in first out, gives PCIe's ordering (6.0, 2.4.1) for free: a read
//! does not pass a posted write of the same requester, and a completion does not pass the
//! completer's own writes.

use std::collections::VecDeque;

use super::{CompletionStatus, FunctionId, Tag};

/// Requests that fit before flow control holds requesters back.
const CAPACITY: usize = 64;

/// One thing to deliver.
#[derive(Debug)]
pub(crate) enum Message {
    /// A posted write to a register BAR.
    Write { from: FunctionId, bar: u8, offset: u64, msix: bool, data: Box<[u8]>, hops: u8 },
    /// A read of a register BAR: to be answered with a completion in the inbox of `from`.
    Read { from: FunctionId, bar: u8, offset: u64, msix: bool, length: u16, tag: Tag },
    /// A completion for a read that the owner of this inbox issued.
    Completion { tag: Tag, status: CompletionStatus, data: Box<[u8]> },
}

impl Message {
    fn sender(&self) -> Option<FunctionId> {
        match self {
            Self::Write { from, .. } | Self::Read { from, .. } => Some(*from),
            Self::Completion { .. } => None,
        }
    }
}

/// The queue of one function.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queue: VecDeque<Message>,
    requests: usize,
}

impl Inbox {
    /// Whether there is room for a request.
    pub(super) fn has_room(&self) -> bool {
        self.requests < CAPACITY
    }

    /// Whether nothing waits here.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Takes a request, unless there is no room.
    pub(super) fn offer(&mut self, request: Message) -> Result<(), Message> {
        if !self.has_room() {
            return Err(request);
        }
        self.requests += 1;
        self.queue.push_back(request);
        Ok(())
    }

    /// Takes a completion: always, since its reader has room for it by having issued the read.
    pub(super) fn complete(&mut self, completion: Message) {
        self.queue.push_back(completion);
    }

    pub(super) fn pop(&mut self) -> Option<Message> {
        let message = self.queue.pop_front()?;
        if message.sender().is_some() {
            self.requests -= 1;
        }
        Some(message)
    }

    /// Whether something of `sender` is still on its way here: then nothing of it may pass.
    pub(super) fn holds_from(&self, sender: FunctionId) -> bool {
        self.requests > 0 && self.queue.iter().any(|message| message.sender() == Some(sender))
    }

    /// Drops everything: the function was reset. Returns the readers that wait for an answer, with
    /// their tags.
    pub(super) fn clear(&mut self) -> Vec<(FunctionId, Tag)> {
        self.requests = 0;
        let unanswered = |message| match message {
            Message::Read { from, tag, .. } => Some((from, tag)),
            Message::Write { .. } | Message::Completion { .. } => None,
        };
        self.queue.drain(..).filter_map(unanswered).collect()
    }
}
