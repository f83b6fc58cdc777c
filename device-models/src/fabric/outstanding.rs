//! Reads that wait for a completion.

use std::collections::BTreeMap;

use super::{Delivery, FunctionId, RouteKind, Tag, Transaction};

/// Reads of one function that may wait at the same time.
const LIMIT: usize = 64;

/// A read that went out as a message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read {
    pub(super) transaction: Transaction,
    /// The route that it took.
    pub(super) route: RouteKind,
    /// The MAP request of the first piece of the mapping that it went by.
    pub(super) mapping: Option<u64>,
    /// What to say of it once its completion is there.
    pub(super) delivery: Delivery,
}

impl Read {
    /// The function that was to answer it.
    pub(super) fn completer(&self) -> Option<FunctionId> {
        self.delivery.owner()
    }
}

/// The reads of one function.
#[derive(Debug, Default)]
pub(super) struct Outstanding {
    reads: BTreeMap<Tag, Read>,
}

impl Outstanding {
    pub(super) fn has_room(&self) -> bool {
        self.reads.len() < LIMIT
    }

    pub(super) fn add(&mut self, tag: Tag, read: Read) {
        self.reads.insert(tag, read);
    }

    /// Takes a read off the list; none if its function has been reset since.
    pub(super) fn remove(&mut self, tag: Tag) -> Option<Read> {
        self.reads.remove(&tag)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.reads.clear();
    }
}
