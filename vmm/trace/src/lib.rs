#![doc = include_str!("../README.md")]
//!
//! Recording a system and replaying the trace: the same devices, the same inputs, the same findings, and no guest.
//!
//! A trace holds what came in from outside (accesses by CPUs, the order in which functions took their turns, values
//! that cannot be computed again) and what the devices made of it (transactions, findings). Bytes that
//! steer a device are kept; bulk data is not, because no device looks at it.

mod event;
mod format;
mod recorder;
mod replay;

pub use event::{Event, Header, TransactionResult};
pub use format::{Reader, TraceError, Writer};
pub use recorder::{DEFAULT_LIMIT, LARGEST, Output, RecordSummary, Recorder, Recording};
pub use replay::{Difference, Replay, ReplayError, replay};
