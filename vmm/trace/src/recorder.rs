//! Recording: an observer that writes every event into the trace.

use std::fmt::Debug;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use device_models::checker::Finding;
use device_models::fabric::{Delivery, Input, Observer, Transaction};

use super::{Event, Header, Writer};

/// A trace is cut at this size unless its owner says otherwise: a guest shall not fill a disk.
pub const DEFAULT_LIMIT: u64 = 1 << 30;
/// No trace of that limit is larger, in bytes: its first line, the event that reaches the limit, and the end mark.
pub const LARGEST: u64 = DEFAULT_LIMIT + (8 << 20);

/// Events after which the file is brought up to date, so that a killed run leaves something.
const FLUSH_EVERY: u64 = 256;

/// As much is collected before it is written, in bytes: about [`FLUSH_EVERY`] events.
const COLLECTED: usize = 64 << 10;

/// Where a trace, or another file of a run, is written to.
pub trait Output: Write + Send + Debug {}

impl<T: Write + Send + Debug> Output for T {}

/// A trace that is being written.
#[derive(Debug, Clone)]
pub struct Recording(Arc<Mutex<State>>);

/// The observer to give to the system.
#[derive(Debug)]
pub struct Recorder(Recording);

#[derive(Debug)]
struct State {
    writer: Writer<BufWriter<Box<dyn Output>>>,
    limit: u64,
    over: Option<io::Result<()>>,
}

/// What has been recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordSummary {
    /// Events written.
    pub events: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Whether the trace was cut at its limit.
    pub cut: bool,
}

impl Recording {
    /// Begins a trace in the file at `path`, which is replaced; at most about `limit` bytes.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn create(path: &Path, header: Header, limit: u64) -> io::Result<Self> {
        Self::new(Box::new(File::create(path)?), header, limit)
    }

    /// Begins a trace that goes to `out`; at most about `limit` bytes.
    ///
    /// # Errors
    /// When `out` takes nothing.
    pub fn new(out: Box<dyn Output>, header: Header, limit: u64) -> io::Result<Self> {
        let writer = Writer::new(BufWriter::with_capacity(COLLECTED, out), header)?;
        Ok(Self(Arc::new(Mutex::new(State { writer, limit, over: None }))))
    }

    /// The observer that feeds it.
    pub fn recorder(&self) -> Recorder {
        Recorder(self.clone())
    }

    /// Ends the trace with its end mark.
    ///
    /// # Errors
    /// When something could not be written, now or before; the file then ends where it failed.
    pub fn finish(&self) -> io::Result<RecordSummary> {
        let mut state = self.state();
        let cut = state.over.is_some();
        if let Some(over) = state.over.take() {
            over?;
        }
        if !cut {
            let events = state.writer.events();
            state.writer.append(&Event::End { events })?;
        }
        state.over = Some(Ok(()));
        state.writer.flush()?;
        let (events, bytes) = (state.writer.events(), state.writer.bytes());
        Ok(RecordSummary { events, bytes, cut })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, event: &Event) {
        let mut state = self.state();
        if state.over.is_some() {
            return;
        }
        if let Err(error) = state.append(event) {
            state.over = Some(Err(error));
        }
    }
}

impl State {
    fn append(&mut self, event: &Event) -> io::Result<()> {
        self.writer.append(event)?;
        if self.writer.bytes() >= self.limit {
            let events = self.writer.events();
            self.writer.append(&Event::Cut { events })?;
            self.writer.flush()?;
            self.over = Some(Ok(()));
        } else if self.writer.events().is_multiple_of(FLUSH_EVERY) {
            self.writer.flush()?;
        }
        Ok(())
    }
}

impl Observer for Recorder {
    fn transaction(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        self.0.append(&Event::transaction(transaction, delivery, data));
    }

    fn finding(&mut self, finding: &Finding) {
        self.0.append(&finding.into());
    }

    fn input(&mut self, input: &Input<'_>) {
        self.0.append(&input.into());
    }
}
