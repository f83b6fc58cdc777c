//! The DMA engine: executes descriptors, one access at a time, within a budget per step.

use super::DeviceRegisters;
use super::channel::{Channel, Extend, Job};
use super::descriptor::{Operation, Work};
use super::regs::{error, fault, interrupt_control};
use crate::endpoint::Progress;
use crate::endpoint::dma::{Budget, CHUNK, DataPath, Flow, Phase, ReadEnd, WriteEnd, in_turn};
use crate::fabric::{Port, Purpose, WriteOutcome};

/// One step: channels in turn, beginning with `first`, until the budget is used up.
pub(super) fn step(
    channels: &mut [Channel],
    device: &mut DeviceRegisters,
    first: &mut usize,
    port: &mut Port<'_>,
) -> Progress {
    let mut waited = false;
    for channel in channels.iter_mut() {
        channel.path.release_tag(port);
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
        if self.channel.path.is_waiting() {
            return Flow::Idle;
        }
        let Some(job) = &self.channel.path.job else {
            return if self.channel.next_job() { Flow::More } else { Flow::Idle };
        };
        let result = match job.phase {
            Phase::Fetch => self.fetch(),
            Phase::Extra(Extend) => self.extend(),
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
        self.channel.path.job.as_mut().ok_or(Flow::Idle)
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
        let address = self.job()?.task.address;
        if !self.read(Purpose::DescriptorFetch, address, error::NEXT_ADDRESS)? {
            return Ok(());
        }
        let (fault, longest) = (self.device.take_fault(), self.device.longest_transfer());
        let job = self.job()?;
        (job.task.fault, job.done) = (fault, 0);
        match Work::parse(&job.own, longest) {
            Ok(work) => job.task.work = work,
            Err(bits) => return self.fail(bits),
        }
        if fault == fault::SWAP {
            job.task.work.swap();
        }
        if job.task.work.places > 1 {
            if !job.task.work.next.is_multiple_of(64) {
                return self.fail(error::NEXT_ALIGNMENT);
            }
            job.phase = Phase::Extra(Extend);
            return Ok(());
        }
        self.begin()
    }

    fn extend(&mut self) -> Result<(), Flow> {
        let address = self.job()?.task.work.next;
        if !self.read(Purpose::DescriptorFetch, address, error::NEXT_ADDRESS)? {
            return Ok(());
        }
        let job = self.job()?;
        job.task.work.extend(&job.own);
        job.done = 0;
        self.begin()
    }

    /// The descriptor is complete.
    fn begin(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        if let Err(bits) = job.task.work.check_ranges() {
            return self.fail(bits);
        }
        match job.task.work.operation {
            Operation::Null => {
                self.finish();
                return Ok(());
            }
            Operation::Fill(pattern) => {
                let length = job.task.work.length;
                self.channel.path.stage_pattern(pattern, length);
            }
            Operation::Move | Operation::Check => {}
        }
        self.next_chunk()
    }

    fn next_chunk(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        if !job.begin_chunk(job.task.work.length, CHUNK) {
            self.finish();
            return Ok(());
        }
        let fills = matches!(job.task.work.operation, Operation::Fill(_));
        job.phase = if fills { Phase::Target } else { Phase::Source(0) };
        Ok(())
    }

    fn gather(&mut self, index: usize) -> Result<(), Flow> {
        let job = self.job()?;
        let Some(&source) = job.task.work.sources.get(index) else { return Err(Flow::Idle) };
        // Ranges were checked when the descriptor was.
        let address = source.saturating_add(job.moved);
        if !self.read(Purpose::Data, address, error::READ_DATA)? {
            return Ok(());
        }
        let DataPath { job: Some(job), staging, .. } = &mut self.channel.path else {
            return Ok(());
        };
        let (sum, read) = staging.split_at_mut(CHUNK);
        job.done = 0;
        if index > 0 {
            sum.iter_mut().zip(&read[..job.chunk]).for_each(|(sum, byte)| *sum ^= byte);
        }
        if index + 1 < job.task.work.sources.len() {
            job.phase = Phase::Source(index + 1);
            return Ok(());
        }
        if job.task.fault == fault::CORRUPT_DATA && job.moved == 0 {
            sum[0] = !sum[0];
        }
        if job.task.work.operation == Operation::Check {
            return self.check();
        }
        job.phase = Phase::Target;
        Ok(())
    }

    /// All that was read must cancel out.
    fn check(&mut self) -> Result<(), Flow> {
        let DataPath { job: Some(job), staging, .. } = &mut self.channel.path else {
            return Ok(());
        };
        // What is read decides what is done next, and a replay does not have the data.
        let mut differs = [u8::from(staging[..job.chunk].iter().any(|byte| *byte != 0))];
        job.moved += job.chunk as u64;
        self.port.outside_input(&mut differs);
        if differs[0] != 0 {
            return self.fail(error::XOR);
        }
        self.next_chunk()
    }

    fn deliver(&mut self) -> Result<(), Flow> {
        let job = self.job()?;
        let address = job.task.work.destination.saturating_add(job.moved);
        if !self.write(Purpose::Data, address)? {
            return self.fail(error::WRITE_DATA);
        }
        let job = self.job()?;
        job.moved += job.chunk as u64;
        self.next_chunk()
    }

    /// The work is done; the record is left.
    fn finish(&mut self) {
        let Some(job) = &mut self.channel.path.job else { return };
        job.done = 0;
        if job.task.work.completion && job.task.fault != fault::LOSE_COMPLETION {
            job.phase = Phase::Record;
        } else {
            self.conclude();
        }
    }

    fn record(&mut self) -> Result<(), Flow> {
        let Some(job) = &self.channel.path.job else { return Err(Flow::Idle) };
        if job.done == 0 {
            let record = self.channel.record(job).to_le_bytes();
            self.job()?.own[..8].copy_from_slice(&record);
        }
        let address = self.channel.record_address();
        if self.write(Purpose::CompletionRecord, address)? {
            self.conclude();
            return Ok(());
        }
        self.job()?.task.failed = true;
        self.fail(error::COMPLETION_ADDRESS)
    }

    /// Reads what is left of the present access. `Ok(false)`: it failed, and CHANERR holds `bits`.
    fn read(&mut self, purpose: Purpose, address: u64, bits: u32) -> Result<bool, Flow> {
        let Self { channel, port, budget, .. } = self;
        match channel.path.read(*port, budget, None, purpose, address)?.end {
            ReadEnd::Done => Ok(true),
            ReadEnd::Unfinished(flow) => Err(flow),
            ReadEnd::Failed(_) | ReadEnd::NotEmitted => {
                self.fail(bits)?;
                Ok(false)
            }
        }
    }

    /// Writes what is left of the present access. `Ok(false)`: bus mastering is off.
    fn write(&mut self, purpose: Purpose, address: u64) -> Result<bool, Flow> {
        let Self { channel, port, budget, .. } = self;
        match channel.path.write(*port, budget, None, purpose, address, None)?.end {
            WriteEnd::Done => Ok(true),
            WriteEnd::Unfinished(flow) => Err(flow),
            WriteEnd::NotEmitted => Ok(false),
        }
    }
}
