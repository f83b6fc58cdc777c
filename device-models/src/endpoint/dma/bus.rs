//! What the engine needs from the fabric.

use vm_memory::VolatileSlice;

use crate::checker::{Cause, FindingClass};
use crate::fabric::{Port, Purpose, ReadOutcome, Tag, WriteOutcome};

/// The engine's side of a [`Port`]; tests put a scripted one in its place.
pub(in crate::endpoint) trait Bus {
    /// See [`Port::read`]; `begun` as in [`Port::part_of`].
    fn read(
        &mut self,
        purpose: Purpose,
        begun: u64,
        address: u64,
        into: &VolatileSlice<'_>,
    ) -> ReadOutcome;
    /// See [`Port::write`].
    fn write(
        &mut self,
        purpose: Purpose,
        begun: u64,
        address: u64,
        from: &VolatileSlice<'_>,
    ) -> WriteOutcome;
    /// See [`Port::raise`].
    fn raise(&mut self, vector: u16) -> WriteOutcome;
    /// See [`Port::outside_input`].
    fn outside_input(&mut self, value: &mut [u8]);
    /// See [`Port::report`].
    fn report(&mut self, class: FindingClass, cause: Cause, explanation: String);
    /// See [`Port::abandon`].
    fn abandon(&mut self, tag: Tag);
}

impl Bus for Port<'_> {
    fn read(
        &mut self,
        purpose: Purpose,
        begun: u64,
        address: u64,
        into: &VolatileSlice<'_>,
    ) -> ReadOutcome {
        self.part_of(begun).read(purpose, address, into)
    }

    fn write(
        &mut self,
        purpose: Purpose,
        begun: u64,
        address: u64,
        from: &VolatileSlice<'_>,
    ) -> WriteOutcome {
        self.part_of(begun).write(purpose, address, from)
    }

    fn raise(&mut self, vector: u16) -> WriteOutcome {
        Port::raise(self, vector)
    }

    fn outside_input(&mut self, value: &mut [u8]) {
        Port::outside_input(self, value);
    }

    fn report(&mut self, class: FindingClass, cause: Cause, explanation: String) {
        Port::report(self, class, cause, explanation);
    }

    fn abandon(&mut self, tag: Tag) {
        Port::abandon(self, tag);
    }
}
