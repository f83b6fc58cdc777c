//! One access at a time: what the engine reads and writes, how far it got, and what it may spend on it.

use super::bus::Bus;
use super::channel::Channel;
use super::regs::halt;
use crate::checker::FindingClass;
use crate::endpoint::ReadCompletion;
use crate::fabric::{CompletionStatus, Purpose, ReadOutcome, WriteOutcome};
use crate::memory::Memory;

/// Bytes of data that a step may move: what others wait for at most.
const STEP_BYTES: usize = 64 << 10;
/// Accesses of a step.
const STEP_ACCESSES: usize = 64;
/// Descriptors and records are no longer than this: they count as accesses, not as data, so that a copy of 64 KiB and
/// what belongs to it fit one step.
const RECORD_BYTES: usize = 64;

/// What a step may still do.
#[derive(Debug)]
pub(super) struct Budget {
    bytes: usize,
    accesses: usize,
}

impl Budget {
    pub(super) fn new() -> Self {
        Self { bytes: STEP_BYTES, accesses: STEP_ACCESSES }
    }

    /// Takes the cost of an access of `bytes`; `false` when it has to wait for the next step.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let data = if bytes <= RECORD_BYTES { 0 } else { bytes };
        let (Some(bytes), Some(accesses)) =
            (self.bytes.checked_sub(data), self.accesses.checked_sub(1))
        else {
            return false;
        };
        *self = Self { bytes, accesses };
        true
    }
}

/// How a channel goes on after an advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// At once.
    More,
    /// In a later step: something holds it back that time resolves.
    Later,
    /// In the next step: the budget is used up.
    Spent,
    /// When a register is written or a completion arrives.
    Idle,
}

/// A channel at work, with all that it works with.
#[derive(Debug)]
pub(super) struct Engine<'a, B> {
    pub(super) channel: &'a mut Channel,
    pub(super) local: &'a Memory,
    pub(super) bus: &'a mut B,
    pub(super) budget: &'a mut Budget,
}

/// The read that `channel` waits for has completed.
pub(super) fn complete(channel: &mut Channel, local: &Memory, completion: ReadCompletion<'_>) {
    channel.waiting = None;
    let Channel { job: Some(job), staging, .. } = channel else { return };
    if completion.status != CompletionStatus::Success {
        job.failure = Some(completion.status);
        return;
    }
    let wanted = job.access_length().saturating_sub(job.done).min(completion.data.len());
    let length = job.done + wanted;
    if let Some(target) = job.slice(length, staging, local) {
        target.copy_from(&completion.data[..wanted]);
        job.done = length;
    }
}

impl<B: Bus> Engine<'_, B> {
    /// Copies the chunk between local memory at `offset` and the present buffer, which may be local memory too.
    pub(super) fn copy_local(&mut self, offset: u64, into_buffer: bool) -> Result<(), Flow> {
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else {
            return Err(Flow::Idle);
        };
        let chunk = job.chunk;
        if !self.budget.take(chunk) {
            return Err(Flow::Spent);
        }
        if let (Some(local), Some(buffer)) =
            (self.local.slice(offset, chunk), job.slice(chunk, staging, self.local))
        {
            let (from, to) = if into_buffer { (local, buffer) } else { (buffer, local) };
            from.copy_to_volatile_slice(to);
        }
        Ok(())
    }

    /// Reads what is left of the present access into the present buffer. Ok: it is over, with the status that cut it
    /// short if it failed.
    pub(super) fn read(
        &mut self,
        purpose: Purpose,
        address: u64,
    ) -> Result<Option<CompletionStatus>, Flow> {
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else {
            return Err(Flow::Idle);
        };
        let length = job.access_length();
        let rest = length.saturating_sub(job.done);
        let at = address.saturating_add(job.done as u64);
        if let Some(failure) = job.failure.take() {
            self.channel.failed_at(at);
            let lost = failure == CompletionStatus::Timeout;
            self.channel.note(lost.then_some(FindingClass::CompletionTimeout), at);
            return Ok(Some(failure));
        }
        if rest == 0 {
            return Ok(None);
        }
        if !self.budget.take(rest) {
            return Err(Flow::Spent);
        }
        // Ranges were checked when the job began.
        let Some(into) = job.slice(length, staging, self.local) else { return Err(Flow::Idle) };
        let outcome = self.bus.read(purpose, at, &into);
        let arrived = |bytes: u64| usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
        match outcome {
            ReadOutcome::Done { status: CompletionStatus::Success, verdict, .. } => {
                job.done = length;
                self.channel.note(verdict, at);
                Ok(None)
            }
            ReadOutcome::Done { status, bytes, verdict } => {
                job.done += arrived(bytes);
                let failed = at.saturating_add(arrived(bytes) as u64);
                self.channel.failed_at(failed);
                self.channel.note(verdict, failed);
                Ok(Some(status))
            }
            ReadOutcome::Pending { tag, bytes, verdict } => {
                job.done += arrived(bytes);
                self.channel.note(verdict, at);
                self.channel.waiting = Some(tag);
                Err(Flow::More)
            }
            ReadOutcome::Retry { bytes, verdict } => {
                job.done += arrived(bytes);
                self.channel.note(verdict, at);
                Err(Flow::Later)
            }
            ReadOutcome::NotEmitted => {
                self.channel.halt(halt::BUS_MASTER, at);
                Err(Flow::More)
            }
        }
    }

    /// Writes what is left of the present access, or of its first `part` bytes, from the present buffer.
    pub(super) fn write(
        &mut self,
        purpose: Purpose,
        address: u64,
        part: Option<usize>,
    ) -> Result<(), Flow> {
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else {
            return Err(Flow::Idle);
        };
        let length = part.unwrap_or_else(|| job.access_length());
        let rest = length.saturating_sub(job.done);
        if rest == 0 {
            return Ok(());
        }
        if !self.budget.take(rest) {
            return Err(Flow::Spent);
        }
        let at = address.saturating_add(job.done as u64);
        let Some(from) = job.slice(length, staging, self.local) else { return Err(Flow::Idle) };
        match self.bus.write(purpose, at, &from) {
            WriteOutcome::Posted { verdict } => {
                job.done = length;
                self.channel.note(verdict, at);
                Ok(())
            }
            WriteOutcome::Retry { bytes, verdict } => {
                job.done += usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
                self.channel.note(verdict, at);
                Err(Flow::Later)
            }
            WriteOutcome::NotEmitted => {
                self.channel.halt(halt::BUS_MASTER, at);
                Err(Flow::More)
            }
        }
    }
}
