//! Bytes by route and target: the answer to "did the data really take that path?".

use super::{FunctionId, Kind, Transaction};

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
    /// Request TLPs issued, delivered or not.
    pub tlps: u64,
    /// Interrupts delivered.
    pub interrupts: u64,
    /// Findings about this function.
    pub findings: u64,
}

impl Counters {
    pub(super) fn delivered(&mut self, kind: Kind, route: RouteKind, bytes: u64) {
        let by_route = match kind {
            Kind::MemoryRead => &mut self.bytes_read,
            Kind::MemoryWrite => &mut self.bytes_written,
        };
        by_route[route as usize] += bytes;
    }
}

/// What one function's delivered requests to one target added up to, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Read from it.
    pub read: u64,
    /// Written to it.
    pub written: u64,
}

/// Out of the way of every transaction but a function's first.
#[cold]
fn fresh(targets: &mut Vec<Moved>, all: usize) {
    *targets = vec![Moved::default(); all];
}

/// Counters of all functions.
#[derive(Debug, Clone, Default)]
pub struct Stats {
    functions: Vec<Counters>,
    /// By requester, if it has moved anything: RAM first, then every function.
    targets: Vec<Vec<Moved>>,
}

impl Stats {
    pub(crate) fn new(functions: usize) -> Self {
        Self {
            functions: vec![Counters::default(); functions],
            targets: vec![Vec::new(); functions],
        }
    }

    /// What `requester` has moved, by target, as far as it has moved anything: RAM (none) and BARs
    /// of functions.
    pub fn by_target(
        &self,
        requester: FunctionId,
    ) -> impl Iterator<Item = (Option<FunctionId>, Moved)> + '_ {
        let targets = self.targets.get(requester.index()).map(Vec::as_slice).unwrap_or_default();
        let names = std::iter::once(None).chain((0..=u16::MAX).map(|id| Some(FunctionId(id))));
        names.zip(targets.iter().copied()).filter(|(_, moved)| *moved != Moved::default())
    }

    /// Counts a transaction that has arrived at a BAR of `owner`, or in RAM.
    #[inline]
    pub(super) fn delivered(
        &mut self,
        transaction: &Transaction,
        route: RouteKind,
        owner: Option<FunctionId>,
    ) {
        let Transaction { function, kind, length, .. } = *transaction;
        self.of_mut(function).delivered(kind, route, length);
        let all = self.functions.len() + 1;
        let targets = &mut self.targets[function.index()];
        if targets.is_empty() {
            fresh(targets, all);
        }
        let moved = &mut targets[owner.map_or(0, |owner| owner.index() + 1)];
        match kind {
            Kind::MemoryRead => moved.read += length,
            Kind::MemoryWrite => moved.written += length,
        }
    }

    /// The counters of one function.
    pub fn of(&self, function: FunctionId) -> &Counters {
        &self.functions[function.index()]
    }

    pub(super) fn of_mut(&mut self, function: FunctionId) -> &mut Counters {
        &mut self.functions[function.index()]
    }
}
