//! Recording: an observer that writes every event into the trace.
//!
//! The device models' thread makes blocks in memory; a thread of its own packs and writes them. Where the disk does not
//! keep up, the devices wait for a bounded time, which is accounted for, or, if the user chose so, entries are dropped
//! and counted.

mod queue;
mod ring;

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use device_models::checker::Finding;
use device_models::fabric::{Delivery, Input, Observer, Transaction};
use serde::{Deserialize, Serialize};

use self::queue::Shared;
pub use self::ring::{RING_FILES, RingFiles, Slots, ring_file};
use super::blocks::MAX_KEPT;
use super::event::{Event, Header, Payload, TestMark, TlpRun};
use super::writer::FRAME;

/// A trace is cut at this size, in bytes, unless its owner says otherwise: a guest shall not fill a disk.
pub const DEFAULT_LIMIT: u64 = 1 << 30;

/// What is packed when a trace reaches its limit still comes behind it, in bytes.
const BEHIND_LIMIT: u64 = 32 << 20;

/// Where a trace, or another file of a run, is written to.
pub trait Output: Write + Send + Debug {}

impl<T: Write + Send + Debug> Output for T {}

/// How to record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordOptions {
    /// The trace is cut at about this size, in bytes; of no meaning for a ring.
    pub limit: u64,
    /// The newest entries are kept in [`RING_FILES`] files, which have at most this size together, in bytes.
    #[serde(default)]
    pub ring: Option<u64>,
    /// Where the disk does not keep up, entries are dropped; otherwise the devices wait.
    pub lossy: bool,
    /// What is kept of bulk data.
    pub payload: Payload,
}

impl Default for RecordOptions {
    fn default() -> Self {
        Self { limit: DEFAULT_LIMIT, ring: None, lossy: false, payload: Payload::default() }
    }
}

impl RecordOptions {
    /// No file of these options is larger, in bytes.
    pub fn largest(&self) -> u64 {
        if self.ring.is_some() { self.per_file() } else { self.limit.saturating_add(BEHIND_LIMIT) }
    }

    /// Bytes that a file of the ring has at most.
    fn per_file(&self) -> u64 {
        self.ring.unwrap_or(u64::MAX) / RING_FILES as u64
    }

    /// A frame ends behind the block that reaches this, in bytes.
    fn frame(&self) -> usize {
        let most = if self.ring.is_some() { self.per_file() / 8 } else { self.limit };
        usize::try_from(most).unwrap_or(usize::MAX).clamp(1, FRAME)
    }
}

/// A trace that is being written.
#[derive(Debug, Clone)]
pub struct Recording(Arc<Shared>);

/// The observer to give to the system.
#[derive(Debug)]
pub struct Recorder {
    recording: Recording,
    payload: Payload,
    /// CRC-32C and bytes of the bulk data of the transaction that comes next.
    digest: Option<u32>,
    bulk: Vec<u8>,
}

/// What has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// Entries, with those that were dropped.
    pub events: u64,
    /// Bytes of its files.
    pub bytes: u64,
    /// Which files a ring has.
    pub files: RingFiles,
    /// Whether the trace was cut at its limit.
    pub cut: bool,
    /// Entries that were dropped.
    pub lost: u64,
    /// How often the devices waited for the disk.
    pub stalls: u64,
    /// How long, all told.
    pub stalled: Duration,
}

impl Recording {
    /// Begins a trace in the file at `path`, or in the ring of files that has its name; they are replaced.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, header: &Header, options: RecordOptions) -> io::Result<Self> {
        if options.ring.is_some() {
            return Self::ring(Box::new(path.to_owned()), header, options);
        }
        Self::new(Box::new(File::create(path)?), header, options)
    }

    /// Begins a trace in a ring of files.
    ///
    /// # Errors
    /// When the first one takes nothing, or the system gives no thread.
    pub fn ring(
        mut slots: Box<dyn Slots>,
        header: &Header,
        options: RecordOptions,
    ) -> io::Result<Self> {
        let out = slots.begin(0)?;
        Ok(Self(Shared::new(out, Some(slots), header, options)?))
    }

    /// Begins a trace that goes to `out`.
    ///
    /// # Errors
    /// When `out` takes nothing, or the system gives no thread.
    pub fn new(out: Box<dyn Output>, header: &Header, options: RecordOptions) -> io::Result<Self> {
        Ok(Self(Shared::new(out, None, header, options)?))
    }

    /// The observer that feeds it.
    pub fn recorder(&self) -> Recorder {
        Recorder {
            recording: self.clone(),
            payload: self.0.payload(),
            digest: None,
            bulk: Vec::new(),
        }
    }

    /// A test begins, or has ended.
    pub fn mark(&self, mark: TestMark) {
        self.0.append(Event::Test(mark));
    }

    /// Ends the trace with its end mark.
    ///
    /// # Errors
    /// When something could not be written, now or before; the file then ends where it failed.
    pub fn finish(&self) -> io::Result<RecordSummary> {
        self.0.finish()
    }
}

impl Observer for Recorder {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        let Event::Transaction(run) = Event::transaction(transaction, delivery, data) else {
            return;
        };
        let digest = self.digest.take();
        let data = match (run.data, digest, self.payload) {
            (None, Some(_), Payload::Full) => Some(std::mem::take(&mut self.bulk)),
            (data, _, _) => data,
        };
        self.recording.0.hold(TlpRun { digest, data, ..run });
    }

    fn finding(&mut self, finding: &Finding) {
        self.recording.0.finding(finding);
    }

    fn input(&mut self, input: &Input<'_>) {
        self.recording.0.append(input.into());
    }

    fn wants_bulk(&self) -> bool {
        self.payload != Payload::None
    }

    fn bulk(&mut self, bytes: &[u8]) {
        if self.digest.is_none() {
            self.bulk.clear();
        }
        self.digest = Some(crc32c::crc32c_append(self.digest.unwrap_or(0), bytes));
        if self.payload == Payload::Full {
            let room = MAX_KEPT.saturating_sub(self.bulk.len()).min(bytes.len());
            self.bulk.extend(bytes.get(..room).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests;
