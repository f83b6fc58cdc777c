//! Replaying some causes of a trace without comparing what comes of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::{
    AddressMap, Delivery, FunctionId, Input, Observer, Purpose, Transaction, WitnessInput,
};
use device_models::system::System;
use device_models::witness;

use super::Wanted;
use super::doorbell::Tails;
use super::found::{Found, Tally};
use super::scene::{Given, Scene};
use crate::event::{Ahead, Event};
use crate::replay::{DISCARD_AFTER, discard, perform};

/// What came of scenes in which the finding is.
#[derive(Debug)]
pub(super) struct Kept {
    /// The scene of the finding.
    pub(super) scene: usize,
    /// How much had happened by its end.
    pub(super) events: u64,
    /// All findings by then.
    pub(super) findings: Tally,
}

#[derive(Debug, Default)]
struct State {
    given: VecDeque<Given>,
    /// What the indices of available rings have grown to, and whether that is not what the trace has.
    indices: BTreeMap<u64, (u16, bool)>,
    /// The tail of a peer's ring has not been where the trace has it.
    tails_moved: bool,
    /// All records of the scene are handed out.
    drains: bool,
    scene: Option<usize>,
    /// How much has happened.
    events: u64,
    found: Vec<Found>,
    /// Everything that happened, with the scene of each.
    recorded: Option<Vec<(Option<usize>, Event)>>,
    /// Where among it the last transaction is, if no finding, and no cause, came since.
    held: Option<usize>,
    /// A finding about a transaction that has not come yet.
    ahead: Option<Ahead>,
}

#[derive(Debug, Clone, Default)]
struct Stage(Arc<Mutex<State>>);

/// One free replay.
#[derive(Debug)]
pub(super) struct Run {
    system: System,
    stage: Stage,
}

impl Run {
    pub(super) fn new(mut system: System) -> Self {
        let stage = Stage::default();
        system.leave_data();
        system.add_observer(Box::new(stage.clone()));
        Self { system, stage }
    }

    /// Plays all scenes, and looks for the first finding that is wanted.
    pub(super) fn search(&mut self, scenes: &[&Scene], wanted: Wanted) -> Option<Found> {
        self.play(scenes, |found| match wanted {
            Wanted::Class(class) => found.class == class,
            Wanted::Tlp(number) => found.is_about(number),
        })
    }

    /// Plays scenes until a finding comes that is the same.
    pub(super) fn finds(&mut self, scenes: &[&Scene], wanted: &Found) -> Option<Kept> {
        let scene = self.play(scenes, |found| found.is_same(wanted))?.scene;
        let state = self.stage.lock();
        Some(Kept { scene, events: state.events, findings: Tally::of(&state.found) })
    }

    /// Plays all scenes; what a recorder would have seen.
    pub(super) fn record(&mut self, scenes: &[&Scene]) -> Vec<(Option<usize>, Event)> {
        self.stage.lock().recorded = Some(Vec::new());
        self.play(scenes, |_| false);
        self.stage.lock().recorded.take().unwrap_or_default()
    }

    /// All findings so far.
    pub(super) fn found(&self) -> Vec<Found> {
        self.stage.lock().found.clone()
    }

    pub(super) fn map(&self) -> Arc<AddressMap> {
        Arc::clone(self.system.address_map())
    }

    fn play(&mut self, scenes: &[&Scene], is_wanted: impl Fn(&Found) -> bool) -> Option<Found> {
        let (mut seen, mut tails) = (0, Tails::default());
        for (index, scene) in scenes.iter().enumerate() {
            {
                let mut state = self.stage.lock();
                state.given = scene.given.iter().cloned().collect();
                state.scene = Some(index);
            }
            if (index as u64).is_multiple_of(DISCARD_AFTER) {
                discard(&self.system);
            }
            match (tails.next(scene.tail), &scene.cause) {
                (Some(value), Event::RegisterWrite { address, data }) => {
                    self.stage.lock().tails_moved |= value.to_le_bytes() != data.as_slice();
                    self.system.mmio_write(*address, &value.to_le_bytes());
                }
                (_, cause) => drop(perform(&mut self.system, cause, None)),
            }
            self.drain();
            let state = self.stage.lock();
            let new = state.found.get(seen..).unwrap_or_default();
            if let Some(found) = new.iter().find(|found| is_wanted(found)) {
                return Some(found.clone());
            }
            seen = state.found.len();
        }
        None
    }

    /// Hands out records for which nothing has asked in this scene.
    fn drain(&mut self) {
        let is_record = |given: &Given| matches!(given, Given::Record(_));
        if !self.stage.lock().given.iter().any(is_record) {
            return;
        }
        self.stage.lock().drains = true;
        self.system.witness_input(WitnessInput::Drain, &[]);
        self.stage.lock().drains = false;
    }
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn record(&mut self, mut event: Event) {
        self.events += 1;
        let scene = self.scene;
        let Some(recorded) = &mut self.recorded else { return };
        if let Event::Transaction(run) = &mut event {
            run.found_ahead(self.ahead.take());
            self.held = Some(recorded.len());
        } else if event.is_cause() {
            self.held = None;
        }
        recorded.push((scene, event));
    }

    /// Gives the transaction that a finding is about its class, as a recorder does.
    fn judge(&mut self, finding: &Finding) {
        let held = self.held.take();
        let run = self.recorded.as_mut().zip(held).and_then(|(all, at)| all.get_mut(at));
        let is_held = match run {
            Some((_, Event::Transaction(run))) => run.found(finding),
            _ => false,
        };
        if let Some(ahead) = Ahead::new(finding).filter(|_| !is_held) {
            self.ahead = Some(ahead);
        }
    }

    /// Takes what was read at this place in the trace: in the same order, but for what was left
    /// out in between.
    fn read(&mut self, transaction: &Transaction, length: usize) -> Option<Vec<u8>> {
        let from = u16::try_from(transaction.function.index()).ok();
        let fits = |given: &Given, exact: bool| match given {
            Given::Read { function, purpose, address, data, .. } => {
                (function.is_none() || *function == from)
                    && *purpose == transaction.purpose
                    && data.len() == length
                    && (!exact || *address == transaction.address)
            }
            _ => false,
        };
        let index = self.indices.get(&transaction.address).map(|(index, _)| *index);
        // A ring's entry has another place if the ring has fewer. Where it now is there may have
        // been another one: once places have moved, the first is the one.
        let (is_entry, moved) = match transaction.purpose {
            Purpose::DescriptorFetch => (true, self.tails_moved),
            Purpose::VirtQueue => {
                let ring = self.indices.range(..transaction.address).next_back();
                let moved = length == 2 && ring.is_some_and(|(_, (_, moved))| *moved);
                (index.is_none(), moved)
            }
            _ => (false, false),
        };
        let is_index = |given: &Given| matches!(given, Given::Read { grown: Some(_), .. });
        let first = |given: &Given| is_entry && !is_index(given) && fits(given, false);
        let exact = |given: &Given| fits(given, true);
        let mut given = self.given.iter();
        let at = match is_entry && moved {
            true => given.position(first).or_else(|| self.given.iter().position(exact)),
            false => given.position(exact).or_else(|| self.given.iter().position(first)),
        };
        let Some(at) = at else {
            // It is as it was when the device last read it: nothing has become available since.
            return index.filter(|_| length == 2).map(|index| index.to_le_bytes().to_vec());
        };
        let Some(Given::Read { address, data, grown, .. }) = self.given.remove(at) else {
            return None;
        };
        match grown {
            Some(grown) => {
                let (index, moved) = self.indices.entry(address).or_default();
                *index = index.wrapping_add(grown);
                let now = index.to_le_bytes().to_vec();
                *moved = now != *data;
                Some(now)
            }
            None => Some(data.to_vec()),
        }
    }

    /// A transaction has come: what stands in front of its like in the trace is over.
    fn pass(&mut self, transaction: &Transaction) {
        let from = u16::try_from(transaction.function.index()).ok();
        let at = self.given.iter().position(|given| {
            matches!(given, Given::Other { function, address }
                if (function.is_none() || *function == from) && *address == transaction.address)
        });
        if let Some(at) = at {
            self.given.remove(at);
        }
    }

    fn next_record(&mut self) -> Option<witness::Bytes> {
        let at = match self.drains {
            true => self.given.iter().position(|given| matches!(given, Given::Record(_)))?,
            false => 0,
        };
        let Some(Given::Record(data)) = self.given.get(at) else { return None };
        let bytes = data[..].try_into().ok();
        self.given.remove(at);
        bytes
    }
}

impl Observer for Stage {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        let mut state = self.lock();
        state.pass(transaction);
        state.record(Event::transaction(transaction, delivery, data));
    }

    fn finding(&mut self, finding: &Finding) {
        let mut state = self.lock();
        let found = Found::new(finding, state.scene.unwrap_or(0));
        state.found.push(found);
        state.judge(finding);
        state.record(finding.into());
    }

    fn input(&mut self, input: &Input<'_>) {
        self.lock().record(input.into());
    }

    fn replace_read(&mut self, transaction: &Transaction, data: &mut [u8]) -> bool {
        match self.lock().read(transaction, data.len()) {
            Some(read) => {
                data.iter_mut().zip(read).for_each(|(byte, read)| *byte = read);
                true
            }
            None => false,
        }
    }

    fn next_record(&mut self, record: &mut witness::Bytes) -> bool {
        match self.lock().next_record() {
            Some(bytes) => {
                *record = bytes;
                true
            }
            None => false,
        }
    }

    fn replace_outside(&mut self, function: FunctionId, data: &mut [u8]) {
        let mut state = self.lock();
        let at = state.given.iter().position(|given| {
            matches!(given, Given::Outside { function: of, data: value }
                if *of == function.index() && value.len() == data.len())
        });
        if let Some(Given::Outside { data: value, .. }) = at.and_then(|at| state.given.remove(at)) {
            data.iter_mut().zip(&value[..]).for_each(|(byte, value)| *byte = *value);
        }
    }
}
