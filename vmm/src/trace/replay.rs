//! Replaying: fresh devices, the recorded inputs, and a comparison of what they do with what they did.

use std::collections::VecDeque;
use std::fmt;
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::{Delivery, FunctionId, Input, InterruptSink, Observer, Transaction};
use device_models::lab::Lab;
use device_models::pci::Bdf;
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{Event, Reader, TraceError};
use crate::assembly::AssemblyError;
use crate::machine::layout::MAX_RAM;

/// More ranges of RAM than any guest has: there is one below 4 GiB and one above.
const MAX_RANGES: usize = 16;

/// A difference beyond which nothing more can be told: later events depend on what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Line of the record.
    pub line: u64,
    /// What the record has; none when the replay did something more.
    pub recorded: Option<Event>,
    /// What the replay did; none when it did nothing.
    pub replayed: Option<Event>,
}

/// How a replay went.
#[derive(Debug, Default)]
pub struct Replay {
    /// Events of the record that were replayed or compared.
    pub events: u64,
    /// Transactions (runs of TLPs) that came out the same.
    pub transactions: u64,
    /// The findings, which came out the same, as sentences.
    pub findings: Vec<String>,
    /// The first difference.
    pub difference: Option<Difference>,
    /// The record has no end mark: its writer was killed, or the file cut.
    pub truncated: bool,
    /// The record was cut at its size limit.
    pub cut: bool,
}

/// Why a record cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The record cannot be read on.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The lab of its header cannot be built.
    #[error("the lab that was recorded cannot be built here: {0}")]
    Assembly(#[from] AssemblyError),
    /// The header's RAM is none that a guest can have.
    #[error("the header of the record describes RAM that no guest has: {0}")]
    NotRam(String),
    /// Memory of the size of the guest's RAM is not to be had.
    #[error("no memory for the guest RAM that was recorded: {0}")]
    Ram(#[source] MmapRegionError),
}

impl ReplayError {
    /// Whether it is this machine that lacks something; otherwise it is the record that cannot be used.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Trace(error) => matches!(error, TraceError::Read(_)),
            Self::Assembly(error) => error.is_of_the_machine(),
            Self::NotRam(_) => false,
            Self::Ram(_) => true,
        }
    }
}

/// Memory as the guest had it. Never touched but where a device writes, so it costs address space only.
fn ram(ranges: &[(u64, u64)]) -> Result<GuestMemoryMmap, ReplayError> {
    let total = ranges.iter().try_fold(0_u64, |sum, (_, length)| sum.checked_add(*length));
    if ranges.len() > MAX_RANGES || total.is_none_or(|total| total > MAX_RAM) {
        let what = format!("at most {MAX_RANGES} ranges and {MAX_RAM} bytes are possible");
        return Err(ReplayError::NotRam(what));
    }
    if ranges.iter().any(|(_, length)| *length == 0) {
        return Err(ReplayError::NotRam("a range of it is empty".into()));
    }
    let ranges: Vec<_> = ranges
        .iter()
        .map(|&(start, length)| {
            (GuestAddress(start), usize::try_from(length).unwrap_or(usize::MAX))
        })
        .collect();
    GuestMemoryMmap::from_ranges(&ranges).map_err(|error| match error {
        FromRangesError::MmapRegion(error) => ReplayError::Ram(error),
        error => ReplayError::NotRam(error.to_string()),
    })
}

/// Replays a whole record.
///
/// # Errors
/// When it is none, or cannot be read on, or its lab cannot be built.
pub fn replay<R: BufRead>(reader: &mut Reader<R>) -> Result<Replay, ReplayError> {
    let header = reader.header().clone();
    let ram = ram(&header.ram)?;
    let stage = Stage::default();
    let mut lab = header.lab.build(&ram, Box::new(Nowhere), std::io::repeat(0))?;
    lab.add_observer(Box::new(stage.clone()));

    let mut replay = Replay::default();
    let mut scene = Vec::new();
    let mut cause: Option<(u64, Event)> = None;
    // Each cause is played when all that came of it is known, that is, when the next cause comes.
    loop {
        let event = reader.next().transpose()?;
        let line = reader.line();
        match event {
            Some(event)
                if !event.is_cause() && !matches!(event, Event::End { .. } | Event::Cut { .. }) =>
            {
                replay.events += 1;
                scene.push((line, event));
                continue;
            }
            event => {
                let over = !matches!(&event, Some(event) if event.is_cause());
                let whole = event.is_some();
                replay.cut = matches!(event, Some(Event::Cut { .. }));
                let next = event.filter(Event::is_cause).map(|event| (line, event));
                let last = std::mem::replace(&mut cause, next);
                // A record that was cut may lack the end of its last scene.
                let complete = whole && !replay.cut;
                play(&mut lab, &stage, last, std::mem::take(&mut scene), complete, &mut replay);
                replay.events += u64::from(!over);
                if over || replay.difference.is_some() {
                    break;
                }
            }
        }
    }
    replay.truncated = reader.is_truncated();
    Ok(replay)
}

/// Plays one cause and compares what comes of it.
fn play(
    lab: &mut Lab,
    stage: &Stage,
    cause: Option<(u64, Event)>,
    scene: Vec<(u64, Event)>,
    complete: bool,
    replay: &mut Replay,
) {
    let line = cause.as_ref().map_or(1, |(line, _)| *line);
    stage.lock().set(line, scene, complete);
    if let Some((line, cause)) = cause {
        let answer = perform(lab, &cause);
        if answer.as_ref().is_some_and(|answer| *answer != cause) {
            stage.lock().differ(line, Some(cause), answer);
        }
    }
    let mut script = stage.lock();
    script.finish();
    replay.transactions += std::mem::take(&mut script.transactions);
    replay.findings.append(&mut script.findings);
    replay.difference = script.difference.take();
}

/// Does to the lab what was done to it. For a read: what it answers now.
fn perform(lab: &mut Lab, cause: &Event) -> Option<Event> {
    match cause {
        Event::ConfigWrite { function, offset, length, value } => {
            lab.config_write(Bdf(*function), *offset, *length, *value);
            None
        }
        Event::ConfigRead { function, offset, length, .. } => {
            let value = lab.config_read(Bdf(*function), *offset, *length);
            Some(Event::ConfigRead { function: *function, offset: *offset, length: *length, value })
        }
        Event::RegisterWrite { address, data } => {
            lab.mmio_write(*address, data);
            None
        }
        Event::RegisterRead { address, data } => {
            let mut now = vec![0; data.len()];
            lab.mmio_read(*address, &mut now);
            Some(Event::RegisterRead { address: *address, data: now })
        }
        Event::Unplug { port } | Event::Plug { port } => {
            let filled = matches!(cause, Event::Plug { .. });
            let done = if filled { lab.plug(Bdf(*port)) } else { lab.unplug(Bdf(*port)) };
            // One that fails did not get into the record: then what follows differs and is told.
            if let Err(error) = done {
                log::warn!("{error}");
            }
            None
        }
        Event::DelayPosted { requester, target, delay } => {
            // A path too many is in the record too, and fails here as it did then. Functions that do not exist are not in
            // it: then what follows differs and is told.
            match delay.parse() {
                Ok(delay) => {
                    let done = lab.delay_posted(Bdf(*requester), target.map(Bdf), delay);
                    done.unwrap_or_else(|error| log::warn!("{error}"));
                }
                Err(error) => log::warn!("{error}"),
            }
            None
        }
        Event::FenceSeen { requester } => {
            lab.fence_seen(Bdf(*requester)).unwrap_or_else(|error| log::warn!("{error}"));
            None
        }
        Event::Step { function } => {
            let found = lab.address_map().functions().nth(*function).map(|(id, _)| id);
            if let Some(id) = found {
                lab.step_function(id);
            }
            None
        }
        _ => None,
    }
}

/// Interrupts of a replay reach nobody.
#[derive(Debug)]
struct Nowhere;

impl InterruptSink for Nowhere {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

/// The script that the lab's observer compares with.
#[derive(Debug, Clone, Default)]
struct Stage(Arc<Mutex<Script>>);

#[derive(Debug, Default)]
struct Script {
    line: u64,
    expected: VecDeque<(u64, Event)>,
    complete: bool,
    transactions: u64,
    findings: Vec<String>,
    difference: Option<Difference>,
}

impl Stage {
    fn lock(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    fn set(&mut self, line: u64, scene: Vec<(u64, Event)>, complete: bool) {
        (self.line, self.expected, self.complete) = (line, scene.into(), complete);
    }

    /// The replay did this: did the record too?
    fn compare(&mut self, now: Event) {
        match self.expected.pop_front() {
            Some((_, recorded)) if recorded == now => match now {
                Event::Transaction { .. } => self.transactions += 1,
                Event::Finding { text, .. } => self.findings.push(text),
                _ => {}
            },
            Some((line, recorded)) => self.differ(line, Some(recorded), Some(now)),
            // Where the record was cut, the replay goes on a little further.
            None if !self.complete => {}
            None => self.differ(self.line, None, Some(now)),
        }
    }

    fn differ(&mut self, line: u64, recorded: Option<Event>, replayed: Option<Event>) {
        self.difference.get_or_insert(Difference { line, recorded, replayed });
    }

    fn finish(&mut self) {
        if let Some((line, recorded)) = self.expected.pop_front() {
            self.differ(line, Some(recorded), None);
        }
    }

    /// The recorded bytes of the transaction that is about to happen.
    fn next_data(&self) -> Option<&[u8]> {
        self.expected.iter().find_map(|(_, event)| match event {
            Event::Transaction { data, .. } => Some(data.as_deref()),
            _ => None,
        })?
    }

    fn next_outside(&self) -> Option<&[u8]> {
        self.expected.iter().find_map(|(_, event)| match event {
            Event::Outside { data, .. } => Some(data.as_slice()),
            _ => None,
        })
    }
}

impl Observer for Stage {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        self.lock().compare(Event::transaction(transaction, delivery, data));
    }

    fn finding(&mut self, finding: &Finding) {
        self.lock().compare(finding.into());
    }

    fn input(&mut self, input: &Input<'_>) {
        if let Input::Outside { .. } = input {
            self.lock().compare(input.into());
        }
    }

    fn replace_read(&mut self, _transaction: &Transaction, data: &mut [u8]) -> bool {
        match self.lock().next_data() {
            Some(recorded) if recorded.len() == data.len() => {
                data.copy_from_slice(recorded);
                true
            }
            _ => false,
        }
    }

    fn replace_outside(&mut self, _function: FunctionId, data: &mut [u8]) {
        if let Some(recorded) = self.lock().next_outside()
            && recorded.len() == data.len()
        {
            data.copy_from_slice(recorded);
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "first difference at line {}: ", self.line)?;
        match (&self.recorded, &self.replayed) {
            (Some(recorded), Some(replayed)) => {
                write!(f, "recorded [{recorded}], replayed [{replayed}]")
            }
            (Some(recorded), None) => {
                write!(f, "recorded [{recorded}], which the replay did not do")
            }
            (None, Some(replayed)) => {
                write!(f, "replayed [{replayed}], which is not in the record")
            }
            (None, None) => Ok(()),
        }
    }
}
