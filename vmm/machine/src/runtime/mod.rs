//! The runtime: the state machine of `device-models` behind its one lock, the thread that steps it, and the
//! seam by which the guest's CPUs reach it.
//!
//! Lock order: the system's lock is taken before whatever its observers and its interrupt sink lock, never the other way
//! round. Nothing here is called with a lock held.

mod bell;
mod bus;
mod lock;
mod settle;
mod stepper;
mod sync;
pub mod traffic;
pub mod watched;

pub use bus::RuntimeBus;
pub use lock::{Background, PriorityLock, Urgent};
pub use settle::StillBusy;
pub use stepper::Stepper;

use std::collections::BTreeMap;

use device_models::fabric::InterruptSink;
use device_models::system::System;
use device_models::witness;
use guest_protocol::{Counters, Traffic};
use peerdma_support::warnings::Warnings;

use crate::MsiSignaller;

/// Sends the devices' interrupts to the guest's interrupt controllers.
#[derive(Debug)]
pub struct Interrupts {
    signaller: MsiSignaller,
    refused: Warnings,
}

impl Interrupts {
    /// To the guest that `signaller` belongs to.
    pub fn new(signaller: MsiSignaller) -> Self {
        Self { signaller, refused: Warnings::of("interrupt messages that KVM refused") }
    }
}

impl InterruptSink for Interrupts {
    fn signal_msi(&mut self, address: u64, data: u32) {
        // A message that no vCPU takes is lost, as on hardware.
        if let Err(error) = self.signaller.signal(address, data) {
            self.refused.warn(format_args!("interrupt message {data:#x} to {address:#x}: {error}"));
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeCounters {
    /// What answers the guest's `stat`.
    pub counters: Counters,
    /// Bytes of all functions, by target. Not for the guest, whose answers have a limited length: it asks for one
    /// function's.
    pub by_target: Traffic,
    /// What the guest's witness has seen, and what was held against it. Not for the guest either.
    pub witness: witness::Counters,
}

impl RuntimeCounters {
    /// Reads them. Functions without a bus number of their own yet are left out.
    pub fn of(system: &mut System) -> Self {
        let mut counters = Counters { transactions: system.transactions(), ..Counters::default() };
        let mut by_target = Traffic::default();
        let witness = *system.witness();
        if let Some(iommu) = system.virtio_iommu() {
            counters.live_mappings = iommu.live_mappings() as u64;
            counters.iommu_requests = iommu.requests();
        }
        let map = system.address_map().clone();
        for (id, node) in map.functions() {
            let name = node.requester.to_string();
            let of = system.stats().of(id);
            counters.tlps.insert(name.clone(), of.tlps);
            counters.msi.insert(name.clone(), of.interrupts);
            if of.findings > 0 {
                counters.findings.insert(name.clone(), of.findings);
            }
            traffic::add(&mut by_target, &traffic::of(system, id));
            let (read, written) =
                (traffic::by_route(&of.bytes_read), traffic::by_route(&of.bytes_written));
            if !read.is_empty() {
                counters.read.insert(name.clone(), read);
            }
            if !written.is_empty() {
                counters.written.insert(name, written);
            }
        }
        Self { counters, by_target, witness }
    }

    /// The sums, for the report.
    pub fn totals(&self) -> BTreeMap<String, u64> {
        let Self { counters, by_target, witness } = self;
        let mut totals = BTreeMap::from([
            ("transactions".to_owned(), counters.transactions),
            ("iommu-requests".to_owned(), counters.iommu_requests),
            ("live-mappings".to_owned(), counters.live_mappings),
            ("interrupts".to_owned(), counters.msi.values().sum()),
            ("findings".to_owned(), counters.findings.values().sum()),
        ]);
        totals.extend(own_memory_kib().map(|kib| ("vmm-own-memory-kib".to_owned(), kib)));
        for (kind, by_function) in [("read", &counters.read), ("written", &counters.written)] {
            for (route, bytes) in by_function.values().flatten() {
                let total = totals.entry(format!("bytes-{kind}-{route}")).or_default();
                *total = total.saturating_add(*bytes);
            }
        }
        totals.extend(traffic::counters(by_target));
        totals.extend(watched::counters(witness));
        totals
    }
}

/// Resident memory of this process in KiB, without what it shares with the guest: RAM and device memory are memory
/// files and count as shared.
fn own_memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    field("RssAnon:")?.checked_add(field("RssFile:")?)
}
