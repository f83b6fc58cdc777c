//! A channel's accesses: one at a time, and how far it got.

use vm_memory::VolatileSlice;

use super::bus::Bus;
use super::job::{Buffer, CHUNK, Job, Task};
use super::turns::{Budget, Flow};
use crate::checker::FindingClass;
use crate::endpoint::ReadCompletion;
use crate::fabric::{CompletionStatus, Purpose, ReadOutcome, Tag, WriteOutcome};
use crate::memory::Memory;

/// The part of a channel that carries descriptors on.
#[derive(Debug)]
pub(in crate::endpoint) struct DataPath<T: Task> {
    /// The descriptor in progress.
    pub(in crate::endpoint) job: Option<Job<T>>,
    /// Bytes between a read and what is done with them.
    pub(in crate::endpoint) staging: Box<[u8]>,
    /// The read that the job waits for.
    waiting: Option<Tag>,
    /// A read whose completion is no longer wanted, until the fabric knows. There is never a second
    /// one: the engine withdraws the first before it issues anything.
    abandoned: Option<Tag>,
}

/// What a call of [`DataPath::read`] or [`DataPath::write`] came to.
#[derive(Debug, Clone, Copy)]
pub(in crate::endpoint) struct Ended<E> {
    pub(in crate::endpoint) end: E,
    /// The address that `verdict` is about; of a read that failed, the first one that did.
    pub(in crate::endpoint) address: u64,
    /// The checker's finding about the access.
    pub(in crate::endpoint) verdict: Option<FindingClass>,
}

/// How far a read got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum ReadEnd {
    /// All bytes are here.
    Done,
    /// It ended with this status; the job's `done` counts the bytes before.
    Failed(CompletionStatus),
    /// The rest follows when this flow allows it.
    Unfinished(Flow),
    /// The function may not issue requests.
    NotEmitted,
}

/// How far a write got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::endpoint) enum WriteEnd {
    /// All bytes are posted.
    Done,
    /// The rest follows when this flow allows it.
    Unfinished(Flow),
    /// The function may not issue requests.
    NotEmitted,
}

/// The read `tag` has completed. A tag that no path waits for belongs to a job that was aborted or
/// reset: dropped.
pub(in crate::endpoint) fn complete<'a, T: Task + 'a>(
    mut paths: impl Iterator<Item = &'a mut DataPath<T>>,
    tag: Tag,
    completion: ReadCompletion<'_>,
    local: Option<&Memory>,
) {
    if let Some(path) = paths.find(|path| path.waiting == Some(tag)) {
        path.complete(completion, local);
    }
}

impl<T: Task> DataPath<T> {
    /// A path without a job, with `staging` bytes to stage in.
    pub(in crate::endpoint) fn new(staging: usize) -> Self {
        Self { job: None, staging: vec![0; staging].into(), waiting: None, abandoned: None }
    }

    /// Whether a descriptor is in progress.
    pub(in crate::endpoint) fn busy(&self) -> bool {
        self.job.is_some()
    }

    /// Whether the job waits for a read.
    pub(in crate::endpoint) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Drops the job, and the read that it waits for.
    pub(in crate::endpoint) fn stop(&mut self) {
        self.job = None;
        self.abandon_read();
    }

    /// Stops waiting: the completion will find no path that waits for its tag.
    pub(in crate::endpoint) fn abandon_read(&mut self) {
        self.abandoned = self.waiting.take().or(self.abandoned);
    }

    /// Whether the fabric has yet to learn that a read's completion is no longer wanted.
    #[cfg(test)]
    pub(in crate::endpoint) fn has_abandoned(&self) -> bool {
        self.abandoned.is_some()
    }

    /// Names to the fabric the read whose completion is no longer wanted. An engine does so first
    /// in each step.
    pub(in crate::endpoint) fn release_tag(&mut self, bus: &mut impl Bus) {
        if let Some(tag) = self.abandoned.take() {
            bus.abandon(tag);
        }
    }

    /// Fills the staging buffer's first chunk with a pattern, once for all chunks of `length`
    /// bytes: a chunk is a multiple of it.
    pub(in crate::endpoint) fn stage_pattern(&mut self, pattern: [u8; 8], length: u64) {
        let length = usize::try_from(length).map_or(CHUNK, |length| length.min(CHUNK));
        for piece in self.staging[..length].chunks_mut(8) {
            piece.copy_from_slice(&pattern[..piece.len()]);
        }
    }

    fn complete(&mut self, completion: ReadCompletion<'_>, local: Option<&Memory>) {
        self.waiting = None;
        let Self { job: Some(job), staging, .. } = self else { return };
        if completion.status != CompletionStatus::Success {
            job.failure = Some(completion.status);
            return;
        }
        let wanted = T::access(job).length.saturating_sub(job.done).min(completion.data.len());
        let length = job.done + wanted;
        if let Some(target) = job.slice(length, staging, local) {
            target.copy_from(&completion.data[..wanted]);
            job.done = length;
        }
    }

    /// Reads what is left of the job's present access, which begins at `address`.
    ///
    /// # Errors
    /// [`Flow::Spent`] when the step's budget does not suffice; [`Flow::Idle`] without a job.
    pub(in crate::endpoint) fn read(
        &mut self,
        bus: &mut impl Bus,
        budget: &mut Budget,
        local: Option<&Memory>,
        purpose: Purpose,
        address: u64,
    ) -> Result<Ended<ReadEnd>, Flow> {
        let Self { job: Some(job), staging, waiting, .. } = self else { return Err(Flow::Idle) };
        let access = T::access(job);
        let rest = access.length.saturating_sub(job.done);
        let at = address.saturating_add(job.done as u64);
        if let Some(status) = job.failure.take() {
            let lost = status == CompletionStatus::Timeout;
            let verdict = lost.then_some(FindingClass::CompletionTimeout);
            return Ok(Ended { end: ReadEnd::Failed(status), address: at, verdict });
        }
        if rest == 0 {
            return Ok(Ended { end: ReadEnd::Done, address: at, verdict: None });
        }
        budget.take(rest)?;
        // Ranges were checked when the job began.
        let into = job.slice(access.length, staging, local).ok_or(Flow::Idle)?;
        let outcome = bus.read(purpose, address.saturating_sub(access.before), at, &into);
        let arrived = |bytes: u64| usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
        let (end, done, verdict) = match outcome {
            ReadOutcome::Done { status: CompletionStatus::Success, verdict, .. } => {
                (ReadEnd::Done, rest, verdict)
            }
            ReadOutcome::Done { status, bytes, verdict } => {
                (ReadEnd::Failed(status), arrived(bytes), verdict)
            }
            ReadOutcome::Pending { tag, bytes, verdict } => {
                *waiting = Some(tag);
                (ReadEnd::Unfinished(Flow::More), arrived(bytes), verdict)
            }
            ReadOutcome::Retry { bytes, verdict } => {
                (ReadEnd::Unfinished(Flow::Later), arrived(bytes), verdict)
            }
            ReadOutcome::NotEmitted => (ReadEnd::NotEmitted, 0, None),
        };
        job.done += done;
        let failed = matches!(end, ReadEnd::Failed(_));
        let address = if failed { at.saturating_add(done as u64) } else { at };
        Ok(Ended { end, address, verdict })
    }

    /// Writes what is left of the job's present access, or of its first `part` bytes, to where
    /// `address` begins.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub(in crate::endpoint) fn write(
        &mut self,
        bus: &mut impl Bus,
        budget: &mut Budget,
        local: Option<&Memory>,
        purpose: Purpose,
        address: u64,
        part: Option<usize>,
    ) -> Result<Ended<WriteEnd>, Flow> {
        let Self { job: Some(job), staging, .. } = self else { return Err(Flow::Idle) };
        let access = T::access(job);
        let length = part.unwrap_or(access.length);
        let rest = length.saturating_sub(job.done);
        let at = address.saturating_add(job.done as u64);
        if rest == 0 {
            return Ok(Ended { end: WriteEnd::Done, address: at, verdict: None });
        }
        budget.take(rest)?;
        let from = job.slice(length, staging, local).ok_or(Flow::Idle)?;
        let (end, verdict) =
            match bus.write(purpose, address.saturating_sub(access.before), at, &from) {
                WriteOutcome::Posted { verdict } => {
                    job.done = length;
                    (WriteEnd::Done, verdict)
                }
                WriteOutcome::Retry { bytes, verdict } => {
                    job.done += usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
                    (WriteEnd::Unfinished(Flow::Later), verdict)
                }
                WriteOutcome::NotEmitted => (WriteEnd::NotEmitted, None),
            };
        Ok(Ended { end, address: at, verdict })
    }
}

impl<T: Task> Job<T> {
    /// `length` bytes of the present access's buffer, without the `done` ones that are complete.
    /// None where the buffer ends before that.
    pub(in crate::endpoint) fn slice<'a>(
        &'a mut self,
        length: usize,
        staging: &'a mut [u8],
        local: Option<&'a Memory>,
    ) -> Option<VolatileSlice<'a>> {
        let rest = self.done..length;
        match T::access(self).buffer {
            Buffer::Own => self.own.get_mut(rest).map(VolatileSlice::from),
            Buffer::Staging(from) => {
                staging.get_mut(from..)?.get_mut(rest).map(VolatileSlice::from)
            }
            Buffer::Local(from) => local?.slice(from.checked_add(self.done as u64)?, rest.len()),
        }
    }
}
