//! Reads that wait for a completion.

use std::collections::BTreeMap;

use super::{Tag, Transaction};

/// Reads of one function that may wait at the same time.
const LIMIT: usize = 64;

/// The reads of one function.
#[derive(Debug, Default)]
pub(crate) struct Outstanding {
    reads: BTreeMap<Tag, Transaction>,
}

impl Outstanding {
    pub(super) fn has_room(&self) -> bool {
        self.reads.len() < LIMIT
    }

    pub(super) fn add(&mut self, tag: Tag, transaction: Transaction) {
        self.reads.insert(tag, transaction);
    }

    /// Takes a read off the list; none if its function has been reset since.
    pub(crate) fn remove(&mut self, tag: Tag) -> Option<Transaction> {
        self.reads.remove(&tag)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.reads.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.reads.clear();
    }
}
