//! The DMA engine: carries descriptors on, one access at a time, within a budget per step.

use vm_memory::VolatileSlice;

use super::DeviceRegisters;
use super::channel::{CHUNK, Channel, Job, Phase};
use super::descriptor::{Operation, Work};
use super::regs::{error, fault, interrupt_control};
use crate::endpoint::turns::{Budget, Flow, in_turn};
use crate::endpoint::{Progress, ReadCompletion};
use crate::fabric::{CompletionStatus, Port, Purpose, ReadOutcome, WriteOutcome};

/// One step: channels in turn, beginning with `first`, until the budget is used up.
pub(super) fn step(
    channels: &mut [Channel],
    device: &mut DeviceRegisters,
    first: &mut usize,
    port: &mut Port<'_>,
) -> Progress {
    let mut waited = false;
    for channel in channels.iter_mut() {
        if let Some(tag) = channel.abandoned.take() {
            port.abandon(tag);
        }
        if channel.due() && channel.delay > 0 {
            channel.delay -= 1;
            waited = true;
        }
    }
    let progress = in_turn(channels.len(), first, |index, budget| {
        Engine { channel: &mut channels[index], index, device, port, budget }.advance()
    });
    if waited { Progress::Worked } else { progress }
}

/// The read that `channel` waits for has completed.
pub(super) fn complete(channel: &mut Channel, completion: ReadCompletion<'_>) {
    channel.waiting = None;
    let Channel { job: Some(job), staging, .. } = channel else { return };
    if completion.status != CompletionStatus::Success {
        job.failure = Some(completion.status);
        return;
    }
    let wanted = job.access_length().saturating_sub(job.done).min(completion.data.len());
    let range = job.done..job.done + wanted;
    let buffer = match job.phase {
        Phase::Source(_) => &mut staging[..],
        _ => &mut job.own[..],
    };
    if let Some(target) = buffer.get_mut(range) {
        target.copy_from_slice(&completion.data[..wanted]);
        job.done += wanted;
    }
}

/// A channel at work, with all that it works with.
struct Engine<'a, 'p> {
    channel: &'a mut Channel,
    index: usize,
    device: &'a mut DeviceRegisters,
    port: &'a mut Port<'p>,
    budget: &'a mut Budget,
}

impl Engine<'_, '_> {
    /// Does the next thing, at most one access.
    fn advance(&mut self) -> Flow {
        match self.interrupt() {
            Ok(true) => return Flow::More,
            Ok(false) => {}
            Err(flow) => return flow,
        }
        if self.channel.waiting.is_some() {
            return Flow::Idle;
        }
        let Some(job) = &self.channel.job else {
            return if self.channel.next_job() { Flow::More } else { Flow::Idle };
        };
        let result = match job.phase {
            Phase::Fetch => self.fetch(),
            Phase::Extend => self.extend(),
            Phase::Source(index) => self.gather(index),
            Phase::Target => self.deliver(),
            Phase::Record => self.record(),
        };
        result.err().unwrap_or(Flow::More)
    }

    /// Sends the interrupt that is due; `Ok(true)` if that was something to do.
    fn interrupt(&mut self) -> Result<bool, Flow> {
        if !self.channel.due() || self.channel.delay > 0 {
            return Ok(false);
        }
        let each = self.device.interrupt_control & interrupt_control::VECTORS != 0;
        let master = self.device.interrupt_control & interrupt_control::MASTER != 0;
        if !each && !master {
            return Ok(false);
        }
        self.budget.take(size_of::<u32>())?;
        let vector = if each { u16::try_from(self.index).unwrap_or(0) } else { 0 };
        if let WriteOutcome::Retry { .. } = self.port.raise(vector) {
            return Err(Flow::Later);
        }
        self.device.attention |= 1 << self.index;
        self.channel.sent();
        if !each {
            self.device.interrupt_control &= !interrupt_control::MASTER;
        }
        Ok(true)
    }

    fn job(&mut self) -> Result<&mut Job, Flow> {
        self.channel.job.as_mut().ok_or(Flow::Idle)
    }

    /// Ends the descriptor with an error; not an error of the engine, which goes on.
    fn fail(&mut self, bits: u32) -> Result<(), Flow> {
        let wants_interrupt = self.channel.signal;
        self.channel.fail(bits);
        self.delay_interrupt(wants_interrupt);
        Ok(())
    }

    /// The first interrupt after a quiet time waits for others to join it.
    fn delay_interrupt(&mut self, wanted_before: bool) {
        if self.channel.signal && !wanted_before {
            self.channel.delay = self.device.delay;
        }
    }

    fn conclude(&mut self) {
        let wanted_before = self.channel.signal;
        self.channel.conclude();
        self.delay_interrupt(wanted_before);
    }

    fn fetch(&mut self) -> Result<(), Flow> {
        let address = self.job()?.address;
        if !self.read(Purpose::DescriptorFetch, address, error::NEXT_ADDRESS)? {
            return Ok(());
        }
        let (fault, longest) = (self.device.take_fault(), self.device.longest_transfer());
        let job = self.job()?;
        (job.fault, job.done) = (fault, 0);
        match Work::parse(&job.own, longest) {
            Ok(work) => job.work = work,
            Err(bits) => return self.fail(bits),
        }
        if fault == fault::SWAP {
            job.work.swap();
        }
        if job.work.places > 1 {
            if !job.work.next.is_multiple_of(64) {
                return self.fail(error::NEXT_ALIGNMENT);
            }
            job.phase = Phase::Extend;
            return Ok(());
        }
        self.begin()
    }

    fn extend(&mut self) -> Result<(), Flow> {
        let address = self.job()?.work.next;
        if !self.read(Purpose::DescriptorFetch, address, error::NEXT_ADDRESS)? {
            return Ok(());
        }
        let job = self.job()?;
        job.work.extend(&job.own);
        job.done = 0;
        self.begin()
    }

    /// The descriptor is complete.
    fn begin(&mut self) -> Result<(), Flow> {
        let Channel { job: Some(job), sum, .. } = &mut *self.channel else { return Ok(()) };
        if let Err(bits) = job.work.check_ranges() {
            return self.fail(bits);
        }
        match job.work.operation {
            Operation::Null => {
                self.finish();
                return Ok(());
            }
            Operation::Fill(pattern) => {
                let length = usize::try_from(job.work.length).map_or(CHUNK, |len| len.min(CHUNK));
                for piece in sum[..length].chunks_mut(8) {
                    piece.copy_from_slice(&pattern[..piece.len()]);
                }
            }
            Operation::Move | Operation::Check => {}
        }
        self.next_chunk()
    }

    fn next_chunk(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        let left = job.work.length.saturating_sub(job.moved);
        job.chunk = usize::try_from(left).map_or(CHUNK, |left| left.min(CHUNK));
        job.done = 0;
        if job.chunk == 0 {
            self.finish();
            return Ok(());
        }
        let fills = matches!(job.work.operation, Operation::Fill(_));
        job.phase = if fills { Phase::Target } else { Phase::Source(0) };
        Ok(())
    }

    fn gather(&mut self, index: usize) -> Result<(), Flow> {
        let job = self.job()?;
        let Some(&source) = job.work.sources.get(index) else { return Err(Flow::Idle) };
        // Ranges were checked when the descriptor was.
        let address = source.saturating_add(job.moved);
        if !self.read(Purpose::Data, address, error::READ_DATA)? {
            return Ok(());
        }
        let Channel { job: Some(job), staging, sum, .. } = &mut *self.channel else {
            return Ok(());
        };
        job.done = 0;
        if index == 0 {
            std::mem::swap(staging, sum);
        } else {
            sum.iter_mut().zip(&staging[..job.chunk]).for_each(|(sum, byte)| *sum ^= byte);
        }
        if index + 1 < job.work.sources.len() {
            job.phase = Phase::Source(index + 1);
            return Ok(());
        }
        if job.fault == fault::CORRUPT_DATA && job.moved == 0 {
            sum[0] = !sum[0];
        }
        if job.work.operation == Operation::Check {
            return self.check();
        }
        job.phase = Phase::Target;
        Ok(())
    }

    /// All that was read must cancel out.
    fn check(&mut self) -> Result<(), Flow> {
        let Channel { job: Some(job), sum, .. } = &mut *self.channel else { return Ok(()) };
        // What is read decides what is done next, and a replay does not have the data.
        let mut differs = [u8::from(sum[..job.chunk].iter().any(|byte| *byte != 0))];
        job.moved += job.chunk as u64;
        self.port.outside_input(&mut differs);
        if differs[0] != 0 {
            return self.fail(error::XOR);
        }
        self.next_chunk()
    }

    fn deliver(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        let address = job.work.destination.saturating_add(job.moved);
        if !self.write(Purpose::Data, address)? {
            return self.fail(error::WRITE_DATA);
        }
        let job = self.job()?;
        job.moved += job.chunk as u64;
        self.next_chunk()
    }

    /// The work is done; what is left is to tell.
    fn finish(&mut self) {
        let Some(job) = &mut self.channel.job else { return };
        job.done = 0;
        if job.work.completion && job.fault != fault::LOSE_COMPLETION {
            job.phase = Phase::Record;
        } else {
            self.conclude();
        }
    }

    fn record(&mut self) -> Result<(), Flow> {
        let Some(job) = &self.channel.job else { return Err(Flow::Idle) };
        if job.done == 0 {
            let record = self.channel.record(job).to_le_bytes();
            self.job()?.own[..8].copy_from_slice(&record);
        }
        let address = self.channel.record_address();
        if self.write(Purpose::CompletionRecord, address)? {
            self.conclude();
            return Ok(());
        }
        self.job()?.failed = true;
        self.fail(error::COMPLETION_ADDRESS)
    }

    /// Reads what is left of the present access. `Ok(false)`: it failed, and the channel has been told with `bits`.
    fn read(&mut self, purpose: Purpose, address: u64, bits: u32) -> Result<bool, Flow> {
        let Channel { job: Some(job), staging, waiting, .. } = &mut *self.channel else {
            return Err(Flow::Idle);
        };
        let length = job.access_length();
        let rest = length.saturating_sub(job.done);
        if job.failure.take().is_some() {
            self.fail(bits)?;
            return Ok(false);
        }
        if rest == 0 {
            return Ok(true);
        }
        self.budget.take(rest)?;
        let at = address.saturating_add(job.done as u64);
        let buffer = match job.phase {
            Phase::Source(_) => &mut staging[..],
            _ => &mut job.own[..],
        };
        let Some(into) = buffer.get_mut(job.done..length) else { return Err(Flow::Idle) };
        let begun = begun(purpose, address, job.moved);
        let outcome = self.port.part_of(begun).read(purpose, at, &VolatileSlice::from(into));
        let arrived = |bytes: u64| usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
        match outcome {
            ReadOutcome::Done { status: CompletionStatus::Success, .. } => {
                job.done = length;
                Ok(true)
            }
            ReadOutcome::Pending { tag, bytes, .. } => {
                job.done += arrived(bytes);
                *waiting = Some(tag);
                Err(Flow::More)
            }
            ReadOutcome::Retry { bytes, .. } => {
                job.done += arrived(bytes);
                Err(Flow::Later)
            }
            ReadOutcome::Done { .. } | ReadOutcome::NotEmitted => {
                self.fail(bits)?;
                Ok(false)
            }
        }
    }

    /// Writes what is left of the present access. `Ok(false)`: bus mastering is off.
    fn write(&mut self, purpose: Purpose, address: u64) -> Result<bool, Flow> {
        let Channel { job: Some(job), sum, .. } = &mut *self.channel else {
            return Err(Flow::Idle);
        };
        let length = job.access_length();
        let rest = length.saturating_sub(job.done);
        if rest == 0 {
            return Ok(true);
        }
        self.budget.take(rest)?;
        let at = address.saturating_add(job.done as u64);
        let buffer = match job.phase {
            Phase::Target => &mut sum[..],
            _ => &mut job.own[..],
        };
        let Some(from) = buffer.get_mut(job.done..length) else { return Err(Flow::Idle) };
        let begun = begun(purpose, address, job.moved);
        match self.port.part_of(begun).write(purpose, at, &VolatileSlice::from(from)) {
            WriteOutcome::Posted { .. } => {
                job.done = length;
                Ok(true)
            }
            WriteOutcome::Retry { bytes, .. } => {
                job.done += usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
                Err(Flow::Later)
            }
            WriteOutcome::NotEmitted => Ok(false),
        }
    }
}

/// Where the addresses begin that an access at `address` is a part of: those of a descriptor's source or destination, of
/// which `moved` bytes are over and done with.
fn begun(purpose: Purpose, address: u64, moved: u64) -> u64 {
    if purpose == Purpose::Data { address.saturating_sub(moved) } else { address }
}
