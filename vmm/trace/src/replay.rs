//! Replaying: fresh devices, the recorded inputs, and a comparison of what they do with what they did.
//!
//! The trace is read while it is played: of what came of a cause, no more is in memory than the entry that is compared
//! next.

mod changed;
mod perform;
mod session;
mod stage;
#[cfg(test)]
mod tests;
mod until;
mod view;

use std::fmt;
use std::fs::File;
use std::io::BufRead;

use device_models::fabric::InterruptSink;
use device_models::system::System;
use peerdma_topology::address_space::MAX_RAM;
use peerdma_topology::assembly::AssemblyError;
use vm_memory::mmap::{FromRangesError, MmapRegionError};
use vm_memory::{FileOffset, GuestAddress, GuestMemoryMmap};

pub use self::changed::{Changed, Changes};
pub(crate) use self::perform::perform;
pub use self::session::{Session, Stepped};
pub use self::until::Until;
use super::event::{Event, Header};
use super::reader::{Ending, Reader, TraceError};
use super::what_if::{BadChange, Change};

/// More ranges of RAM than any guest has: there is one below 4 GiB and one above.
const MAX_RANGES: usize = 16;

/// Findings that are kept; the others are counted.
const MAX_FINDINGS: usize = 10_000;

/// After this number of turns the memory that the devices have written to is given back: no device of a replay interprets what is
/// there, because what steers a device comes from the trace. In one turn a device writes 64 KiB.
pub(crate) const DISCARD_AFTER: u64 = 256;

/// A difference beyond which nothing more can be compared: later events depend on what came before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Number of the entry, or of the cause.
    pub entry: u64,
    /// What the trace has; none when the replay did something more.
    pub recorded: Option<Event>,
    /// What the replay did; none when it did nothing.
    pub replayed: Option<Event>,
}

/// How a replay went.
#[derive(Debug, Default)]
pub struct Replay {
    /// Entries of the trace so far, without the end mark.
    pub entries: u64,
    /// Of those, how many were replayed or compared. The others say nothing that a replay could compare: where tests begin
    /// and end.
    pub events: u64,
    /// Transactions (runs of TLPs) that came out the same.
    pub transactions: u64,
    /// The findings, which came out the same, as sentences, and the notes, which begin with `note: `: the first 10 000.
    pub findings: Vec<String>,
    /// How many there are.
    pub found: u64,
    /// The first difference.
    pub difference: Option<Difference>,
    /// What a what-if question found out.
    pub changes: Option<Changes>,
    /// How the trace ends; none if it was not read to its end, because of a difference.
    pub ending: Option<Ending>,
}

impl Replay {
    fn add(&mut self, finding: String) {
        self.found += 1;
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        }
    }

    /// Whether the trace has no end mark, or that of its size limit.
    pub fn is_partial(&self) -> bool {
        matches!(self.ending, Some(Ending::Truncated { .. } | Ending::Cut))
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
    /// The header's RAM is not what a guest can have.
    #[error("the header of the trace describes RAM that no guest has: {0}")]
    NotRam(String),
    /// The beginning is missing.
    #[error(
        "the beginning of the trace is missing, so it cannot be replayed: it was cut off (trace cut), or a ring of files \
         has overwritten it (--record-ring); show, stats, verify and export read it all the same"
    )]
    Part,
    /// Entries in the middle are missing.
    #[error(
        "entries were dropped when the trace was recorded (--record-lossy): at entry {0} the replay cannot go on"
    )]
    Lost(u64),
    /// The what-if question cannot be answered.
    #[error("--what-if {}: {_0}", _0.change())]
    WhatIf(#[from] BadChange),
    /// Memory of the size of the guest's RAM is not to be had.
    #[error("no memory for the guest RAM that was recorded: {0}")]
    Ram(#[source] MmapRegionError),
    /// Nor a file for it.
    #[error("no memory file for the guest RAM that was recorded: {0}")]
    RamFile(#[source] std::io::Error),
}

impl ReplayError {
    /// Whether it is this machine that lacks something; otherwise it is the trace that cannot be used.
    pub fn is_of_the_machine(&self) -> bool {
        match self {
            Self::Trace(error) => matches!(error, TraceError::Read(_)),
            Self::Assembly(error) => error.is_of_the_machine(),
            Self::NotRam(_) | Self::Part | Self::Lost(_) | Self::WhatIf(_) => false,
            Self::Ram(_) | Self::RamFile(_) => true,
        }
    }
}

/// Memory as the guest had it. Never touched but where a device writes, and that is given back: it costs address space
/// only.
fn ram(ranges: &[(u64, u64)]) -> Result<GuestMemoryMmap, ReplayError> {
    let total = ranges.iter().try_fold(0_u64, |sum, (_, length)| sum.checked_add(*length));
    if ranges.len() > MAX_RANGES || total.is_none_or(|total| total > MAX_RAM) {
        let what = format!("at most {MAX_RANGES} ranges and {MAX_RAM} bytes are possible");
        return Err(ReplayError::NotRam(what));
    }
    if ranges.iter().any(|(_, length)| *length == 0) {
        return Err(ReplayError::NotRam("a range of it is empty".into()));
    }
    let file = |length| {
        let memory = rustix::fs::memfd_create("replay", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memory, length)?;
        Ok(Some(FileOffset::new(File::from(memory), 0)))
    };
    let mut regions = Vec::new();
    for &(start, length) in ranges {
        let file =
            file(length).map_err(|error: rustix::io::Errno| ReplayError::RamFile(error.into()))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        regions.push((GuestAddress(start), length, file));
    }
    GuestMemoryMmap::from_ranges_with_files(regions).map_err(|error| match error {
        FromRangesError::MmapRegion(error) => ReplayError::Ram(error),
        error => ReplayError::NotRam(error.to_string()),
    })
}

/// The system that a header describes, ready to be replayed on.
///
/// # Errors
/// When it cannot be built.
pub(crate) fn build(header: &Header) -> Result<System, ReplayError> {
    let ram = ram(&header.ram)?;
    Ok(header.system.build(&ram, Box::new(Nowhere), std::io::repeat(0))?)
}

/// Replays a whole trace.
///
/// # Errors
/// When it cannot be read on, or its devices cannot be built.
pub fn replay<R: BufRead + Send + 'static>(reader: Reader<R>) -> Result<Replay, ReplayError> {
    replay_what_if(reader, &[])
}

/// Replays a whole trace, and finds out which of its transactions would have ended in another way
/// if `changes` were so.
///
/// # Errors
/// When it cannot be read on, or its devices cannot be built, or the changes make no sense there.
pub fn replay_what_if<R: BufRead + Send + 'static>(
    reader: Reader<R>,
    changes: &[Change],
) -> Result<Replay, ReplayError> {
    let mut session = Session::asking(reader, changes)?;
    while session.advance()? {}
    session.finish()
}

/// Gives back what the devices have written: what they copied is in no trace, so nothing depends on it.
pub(crate) fn discard(system: &System) {
    for memory in &system.address_map().memories {
        // One that cannot be given back stays as it is; all of them are files here.
        let _ = memory.discard();
    }
}

/// Interrupts of a replay go nowhere.
#[derive(Debug)]
struct Nowhere;

impl InterruptSink for Nowhere {
    fn signal_msi(&mut self, _address: u64, _data: u32) {}
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "first difference at entry {}: ", self.entry)?;
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
