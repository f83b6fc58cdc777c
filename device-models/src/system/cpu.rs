//! Register accesses by the guest's CPUs.

use super::System;
use crate::endpoint::Progress;
use crate::fabric::{FunctionId, Input, Target, for_cpu};

/// Steps that one register write may take in the CPU's own time: a full virtqueue's worth.
const EXIT_BUDGET: usize = 1024;

/// Rounds in which a function takes what a CPU pushes to its registers, 64 writes each: as much as
/// 64 paths hold.
const PUSH_ROUNDS: usize = 2048;

impl System {
    /// A CPU reads `data.len()` (1 to 8) bytes at physical address `address`: all ones when no
    /// function answers. Posted writes that are under way to the function come first.
    ///
    /// [`Progress::Worked`] means that this may have left something for [`System::step`].
    pub fn mmio_read(&mut self, address: u64, data: &mut [u8]) -> Progress {
        data.fill(0xff);
        let Some((target, progress)) = self.reach(address, data.len()) else {
            return Progress::Idle;
        };
        match target {
            Some(Target::Memory { memory, offset, .. }) => {
                if let Some(slice) =
                    self.fabric.map().memories.get(memory).and_then(|m| m.slice(offset, data.len()))
                {
                    slice.copy_to(data);
                }
            }
            Some(Target::Registers { function, bar, offset, msix }) => {
                self.read_registers(function, bar, offset, msix, data);
                // In the record what the completion pushes comes behind its cause.
                self.input(&Input::MmioRead { address, data });
                self.fabric.completed_to_cpu(function);
                self.log_errors();
            }
            None => {}
        }
        progress
    }

    /// A CPU writes `data` (1 to 8 bytes) to physical address `address`; lost when no function
    /// claims it. Posted writes that are under way to the function come first.
    ///
    /// [`Progress::Idle`] means that all it led to is done, and that it leaves nothing for
    /// [`System::step`].
    pub fn mmio_write(&mut self, address: u64, data: &[u8]) -> Progress {
        let Some((target, progress)) = self.reach(address, data.len()) else {
            return Progress::Idle;
        };
        match target {
            Some(Target::Memory { memory, offset, .. }) => {
                if let Some(slice) =
                    self.fabric.map().memories.get(memory).and_then(|m| m.slice(offset, data.len()))
                {
                    slice.copy_from(data);
                }
                progress
            }
            Some(Target::Registers { function, bar, offset, msix }) => {
                self.input(&Input::MmioWrite { address, data });
                // A CPU is where a chain of causes begins.
                self.fabric.set_hops(function, 0);
                self.write_registers(function, bar, offset, msix, data);
                let served = self.serve_in_exit(function);
                if progress == Progress::Worked { progress } else { served }
            }
            None => progress,
        }
    }

    /// A CPU's request for a BAR of `function` pushes what has been posted to it, and the function
    /// takes what of that goes to its registers: the request comes behind. Replays call this by
    /// itself; a record has it as an input of its own.
    ///
    /// [`Progress::Worked`] means that there was something.
    pub fn cpu_push(&mut self, function: FunctionId) -> Progress {
        if function.index() >= self.states.len() || !self.fabric.cpu_request_pushes(function) {
            return Progress::Idle;
        }
        self.input(&Input::CpuPush { function });
        for _ in 0..PUSH_ROUNDS {
            let all = self.fabric.push_for_cpu(function);
            if !self.deliver(function) && all {
                break;
            }
        }
        self.log_errors();
        Progress::Worked
    }

    /// A CPU's request reaches its target: what is there then, and whether it has pushed anything.
    fn reach(&mut self, address: u64, length: usize) -> Option<(Option<Target>, Progress)> {
        let target = self.decode(address, length)?;
        let pushed = target.owner().map_or(Progress::Idle, |owner| self.cpu_push(owner));
        // What has been pushed to registers may have moved BARs.
        let target = match pushed {
            Progress::Worked => self.decode(address, length),
            Progress::Idle => Some(target),
        };
        Some((target, pushed))
    }

    fn decode(&self, address: u64, length: usize) -> Option<Target> {
        let length = length as u64;
        let decision = for_cpu(self.fabric.map(), address, length);
        decision.outcome.ok().filter(|_| decision.length >= length)
    }

    pub(super) fn read_registers(
        &mut self,
        function: FunctionId,
        bar: u8,
        offset: u64,
        msix: bool,
        data: &mut [u8],
    ) {
        if msix {
            if let Some(table) = self.fabric.msix_table(function) {
                table.read(offset, data);
            }
        } else if let Some(endpoint) = self.states[function.index()].endpoint() {
            endpoint.register_read(bar, offset, data);
        }
    }

    pub(super) fn write_registers(
        &mut self,
        function: FunctionId,
        bar: u8,
        offset: u64,
        msix: bool,
        data: &[u8],
    ) {
        if msix {
            if let Some(table) = self.fabric.msix_table(function) {
                table.write(offset, data);
                self.deliver_pending(function);
            }
        } else if let Some(endpoint) = self.states[function.index()].endpoint() {
            let work = endpoint.asks_for_work(bar, offset, data);
            endpoint.register_write(bar, offset, data);
            self.fabric.registers_written(function, work);
        }
    }

    /// Finishes the work of a function whose driver waits for it with interrupts off. Whether there
    /// may be something left for a step.
    pub(super) fn serve_in_exit(&mut self, function: FunctionId) -> Progress {
        let served = self.states[function.index()]
            .endpoint()
            .is_some_and(|endpoint| endpoint.served_in_exit());
        if !served {
            return Progress::Worked;
        }
        let idle = (0..EXIT_BUDGET).any(|_| self.run_function(function) == Progress::Idle);
        if idle && self.fabric.is_still() { Progress::Idle } else { Progress::Worked }
    }
}
