//! One access at a time: what the engine reads and writes, and how far it got.

use super::bus::Bus;
use super::channel::Channel;
use super::regs::halt;
use crate::checker::FindingClass;
use crate::endpoint::ReadCompletion;
use crate::endpoint::turns::{Budget, Flow};
use crate::fabric::{CompletionStatus, Purpose, ReadOutcome, WriteOutcome};
use crate::memory::Memory;

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
        self.budget.take(chunk)?;
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
        self.budget.take(rest)?;
        let begun = job.begun(address);
        // Ranges were checked when the job began.
        let Some(into) = job.slice(length, staging, self.local) else { return Err(Flow::Idle) };
        let outcome = self.bus.read(purpose, begun, at, &into);
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
        self.budget.take(rest)?;
        let at = address.saturating_add(job.done as u64);
        let begun = job.begun(address);
        let Some(from) = job.slice(length, staging, self.local) else { return Err(Flow::Idle) };
        match self.bus.write(purpose, begun, at, &from) {
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
