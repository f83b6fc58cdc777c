//! Leaving out causes, and records of the witness, as long as the finding remains.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use device_models::fabric::{AddressMap, FunctionId, NodeKind, Purpose, Target, for_cpu};

use super::doorbell::{Tail, note_tails};
use super::found::{Found, Tally};
use super::free::Run;
use super::scene::{Given, Scene};
use crate::event::{Event, Header};
use crate::replay::{ReplayError, build};

/// The scenes that are left, and how to find out whether fewer do.
pub(super) struct Shrink<'a> {
    header: &'a Header,
    scenes: Vec<Scene>,
    wanted: Found,
    deadline: Instant,
    map: Arc<AddressMap>,
    runs: u64,
    /// How much happens with what is left.
    events: u64,
    /// What is found with it: nothing else may come.
    findings: Tally,
}

/// Descriptors that are tried each by itself.
const MAX_ALONE: usize = 64;

/// What time was left for.
type Finished = Result<bool, ReplayError>;

impl<'a> Shrink<'a> {
    /// Begins with all scenes up to the one in which the finding came, and with what the trace had
    /// found by then.
    pub(super) fn new(
        header: &'a Header,
        mut scenes: Vec<Scene>,
        wanted: Found,
        findings: Tally,
        deadline: Instant,
        map: Arc<AddressMap>,
    ) -> Result<Self, ReplayError> {
        scenes.truncate(wanted.scene + 1);
        let mut this =
            Self { header, scenes, wanted, findings, deadline, map, runs: 0, events: u64::MAX };
        let states: Vec<bool> =
            this.scenes.iter().map(|scene| this.is_state(&scene.cause)).collect();
        this.scenes.iter_mut().zip(states).for_each(|(scene, is)| scene.is_state = is);
        Ok(this)
    }

    pub(super) fn runs(&self) -> u64 {
        self.runs
    }

    pub(super) fn wanted(&self) -> &Found {
        &self.wanted
    }

    pub(super) fn scenes(&self) -> Vec<Scene> {
        self.scenes.clone()
    }

    /// Leaves out what it can; whether that was all.
    pub(super) fn shrink(&mut self) -> Finished {
        let mut relative = self.scenes.clone();
        note_tails(&self.map, &mut relative);
        // The coarsest cut first: in a long trace each replay of the whole takes its time.
        if !self.try_own_test(&relative)? {
            let all = self.scenes.clone();
            self.try_scenes(all)?;
            self.try_scenes(relative)?;
        }
        self.leave_out_others()?;
        let mut finished = self.halve()? && self.lower()?;
        finished &= self.halve_records()?;
        if finished {
            // Without the records, and with less work to do, some causes may not matter any more.
            finished = self.halve()?;
        }
        self.state_first()?;
        Ok(finished)
    }

    /// Whether these scenes still have the finding, less happens, and nothing is found that was not
    /// before. Without a ring's address, say, a device might come to the same finding by way of much
    /// that makes no sense; without the address of completion records it writes them to 0. Scenes
    /// behind the finding are over.
    fn try_scenes(&mut self, scenes: Vec<Scene>) -> Finished {
        self.runs += 1;
        let mut run = Run::new(build(self.header)?);
        let found = run.finds(&scenes.iter().collect::<Vec<_>>(), &self.wanted);
        let Some(kept) = found
            .filter(|kept| kept.events <= self.events && kept.findings.is_within(&self.findings))
        else {
            return Ok(false);
        };
        (self.events, self.findings) = (kept.events, kept.findings);
        self.scenes = scenes;
        self.scenes.truncate(kept.scene + 1);
        Ok(true)
    }

    fn try_without(&mut self, leave_out: impl Fn(usize, &Scene) -> bool) -> Finished {
        let last = self.scenes.len().saturating_sub(1);
        let kept = self.scenes.iter().enumerate();
        let kept = kept.filter(|(at, scene)| *at == last || !leave_out(*at, scene));
        let kept: Vec<_> = kept.map(|(_, scene)| scene.clone()).collect();
        if kept.len() == self.scenes.len() || self.is_over() {
            Ok(false)
        } else {
            self.try_scenes(kept)
        }
    }

    /// Leaves out what other tests did, but for what it set up; or only the work of devices in them.
    fn try_own_test(&mut self, scenes: &[Scene]) -> Finished {
        let test = scenes.last().map_or(0, |scene| scene.test);
        let is_own = |scene: &&Scene| scene.is_state || scene.test == test;
        let is_setup = |scene: &&Scene| scene.test == test || scene.is_state || !is_work(scene);
        let own: Vec<_> = scenes.iter().filter(is_own).cloned().collect();
        if own.len() < scenes.len() && self.try_scenes(own)? {
            return Ok(true);
        }
        let setup: Vec<_> = scenes.iter().filter(is_setup).cloned().collect();
        Ok(setup.len() < scenes.len() && !self.is_over() && self.try_scenes(setup)?)
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Reads, earlier tests, and functions that take no part, all of each at once.
    fn leave_out_others(&mut self) -> Result<(), ReplayError> {
        self.try_without(|_, scene| {
            matches!(scene.cause, Event::ConfigRead(_) | Event::RegisterRead { .. })
        })?;
        let test = self.scenes.last().map_or(0, |scene| scene.test);
        self.try_without(|_, scene| !scene.is_state && scene.test != test)?;
        self.try_without(|_, scene| scene.test != test)?;
        // Only their work: how a driver has set up a device may matter in tests behind it.
        self.try_without(|_, scene| scene.test != test && !scene.is_state && is_work(scene))?;
        let tests: BTreeSet<u32> = self.scenes.iter().map(|scene| scene.test).collect();
        for other in tests.into_iter().filter(|other| *other != test) {
            if !self.try_without(|_, scene| scene.test == other)? {
                self.try_without(|_, scene| scene.test == other && !scene.is_state)?;
                self.try_without(|_, scene| scene.test == other && is_work(scene))?;
            }
        }
        let map = Arc::clone(&self.map);
        for (id, node) in map.functions() {
            let takes_part = Some(id) == self.wanted.requester || Some(id) == self.wanted.target;
            if node.kind == NodeKind::Endpoint && !takes_part {
                let abouts: Vec<_> =
                    self.scenes.iter().map(|scene| about(&map, &scene.cause) == Some(id)).collect();
                self.try_without(|at, _| abouts.get(at).copied().unwrap_or(false))?;
            }
        }
        Ok(())
    }

    /// Delta debugging over the scenes: parts of them are left out, and ever smaller ones.
    fn halve(&mut self) -> Finished {
        let mut size = self.scenes.len().div_ceil(2).max(1);
        loop {
            let mut changed = false;
            // From the back, so that what is behind stays where it is.
            let mut end = self.scenes.len();
            while end > 0 {
                if self.is_over() {
                    return Ok(false);
                }
                let begin = end.saturating_sub(size);
                if self.try_without(|at, _| (begin..end).contains(&at))? {
                    changed = true;
                }
                end = begin.min(self.scenes.len());
            }
            match (size, changed) {
                (1, false) => return Ok(true),
                (1, true) => {}
                _ => size = size.div_ceil(2),
            }
        }
    }

    /// Tries smaller numbers where CPUs write registers: how far a ring is filled, above all. What
    /// was left out of a ring's work is then not made up for with work that was not asked for.
    fn lower(&mut self) -> Finished {
        for at in 0..self.scenes.len() {
            let Some(Event::RegisterWrite { data, .. }) = self.scenes.get(at).map(|it| &it.cause)
            else {
                continue;
            };
            let Ok(value) = <[u8; 4]>::try_from(data.as_slice()).map(u32::from_le_bytes) else {
                continue;
            };
            let value = match self.scenes.get(at).and_then(|scene| scene.tail) {
                Some(Tail::Grows { by, .. }) => by,
                _ => value,
            };
            let lower = [1, 2, 3, 4, value / 2].into_iter().filter(|lower| *lower < value);
            let plain = lower.map(|lower| (lower, None));
            // One descriptor alone, the last ones first: one of those led to the finding.
            let fetches =
                self.scenes.last().map_or(0, |scene| scene.given.iter().filter(is_fetch).count());
            let alone = (0..fetches).rev().take(MAX_ALONE).map(|alone| (1, Some(alone)));
            for (lower, alone) in plain.chain(alone.filter(|_| value > 1)).collect::<Vec<_>>() {
                if self.is_over() {
                    return Ok(false);
                }
                if self.try_number(at, lower, alone)? {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Tries another number in the register write of scene `at`, and in the last scene only one of
    /// the descriptors that were fetched; accepted only if less happens.
    fn try_number(&mut self, at: usize, number: u32, alone: Option<usize>) -> Finished {
        let mut scenes = self.scenes.clone();
        match scenes.get_mut(at) {
            Some(Scene { tail: Some(Tail::Grows { by, .. }), .. }) => *by = number,
            Some(Scene { cause: Event::RegisterWrite { data, .. }, .. }) => {
                *data = number.to_le_bytes().to_vec();
            }
            _ => {}
        }
        if let (Some(alone), Some(last)) = (alone, scenes.last_mut()) {
            let mut fetched = 0;
            last.given.retain(|given| {
                let fetch = is_fetch(&given);
                fetched += usize::from(fetch);
                !fetch || fetched == alone + 1
            });
        }
        let most = self.events.saturating_sub(1);
        let kept = std::mem::replace(&mut self.events, most);
        let accepted = self.try_scenes(scenes)?;
        if !accepted {
            self.events = kept;
        }
        Ok(accepted)
    }

    /// The same over the records of the witness.
    fn halve_records(&mut self) -> Finished {
        let places = |scenes: &[Scene]| {
            let is_record = |given: &Given| matches!(given, Given::Record(_));
            let mut all = Vec::new();
            for (at, scene) in scenes.iter().enumerate() {
                let records = scene.given.iter().enumerate().filter(|(_, it)| is_record(it));
                all.extend(records.map(|(index, _)| (at, index)));
            }
            all
        };
        let mut size = places(&self.scenes).len().max(1);
        loop {
            let mut end = places(&self.scenes).len();
            while end > 0 {
                if self.is_over() {
                    return Ok(false);
                }
                let begin = end.saturating_sub(size);
                let all = places(&self.scenes);
                let mut scenes = self.scenes.clone();
                for (at, index) in all.get(begin..end).unwrap_or_default().iter().rev() {
                    if let Some(scene) = scenes.get_mut(*at) {
                        scene.given.remove(*index);
                    }
                }
                self.try_scenes(scenes)?;
                end = begin;
            }
            if size == 1 {
                return Ok(true);
            }
            size = size.div_ceil(2);
        }
    }

    /// Puts what makes up the state at the start in front, if the finding remains.
    fn state_first(&mut self) -> Result<(), ReplayError> {
        let (state, others): (Vec<_>, Vec<_>) =
            self.scenes.iter().cloned().partition(|scene| scene.is_state);
        if !self.is_over() {
            self.try_scenes([state, others].concat())?;
        }
        Ok(())
    }

    /// Whether a cause sets up what is there at the start: configuration, the IOMMU, the witness.
    fn is_state(&self, cause: &Event) -> bool {
        match cause {
            Event::ConfigWrite(_) | Event::ConfigRead(_) | Event::Witness { .. } => true,
            cause => about(&self.map, cause)
                .is_some_and(|id| self.map.node(id).requester == peerdma_topology::IOMMU),
        }
    }
}

/// Whether it makes a device work, or is about work that is under way.
fn is_work(scene: &Scene) -> bool {
    match scene.cause {
        Event::Step { .. } | Event::CpuPush { .. } | Event::FenceSeen { .. } => true,
        _ => matches!(scene.tail, Some(Tail::Grows { .. })),
    }
}

/// Whether a device has fetched a descriptor.
fn is_fetch(given: &&Given) -> bool {
    matches!(given, Given::Read { purpose: Purpose::DescriptorFetch, .. })
}

/// The function whose turn or registers a cause is about.
fn about(map: &AddressMap, cause: &Event) -> Option<FunctionId> {
    match cause {
        Event::Step { function } | Event::CpuPush { function } => {
            map.functions().nth(*function).map(|(id, _)| id)
        }
        Event::RegisterWrite { address, .. } | Event::RegisterRead { address, .. } => {
            match for_cpu(map, *address, 1).outcome {
                Ok(Target::Registers { function, .. }) => Some(function),
                Ok(Target::Memory { function, .. }) => function,
                Err(_) => None,
            }
        }
        Event::ConfigWrite(access) | Event::ConfigRead(access) => {
            let bdf = device_models::pci::Bdf(access.function);
            map.by_bdf.get(&bdf).copied()
        }
        _ => None,
    }
}
