//! The fabric: takes every request of every function to its target, or finds out why it does not
//! arrive.
//!
//! All of it lives under the system's one lock. A translation is used before the lock is given up,
//! so no unmap slips between check and use; a step moves at most 64 KiB, which bounds the wait for
//! the lock.

mod acs;
mod answer;
mod arrive;
mod cache;
mod cpu_push;
mod delayed;
mod error;
mod functions;
mod hint;
mod inbox;
mod interrupt;
mod map;
mod observer;
mod outstanding;
mod port;
mod read;
mod report;
mod request;
mod resolve;
mod root_complex;
mod route;
mod stats;
mod transaction;
mod watch;
mod what_if;
mod witnessed;
mod write;

use std::collections::VecDeque;
use std::sync::Arc;

pub use delayed::{BadDelay, MAX_TURNS as MAX_DELAY_TURNS, PostedDelay};
pub use error::DetectedError;
pub use interrupt::{InterruptPolicy, InterruptSink};
pub use map::{AddressMap, BarTarget, GuestMapping, MappedBar, Node, NodeKind};
pub use observer::{Delivery, Input, Observer, WitnessInput};
pub use port::Port;
pub use root_complex::{HostWindow, PeerRouting, RootComplex};
pub use route::{Target, for_cpu};
pub use stats::{Counters, Moved, RouteKind, Stats};
pub use transaction::{
    CompletionStatus, FunctionId, Kind, Purpose, ReadOutcome, Tag, Transaction, WriteOutcome,
};

pub use what_if::{Alternative, Fate, MapChange};

pub(crate) use delayed::MAX_PATHS as MAX_DELAYED_PATHS;
pub(crate) use inbox::Message;

use crate::AddressRange;
use crate::checker::{Cause, Finding, FindingClass, Runs, Said, Severity};
use crate::iommu::Iommu;
use crate::pci::Abort;
use crate::witness::Witness;
use answer::Answer;
use cache::Cache;
use delayed::Delayed;
use inbox::Inbox;
use interrupt::Interrupts;
use outstanding::Outstanding;
use request::Request;
use watch::Watch;
use what_if::WhatIf;

/// Where a dword write is an interrupt on x86 platforms.
pub const INTERRUPT_WINDOW: AddressRange = AddressRange { first: 0xfee0_0000, last: 0xfeef_ffff };

/// Bytes that one request to a [`Port`] may move at most: the work of one step.
pub const MAX_RUN: u64 = 64 << 10;

/// Device-to-device register writes in a row, without a CPU in between, before the chain is cut.
pub const MAX_HOPS: u8 = 64;

/// Detected errors that wait to be logged; more are lost, as they are on hardware (PCIe 6.0,
/// 6.2.4.2).
const MAX_ERRORS: usize = 64;

/// Routes, translates, checks and carries out every request; keeps what is under way. See the
/// module.
pub(crate) struct Fabric {
    map: Arc<AddressMap>,
    iommu: Box<dyn Iommu>,
    inboxes: Vec<Inbox>,
    interrupts: Vec<Interrupts>,
    outstanding: Vec<Outstanding>,
    /// Completions that wait behind their completer's own writes.
    answers: Vec<VecDeque<Answer>>,
    errors: Vec<DetectedError>,
    /// Reads that were answered with an error, to be shown in their requesters' Status registers.
    aborts: Vec<(FunctionId, Abort)>,
    hops: Vec<u8>,
    stats: Stats,
    watch: Watch,
    sink: Box<dyn InterruptSink>,
    policy: InterruptPolicy,
    /// Bulk data stays where it is, as long as observers see all requests and none wants its bytes.
    leaves_data: bool,
    /// The virtio-iommu's own function, whose requests are not translated (virtio 1.3, 5.13.2).
    exempt: Option<FunctionId>,
    /// By function: Bus Master Enable was cleared, and nothing has asked for work since. What is
    /// left over is not emitted, and the kernel does so itself before a reset and on unbind.
    quiesced: Vec<bool>,
    /// Findings about addresses that lead nowhere.
    runs: Runs,
    /// The last hint about a fault: the requester, the cause and the text.
    last_fault: Option<(FunctionId, Cause, Said)>,
    /// Posted writes that tests keep under way.
    delayed: Delayed,
    /// The epoch of the IOMMU for which writes that it has translated have been drained.
    drained: u64,
    caches: Vec<[Cache; 2]>,
    /// What the guest says that it has mapped.
    witness: Witness,
    /// The last function that used what was unmapped, as the witness told, and the cause.
    stale: Option<(FunctionId, Cause)>,
    /// What would become of each transaction with another map: for replays.
    what_if: Option<WhatIf>,
    sequence: u64,
    tag: u32,
}

impl std::fmt::Debug for Fabric {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fabric")
            .field("epoch", &self.map.epoch)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

impl Fabric {
    pub(crate) fn new(
        functions: usize,
        iommu: Box<dyn Iommu>,
        sink: Box<dyn InterruptSink>,
    ) -> Self {
        fn each<T: Default>(count: usize) -> Vec<T> {
            std::iter::repeat_with(T::default).take(count).collect()
        }
        Self {
            map: Arc::default(),
            iommu,
            inboxes: each(functions),
            interrupts: each(functions),
            outstanding: each(functions),
            answers: each(functions),
            errors: Vec::new(),
            aborts: Vec::new(),
            hops: vec![0; functions],
            stats: Stats::new(functions),
            watch: Watch::default(),
            sink,
            policy: InterruptPolicy::default(),
            leaves_data: false,
            exempt: None,
            quiesced: vec![false; functions],
            runs: Runs::default(),
            last_fault: None,
            delayed: Delayed::default(),
            drained: 0,
            caches: each(functions),
            witness: Witness::new(functions),
            stale: None,
            what_if: None,
            sequence: 0,
            tag: 0,
        }
    }

    /// Whether nothing is on its way to any function, or is held back on it.
    pub(crate) fn is_still(&self) -> bool {
        self.delayed.is_off()
            && self.inboxes.iter().all(Inbox::is_empty)
            && self.answers.iter().all(VecDeque::is_empty)
    }

    /// TLPs issued since power-on.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    fn epochs(&self) -> (u64, u64) {
        (self.map.epoch, self.iommu.epoch())
    }

    /// Whether a function may issue this request, or any; a finding if not.
    fn may_issue(&mut self, request: &Request<'_>) -> bool {
        let Request { from, kind, purpose, address, .. } = *request;
        let node = self.map.node(from);
        let (class, explanation) = match (node.operational, node.bus_master) {
            (true, true) => return true,
            (false, _) => (
                FindingClass::NotInD0,
                "the function is in reset or not in D0, so nothing was emitted",
            ),
            (true, false) => {
                (FindingClass::BusMasterOff, "Bus Master Enable is clear, so nothing was emitted")
            }
        };
        let left_over = !node.bus_master && self.quiesced[from.index()];
        let transaction = self.describe(from, kind, purpose, address, request.buffer.len() as u64);
        let (severity, explanation) = if left_over {
            let class = "Bus Master Enable was cleared with work under way, as the kernel does \
                before a reset and on \
                         unbind: nothing was emitted, and nothing new was asked for since";
            (Severity::Note, class)
        } else {
            (Severity::Finding, explanation)
        };
        self.report_as(
            severity,
            from,
            class,
            Cause::Function,
            Some(transaction),
            explanation.to_owned(),
        );
        false
    }

    /// A CPU or another function writes to registers of `function`; whether that asks for work.
    pub(crate) fn registers_written(&mut self, function: FunctionId, work: bool) {
        if work && !self.map.node(function).bus_master {
            self.quiesced[function.index()] = false;
        }
    }

    /// Replaces the address map.
    pub(crate) fn publish(&mut self, map: AddressMap) {
        for (quiesced, (before, now)) in
            self.quiesced.iter_mut().zip(self.map.nodes.iter().zip(&map.nodes))
        {
            if before.bus_master != now.bus_master {
                *quiesced = before.bus_master;
            }
        }
        self.map = Arc::new(map);
    }

    /// The transaction that `length` bytes from `address` would be; takes no sequence numbers yet.
    fn describe(
        &self,
        from: FunctionId,
        kind: Kind,
        purpose: Purpose,
        address: u64,
        length: u64,
    ) -> Transaction {
        let node = self.map.node(from);
        let tlp_limit = match kind {
            Kind::MemoryRead => node.max_read_request,
            Kind::MemoryWrite => node.max_payload,
        };
        Transaction {
            sequence: self.sequence,
            requester: node.requester,
            function: from,
            kind,
            purpose,
            address,
            length,
            tlp_limit,
        }
    }

    /// Gives a transaction its place in the order of all TLPs.
    fn issue(&mut self, transaction: &Transaction) {
        let count = transaction.tlp_count();
        self.sequence += count;
        self.stats.of_mut(transaction.function).tlps += count;
    }

    /// Reports a mistake.
    pub(crate) fn report(
        &mut self,
        function: FunctionId,
        class: FindingClass,
        cause: Cause,
        transaction: Option<Transaction>,
        explanation: String,
    ) {
        self.report_as(Severity::Finding, function, class, cause, transaction, explanation);
    }

    fn report_as(
        &mut self,
        severity: Severity,
        function: FunctionId,
        class: FindingClass,
        cause: Cause,
        transaction: Option<Transaction>,
        explanation: String,
    ) {
        if severity == Severity::Finding {
            self.stats.of_mut(function).findings += 1;
        }
        let node = self.map.node(function);
        let (name, requester) = (Arc::clone(&node.name), node.requester);
        let finding =
            Finding { class, severity, cause, transaction, requester, function: name, explanation };
        log::debug!("{}: {finding}", severity.name());
        if let Some(observer) = self.watch.observer() {
            observer.finding(&finding);
        }
    }

    /// A transaction has arrived at `owner`, or in RAM.
    #[inline]
    fn delivered(
        &mut self,
        transaction: &Transaction,
        route: RouteKind,
        owner: Option<FunctionId>,
    ) {
        self.stats.delivered(transaction, route, owner);
    }

    fn observe(&mut self, transaction: &Transaction, delivery: &Delivery, data: Option<&[u8]>) {
        if let Some(observer) = self.watch.observer() {
            observer.transaction(transaction, delivery, data);
        }
        if self.what_if.is_some() {
            self.observe_alternatives(transaction);
        }
    }
}
