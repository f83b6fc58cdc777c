//! Making a trace small: the fewest causes that still bring about a finding.
//!
//! Candidates are replayed freely: what the devices do is not compared with the trace, which only
//! gives them what they read. What is left is recorded anew, so that it replays like any other.

mod doorbell;
mod found;
mod free;
mod scene;
mod shrink;

use std::io::{BufRead, Write};
use std::str::FromStr;
use std::time::{Duration, Instant};

use device_models::checker::FindingClass;

use self::found::{Found, Tally};
use self::free::Run;
use self::scene::{Scene, read_scenes};
use self::shrink::Shrink;
use super::event::{Event, FindingEvent, Header, Payload};
use super::reader::{Reader, TraceError};
use super::replay::{ReplayError, build};
use super::writer::Writer;

/// The finding that is to remain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The first of this class.
    Class(FindingClass),
    /// The first about this TLP.
    Tlp(u64),
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_prefix('#') {
            let number =
                number.parse().map_err(|_| format!("{text:?} is not the number of a TLP"))?;
            return Ok(Self::Tlp(number));
        }
        text.parse().map(Self::Class).map_err(|_| {
            format!("{text:?} is neither a class of findings, such as iommu.stale, nor a TLP, such as #1042")
        })
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimised {
    /// The finding as the small trace has it.
    pub finding: String,
    /// What else the small trace has found: all of it comes with the finding, as it did before.
    /// Notes begin with `note: `.
    pub others: Vec<String>,
    /// Entries that make up the state at the start: configuration, the IOMMU's domains and
    /// mappings, what the witness had reported.
    pub snapshot: u64,
    /// Entries behind them, without the end mark.
    pub events: u64,
    /// Candidates that were replayed.
    pub runs: u64,
    /// Nothing more can be left out; otherwise time was up.
    pub finished: bool,
}

/// Why a trace cannot be made small.
#[derive(Debug, thiserror::Error)]
pub enum MinimiseError {
    /// It cannot be replayed.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// It does not have that finding.
    #[error("the trace has no such finding; it has {0}")]
    NotFound(String),
    /// It is too long to be kept in memory.
    #[error(
        "up to the finding the trace has more than {0} entries; cut a part that begins where it does"
    )]
    TooLong(usize),
    /// The small one cannot be written.
    #[error("the small trace cannot be written: {0}")]
    Write(#[from] std::io::Error),
}

impl From<TraceError> for MinimiseError {
    fn from(error: TraceError) -> Self {
        Self::Replay(error.into())
    }
}

/// Writes the smallest trace to `out` that `budget` allows to find and that still has the finding.
///
/// # Errors
/// When the trace cannot be replayed, or has no such finding, or `out` takes nothing.
pub fn minimise<R: BufRead, W: Write>(
    reader: Reader<R>,
    wanted: Wanted,
    budget: Duration,
    out: W,
) -> Result<Minimised, MinimiseError> {
    let deadline = Instant::now() + budget;
    let header = reader.header().clone();
    if header.part {
        return Err(ReplayError::Part.into());
    }
    let scenes = read_scenes(reader)?;
    let all: Vec<&Scene> = scenes.iter().collect();
    let mut whole = Run::new(build(&header)?);
    let found = whole.search(&all, wanted).ok_or_else(|| {
        let classes: std::collections::BTreeSet<_> =
            whole.found().iter().map(|found| found.class.name()).collect();
        let list = classes.into_iter().collect::<Vec<_>>().join(", ");
        MinimiseError::NotFound(if list.is_empty() { "none".to_owned() } else { list })
    })?;
    let before = Tally::of(&whole.found());
    let mut shrink = Shrink::new(&header, scenes, found, before, deadline, whole.map())?;
    let finished = shrink.shrink()?;
    let (scenes, runs) = (shrink.scenes(), shrink.runs());
    let small = write(&header, &scenes, shrink.wanted(), out)?;
    Ok(Minimised { runs, finished, ..small })
}

/// Records the scenes anew.
fn write<W: Write>(
    header: &Header,
    scenes: &[Scene],
    wanted: &Found,
    out: W,
) -> Result<Minimised, MinimiseError> {
    let header = Header { payload: Payload::None, ..header.clone() };
    let mut run = Run::new(build(&header)?);
    let entries = run.record(&scenes.iter().collect::<Vec<_>>());
    let mut writer = Writer::new(out, &header, Duration::ZERO)?;
    let (mut snapshot, mut events, mut is_state) = (0, 0, true);
    let (mut finding, mut others) = (None, Vec::new());
    // In the order of their entries.
    let found = run.found();
    let mut founds = found.iter();
    let states: Vec<bool> = scenes.iter().map(|scene| scene.is_state).collect();
    for (index, entry) in &entries {
        is_state &= index.is_none_or(|index| states.get(index).copied().unwrap_or(false));
        *(if is_state { &mut snapshot } else { &mut events }) += 1;
        if let Event::Finding(FindingEvent { text, note, .. }) = entry {
            let is_it = founds.next().is_some_and(|found| found.is_same(wanted));
            match note {
                _ if is_it && finding.is_none() => finding = Some(text.clone()),
                true => others.push(format!("note: {text}")),
                false => others.push(text.clone()),
            }
        }
        writer.append(entry, Duration::ZERO)?;
    }
    let count = writer.events();
    writer.append(&Event::End { events: count }, Duration::ZERO)?;
    writer.finish()?;
    let finding = finding.unwrap_or_default();
    Ok(Minimised { finding, others, snapshot, events, runs: 0, finished: false })
}
