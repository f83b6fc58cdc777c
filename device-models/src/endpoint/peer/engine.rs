//! The DMA engine: executes jobs, one access at a time, within a budget per step.

use super::channel::Channel;
use super::descriptor::{Location, Operation};
use super::job::{Extra, Job};
use super::regs::{fault, halt, status};
use crate::checker::{Cause, FindingClass};
use crate::endpoint::Progress;
use crate::endpoint::dma::{Budget, Bus, DataPath, Flow, Phase, ReadEnd, WriteEnd, in_turn};
use crate::fabric::{CompletionStatus, Purpose, WriteOutcome};
use crate::memory::Memory;

/// Where the two parts of a completion record meet.
const RECORD_SPLIT: usize = 24;

/// A channel at work, with all that it works with.
#[derive(Debug)]
pub(super) struct Engine<'a, B> {
    pub(super) channel: &'a mut Channel,
    pub(super) local: &'a Memory,
    pub(super) bus: &'a mut B,
    pub(super) budget: &'a mut Budget,
}

/// One step of the device: channels in turn, beginning with `first`, until the budget is used up.
pub(super) fn step<B: Bus>(
    channels: &mut [Channel],
    first: &mut usize,
    local: &Memory,
    bus: &mut B,
) -> Progress {
    channels.iter_mut().for_each(|channel| channel.path.release_tag(bus));
    let mut waited = false;
    for held in channels.iter_mut().filter_map(|channel| channel.held.as_mut()) {
        waited |= held.tick();
    }
    let progress = in_turn(channels.len(), first, |index, budget| {
        Engine { channel: &mut channels[index], local, bus, budget }.advance()
    });
    if waited { Progress::Worked } else { progress }
}

impl<B: Bus> Engine<'_, B> {
    /// Does the next thing, at most one access.
    fn advance(&mut self) -> Flow {
        if self.channel.path.is_waiting() {
            return Flow::Idle;
        }
        if self.channel.held_first() {
            return match self.deliver_held() {
                Ok(()) => Flow::More,
                Err(flow) => flow,
            };
        }
        let Some(job) = &self.channel.path.job else {
            return if self.channel.next_job() { Flow::More } else { Flow::Idle };
        };
        let result = match job.phase {
            Phase::Fetch => self.fetch(),
            Phase::Source(index) => self.gather(index),
            Phase::Target => self.deliver(),
            Phase::Extra(Extra::Flush) => self.flush(),
            Phase::Extra(Extra::Stray) => self.stray(),
            Phase::Record => self.record(),
            Phase::Extra(Extra::Interrupt) => self.interrupt(),
        };
        match result {
            Ok(()) => Flow::More,
            Err(flow) => flow,
        }
    }

    /// The job in progress; without one there is nothing to do.
    fn job(&mut self) -> Result<&mut Job, Flow> {
        self.channel.path.job.as_mut().ok_or(Flow::Idle)
    }

    fn fetch(&mut self) -> Result<(), Flow> {
        let slot = self.job()?.task.slot;
        let address = self.channel.descriptor_address(slot);
        let failure = self.read(Purpose::DescriptorFetch, address)?;
        if let Some(failure) = failure {
            let reason = match failure {
                CompletionStatus::CompleterAbort => halt::FETCH_ABORT,
                CompletionStatus::Timeout => halt::FETCH_TIMEOUT,
                CompletionStatus::UnsupportedRequest | CompletionStatus::Success => {
                    halt::FETCH_UNSUPPORTED
                }
            };
            self.channel.halt(reason, address);
            return Ok(());
        }
        let fault = self.channel.take_slot();
        let job = self.channel.path.job.as_mut().ok_or(Flow::Idle)?;
        match job.begin(fault, self.local.len()) {
            Ok(()) => {
                if let Operation::Fill(pattern) = job.task.work.operation {
                    let length = job.task.work.length;
                    self.channel.path.stage_pattern(pattern, length);
                }
            }
            Err(bad) => {
                let failed = bad.failed_mapping();
                let cause = match failed {
                    Some(_) => Cause::MappingFailed { request: None },
                    None => Cause::Descriptor { address, mistake: bad.kind() },
                };
                let failed = failed.map(|text| format!("; {text}")).unwrap_or_default();
                self.bus.report(
                    FindingClass::BadDescriptor,
                    cause,
                    format!("descriptor at {address:#x}: {bad}{failed}"),
                );
                self.channel.note(Some(FindingClass::BadDescriptor), address);
            }
        }
        self.next_chunk()
    }

    /// Gets a chunk of source, or of destination for a comparison.
    fn gather(&mut self, index: usize) -> Result<(), Flow> {
        let job = self.job()?;
        let work = &job.task.work;
        let location = if index > 0 { work.destination } else { work.source };
        match location.plus(job.moved) {
            Location::Local(offset) => self.copy_local(offset, true)?,
            Location::Remote(address) => {
                if let Some(failure) = self.read(Purpose::Data, address)? {
                    self.job()?.cut(failure);
                }
            }
        }
        let DataPath { job: Some(job), staging, .. } = &mut self.channel.path else {
            return Ok(());
        };
        let chunk = &mut staging[..job.chunk];
        job.done = 0;
        if job.chunk == 0 {
            return self.finish();
        }
        match job.task.work.operation {
            Operation::Copy if !job.task.buffer_is_target() => {
                if job.task.fault.kind == fault::CORRUPT_DATA && job.moved == 0 {
                    chunk[0] ^= job.task.fault.argument.to_le_bytes()[0];
                }
                job.phase = Phase::Target;
                Ok(())
            }
            Operation::Compare if index == 0 => {
                job.phase = Phase::Source(1);
                Ok(())
            }
            Operation::Compare => self.compare(),
            Operation::Checksum(_) => {
                let before = u32::try_from(job.task.result).unwrap_or_default();
                job.task.result = crc32c::crc32c_append(before, chunk).into();
                job.end_chunk();
                self.next_chunk()
            }
            Operation::Copy | Operation::Fill(_) | Operation::Nop => {
                job.end_chunk();
                self.next_chunk()
            }
        }
    }

    fn compare(&mut self) -> Result<(), Flow> {
        let DataPath { job: Some(job), staging, .. } = &mut self.channel.path else {
            return Ok(());
        };
        let equal = job.difference(staging).unwrap_or(job.chunk);
        // What is read decides what is done next, and a replay does not have the data.
        let mut outside = u32::try_from(equal).unwrap_or(u32::MAX).to_le_bytes();
        self.bus.outside_input(&mut outside);
        let equal = u32::from_le_bytes(outside) as usize;
        if equal < job.chunk {
            job.task.status = status::MISMATCH;
            job.moved += equal as u64;
            job.task.result = job.moved;
            return self.finish();
        }
        job.end_chunk();
        self.next_chunk()
    }

    /// Puts a chunk to its destination.
    fn deliver(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        match job.task.work.destination.plus(job.moved) {
            Location::Local(offset) => self.copy_local(offset, false)?,
            Location::Remote(address) if job.writes_back_later() => self.hold(address),
            Location::Remote(address) => self.write(Purpose::Data, address, None)?,
        }
        self.job()?.end_chunk();
        self.next_chunk()
    }

    fn next_chunk(&mut self) -> Result<(), Flow> {
        if self.job()?.next_chunk() { Ok(()) } else { self.finish() }
    }

    /// The work is done; the record and the interrupt are left.
    fn finish(&mut self) -> Result<(), Flow> {
        let Some(job) = &mut self.channel.path.job else { return Ok(()) };
        job.done = 0;
        let succeeded = job.task.status == status::SUCCESS;
        if succeeded && matches!(job.task.work.operation, Operation::Checksum(_)) {
            let mut outside = u32::try_from(job.task.result).unwrap_or_default().to_le_bytes();
            self.bus.outside_input(&mut outside);
            job.task.result = u32::from_le_bytes(outside).into();
        }
        let remote = matches!(job.task.work.destination, Location::Remote(_));
        if succeeded
            && job.task.work.flush
            && job.task.work.writes()
            && remote
            && job.task.work.length > 0
        {
            job.phase = Phase::Extra(Extra::Flush);
        } else {
            job.arrived();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Flow> {
        let work = self.job()?.task.work;
        let failure = match work.destination.plus(work.length.saturating_sub(1)) {
            Location::Remote(last) => self.read(Purpose::Data, last)?,
            Location::Local(_) => None,
        };
        let job = self.job()?;
        if let Some(failure) = failure {
            job.cut(failure);
        }
        job.arrived();
        Ok(())
    }

    fn stray(&mut self) -> Result<(), Flow> {
        let address = self.job()?.task.fault.address;
        self.write(Purpose::Data, address, None)?;
        self.job()?.begin_record();
        Ok(())
    }

    fn record(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        if job.task.delay > 0 {
            job.task.delay -= 1;
            return Err(Flow::Later);
        }
        let (slot, refused) = (job.task.slot, job.task.fault.kind == fault::REFUSE_COMPLETION);
        if !job.task.numbered {
            job.task.numbered = true;
            let sequence = self.channel.next_sequence();
            self.job()?.make_record(sequence);
        }
        if refused {
            self.channel.path.job = None;
            return Ok(());
        }
        let address = self.channel.record_address(slot);
        self.write(Purpose::CompletionRecord, address, Some(RECORD_SPLIT))?;
        self.write(Purpose::CompletionRecord, address, None)?;
        self.channel.record_written();
        let job = self.job()?;
        job.phase = Phase::Extra(Extra::Interrupt);
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), Flow> {
        let wanted = self.job()?.task.work.interrupt;
        let Some(vector) = self.channel.vector().filter(|_| wanted) else {
            self.channel.path.job = None;
            return Ok(());
        };
        self.budget.take(size_of::<u32>())?;
        match self.bus.raise(vector) {
            WriteOutcome::Posted { verdict } => {
                self.channel.note(verdict, 0);
                self.channel.path.job = None;
            }
            WriteOutcome::Retry { .. } => return Err(Flow::Later),
            WriteOutcome::NotEmitted => self.channel.halt(halt::BUS_MASTER, 0),
        }
        Ok(())
    }

    /// Copies the chunk between local memory at `offset` and the present buffer, which may be local
    /// memory too.
    fn copy_local(&mut self, offset: u64, into_buffer: bool) -> Result<(), Flow> {
        let DataPath { job: Some(job), staging, .. } = &mut self.channel.path else {
            return Err(Flow::Idle);
        };
        let chunk = job.chunk;
        self.budget.take(chunk)?;
        if let (Some(local), Some(buffer)) =
            (self.local.slice(offset, chunk), job.slice(chunk, staging, Some(self.local)))
        {
            let (from, to) = if into_buffer { (local, buffer) } else { (buffer, local) };
            from.copy_to_volatile_slice(to);
        }
        Ok(())
    }

    /// Reads what is left of the present access into the present buffer. Ok: it is over, with the
    /// status that cut it short if it failed.
    fn read(&mut self, purpose: Purpose, address: u64) -> Result<Option<CompletionStatus>, Flow> {
        let Self { channel, local, bus, budget } = self;
        let ended = channel.path.read(*bus, budget, Some(local), purpose, address)?;
        channel.note(ended.verdict, ended.address);
        match ended.end {
            ReadEnd::Done => Ok(None),
            ReadEnd::Failed(status) => {
                channel.failed_at(ended.address);
                Ok(Some(status))
            }
            ReadEnd::Unfinished(flow) => Err(flow),
            ReadEnd::NotEmitted => {
                channel.halt(halt::BUS_MASTER, ended.address);
                Err(Flow::More)
            }
        }
    }

    /// Writes what is left of the present access, or of its first `part` bytes, from the present
    /// buffer.
    fn write(&mut self, purpose: Purpose, address: u64, part: Option<usize>) -> Result<(), Flow> {
        let Self { channel, local, bus, budget } = self;
        let ended = channel.path.write(*bus, budget, Some(local), purpose, address, part)?;
        channel.note(ended.verdict, ended.address);
        match ended.end {
            WriteEnd::Done => Ok(()),
            WriteEnd::Unfinished(flow) => Err(flow),
            WriteEnd::NotEmitted => {
                channel.halt(halt::BUS_MASTER, ended.address);
                Err(Flow::More)
            }
        }
    }
}
