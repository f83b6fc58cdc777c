//! What the engine needs from the fabric.

use vm_memory::VolatileSlice;

use crate::checker::FindingClass;
use crate::fabric::{Port, Purpose, ReadOutcome, Tag, WriteOutcome};

/// The engine's side of a [`Port`]; tests put a scripted one in its place.
pub(super) trait Bus {
    /// See [`Port::read`].
    fn read(&mut self, purpose: Purpose, address: u64, into: &VolatileSlice<'_>) -> ReadOutcome;
    /// See [`Port::write`].
    fn write(&mut self, purpose: Purpose, address: u64, from: &VolatileSlice<'_>) -> WriteOutcome;
    /// See [`Port::raise`].
    fn raise(&mut self, vector: u16) -> WriteOutcome;
    /// See [`Port::outside_input`].
    fn outside_input(&mut self, value: &mut [u8]);
    /// See [`Port::report`].
    fn report(&mut self, class: FindingClass, explanation: String);
    /// See [`Port::abandon`].
    fn abandon(&mut self, tag: Tag);
}

impl Bus for Port<'_> {
    fn read(&mut self, purpose: Purpose, address: u64, into: &VolatileSlice<'_>) -> ReadOutcome {
        Port::read(self, purpose, address, into)
    }

    fn write(&mut self, purpose: Purpose, address: u64, from: &VolatileSlice<'_>) -> WriteOutcome {
        Port::write(self, purpose, address, from)
    }

    fn raise(&mut self, vector: u16) -> WriteOutcome {
        Port::raise(self, vector)
    }

    fn outside_input(&mut self, value: &mut [u8]) {
        Port::outside_input(self, value);
    }

    fn report(&mut self, class: FindingClass, explanation: String) {
        Port::report(self, class, explanation);
    }

    fn abandon(&mut self, tag: Tag) {
        Port::abandon(self, tag);
    }
}
