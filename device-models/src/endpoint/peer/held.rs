//! Data that the device keeps although its completion record is written, as a device with a
//! write-back cache that is not coherent with the CPU does. (Data that has left the device and is
//! still under way is the fabric's: `delay-posted`.)
//!
//! What a driver can rely on holds here too. A read by the same channel finds what it has written,
//! so reading back what was written last brings everything there first; so does the channel's next
//! descriptor, and so does the device's SYNC.

use vm_memory::VolatileSlice;

use super::channel::Channel;
use super::engine::Engine;
use super::job::Extra;
use super::regs::halt;
use crate::endpoint::dma::{Bus, DataPath, Flow, Phase};
use crate::fabric::{Purpose, WriteOutcome};

/// Data that has been written as far as the channel knows, and has not left the device.
#[derive(Debug)]
pub(super) struct Held {
    address: u64,
    data: Vec<u8>,
    /// Bytes that are there.
    done: usize,
    /// Steps of the engine until it goes by itself; `None`: it does not.
    countdown: Option<u32>,
    /// It leaves the device now.
    due: bool,
}

impl Held {
    /// A step is over. Whether time passes for it.
    pub(super) fn tick(&mut self) -> bool {
        match &mut self.countdown {
            Some(0) => self.due = true,
            Some(steps) => *steps -= 1,
            None => return self.due,
        }
        true
    }

    /// It leaves the device with the next step.
    pub(super) fn release(&mut self) {
        self.due = true;
    }
}

impl Channel {
    /// Whether data is under way that has to arrive before anything else is done.
    pub(super) fn held_first(&self) -> bool {
        let Some(held) = &self.held else { return false };
        let phase = self.path.job.as_ref().map(|job| job.phase);
        held.due || matches!(phase, Some(Phase::Fetch | Phase::Extra(Extra::Flush)))
    }
}

impl<B: Bus> Engine<'_, B> {
    /// Keeps the present chunk, which should have been written to `address`.
    pub(super) fn hold(&mut self, address: u64) {
        let Channel { path: DataPath { job: Some(job), staging, .. }, held, .. } =
            &mut *self.channel
        else {
            return;
        };
        let (chunk, steps) = (job.chunk, job.task.fault.argument.min(0xffff));
        let mut data = vec![0; chunk];
        if let Some(from) = job.slice(chunk, staging, Some(self.local)) {
            from.copy_to(&mut data[..]);
        }
        let countdown = (steps > 0).then_some(steps);
        *held = Some(Held { address, data, done: 0, countdown, due: false });
    }

    /// Writes what is held.
    pub(super) fn deliver_held(&mut self) -> Result<(), Flow> {
        let Some(held) = &mut self.channel.held else { return Ok(()) };
        let rest = held.data.len().saturating_sub(held.done);
        self.budget.take(rest)?;
        let at = held.address.saturating_add(held.done as u64);
        let from = VolatileSlice::from(&mut held.data[held.done..]);
        match self.bus.write(Purpose::Data, held.address, at, &from) {
            WriteOutcome::Posted { verdict } => {
                self.channel.held = None;
                self.channel.note(verdict, at);
                Ok(())
            }
            WriteOutcome::Retry { bytes, verdict } => {
                held.done += usize::try_from(bytes).map_or(rest, |bytes| bytes.min(rest));
                self.channel.note(verdict, at);
                Err(Flow::Later)
            }
            WriteOutcome::NotEmitted => {
                self.channel.held = None;
                self.channel.halt(halt::BUS_MASTER, at);
                Err(Flow::More)
            }
        }
    }
}
