//! What went where, in bytes: the answer to "did the data really take that path?".

use super::{FunctionId, Kind};

/// How a delivered request travelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteKind {
    /// Through the root complex to guest RAM.
    Memory,
    /// Through the root complex to another function: past the IOMMU, which translated it.
    ThroughHostBridge,
    /// Turned around in a switch by bus address: the root complex and its IOMMU never saw it.
    BusAddress,
    /// Into the interrupt window.
    Interrupt,
}

impl RouteKind {
    /// Every kind, in the order of [`Counters`].
    pub const ALL: [Self; 4] =
        [Self::Memory, Self::ThroughHostBridge, Self::BusAddress, Self::Interrupt];

    /// The name that reports use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::ThroughHostBridge => "through-host-bridge",
            Self::BusAddress => "bus-address",
            Self::Interrupt => "interrupt",
        }
    }
}

/// What one function's delivered requests added up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Bytes read, by [`RouteKind`].
    pub bytes_read: [u64; 4],
    /// Bytes written, by [`RouteKind`].
    pub bytes_written: [u64; 4],
    /// Bytes that others read out of its BARs, by [`RouteKind`].
    pub bytes_given: [u64; 4],
    /// Bytes that others wrote to its BARs, by [`RouteKind`].
    pub bytes_taken: [u64; 4],
    /// Request TLPs issued, delivered or not.
    pub tlps: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Findings about this function.
    pub findings: u64,
}

/// Counters of all functions.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    functions: Vec<Counters>,
}

impl Stats {
    pub(crate) fn new(functions: usize) -> Self {
        Self { functions: vec![Counters::default(); functions] }
    }

    /// The counters of one function.
    pub fn of(&self, function: FunctionId) -> &Counters {
        &self.functions[function.index()]
    }

    /// A request of `from` was delivered: to a BAR of `to`, or to nobody's.
    #[inline]
    pub(super) fn delivered(
        &mut self,
        from: FunctionId,
        to: Option<FunctionId>,
        kind: Kind,
        route: RouteKind,
        bytes: u64,
    ) {
        let route = route as usize;
        let requester = self.of_mut(from);
        match kind {
            Kind::MemoryRead => requester.bytes_read[route] += bytes,
            Kind::MemoryWrite => requester.bytes_written[route] += bytes,
        }
        let Some(to) = to else { return };
        let owner = self.of_mut(to);
        match kind {
            Kind::MemoryRead => owner.bytes_given[route] += bytes,
            Kind::MemoryWrite => owner.bytes_taken[route] += bytes,
        }
    }

    pub(super) fn of_mut(&mut self, function: FunctionId) -> &mut Counters {
        &mut self.functions[function.index()]
    }
}
