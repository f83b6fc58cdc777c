//! Scheduling: messages first, then the engines, one bounded step at a time.

use super::System;
use crate::endpoint::{Progress, ReadCompletion};
use crate::fabric::{FunctionId, Message, Port};

/// Turns that a busy function has in a row. Asking all the others whether they have something to do
/// costs more than a small copy does.
const TURNS: u8 = 8;

/// Messages that one turn delivers at most.
const MESSAGES: usize = 64;

impl System {
    /// Gives the next function that has something to do its turn: moves at most 64 KiB.
    ///
    /// [`Progress::Idle`] means that nothing will happen until the next access from outside.
    pub fn step(&mut self) -> Progress {
        let count = self.states.len();
        for _ in 0..count {
            let function = FunctionId(u16::try_from(self.turn).unwrap_or(0));
            if self.step_function(function) == Progress::Worked {
                self.turns += 1;
                if self.turns >= TURNS {
                    self.next_function(count);
                }
                return Progress::Worked;
            }
            self.next_function(count);
        }
        Progress::Idle
    }

    fn next_function(&mut self, count: usize) {
        self.turn = (self.turn + 1) % count;
        self.turns = 0;
    }

    /// Gives `function` a turn out of order, as a replay does with a recorded
    /// [`Input::Step`](crate::fabric::Input::Step).
    pub fn step_function(&mut self, function: FunctionId) -> Progress {
        if function.index() >= self.states.len() {
            return Progress::Idle;
        }
        self.fabric.begin_turn(function);
        let progress = self.run_function(function);
        self.fabric.end_turn(progress == Progress::Worked);
        progress
    }

    /// Runs `function` once.
    pub(super) fn run_function(&mut self, function: FunctionId) -> Progress {
        let mut progress = self.finish_reset(function);
        if self.fabric.untranslated() == Some(function) {
            // What the guest has mapped is judged by the translation that it had then.
            self.fabric.drain_witness();
        }
        if self.deliver(function) | self.deliver_held_back(function) {
            progress = Progress::Worked;
        }
        let state = &mut self.states[function.index()];
        if let Some(endpoint) = state.endpoint()
            && endpoint.step(&mut Port::new(&mut self.fabric, function)) == Progress::Worked
        {
            progress = Progress::Worked;
        }
        if self.fabric.untranslated() == Some(function) {
            self.fabric.drain_translated();
            self.fabric.follow_unmaps();
        }
        let waits = self.fabric.has_outstanding_reads(function);
        if self.fabric.delayed_turn(function, progress == Progress::Idle && !waits) {
            progress = Progress::Worked;
        }
        self.log_errors();
        self.update_transactions_pending(function);
        progress
    }

    /// Delivers what waits for `function`, and its answers that had to wait; whether there was
    /// anything.
    pub(super) fn deliver(&mut self, function: FunctionId) -> bool {
        let mut any = self.fabric.send_answers(function);
        for _ in 0..MESSAGES {
            let Some(message) = self.fabric.next_message(function) else { break };
            any = true;
            match message {
                Message::Write { bar, offset, msix, data, hops, .. } => {
                    self.fabric.set_hops(function, hops);
                    // Registers are at most 8 bytes wide: a longer TLP writes them one after the
                    // other.
                    for (chunk, at) in data.chunks(8).zip((offset..).step_by(8)) {
                        self.write_registers(function, bar, at, msix, chunk);
                    }
                }
                Message::Read { from, bar, offset, msix, length, tag, .. } => {
                    let mut data = vec![0xff; usize::from(length)].into_boxed_slice();
                    for (chunk, at) in data.chunks_mut(8).zip((offset..).step_by(8)) {
                        self.read_registers(function, bar, at, msix, chunk);
                    }
                    self.fabric.answer(function, from, tag, data);
                }
                Message::Completion { tag, status, data } => {
                    if !self.fabric.take_completion(function, tag, status, &data) {
                        continue;
                    }
                    if let Some(endpoint) = self.states[function.index()].endpoint() {
                        endpoint.completion(tag, ReadCompletion { status, data: &data });
                    }
                }
            }
        }
        any
    }
}
