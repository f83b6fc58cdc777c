//! How long mappings live: by what the guest's witness reports, and by the requests that the IOMMU serves.
//!
//! The checker's own books are about rights, byte by byte. Here a mapping is what was mapped in one call.

mod iommu;
mod kernel;
mod lengths;

use std::sync::Arc;
use std::time::Duration;

use self::iommu::Domains;
use self::kernel::Kernel;
pub use self::lengths::Lengths;
use super::event::Event;
use super::filter::Context;
use super::reader::Entry;

/// Mappings in force that are followed; of more the ends are not seen.
const MAX_LIVE: usize = 1 << 18;

/// Mappings that one unmap may pass over without ending them: none does that but in a trace that no recorder wrote.
const MAX_PASSED: usize = 1 << 12;

/// What has made a mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum MappedBy {
    /// The guest's kernel, for a driver: `dma_map_*()`, `dma_alloc_*()`.
    Kernel,
    /// The exporter of a dma-buf, for an attachment.
    Buffer,
    /// A MAP request to the IOMMU.
    Iommu,
}

impl MappedBy {
    /// In a word or two.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Buffer => "dma-buf",
            Self::Iommu => "IOMMU",
        }
    }
}

/// A mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    /// One that no other mapping of the trace has.
    pub(crate) id: u64,
    pub(crate) by: MappedBy,
    /// For which function, or which domain where none is attached to it.
    pub(crate) function: Arc<str>,
    /// First address.
    pub(crate) address: u64,
    /// Bytes.
    pub(crate) length: u64,
    /// Inode of the dma-buf; 0 for none.
    pub(crate) buffer: u64,
    /// The entry that it comes from.
    pub(crate) entry: u64,
    /// When it was made, since 1970.
    pub(crate) begun: Duration,
}

/// What an entry says about a mapping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It is made.
    Begins(Arc<Life>),
    /// It is over at this time since 1970, not before it was made.
    Ends(Arc<Life>, Duration),
}

/// Follows the mappings of a trace.
#[derive(Debug, Default)]
pub(crate) struct Lives {
    kernel: Kernel,
    domains: Domains,
    next: u64,
    missed: u64,
}

/// Where changes go, and how many mappings there may be.
struct Out<'a> {
    changes: &'a mut Vec<Change>,
    next: &'a mut u64,
    missed: &'a mut u64,
    has_room: bool,
}

impl Out<'_> {
    /// A mapping is made; none if there are too many.
    fn begin(&mut self, life: Life) -> Option<Arc<Life>> {
        if !self.has_room {
            *self.missed += 1;
            return None;
        }
        let life = Arc::new(Life { id: *self.next, ..life });
        *self.next += 1;
        self.changes.push(Change::Begins(Arc::clone(&life)));
        Some(life)
    }

    fn end(&mut self, life: Arc<Life>, time: Duration) {
        let time = time.max(life.begun);
        self.changes.push(Change::Ends(life, time));
    }
}

impl Lives {
    /// Adds to `changes` what an entry changes. Entries come in their order, none left out.
    pub(crate) fn follow(&mut self, entry: &Entry, context: &Context, changes: &mut Vec<Change>) {
        let has_room = self.kernel.len() + self.domains.len() < MAX_LIVE;
        let mut out = Out { changes, next: &mut self.next, missed: &mut self.missed, has_room };
        match &entry.event {
            Event::Witness { kind, data } => {
                self.kernel.input(*kind, data, entry, context, &mut out);
            }
            Event::Transaction(run) => self.domains.transaction(run, entry, context, &mut out),
            _ => {}
        }
    }

    /// Mappings that were not followed, because there were too many.
    pub(crate) fn missed(&self) -> u64 {
        self.missed
    }
}

/// The keys that are `wanted`, as long as not too many are not.
fn pick<K>(keys: impl Iterator<Item = K>, wanted: impl Fn(&K) -> bool) -> Vec<K> {
    let mut passed = 0;
    let counted = keys.take_while(|key| {
        passed += usize::from(!wanted(key));
        passed <= MAX_PASSED
    });
    counted.filter(|key| wanted(key)).collect()
}

#[cfg(test)]
mod tests;
