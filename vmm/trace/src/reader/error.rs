//! Why a trace cannot be read on, where, and how it ends.

use std::io;

use crate::entry;

/// Why a trace cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The file is something else.
    #[error("this is not a trace made with --record: {0}")]
    NotATrace(String),
    /// It begins like a trace, and ends before anything could be in it.
    #[error("the trace is cut within its header")]
    CutInHeader,
    /// It has the format of an earlier version of the program.
    #[error(
        "this trace is in the JSON format of an earlier version; `peerdma trace convert` makes one of today's of it"
    )]
    Json,
    /// Its entries are those of another version of the program.
    #[error("the trace has format version {0}, this program reads version {version}; record it again", version = entry::VERSION)]
    Version(u8),
    /// Something in the middle is not what a recorder writes.
    #[error("{place}: {reason}")]
    Damaged {
        /// Where.
        place: TracePlace,
        /// What is wrong.
        reason: String,
    },
}

/// A place in a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TracePlace {
    /// Number of the entry.
    pub entry: u64,
    /// Where its block begins, in bytes of the unpacked trace.
    pub offset: u64,
    /// Where its zstd frame begins, in bytes of the file.
    pub frame: u64,
}

impl std::fmt::Display for TracePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { entry, offset, frame } = self;
        write!(f, "entry {entry}, at byte {offset} unpacked, in the frame at byte {frame}")
    }
}

/// How a trace ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an end mark.
    Complete,
    /// With the mark that its size limit was reached.
    Cut,
    /// Without a mark: its recorder was killed, the disk was full, or the file was cut.
    Truncated {
        /// Behind what can be read.
        place: TracePlace,
        /// What is there.
        reason: String,
    },
}
