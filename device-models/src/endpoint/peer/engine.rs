//! The DMA engine: carries jobs on, one access at a time, within a budget per step.

use super::access::Engine;
use super::bus::Bus;
use super::channel::Channel;
use super::descriptor::{Operation, Place};
use super::job::{Job, Phase};
use super::regs::{fault, halt, status};
use crate::checker::{Cause, FindingClass};
use crate::endpoint::Progress;
use crate::endpoint::turns::{Flow, in_turn};
use crate::fabric::{CompletionStatus, Purpose, WriteOutcome};
use crate::memory::Memory;

/// Where the two parts of a completion record meet.
const RECORD_SPLIT: usize = 24;

/// One step of the device: channels in turn, beginning with `first`, until the budget is used up.
pub(super) fn step<B: Bus>(
    channels: &mut [Channel],
    first: &mut usize,
    local: &Memory,
    bus: &mut B,
) -> Progress {
    for tag in channels.iter_mut().filter_map(|channel| channel.abandoned.take()) {
        bus.abandon(tag);
    }
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
        if self.channel.waiting.is_some() {
            return Flow::Idle;
        }
        if self.channel.held_first() {
            return match self.deliver_held() {
                Ok(()) => Flow::More,
                Err(flow) => flow,
            };
        }
        let Some(job) = &self.channel.job else {
            return if self.channel.next_job() { Flow::More } else { Flow::Idle };
        };
        let result = match job.phase {
            Phase::Fetch => self.fetch(),
            Phase::Source | Phase::Second => self.gather(),
            Phase::Target => self.deliver(),
            Phase::Flush => self.flush(),
            Phase::Stray => self.stray(),
            Phase::Record => self.record(),
            Phase::Interrupt => self.interrupt(),
        };
        match result {
            Ok(()) => Flow::More,
            Err(flow) => flow,
        }
    }

    /// The job in progress; without one there is nothing to do.
    fn job(&mut self) -> Result<&mut Job, Flow> {
        self.channel.job.as_mut().ok_or(Flow::Idle)
    }

    fn fetch(&mut self) -> Result<(), Flow> {
        let slot = self.job()?.slot;
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
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else { return Ok(()) };
        match job.begin(fault, self.local.len()) {
            Ok(()) => job.stage_pattern(staging),
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
    fn gather(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        let place = if job.phase == Phase::Second { job.work.destination } else { job.work.source };
        match place.plus(job.moved) {
            Place::Local(offset) => self.copy_local(offset, true)?,
            Place::Remote(address) => {
                if let Some(failure) = self.read(Purpose::Data, address)? {
                    self.job()?.cut(failure);
                }
            }
        }
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else { return Ok(()) };
        let chunk = &mut staging[..job.chunk];
        job.done = 0;
        if job.chunk == 0 {
            return self.finish();
        }
        match job.work.operation {
            Operation::Copy if !job.buffer_is_target() => {
                if job.fault.kind == fault::CORRUPT_DATA && job.moved == 0 {
                    chunk[0] ^= job.fault.argument.to_le_bytes()[0];
                }
                job.phase = Phase::Target;
                Ok(())
            }
            Operation::Compare if job.phase == Phase::Source => {
                job.phase = Phase::Second;
                Ok(())
            }
            Operation::Compare => self.compare(),
            Operation::Checksum(_) => {
                let before = u32::try_from(job.result).unwrap_or_default();
                job.result = crc32c::crc32c_append(before, chunk).into();
                job.chunk_over();
                self.next_chunk()
            }
            Operation::Copy | Operation::Fill(_) | Operation::Nop => {
                job.chunk_over();
                self.next_chunk()
            }
        }
    }

    fn compare(&mut self) -> Result<(), Flow> {
        let Channel { job: Some(job), staging, .. } = &mut *self.channel else { return Ok(()) };
        let equal = job.difference(staging).unwrap_or(job.chunk);
        // What is read decides what is done next, and a replay does not have the data.
        let mut outside = u32::try_from(equal).unwrap_or(u32::MAX).to_le_bytes();
        self.bus.outside_input(&mut outside);
        let equal = u32::from_le_bytes(outside) as usize;
        if equal < job.chunk {
            job.status = status::MISMATCH;
            job.moved += equal as u64;
            job.result = job.moved;
            return self.finish();
        }
        job.chunk_over();
        self.next_chunk()
    }

    /// Puts a chunk to its destination.
    fn deliver(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        match job.work.destination.plus(job.moved) {
            Place::Local(offset) => self.copy_local(offset, false)?,
            Place::Remote(address) if job.writes_back_later() => self.hold(address),
            Place::Remote(address) => self.write(Purpose::Data, address, None)?,
        }
        self.job()?.chunk_over();
        self.next_chunk()
    }

    fn next_chunk(&mut self) -> Result<(), Flow> {
        if self.job()?.next_chunk() { Ok(()) } else { self.finish() }
    }

    /// The work is over; what is left is to tell.
    fn finish(&mut self) -> Result<(), Flow> {
        let Some(job) = &mut self.channel.job else { return Ok(()) };
        job.done = 0;
        let succeeded = job.status == status::SUCCESS;
        if succeeded && matches!(job.work.operation, Operation::Checksum(_)) {
            let mut outside = u32::try_from(job.result).unwrap_or_default().to_le_bytes();
            self.bus.outside_input(&mut outside);
            job.result = u32::from_le_bytes(outside).into();
        }
        let remote = matches!(job.work.destination, Place::Remote(_));
        if succeeded && job.work.flush && job.work.writes() && remote && job.work.length > 0 {
            job.phase = Phase::Flush;
        } else {
            job.arrived();
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Flow> {
        let work = self.job()?.work;
        let failure = match work.destination.plus(work.length.saturating_sub(1)) {
            Place::Remote(last) => self.read(Purpose::Data, last)?,
            Place::Local(_) => None,
        };
        let job = self.job()?;
        if let Some(failure) = failure {
            job.cut(failure);
        }
        job.arrived();
        Ok(())
    }

    fn stray(&mut self) -> Result<(), Flow> {
        let address = self.job()?.fault.address;
        self.write(Purpose::Data, address, None)?;
        self.job()?.tell();
        Ok(())
    }

    fn record(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        if job.delay > 0 {
            job.delay -= 1;
            return Err(Flow::Later);
        }
        let (slot, refused) = (job.slot, job.fault.kind == fault::REFUSE_COMPLETION);
        if !job.numbered {
            job.numbered = true;
            let sequence = self.channel.next_sequence();
            self.job()?.make_record(sequence);
        }
        if refused {
            self.channel.job = None;
            return Ok(());
        }
        let address = self.channel.record_address(slot);
        self.write(Purpose::CompletionRecord, address, Some(RECORD_SPLIT))?;
        self.write(Purpose::CompletionRecord, address, None)?;
        self.channel.record_written();
        let job = self.job()?;
        job.phase = Phase::Interrupt;
        Ok(())
    }

    fn interrupt(&mut self) -> Result<(), Flow> {
        let wanted = self.job()?.work.interrupt;
        let Some(vector) = self.channel.vector().filter(|_| wanted) else {
            self.channel.job = None;
            return Ok(());
        };
        self.budget.take(size_of::<u32>())?;
        match self.bus.raise(vector) {
            WriteOutcome::Posted { verdict } => {
                self.channel.note(verdict, 0);
                self.channel.job = None;
            }
            WriteOutcome::Retry { .. } => return Err(Flow::Later),
            WriteOutcome::NotEmitted => self.channel.halt(halt::BUS_MASTER, 0),
        }
        Ok(())
    }
}
