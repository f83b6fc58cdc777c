//! Replaying: fresh devices, the recorded inputs, and a comparison of what they do with what they did.

use std::collections::VecDeque;
use std::fmt;
use std::io::BufRead;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::{
    Delivery, FunctionId, Input, InterruptSink, Observer, Transaction, WitnessInput,
};
use device_models::pci::Bdf;
use device_models::system::System;
use device_models::witness;
use peerdma_support::warnings::Warnings;
use peerdma_topology::address_space::MAX_RAM;
use peerdma_topology::assembly::AssemblyError;
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::{Event, Reader, TraceError};

/// More ranges of RAM than any guest has: there is one below 4 GiB and one above.
const MAX_RANGES: usize = 16;

/// Findings that are kept; the others are counted.
const MAX_FINDINGS: usize = 10_000;

/// The most that can come of one cause. Of an ordinary one come less than a hundred events. The most comes of a
/// notification for which the virtio-iommu serves 1024 chains, each of 256 descriptors with as many pieces of a request
/// as it has bytes, some 400 000 events of 300 bytes, and before whose answer 64 paths with 1024 writes each are drained,
/// of which each can be a finding, too.
const LIMITS: Limits = Limits { events: 1 << 20, bytes: 256 << 20 };

/// What may come of one cause: a replay keeps all of it until the next.
#[derive(Debug, Clone, Copy)]
struct Limits {
    events: usize,
    /// Of their lines.
    bytes: u64,
}

/// A difference beyond which nothing more can be compared: later events depend on what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Line of the trace.
    pub line: u64,
    /// What the trace has; none when the replay did something more.
    pub recorded: Option<Event>,
    /// What the replay did; none when it did nothing.
    pub replayed: Option<Event>,
}

/// How a replay went.
#[derive(Debug, Default)]
pub struct Replay {
    /// Events of the trace that were replayed or compared.
    pub events: u64,
    /// Transactions (runs of TLPs) that came out the same.
    pub transactions: u64,
    /// The findings, which came out the same, as sentences, and the notes, which begin with `note: `: the first 10 000.
    pub findings: Vec<String>,
    /// How many there are.
    pub found: u64,
    /// The first difference.
    pub difference: Option<Difference>,
    /// The trace has no end mark: its writer was killed, or the file cut.
    pub truncated: bool,
    /// The trace was cut at its size limit.
    pub cut: bool,
}

impl Replay {
    fn add(&mut self, findings: Vec<String>) {
        self.found += findings.len() as u64;
        let room = MAX_FINDINGS.saturating_sub(self.findings.len());
        self.findings.extend(findings.into_iter().take(room));
    }
}

/// Why a trace cannot be replayed at all.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace cannot be read on.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The devices of its header cannot be built.
    #[error("the devices that were recorded cannot be built here: {0}")]
    Assembly(#[from] AssemblyError),
    /// The header's RAM is none that a guest can have.
    #[error("the header of the trace describes RAM that no guest has: {0}")]
    NotRam(String),
    /// It has what no recorder writes.
    #[error("this is not a trace made with --record: line {line}: {reason}")]
    NotARecord {
        /// Which line, the header being 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Memory of the size of the guest's RAM is not to be had.
    #[error("no memory for the guest RAM that was recorded: {0}")]
    Ram(#[source] MmapRegionError),
}

impl ReplayError {
    /// Whether it is this machine that lacks something; otherwise it is the trace that cannot be used.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Trace(error) => matches!(error, TraceError::Read(_)),
            Self::Assembly(error) => error.is_of_the_machine(),
            Self::NotRam(_) | Self::NotARecord { .. } => false,
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

/// Replays a whole trace.
///
/// # Errors
/// When it is none, or cannot be read on, or its devices cannot be built.
pub fn replay<R: BufRead>(reader: &mut Reader<R>) -> Result<Replay, ReplayError> {
    replay_within(reader, LIMITS)
}

fn replay_within<R: BufRead>(
    reader: &mut Reader<R>,
    limits: Limits,
) -> Result<Replay, ReplayError> {
    let header = reader.header().clone();
    let ram = ram(&header.ram)?;
    let stage = Stage::new();
    let mut system = header.system.build(&ram, Box::new(Nowhere), std::io::repeat(0))?;
    system.add_observer(Box::new(stage.clone()));

    let mut replay = Replay::default();
    let mut scene = Vec::new();
    let mut cause: Option<(u64, Event)> = None;
    let mut begun = reader.bytes();
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
                if scene.len() > limits.events || reader.bytes() - begun > limits.bytes {
                    return Err(endless(line, cause.as_ref()));
                }
                continue;
            }
            event => {
                let over = !matches!(&event, Some(event) if event.is_cause());
                let whole = event.is_some();
                replay.cut = matches!(event, Some(Event::Cut { .. }));
                let next = event.filter(Event::is_cause).map(|event| (line, event));
                if let Some((line, event)) = &next {
                    possible(*line, event)?;
                }
                begun = reader.bytes();
                let last = std::mem::replace(&mut cause, next);
                // A trace that was cut may lack the end of its last scene.
                let complete = whole && !replay.cut;
                play(&mut system, &stage, last, std::mem::take(&mut scene), complete, &mut replay);
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

/// More comes of a cause than can.
fn endless(line: u64, cause: Option<&(u64, Event)>) -> ReplayError {
    let cause = match cause {
        Some((line, cause)) => format!("the {} of line {line}", cause.name()),
        None => "the header".to_owned(),
    };
    ReplayError::NotARecord { line, reason: format!("more comes of {cause} than ever can") }
}

/// Whether a CPU, or another source of input, can have done this.
fn possible(line: u64, cause: &Event) -> Result<(), ReplayError> {
    match cause {
        Event::RegisterRead { data, .. } | Event::RegisterWrite { data, .. } if data.len() > 8 => {
            let reason = format!("a {} has at most 8 bytes, not {}", cause.name(), data.len());
            Err(ReplayError::NotARecord { line, reason })
        }
        _ => Ok(()),
    }
}

/// Plays one cause and compares what comes of it.
fn play(
    system: &mut System,
    stage: &Stage,
    cause: Option<(u64, Event)>,
    scene: Vec<(u64, Event)>,
    complete: bool,
    replay: &mut Replay,
) {
    let line = cause.as_ref().map_or(1, |(line, _)| *line);
    stage.lock().set(line, scene, complete);
    if let Some((line, cause)) = cause {
        let answer = perform(system, &cause, &stage.refused);
        if answer.as_ref().is_some_and(|answer| *answer != cause) {
            stage.lock().differ(line, Some(cause), answer);
        }
    }
    let mut script = stage.lock();
    script.finish();
    replay.transactions += std::mem::take(&mut script.transactions);
    replay.add(std::mem::take(&mut script.findings));
    replay.difference = script.difference.take();
}

/// Does to the system what was done to it. For a read: what it answers now.
fn perform(system: &mut System, cause: &Event, refused: &Warnings) -> Option<Event> {
    let refuse = |error: &dyn fmt::Display| refused.warn(format_args!("{error}"));
    match cause {
        Event::ConfigWrite { function, offset, length, value } => {
            system.config_write(Bdf(*function), *offset, *length, *value);
            None
        }
        Event::ConfigRead { function, offset, length, .. } => {
            let value = system.config_read(Bdf(*function), *offset, *length);
            Some(Event::ConfigRead { function: *function, offset: *offset, length: *length, value })
        }
        Event::RegisterWrite { address, data } => {
            system.mmio_write(*address, data);
            None
        }
        Event::RegisterRead { address, data } => {
            let mut now = vec![0; data.len()];
            system.mmio_read(*address, &mut now);
            Some(Event::RegisterRead { address: *address, data: now })
        }
        Event::CpuPush { function } => {
            if let Some(id) = function_at(system, *function) {
                system.cpu_push(id);
            }
            None
        }
        Event::Unplug { port } | Event::Plug { port } => {
            let filled = matches!(cause, Event::Plug { .. });
            let done = if filled { system.plug(Bdf(*port)) } else { system.unplug(Bdf(*port)) };
            // One that fails is not in the trace: then what follows differs and is reported.
            done.unwrap_or_else(|error| refuse(&error));
            None
        }
        Event::DelayPosted { requester, target, delay } => {
            // A path too many is in the trace too, and fails here as it did then. Functions that do not exist are not in
            // it: then what follows differs and is reported.
            match delay.parse() {
                Ok(delay) => {
                    let done = system.delay_posted(Bdf(*requester), target.map(Bdf), delay);
                    done.unwrap_or_else(|error| refuse(&error));
                }
                Err(error) => refuse(&error),
            }
            None
        }
        Event::FenceSeen { requester } => {
            system.fence_seen(Bdf(*requester)).unwrap_or_else(|error| refuse(&error));
            None
        }
        Event::Witness { kind, data } => {
            let known = WitnessInput::ALL.iter().find(|known| known.name() == kind);
            if let Some(&kind) = known {
                system.witness_input(kind, data);
            }
            None
        }
        Event::Step { function } => {
            if let Some(id) = function_at(system, *function) {
                system.step_function(id);
            }
            None
        }
        _ => None,
    }
}

/// The function with an index in the trace.
fn function_at(system: &System, index: usize) -> Option<FunctionId> {
    system.address_map().functions().nth(index).map(|(id, _)| id)
}

/// Interrupts of a replay go nowhere.
#[derive(Debug)]
struct Nowhere;

impl InterruptSink for Nowhere {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

/// The script that the observer compares with.
#[derive(Debug, Clone)]
struct Stage {
    script: Arc<Mutex<Script>>,
    refused: Arc<Warnings>,
}

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
    fn new() -> Self {
        let refused = Warnings::of("recorded causes that the devices refused");
        Self { script: Arc::default(), refused: Arc::new(refused) }
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    fn set(&mut self, line: u64, scene: Vec<(u64, Event)>, complete: bool) {
        (self.line, self.expected, self.complete) = (line, scene.into(), complete);
    }

    /// The replay did this: did the trace too?
    fn compare(&mut self, now: Event) {
        match self.expected.pop_front() {
            Some((_, recorded)) if recorded == now => match now {
                Event::Transaction { .. } => self.transactions += 1,
                Event::Finding { text, note: false, .. } => self.findings.push(text),
                Event::Finding { text, note: true, .. } => {
                    self.findings.push(format!("note: {text}"))
                }
                _ => {}
            },
            Some((line, recorded)) => self.differ(line, Some(recorded), Some(now)),
            // Where the trace was cut, the replay goes on a little further.
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
        if self.difference.is_some() {
            // What is next is not known any more, and need not be looked for.
            return None;
        }
        self.expected.iter().find_map(|(_, event)| match event {
            Event::Transaction { data, .. } => Some(data.as_deref()),
            _ => None,
        })?
    }

    /// The next witness record, if there is one.
    fn next_record(&self) -> Option<&[u8]> {
        match self.expected.front() {
            Some((_, Event::Witness { data, .. })) if self.difference.is_none() => {
                Some(data.as_slice())
            }
            _ => None,
        }
    }

    fn next_outside(&self) -> Option<&[u8]> {
        if self.difference.is_some() {
            return None;
        }
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
        let compared = matches!(
            input,
            Input::Outside { .. } | Input::Witness { kind: WitnessInput::Record, .. }
        );
        if compared {
            self.lock().compare(input.into());
        }
    }

    fn next_record(&mut self, record: &mut witness::Bytes) -> bool {
        match self.lock().next_record() {
            Some(recorded) => {
                // One of another length is none that a recorder wrote: the comparison shows it.
                record.iter_mut().zip(recorded).for_each(|(byte, recorded)| *byte = *recorded);
                true
            }
            None => false,
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
                write!(f, "replayed [{replayed}], which is not in the trace")
            }
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Cursor, Read};

    use peerdma_support::testing::logged;
    use peerdma_topology::assembly::SystemConfig;

    use super::*;
    use crate::{Header, Writer};

    const FEW: Limits = Limits { events: 100, bytes: 1 << 20 };

    fn finding(text: &str) -> Event {
        Event::Finding { class: "x".into(), note: false, text: text.into() }
    }

    fn record(events: &[Event]) -> Vec<u8> {
        let mut file = Vec::new();
        let header = Header { system: SystemConfig::default(), ram: vec![(0, 1 << 20)] };
        let mut writer = Writer::new(&mut file, header).unwrap();
        events.iter().for_each(|event| writer.append(event).unwrap());
        file
    }

    /// What is said of a file that begins like this and goes on with the same finding for ever.
    fn said_of_endless(events: &[Event], text: &str, limits: Limits) -> String {
        let whole = record(&[finding(text)]);
        let first = record(&[]).len();
        struct Endless(Cursor<Vec<u8>>);
        impl Read for Endless {
            fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
                if self.0.position() == self.0.get_ref().len() as u64 {
                    self.0.set_position(0);
                }
                self.0.read(buffer)
            }
        }
        let file = Cursor::new(record(events)).chain(Endless(Cursor::new(whole[first..].to_vec())));
        let mut reader = Reader::new(BufReader::new(file)).unwrap();
        let error = replay_within(&mut reader, limits).unwrap_err();
        assert!(!error.is_of_the_machine());
        error.to_string()
    }

    #[test]
    fn a_cause_of_which_too_much_comes_is_not_kept() {
        let not = "this is not a trace made with --record: line";
        let turn = [Event::Step { function: 0 }];
        assert_eq!(
            said_of_endless(&[], "no cause", FEW),
            format!("{not} 102: more comes of the header than ever can")
        );
        assert_eq!(
            said_of_endless(&turn, "no cause", FEW),
            format!("{not} 103: more comes of the turn of line 2 than ever can")
        );
        // By bytes: 11 lines of a little more than 100 000.
        assert_eq!(
            said_of_endless(&[], &"long".repeat(25_000), FEW),
            format!("{not} 12: more comes of the header than ever can")
        );
    }

    #[test]
    fn as_much_as_there_may_be_is_compared() {
        let mut events = vec![finding("not so"); FEW.events];
        events.insert(0, Event::Step { function: 0 });
        let file = record(&events);
        let replay = replay_within(&mut Reader::new(&file[..]).unwrap(), FEW).unwrap();
        let difference = replay.difference.unwrap();
        assert_eq!((difference.line, difference.recorded), (3, Some(finding("not so"))));
    }

    #[test]
    fn what_no_cpu_does_is_not_a_record() {
        for (length, possible) in [(8, true), (9, false), (70_000, false)] {
            for write in [true, false] {
                let (address, data) = (0xc000_0000, vec![0xff; length]);
                let event = match write {
                    true => Event::RegisterWrite { address, data },
                    false => Event::RegisterRead { address, data },
                };
                let file = record(&[event, Event::End { events: 1 }]);
                let replay = replay(&mut Reader::new(&file[..]).unwrap());
                assert_eq!(replay.is_ok(), possible, "{replay:?}");
            }
        }
    }

    #[test]
    fn causes_that_are_refused_do_not_fill_the_log() {
        let mut events = vec![Event::Unplug { port: u16::MAX }; 500];
        events.push(Event::End { events: 500 });
        let file = record(&events);
        let lines = logged(|| {
            let replay = replay(&mut Reader::new(&file[..]).unwrap()).unwrap();
            assert_eq!(replay.difference, None);
        });
        assert_eq!(lines.len(), 10, "{lines:#?}");
        assert_eq!(lines[9], "recorded causes that the devices refused: 500 in all");
    }

    #[test]
    fn of_the_findings_the_first_are_kept_and_all_are_counted() {
        let mut replay = Replay::default();
        for turn in 0..3 {
            replay.add(vec![turn.to_string(); MAX_FINDINGS / 2 + 1]);
        }
        assert_eq!(replay.findings.len(), MAX_FINDINGS);
        assert_eq!(replay.found, (MAX_FINDINGS / 2 + 1) as u64 * 3);
        assert_eq!(replay.findings.last().unwrap(), "1");
    }
}
