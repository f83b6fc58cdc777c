//! The witness: what the guest's kernel says that it has mapped for DMA.
//!
//! A module in the guest reports each mapping and each unmapping of its kernel's, in rings that it
//! shares with the VMM ([`guest_protocol::witness`]). Before each request of a function the rings
//! are emptied, and the request is held against what is mapped then: each byte of it has to lie in a
//! mapping for its direction, and all that the function was given as one range of addresses in what
//! was mapped in one go.
//!
//! # Where an operation is reported
//!
//! On the CPU that does it, so the records of two CPUs can come in another order than the operations
//! took effect:
//!
//! | Operation | It takes effect | Its record gets its ticket |
//! |---|---|---|
//! | map | before it returns | before it returns, after the IOMMU has the mapping |
//! | unmap of one range (`dma_unmap_phys`) | the IOMMU's UNMAP, then the address is free | after the address is free |
//! | unmap of a scatterlist, free of a coherent allocation | the same | before the IOMMU's UNMAP |
//!
//! A device learns of an address after the map has returned, and its driver has to have stopped it
//! before the unmap begins. So a map is reported in time, and so is an unmap that is reported early.
//! An unmap that is reported late is the difficult one. Between the moment at which the address is
//! free and the record, another CPU can map something else there. These are all orders in which the
//! records of `A: unmap(x)` and `B: map(x)`, of the same address, can be seen:
//!
//! 1. A, B. Nothing to do.
//! 2. B, A, and A has the lower ticket: A was between ticket and commit when the rings were emptied.
//! 3. B, A, and B has the lower ticket: A's record was late.
//!
//! With an IOMMU, nothing else than that A's mapping is over explains a map of the same address in
//! the same domain. So in 2 and 3 the map ends the older mapping, and its unmap is expected; when it
//! comes it ends nothing, and only says who unmapped it. In addition the IOMMU's UNMAP ends all
//! mappings in its addresses at once, with their unmaps expected in the same way: a late unmap can
//! hide no mistake. A mapping that is in force and one that is expected can have the same addresses;
//! the expected one is older, and takes the unmap.
//!
//! Without an IOMMU (and for bus addresses, which no IOMMU sees) the same memory may be mapped any
//! number of times. There mappings are counted: in 2 and 3 there are two for a moment, of which
//! either may be the one that goes. A mistake in that moment is not found.
//!
//! Two unmaps, or two maps, of different addresses do not affect each other in any order. Two maps
//! of the same address with an IOMMU have an unmap in between. `A: map(x)` and `B: unmap(x)`, where
//! B's comes first, cannot be, as the map has returned before the unmap begins, and what has been
//! reported before is seen before ([`Rings`]); where a busy guest makes it happen all the same, the
//! unmap waits for its map. The tests try all interleavings of small programs.
//!
//! # What the VMM can be told
//!
//! Anything: the guest may write what it likes. It can only fool itself. Nothing panics, and what is
//! kept and done has bounds; where they are exceeded, the function is not watched any more, and a
//! warning says so.

mod apply;
mod buffers;
mod cache;
mod clock;
mod counters;
mod explain;
mod function;
mod ledger;
mod record;
mod rings;
mod segments;
#[cfg(test)]
mod tests;

pub use clock::Clock;
pub(crate) use clock::GuestClock;
pub use counters::{Counters, Gap};
pub(crate) use explain::Explanation;
pub(crate) use function::{Mistake, Reason};
pub use ledger::{Dead, End, Mapping};
pub use record::{Builder, Bytes, Direction, Event, Record, Text};
pub use rings::{BadHeader, Find, Rings};

use crate::AddressRange;
use crate::fabric::{FunctionId, Kind};
use buffers::Buffers;
use function::Tracked;

/// Mappings in force, of all functions together, at most.
const MAX_LIVE: u64 = 1 << 20;

/// What the state says beside its counters: mistakes that need no transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Notice {
    /// A driver has left mappings behind.
    Leaked {
        function: FunctionId,
        /// How many, and their bytes.
        count: u64,
        bytes: u64,
        /// One of them.
        mapping: Mapping,
        /// The device is gone, too.
        gone: bool,
    },
    /// A dma-buf was freed while it was mapped for a function.
    Freed { function: FunctionId, attachment: u64, buffer: String, mapping: Mapping, event: Event },
    /// A table of a dma-buf was mapped, and where it leads to matters: a mistake if it is another
    /// device's memory and the driver does not take peer-to-peer addresses.
    Placed(Box<Placed>),
}

/// A table of a dma-buf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) function: FunctionId,
    attachment: u64,
    pub(crate) buffer: u64,
    name: String,
    pub(crate) mapping: Mapping,
    /// The importer takes peer-to-peer addresses.
    pub(crate) takes_peer_to_peer: bool,
    /// Where it leads to, as far as it has been looked up.
    pub(crate) place: LeadsTo,
}

/// Where a table of a dma-buf leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum LeadsTo {
    /// Not looked up, or nowhere.
    #[default]
    Unknown,
    /// Into another device's memory.
    Device,
    /// Into system memory, and into another device's before.
    Memory,
}

/// What the fabric knows about a record.
pub(crate) struct Context<'a> {
    /// The function that it names.
    pub(crate) function: Option<FunctionId>,
    /// The IOMMU translates for the function.
    pub(crate) translated: bool,
    /// Whether another function is in the same domain.
    pub(crate) is_with: &'a mut dyn FnMut(FunctionId) -> bool,
}

/// How a request was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// It is allowed, or nothing certain is known.
    Fine,
    /// It is a mistake.
    Wrong(Box<Mistake>),
}

/// What the guest's witness has said, and how it says it.
#[derive(Debug)]
pub(crate) struct Witness {
    attached: bool,
    /// None in a replay.
    rings: Option<Rings>,
    pub(crate) clock: GuestClock,
    counters: Counters,
    functions: Vec<Tracked>,
    buffers: Buffers,
    notices: Vec<Notice>,
    /// A header was refused, and a warning has said so.
    refused: bool,
    /// Something was too much, and a warning has said so.
    overflowed: bool,
}

impl Witness {
    pub(crate) fn new(functions: usize) -> Self {
        Self {
            attached: false,
            rings: None,
            clock: GuestClock::default(),
            counters: Counters::default(),
            functions: std::iter::repeat_with(Tracked::default).take(functions).collect(),
            buffers: Buffers::default(),
            notices: Vec::new(),
            refused: false,
            overflowed: false,
        }
    }

    #[inline]
    pub(crate) fn is_attached(&self) -> bool {
        self.attached
    }

    #[inline]
    pub(crate) fn has_rings(&self) -> bool {
        self.rings.is_some()
    }

    /// Whether there is something in the rings.
    #[inline]
    pub(crate) fn has_records(&self) -> bool {
        self.rings.as_ref().is_some_and(|rings| !rings.is_idle())
    }

    /// It is there; `now` is the guest's clock. Without rings its records come from a trace.
    pub(crate) fn attach(&mut self, now: u64, rings: Option<Rings>) {
        self.attached = true;
        self.rings = rings;
        self.clock.begin(now);
    }

    /// It is gone, and with it all that it has said.
    pub(crate) fn detach(&mut self) {
        self.attached = false;
        self.rings = None;
        for tracked in &mut self.functions {
            *tracked = tracked.begin_anew();
        }
        self.buffers = Buffers::default();
        self.counters.live = 0;
    }

    /// Its header makes no sense.
    pub(crate) fn refuse(&mut self, error: &BadHeader) {
        if !std::mem::replace(&mut self.refused, true) {
            log::warn!("the guest's witness is not listened to: {error}");
        }
    }

    pub(crate) fn take_rings(&mut self) -> Option<Rings> {
        self.rings.take()
    }

    pub(crate) fn put_rings(&mut self, rings: Rings) {
        self.rings = Some(rings);
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Whether `function` is given physical addresses, whatever is mapped for it.
    pub(crate) fn set_physical(&mut self, function: FunctionId, physical: bool) {
        if let Some(tracked) = self.functions.get_mut(function.index()) {
            tracked.physical = physical;
        }
    }

    /// Whether all that is mapped for `function` is known; why not.
    #[inline]
    pub(crate) fn coverage(&self, function: FunctionId) -> Result<(), Gap> {
        if !self.attached {
            return Err(Gap::NoWitness);
        }
        self.functions.get(function.index()).map_or(Err(Gap::BoundBefore), Tracked::is_covered)
    }

    /// Judges the bytes from `range.first` to `range.last` of a request, as a part of what begins at
    /// `begun`; `tlps` is for the counters.
    #[inline]
    pub(crate) fn judge(
        &mut self,
        function: FunctionId,
        kind: Kind,
        begun: u64,
        range: AddressRange,
        tlps: u64,
    ) -> Judgement {
        let AddressRange { first, last } = range;
        let Some(tracked) = self.functions.get_mut(function.index()) else {
            return Judgement::Fine;
        };
        let gap = if self.attached { tracked.is_covered() } else { Err(Gap::NoWitness) };
        if let Err(gap) = gap {
            self.counters.not_witnessed[gap as usize] += tlps;
            return Judgement::Fine;
        }
        self.counters.transactions += tlps;
        self.counters.bytes = self.counters.bytes.saturating_add((last - first).saturating_add(1));
        if tracked.allows(kind, begun, first, last) {
            return Judgement::Fine;
        }
        tracked
            .mistake(kind, begun, first, last)
            .map_or(Judgement::Fine, |mistake| Judgement::Wrong(Box::new(mistake)))
    }

    /// Whether something is to be said.
    #[inline]
    pub(crate) fn has_notices(&self) -> bool {
        !self.notices.is_empty()
    }

    /// What is to be said since the last call.
    pub(crate) fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// The IOMMU has served an UNMAP of these addresses, for all functions that are in the domain.
    pub(crate) fn translation_ended(
        &mut self,
        range: AddressRange,
        mut is_in: impl FnMut(FunctionId) -> bool,
    ) {
        for index in 0..self.functions.len() {
            let function = FunctionId(u16::try_from(index).unwrap_or(u16::MAX));
            if self.functions[index].ledger.len() > 0 && is_in(function) {
                self.change(function, |tracked| tracked.end_translation(range));
            }
        }
    }

    /// The mappings of `function` that are nearest to `address`, at most `most`, by address and in words; and how many
    /// there are. None if not all are known.
    pub(crate) fn mappings_near(
        &self,
        function: FunctionId,
        address: u64,
        most: usize,
    ) -> Option<(Vec<String>, usize)> {
        self.coverage(function).ok()?;
        let tracked = self.functions.get(function.index())?;
        let own = tracked.ledger.iter().filter(|mapping| mapping.covers);
        let own = own.map(|mapping| (mapping, false));
        let mut all: Vec<_> = own.chain(self.buffers.mapped_for(function)).collect();
        let count = all.len();
        all.sort_by_key(|(mapping, _)| mapping.range.distance(address));
        all.truncate(most);
        all.sort_by_key(|(mapping, _)| mapping.range.first);
        let words = |(mapping, revoked): (&Mapping, bool)| {
            let mut text = mapping.words();
            if mapping.buffer != 0 {
                text.push_str(&format!(", of {}", self.buffers.name(mapping.buffer)));
            }
            if revoked {
                text.push_str(", invalidated since: it may be read, not written");
            }
            text
        };
        Some((all.into_iter().map(words).collect(), count))
    }

    /// A dma-buf is in another device's memory.
    pub(crate) fn found_in_device(&mut self, buffer: u64) {
        self.buffers.set_in_device(buffer);
    }

    /// Whether a dma-buf was in another device's memory when it was mapped before.
    pub(crate) fn was_in_device(&self, buffer: u64) -> bool {
        self.buffers.was_in_device(buffer)
    }

    /// Whether anything is mapped for a function.
    pub(crate) fn has_mappings(&self) -> bool {
        self.counters.live > 0
    }
}
