#![doc = include_str!("../README.md")]
//!
//! Recording a system and replaying the trace: the same devices, the same inputs, the same findings, and no guest.
//!
//! A trace holds what came in from outside (accesses by CPUs, the order in which functions took their turns, values
//! that cannot be computed again) and what the devices made of it (transactions, findings). Bytes that steer a device are
//! kept in full; of bulk data, which no device looks at, a digest.

#![forbid(unsafe_code)]

mod blocks;
mod cut;
mod diff;
mod entry;
mod event;
mod export;
mod fields;
mod filter;
#[cfg(any(feature = "parquet", feature = "perfetto"))]
mod flows;
mod frames;
mod json;
mod lives;
mod minimise;
mod names;
#[cfg(any(feature = "parquet", feature = "perfetto"))]
mod owners;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(feature = "perfetto")]
mod perfetto;
mod reader;
mod recorder;
mod replay;
mod source;
mod stats;
mod table;
mod tlp;
mod what_if;
mod witnessed;
mod writer;

#[cfg(feature = "parquet")]
pub use self::parquet::Parquet;
pub use cut::{CutError, Part, cut};
pub use diff::{Diff, diff};
pub use event::{
    ConfigAccess, Destination, Event, FindingEvent, FunctionName, Header, Payload, TestMark,
    TestResult, TlpRun, TransactionResult,
};
pub use export::jsonl;
pub use filter::{BadFilter, Context, Filter, KEYS, kind_of};
pub use json::{ConvertError, convert};
pub use lives::Lengths;
pub use minimise::{MinimiseError, Minimised, Wanted, minimise};
#[cfg(feature = "perfetto")]
pub use perfetto::Perfetto;
pub use reader::{Ending, Entry, Reader, TraceError, TracePlace};
pub use recorder::{
    DEFAULT_LIMIT, Output, RING_FILES, RecordOptions, RecordSummary, Recorder, Recording,
    RingFiles, Slots, ring_file,
};
pub use replay::{
    Changed, Changes, Difference, Replay, ReplayError, Session, Stepped, Until, replay,
    replay_what_if,
};
pub use stats::{Stats, Traffic};
pub use table::check_seek_table;
pub use tlp::{MemoryRequest, TlpHeader};
pub use what_if::{BadChange, Change};
pub use writer::Writer;
