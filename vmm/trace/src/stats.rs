//! What a trace adds up to, in memory that does not grow with it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use device_models::fabric::{Kind, Purpose};
use serde::Serialize;

use super::event::{Event, Header, TestResult, TransactionResult};
use super::filter::{Context, kind_of};
use super::lives::{Change, Lengths, Lives};
use super::reader::Entry;
use super::witnessed;

/// Rows beyond which nothing new is listed: no recorder writes as many.
const MAX_ROWS: usize = 10_000;

/// Sums over entries.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Stats {
    /// Entries, without the end mark.
    pub entries: u64,
    /// From the first to the last, in seconds.
    pub seconds: f64,
    /// How many of each kind.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Transactions, by function and by route, or by status where they failed.
    pub traffic: BTreeMap<String, BTreeMap<String, Traffic>>,
    /// Findings and notes, by class.
    pub findings: BTreeMap<String, u64>,
    /// Transactions by their sizes: of up to this number of bytes, a power of two.
    pub sizes: BTreeMap<u64, u64>,
    /// Requests for the IOMMU: transactions of its virtqueues.
    pub iommu: Traffic,
    /// Records of the witness, by what they report.
    pub records: BTreeMap<&'static str, u64>,
    /// How long mappings lived, by function and by what has made them.
    pub mappings: BTreeMap<String, BTreeMap<&'static str, Lengths>>,
    /// Mappings that were not followed, because there were too many.
    pub mappings_missed: u64,
    /// Tests that ended, by how.
    pub tests: BTreeMap<&'static str, u64>,
    /// Entries that were dropped.
    pub lost: u64,
    #[serde(skip)]
    first: Option<Duration>,
    #[serde(skip)]
    lives: Lives,
    #[serde(skip)]
    changes: Vec<Change>,
}

/// Sums over transactions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Traffic {
    /// Runs of TLPs.
    pub transactions: u64,
    /// TLPs, where it is known how many a run has.
    pub tlps: u64,
    /// Bytes read.
    pub read: u64,
    /// Bytes written.
    pub written: u64,
}

impl Traffic {
    fn add(&mut self, kind: Kind, bytes: u64, tlps: u64) {
        self.transactions += 1;
        self.tlps = self.tlps.saturating_add(tlps);
        let sum = match kind {
            Kind::MemoryRead => &mut self.read,
            Kind::MemoryWrite => &mut self.written,
        };
        *sum = sum.saturating_add(bytes);
    }
}

impl Stats {
    /// Adds an entry of a trace with this header.
    pub fn add(&mut self, entry: &Entry, header: &Header, context: &Context) {
        if entry.event.is_last() {
            return;
        }
        self.entries += 1;
        *self.kinds.entry(kind_of(&entry.event)).or_default() += 1;
        let first = *self.first.get_or_insert(entry.time);
        self.seconds = entry.time.saturating_sub(first).as_secs_f64();
        self.lives.follow(entry, context, &mut self.changes);
        self.follow_mappings();
        match &entry.event {
            Event::Transaction(run) => {
                let name = run
                    .function
                    .and_then(|function| header.name(usize::from(function)))
                    .map_or_else(|| Cow::Owned(context.of(run.requester)), Cow::Borrowed);
                let route = match run.outcome {
                    TransactionResult::Delivered { route, .. } => route.name(),
                    TransactionResult::Failed(status) => status.name(),
                };
                let tlps = run.tlp_count().unwrap_or(0);
                if name == "virtio-iommu" && run.purpose == Purpose::VirtQueue {
                    self.iommu.add(run.kind, run.length, tlps);
                }
                let is_full = self.traffic.len() >= MAX_ROWS;
                if let Some(routes) = self.traffic.get_mut(&*name) {
                    match routes.get_mut(route) {
                        Some(traffic) => traffic.add(run.kind, run.length, tlps),
                        None => routes
                            .entry(route.to_owned())
                            .or_default()
                            .add(run.kind, run.length, tlps),
                    }
                } else if !is_full {
                    let routes = self.traffic.entry(name.into_owned()).or_default();
                    routes.entry(route.to_owned()).or_default().add(run.kind, run.length, tlps);
                }
                let size = run.length.checked_next_power_of_two().unwrap_or(u64::MAX);
                *self.sizes.entry(size).or_default() += 1;
            }
            Event::Finding(finding)
                if self.findings.len() < MAX_ROWS || self.findings.contains_key(&finding.class) =>
            {
                *self.findings.entry(finding.class.clone()).or_default() += 1;
            }
            Event::Test(mark) => {
                if let Some(result) = mark.result {
                    *self.tests.entry(TestResult::name(result)).or_default() += 1;
                }
            }
            Event::Witness { kind, data } => {
                if let Some(record) = witnessed::record(*kind, data) {
                    *self.records.entry(witnessed::word(&record)).or_default() += 1;
                }
            }
            Event::Lost { entries } => self.lost = self.lost.saturating_add(*entries),
            _ => {}
        }
    }
    fn follow_mappings(&mut self) {
        for change in self.changes.drain(..) {
            let (Change::Begins(life) | Change::Ends(life, _)) = &change;
            let is_full = self.mappings.len() >= MAX_ROWS;
            let functions = match self.mappings.get_mut(&*life.function) {
                Some(functions) => functions,
                None if is_full => continue,
                None => self.mappings.entry(life.function.to_string()).or_default(),
            };
            let lengths = functions.entry(life.by.name()).or_default();
            match &change {
                Change::Begins(_) => lengths.begin(),
                Change::Ends(life, time) => lengths.end(time.saturating_sub(life.begun)),
            }
        }
        self.mappings_missed = self.lives.missed();
    }
}
