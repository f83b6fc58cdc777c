//! A replay in steps, and a look at the system between them.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::time::Duration;

use device_models::fabric::{FunctionId, Target, for_cpu};
use device_models::system::System;

use super::changed::Collector;
use super::perform::perform;
use super::stage::Stage;
use super::{DISCARD_AFTER, Replay, ReplayError, build, discard};
use crate::event::Event;
use crate::reader::{Entry, Reader};
use crate::what_if::{self, Change};

/// Registers whose last accesses are kept.
const MAX_ACCESSES: usize = 4096;

/// Mappings that are shown of one function, at most.
const MAX_MAPPINGS: usize = 32;

/// What a step has done.
#[derive(Debug)]
pub struct Stepped {
    /// The cause: an access by a CPU, a turn of a function, or what else came from outside.
    pub cause: Entry,
    /// What came of it and was compared, in its order: transactions, findings, witness records. The first 1000.
    pub events: Vec<Entry>,
    /// The test that was running.
    pub test: Option<String>,
}

impl Stepped {
    /// Number of the last entry.
    pub fn last(&self) -> u64 {
        self.events.last().map_or(self.cause.number, |entry| entry.number)
    }
}

/// An access by a CPU to a register, as recorded.
#[derive(Debug, Clone)]
struct Access {
    entry: u64,
    written: bool,
    data: Vec<u8>,
}

/// A replay that goes on when it is asked to.
#[derive(Debug)]
pub struct Session<R: BufRead + Send + 'static> {
    system: System,
    stage: Stage<R>,
    next: Option<Entry>,
    turns: u64,
    begun: Duration,
    /// By function, BAR and offset.
    accesses: BTreeMap<(FunctionId, u8, u64), Access>,
    has_more: bool,
}

impl<R: BufRead + Send + 'static> Session<R> {
    /// Builds the system of a trace, and reads on to its first cause.
    ///
    /// # Errors
    /// When it cannot be read, or its devices cannot be built.
    pub fn new(reader: Reader<R>) -> Result<Self, ReplayError> {
        let session = Self::asking(reader, &[])?;
        session.stage.keep();
        Ok(session)
    }

    /// The same, with a what-if question.
    pub(super) fn asking(reader: Reader<R>, changes: &[Change]) -> Result<Self, ReplayError> {
        let (header, begun) = (reader.header(), reader.begun());
        if header.part {
            return Err(ReplayError::Part);
        }
        let mut system = build(header)?;
        let question = what_if::question(changes, header, &system)?;
        let collector = (!changes.is_empty()).then(|| {
            let names = system.address_map().functions().map(|(_, node)| node.name.to_string());
            Collector::new(names.collect(), question.strict)
        });
        if let Some(change) = question.change {
            system.set_what_if(change);
        }
        let stage = Stage::new(reader, collector);
        system.leave_data();
        system.add_observer(Box::new(stage.clone()));
        // What came before the first cause.
        let next = stage.finish_cause()?;
        let accesses = BTreeMap::new();
        Ok(Self { system, stage, next, turns: 0, begun, accesses, has_more: false })
    }

    /// Replays the next cause and compares what comes of it; false at the end of the trace, or behind a difference.
    ///
    /// # Errors
    /// When the trace cannot be read on.
    pub(super) fn advance(&mut self) -> Result<bool, ReplayError> {
        let Some(next) = self.next.take() else { return Ok(false) };
        self.turns += 1;
        if self.turns.is_multiple_of(DISCARD_AFTER) {
            discard(&self.system);
        }
        let answer = perform(&mut self.system, &next.event, Some(&self.stage.refused));
        if let Event::ConfigRead(_) | Event::RegisterRead { .. } = next.event {
            self.stage.compare_answer(next, answer);
        }
        self.next = self.stage.finish_cause()?;
        Ok(true)
    }

    /// Replays the next cause with all that comes of it; none at the end of the trace, or behind a difference.
    ///
    /// # Errors
    /// When the trace cannot be read on.
    pub fn step(&mut self) -> Result<Option<Stepped>, ReplayError> {
        let Some(cause) = self.next.clone() else { return Ok(None) };
        let test = self.stage.test();
        self.note_access(&cause);
        self.advance()?;
        let events = self.stage.take_kept();
        Ok(Some(Stepped { cause, events, test }))
    }

    /// Whether everything has been replayed, or a difference has come.
    pub fn is_over(&self) -> bool {
        self.next.is_none()
    }

    /// Since the beginning of the recording.
    pub fn time(&self, entry: &Entry) -> Duration {
        entry.time.saturating_sub(self.begun)
    }

    /// How it went so far.
    ///
    /// # Errors
    /// When the trace could not be read on.
    pub fn finish(self) -> Result<Replay, ReplayError> {
        drop(self.system);
        self.stage.into_replay()
    }

    /// Names of the functions.
    pub fn functions(&self) -> Vec<String> {
        self.system.address_map().functions().map(|(_, node)| node.name.to_string()).collect()
    }

    /// The functions on their buses, with what decides where requests go, a line each.
    pub fn topology(&self) -> Vec<String> {
        super::view::topology(self.system.address_map())
    }

    /// What is mapped for a function near an address: by the guest's kernel if there is a witness, and by the IOMMU. None
    /// if there is no such function.
    pub fn mappings(&mut self, function: &str, near: u64) -> Option<Vec<String>> {
        let id = self.system.function(function)?;
        let lines = self.system.mapping_lines(id, Some(near), MAX_MAPPINGS);
        let unknown = || {
            vec![format!(
                "nothing is known to be mapped for {function}: the IOMMU does not translate for it, and no witness is there"
            )]
        };
        Some(if lines.is_empty() { unknown() } else { lines })
    }

    /// The configuration registers of a function, and the last accesses of CPUs to its others. None if there is no such
    /// function.
    pub fn registers(&self, function: &str) -> Option<Vec<String>> {
        let id = self.system.function(function)?;
        let mut lines = super::view::configuration(&self.system, id);
        let accesses = self.accesses.range((id, 0, 0)..=(id, u8::MAX, u64::MAX));
        let before = lines.len();
        for ((_, bar, offset), Access { entry, written, data }) in accesses {
            let value = data
                .iter()
                .rev()
                .fold(String::from("0x"), |text, byte| format!("{text}{byte:02x}"));
            let how = if *written { "written" } else { "read" };
            lines.push(format!("  BAR {bar}+{offset:#x}: {value}, {how} by entry {entry}"));
        }
        if lines.len() == before {
            lines.push("  no CPU has accessed its registers so far".to_owned());
        }
        if self.has_more {
            lines.push(format!("  only {MAX_ACCESSES} registers are followed"));
        }
        Some(lines)
    }

    fn note_access(&mut self, cause: &Entry) {
        let (address, data, written) = match &cause.event {
            Event::RegisterWrite { address, data } => (*address, data, true),
            Event::RegisterRead { address, data } => (*address, data, false),
            _ => return,
        };
        let target = for_cpu(self.system.address_map(), address, data.len() as u64).outcome;
        let Ok(Target::Registers { function, bar, offset, .. }) = target else { return };
        let key = (function, bar, offset);
        if self.accesses.len() < MAX_ACCESSES || self.accesses.contains_key(&key) {
            let data = data.clone();
            self.accesses.insert(key, Access { entry: cause.number, written, data });
        } else {
            self.has_more = true;
        }
    }
}
