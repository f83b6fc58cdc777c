//! The guest's witness comes, asks for its rings to be emptied, and goes.

use super::System;
use crate::fabric::WitnessInput;
use crate::witness::{Clock, Counters};

impl System {
    /// Gives the witness a clock, for sentences such as "unmapped 3.1 ms earlier".
    pub fn set_witness_clock(&mut self, clock: Box<dyn Clock>) {
        self.fabric.set_witness_clock(clock);
    }

    /// The guest's witness has its header in this page frame; 0: it goes. A header that makes no
    /// sense changes nothing; a warning says so, once.
    pub fn witness_attach(&mut self, frame: u32) {
        self.witness_drain();
        self.fabric.attach_witness(frame);
    }

    /// Takes everything that is in the rings of the guest's witness.
    pub fn witness_drain(&mut self) {
        self.fabric.drain_witness_for_guest();
    }

    /// For replays: what a record has in place of [`System::witness_attach`] and
    /// [`System::witness_drain`]. The records themselves come from
    /// [`Observer::next_record`](crate::fabric::Observer::next_record).
    pub fn witness_input(&mut self, kind: WitnessInput, data: &[u8]) {
        self.fabric.replay_witness(kind, data);
    }

    /// What the witness has seen, and what was held against it.
    pub fn witness(&self) -> &Counters {
        self.fabric.witness_counters()
    }
}
