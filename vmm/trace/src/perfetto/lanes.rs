//! Mappings as slices. Those of one function overlap, and slices of a track may only nest: each is in a lane, a track of its
//! own below that of the function, where nothing else is at that time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::messages::{Kind, TrackDescriptor, TrackEvent, event, number, pointer};
use super::track;
use crate::filter::Context;
use crate::lives::{Change, Life, Lives, MappedBy};
use crate::reader::Entry;

/// Lanes that one function has for one kind of mappings: more are not drawn.
const MAX_LANES: usize = 64;

/// Functions and kinds of mappings that have lanes.
const MAX_OWNERS: usize = 1024;

/// Numbers of lanes' tracks begin behind those of all interfaces.
const FIRST: u64 = 1 << 32;

/// What is to be written.
#[derive(Debug)]
pub(super) enum Drawn {
    Lane(TrackDescriptor),
    /// At this time, since the beginning.
    Slice(u64, TrackEvent),
}

/// A track for mappings, of which at most one is in force.
#[derive(Debug)]
struct Lane {
    track: u64,
    /// The last mapping in it is over since this time; none while it is not.
    free: Option<Duration>,
}

/// Whose mappings, made by what.
type Owner = (Arc<str>, MappedBy);

/// Follows the mappings, and draws those that are in force while something of their function is kept.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lives: Lives,
    changes: Vec<Change>,
    interfaces: Vec<String>,
    /// Functions of which something was kept.
    shown: BTreeSet<usize>,
    /// Not drawn so far, by the number of their function's interface.
    waiting: BTreeMap<usize, BTreeMap<u64, Arc<Life>>>,
    /// Drawn and in force, and where.
    open: BTreeMap<u64, (Owner, usize)>,
    lanes: BTreeMap<Owner, Vec<Lane>>,
    next: u64,
    drawn: VecDeque<Drawn>,
}

impl Lanes {
    pub(super) fn new(interfaces: &[String]) -> Self {
        Self { interfaces: interfaces.to_vec(), ..Self::default() }
    }

    /// What is to be written next.
    pub(super) fn next(&mut self) -> Option<Drawn> {
        self.drawn.pop_front()
    }

    /// Takes notice of an entry.
    pub(super) fn follow(&mut self, entry: &Entry, context: &Context, kept: bool) {
        let mut changes = std::mem::take(&mut self.changes);
        self.lives.follow(entry, context, &mut changes);
        for change in changes.drain(..) {
            match change {
                Change::Begins(life) => {
                    let interface = self.interface(&life.function);
                    self.waiting.entry(interface).or_default().insert(life.id, life);
                    if kept && interface < self.interfaces.len() {
                        self.shown.insert(interface);
                    }
                }
                Change::Ends(life, time) => self.end(&life, time, context),
            }
        }
        self.changes = changes;
        if kept {
            let interface = usize::try_from(entry.interface).unwrap_or(usize::MAX);
            if self.waiting.contains_key(&interface) {
                self.shown.insert(interface);
            }
            let shown: Vec<_> =
                self.shown.iter().filter_map(|interface| self.waiting.remove(interface)).collect();
            for life in shown.into_iter().flat_map(BTreeMap::into_values) {
                self.begin(&life, context);
            }
        }
    }

    /// The number of a function's interface; one past the last where it has none.
    fn interface(&self, function: &str) -> usize {
        let found = self.interfaces.iter().position(|name| name == function);
        found.unwrap_or(self.interfaces.len())
    }

    fn begin(&mut self, life: &Arc<Life>, context: &Context) {
        let owner = (Arc::clone(&life.function), life.by);
        if self.lanes.len() >= MAX_OWNERS && !self.lanes.contains_key(&owner) {
            return;
        }
        let interface = self.interface(&life.function);
        let lanes = self.lanes.entry(owner.clone()).or_default();
        let is_free = |lane: &Lane| lane.free.is_some_and(|free| free <= life.begun);
        let index = match lanes.iter().position(is_free) {
            Some(index) => index,
            None if lanes.len() >= MAX_LANES => return,
            None => {
                let uuid = FIRST + self.next;
                self.next += 1;
                lanes.push(Lane { track: uuid, free: None });
                let parent =
                    u32::try_from(interface).ok().filter(|_| interface < self.interfaces.len());
                self.drawn.push_back(Drawn::Lane(TrackDescriptor {
                    uuid: Some(uuid),
                    name: Some(format!("{}: mapped, {}", life.function, life.by.name())),
                    parent_uuid: parent.map(track),
                }));
                lanes.len() - 1
            }
        };
        let Some(lane) = lanes.get_mut(index) else { return };
        lane.free = None;
        let (address, length) = (life.address, life.length);
        let name = match life.buffer {
            0 => format!("{address:#x}, {length} bytes"),
            buffer => format!("dma-buf {buffer}: {address:#x}, {length} bytes"),
        };
        let mut slice = event(Kind::SliceBegin, lane.track, &name);
        slice.categories.push("mapping".to_owned());
        slice.debug_annotations.push(pointer("address", address));
        slice.debug_annotations.push(number("bytes", length));
        slice.debug_annotations.push(number("entry", life.entry));
        self.drawn.push_back(Drawn::Slice(since(life.begun, context), slice));
        self.open.insert(life.id, (owner, index));
    }

    fn end(&mut self, life: &Life, time: Duration, context: &Context) {
        let interface = self.interface(&life.function);
        if let Some(waiting) = self.waiting.get_mut(&interface) {
            waiting.remove(&life.id);
            if waiting.is_empty() {
                self.waiting.remove(&interface);
            }
        }
        let Some((owner, index)) = self.open.remove(&life.id) else { return };
        if let Some(lane) = self.lanes.get_mut(&owner).and_then(|lanes| lanes.get_mut(index)) {
            lane.free = Some(time);
            let slice = event(Kind::SliceEnd, lane.track, "");
            self.drawn.push_back(Drawn::Slice(since(time, context), slice));
        }
    }
}

/// Nanoseconds since the beginning.
fn since(time: Duration, context: &Context) -> u64 {
    u64::try_from(context.since_begun(time).as_nanos()).unwrap_or(u64::MAX)
}
