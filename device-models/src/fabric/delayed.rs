//! Posted writes that stay under way: the hazard `delay-posted`, armed by path.
//!
//! A path leads from one requester to one target: a function's BARs, or the root complex with RAM
//! and interrupts behind it. PCIe orders what takes one path (6.0, 2.4.1): posted writes stay in
//! order, and a read of the same requester pushes them before it. Nothing orders different paths: a
//! completion record in RAM, an interrupt, and another function that reads the target go ahead.
//!
//! What waits is in front of the target's link, and has passed everything else: a CPU's request for
//! the target comes behind it, reads and writes alike, and pushes it.
//!
//! A write is routed, translated and checked when it is issued; what waits is past the IOMMU. It
//! takes its turn at the target when it arrives, and observers see it then: its sequence number
//! says when it was issued.

use std::collections::VecDeque;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use super::cache::Resolved;
use super::request::Registers;
use super::{FunctionId, Purpose, RouteKind, Transaction};
use crate::pci::Bdf;

/// Paths that can be armed at the same time.
pub(crate) const MAX_PATHS: usize = 64;
/// Bytes and writes that are under way on one path; beyond that the oldest arrive.
const MAX_BYTES: usize = 64 << 10;
const MAX_WRITES: usize = 1024;

/// Turns for which writes stay under way at most. A turn in which a function does nothing but wait
/// is work and is recorded, so that waiting has a cost.
pub const MAX_TURNS: u16 = 1024;

/// For how long posted writes stay under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostedDelay {
    /// No delay: what is under way arrives.
    Off,
    /// Until a read of the same requester, or an access of a CPU to the target, pushes them.
    UntilPushed,
    /// For this number of turns of the requester, at most [`MAX_TURNS`], or until they are pushed.
    Turns(u16),
}

impl PostedDelay {
    /// The same with no more turns than there may be.
    pub(crate) fn bounded(self) -> Self {
        match self {
            Self::Turns(turns) => Self::Turns(turns.min(MAX_TURNS)),
            delay => delay,
        }
    }
}

impl fmt::Display for PostedDelay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::UntilPushed => f.write_str("pushed"),
            Self::Turns(turns) => write!(f, "{turns}"),
        }
    }
}

/// The text is not a valid [`PostedDelay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write `off`, `pushed`, or a number of turns from 1 to {MAX_TURNS}")]
pub struct BadDelay;

impl FromStr for PostedDelay {
    type Err = BadDelay;

    fn from_str(text: &str) -> Result<Self, BadDelay> {
        match text {
            "off" => Ok(Self::Off),
            "pushed" => Ok(Self::UntilPushed),
            turns => match turns.parse() {
                Ok(turns @ 1..=MAX_TURNS) => Ok(Self::Turns(turns)),
                Ok(_) | Err(_) => Err(BadDelay),
            },
        }
    }
}

/// What software may take for the end of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Signal {
    /// A completion record.
    Record,
    /// A message-signalled interrupt.
    Interrupt,
    /// A fence of the guest's kernel.
    Fence,
}

impl Signal {
    /// The signal that a write is for software, if it is one.
    pub(super) fn of(purpose: Purpose) -> Option<Self> {
        match purpose {
            Purpose::CompletionRecord => Some(Self::Record),
            Purpose::Interrupt => Some(Self::Interrupt),
            Purpose::DescriptorFetch | Purpose::Data | Purpose::VirtQueue => None,
        }
    }
}

/// Where a write goes when it arrives.
#[derive(Debug, Clone, Copy)]
pub(super) enum Destination {
    /// Memory, and the offset from the first byte resolved.
    Memory(Resolved, u64),
    /// Registers, and the number of hops so far.
    Registers(Registers, u8),
    /// The interrupt window.
    Window,
}

impl Destination {
    /// The route there.
    pub(super) fn route(&self) -> RouteKind {
        match self {
            Self::Memory(resolved, _) => resolved.route,
            Self::Registers(registers, _) => registers.route,
            Self::Window => RouteKind::Interrupt,
        }
    }

    /// The address at the target's side; none in the interrupt window, which decodes nothing.
    pub(super) fn address(&self) -> Option<u64> {
        match self {
            Self::Memory(resolved, skip) => Some(resolved.address.wrapping_add(*skip)),
            Self::Registers(registers, _) => Some(registers.address()),
            Self::Window => None,
        }
    }
}

/// A write that has been issued and has not arrived.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) transaction: Transaction,
    pub(super) destination: Destination,
    /// Of the address map by which it was routed.
    pub(super) epoch: u64,
    /// The MAP request of the first piece of the mapping that it was translated by.
    pub(super) mapping: Option<u64>,
    pub(super) data: Box<[u8]>,
    /// The turn of its path in which it arrives by itself.
    due: u64,
}

/// Data that a signal has overtaken.
#[derive(Debug, Clone, Copy)]
pub(super) struct Overtaken {
    pub(super) signal: Signal,
    /// The first of the writes.
    pub(super) first: Transaction,
    /// The MAP request of the first piece of the mapping that this one was translated by.
    pub(super) mapping: Option<u64>,
    /// Bytes of all.
    pub(super) bytes: u64,
}

impl Overtaken {
    /// Adds what has been overtaken later.
    fn add(this: &mut Option<Self>, more: Option<Self>) {
        match (this, more) {
            (Some(this), Some(more)) => this.bytes = this.bytes.saturating_add(more.bytes),
            (this @ None, more) => *this = more,
            (Some(_), None) => {}
        }
    }
}

/// What is known of one kind of signal on one path.
#[derive(Debug, Default)]
struct Overtaking {
    /// Until something pushes the data: then no software can have been misled.
    now: Option<Overtaken>,
    /// The requester has come to rest since: what it reads later is too late for this. A CPU that
    /// has seen the signal may still push the data, before it looks.
    at_rest: Option<Overtaken>,
    /// Writes with lower sequence numbers have been overtaken before: no more findings about
    /// them.
    known: u64,
}

/// An armed path.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) requester: FunctionId,
    /// None: the root complex.
    pub(super) target: Option<FunctionId>,
    /// The requester ID and the BDF of the target when it was armed.
    bdfs: (Bdf, Option<Bdf>),
    delay: PostedDelay,
    queue: VecDeque<Held>,
    bytes: usize,
    /// Turns of the requester so far.
    turn: u64,
    /// By record and by interrupt.
    overtaking: [Overtaking; 2],
    /// Writes with lower sequence numbers were issued before the last fence.
    fenced: u64,
}

impl Path {
    fn new(
        (requester, target): (FunctionId, Option<FunctionId>),
        bdfs: (Bdf, Option<Bdf>),
    ) -> Self {
        Self {
            requester,
            target,
            bdfs,
            delay: PostedDelay::Off,
            queue: VecDeque::new(),
            bytes: 0,
            turn: 0,
            overtaking: Default::default(),
            fenced: 0,
        }
    }

    fn due(&self) -> u64 {
        match self.delay {
            PostedDelay::Off => self.turn,
            PostedDelay::UntilPushed => u64::MAX,
            PostedDelay::Turns(turns) => self.turn.saturating_add(turns.into()),
        }
    }

    fn set(&mut self, delay: PostedDelay) {
        self.delay = delay;
        let due = self.due();
        self.queue.iter_mut().for_each(|held| held.due = due);
    }

    /// Whether a write of `bytes` has room.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.queue.is_empty()
            || self.queue.len() < MAX_WRITES && self.bytes.saturating_add(bytes) <= MAX_BYTES
    }

    /// Takes a write, for which there must be room.
    pub(super) fn hold(
        &mut self,
        transaction: Transaction,
        destination: Destination,
        epoch: u64,
        mapping: Option<u64>,
        data: Box<[u8]>,
    ) {
        self.bytes += data.len();
        let due = self.due();
        self.queue.push_back(Held { transaction, destination, epoch, mapping, data, due });
    }

    /// The next write to arrive.
    pub(super) fn next(&self) -> Option<&Held> {
        self.queue.front()
    }

    /// Takes the next write off the path.
    pub(super) fn take(&mut self) -> Option<Held> {
        let held = self.queue.pop_front()?;
        self.bytes -= held.data.len();
        Some(held)
    }

    /// A turn of the requester is over. Whether time passes for anything here.
    pub(super) fn tick(&mut self) -> bool {
        self.turn = self.turn.saturating_add(1);
        self.queue.front().is_some_and(|held| held.due != u64::MAX)
    }

    /// Whether the next write arrives by itself now.
    pub(super) fn is_due(&self) -> bool {
        self.queue.front().is_some_and(|held| held.due <= self.turn)
    }

    /// Writes under way.
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes everything that is under way off the path.
    pub(super) fn take_all(&mut self) -> VecDeque<Held> {
        self.bytes = 0;
        std::mem::take(&mut self.queue)
    }

    /// Whether the path is off and empty.
    fn is_over(&self) -> bool {
        self.delay == PostedDelay::Off && !self.holds()
    }

    /// Whether there is anything that a push changes.
    fn holds(&self) -> bool {
        let reported =
            |overtaking: &Overtaking| overtaking.now.is_none() && overtaking.at_rest.is_none();
        !self.queue.is_empty() || !self.overtaking.iter().all(reported)
    }

    /// The writes with sequence numbers in this range, as overtaken by `signal`.
    fn among(&self, signal: Signal, sequences: Range<u64>) -> Option<Overtaken> {
        let held = self.queue.iter();
        let mut those = held.filter(|held| sequences.contains(&held.transaction.sequence));
        let Held { transaction: first, mapping, .. } = *those.next()?;
        let bytes =
            those.fold(first.length, |sum, more| sum.saturating_add(more.transaction.length));
        Some(Overtaken { signal, first, mapping, bytes })
    }

    /// A fence has been seen after writes with sequence numbers below `sequence`: what of them it
    /// overtook, unless a fence before it did.
    pub(super) fn fence_seen(&mut self, sequence: u64) -> Option<Overtaken> {
        let before = std::mem::replace(&mut self.fenced, sequence);
        self.among(Signal::Fence, before..sequence)
    }

    /// Takes what has been overtaken and not been reported.
    pub(super) fn take_overtaken(&mut self) -> [Option<Overtaken>; 2] {
        self.rests();
        self.take_at_rest()
    }

    /// The requester has come to rest. Whether that changes anything.
    pub(super) fn rests(&mut self) -> bool {
        let mut any = false;
        for Overtaking { now, at_rest, .. } in &mut self.overtaking {
            any |= now.is_some();
            Overtaken::add(at_rest, now.take());
        }
        any
    }

    /// The requester has pushed everything. What had been overtaken when it last was at rest is to
    /// be reported.
    pub(super) fn pushed(&mut self) -> [Option<Overtaken>; 2] {
        self.overtaking.iter_mut().for_each(|overtaking| overtaking.now = None);
        self.take_at_rest()
    }

    /// A CPU has pushed everything, so that no CPU sees anything else.
    pub(super) fn pushed_by_cpu(&mut self) {
        for overtaking in &mut self.overtaking {
            (overtaking.now, overtaking.at_rest) = (None, None);
        }
    }

    fn take_at_rest(&mut self) -> [Option<Overtaken>; 2] {
        self.overtaking.each_mut().map(|overtaking| overtaking.at_rest.take())
    }

    /// `signal`, which was issued with sequence number `sequence`, has arrived.
    fn signalled(&mut self, signal: Signal, sequence: u64) {
        let index = usize::from(signal == Signal::Interrupt);
        let found = self.among(signal, self.overtaking[index].known..sequence);
        let overtaking = &mut self.overtaking[index];
        overtaking.known = overtaking.known.max(sequence);
        Overtaken::add(&mut overtaking.now, found);
    }
}

/// All armed paths.
#[derive(Debug, Default)]
pub(crate) struct Delayed {
    paths: Vec<Path>,
    /// Grows whenever a path comes or goes.
    generation: u64,
}

impl Delayed {
    /// Whether no path is armed.
    #[inline]
    pub(super) fn is_off(&self) -> bool {
        self.paths.is_empty()
    }

    /// Arms a path, or changes how it is armed. Whether there was room for it.
    pub(super) fn set(
        &mut self,
        (requester, target): (FunctionId, Option<FunctionId>),
        bdfs: (Bdf, Option<Bdf>),
        delay: PostedDelay,
    ) -> bool {
        let index = match self.find(requester, target) {
            Some(index) => index,
            None if delay == PostedDelay::Off => return true,
            None if self.paths.len() >= MAX_PATHS => return false,
            None => {
                self.paths.push(Path::new((requester, target), bdfs));
                self.generation += 1;
                self.paths.len() - 1
            }
        };
        self.paths[index].bdfs = bdfs;
        self.paths[index].set(delay);
        true
    }

    /// The index of a path.
    #[cold]
    pub(super) fn find(&self, requester: FunctionId, target: Option<FunctionId>) -> Option<usize> {
        self.paths.iter().position(|path| path.requester == requester && path.target == target)
    }

    /// The path that was armed last with these BDFs, as requester and target.
    pub(super) fn armed_as(
        &self,
        bdfs: (Bdf, Option<Bdf>),
    ) -> Option<(FunctionId, Option<FunctionId>)> {
        let path = self.paths.iter().rev().find(|path| path.bdfs == bdfs)?;
        Some((path.requester, path.target))
    }

    /// The path at an index.
    pub(super) fn get(&mut self, index: usize) -> Option<&mut Path> {
        self.paths.get_mut(index)
    }

    /// The indexes of the paths of `requester`.
    pub(super) fn of(&self, requester: FunctionId) -> Vec<usize> {
        let indexed = self.paths.iter().enumerate();
        indexed.filter(|(_, path)| path.requester == requester).map(|(index, _)| index).collect()
    }

    /// The indexes of the paths to `target`.
    pub(super) fn to(&self, target: FunctionId) -> Vec<usize> {
        let indexed = self.paths.iter().enumerate();
        indexed.filter(|(_, path)| path.target == Some(target)).map(|(index, _)| index).collect()
    }

    /// Whether there are paths to `target`.
    pub(super) fn leads_to(&self, target: FunctionId) -> bool {
        self.paths.iter().any(|path| path.target == Some(target))
    }

    /// Whether a push of what is under way to `target` changes anything.
    pub(super) fn holds_for(&self, target: FunctionId) -> bool {
        self.paths.iter().any(|path| path.target == Some(target) && path.holds())
    }

    /// Changes whenever a path comes or goes.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The BDFs by which the paths were armed.
    pub(super) fn armed(&self) -> Vec<(Bdf, Option<Bdf>)> {
        self.paths.iter().map(|path| path.bdfs).collect()
    }

    /// The requesters with an armed path to the root complex.
    pub(super) fn to_root(&self) -> Vec<FunctionId> {
        let those = self.paths.iter().filter(|path| path.target.is_none());
        those.map(|path| path.requester).collect()
    }

    /// Forgets paths that are off and empty.
    pub(super) fn clear_up(&mut self) {
        let before = self.paths.len();
        self.paths.retain(|path| !path.is_over());
        self.generation += u64::from(self.paths.len() != before);
    }

    /// A signal of `requester` has arrived: does it overtake anything?
    #[cold]
    pub(super) fn signalled(&mut self, requester: FunctionId, signal: Signal, sequence: u64) {
        let own = self.paths.iter_mut().filter(|path| path.requester == requester);
        own.for_each(|path| path.signalled(signal, sequence));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_is_written_as_it_is_read() {
        for delay in [
            PostedDelay::Off,
            PostedDelay::UntilPushed,
            PostedDelay::Turns(1),
            PostedDelay::Turns(1024),
        ] {
            assert_eq!(delay.to_string().parse(), Ok(delay));
        }
        for bad in ["", "0", "1025", "65536", "-1", "never"] {
            assert_eq!(bad.parse::<PostedDelay>(), Err(BadDelay), "{bad}");
        }
    }

    #[test]
    fn the_number_of_paths_is_bounded() {
        let mut delayed = Delayed::default();
        let set = |delayed: &mut Delayed, requester: u16, delay| {
            delayed.set((FunctionId(requester), None), (Bdf(requester), None), delay)
        };
        for index in 0..MAX_PATHS {
            let requester = u16::try_from(index).unwrap();
            assert!(set(&mut delayed, requester, PostedDelay::UntilPushed));
        }
        assert!(!set(&mut delayed, 500, PostedDelay::UntilPushed));
        assert!(set(&mut delayed, 500, PostedDelay::Off));
        assert!(set(&mut delayed, 0, PostedDelay::Off));
        delayed.clear_up();
        assert!(set(&mut delayed, 500, PostedDelay::UntilPushed));
    }
}
