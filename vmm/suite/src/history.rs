//! What happened before a finding: the last few requests of each function, and what the guest's kernel and its IOMMU
//! driver did for it.
//!
//! The devices' requests come here one by one, so this only writes down numbers, and requests in a row as one. Words are
//! made of them when something is found.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use device_models::checker::Finding;
use device_models::fabric::{Delivery, Target, Transaction};
use device_models::iommu::virtio::Request;
use device_models::pci::Bdf;
use device_models::witness::Record;
use guest_protocol::witness::{Kind, flags};

/// Events that a finding comes with, at most.
pub const EVENTS: usize = 5;
/// Functions and domains that are followed: the guest names them.
const MAX_RINGS: usize = 1024;
/// dma-bufs that a function is attached to, the latest ones.
const MAX_BUFFERS: usize = 16;

/// Where a request arrived, or that it did not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrival {
    Ram,
    /// In a BAR of the function with this index.
    Bar(usize),
    Interrupt,
    Failed(&'static str),
}

impl Arrival {
    fn of(delivery: &Delivery) -> Self {
        match delivery {
            Delivery::Delivered { target: None, .. } => Self::Interrupt,
            Delivery::Delivered { target: Some(Target::Memory { function: None, .. }), .. } => {
                Self::Ram
            }
            Delivery::Delivered {
                target:
                    Some(
                        Target::Memory { function: Some(function), .. }
                        | Target::Registers { function, .. },
                    ),
                ..
            } => Self::Bar(function.index()),
            Delivery::Failed(status) => Self::Failed(status.name()),
        }
    }
}

/// Requests of a function in a row: consecutive addresses, one kind, one end.
#[derive(Debug, Clone, Copy)]
struct Requests {
    first: Transaction,
    bytes: u64,
    count: u64,
    arrival: Arrival,
}

impl Requests {
    fn takes(&mut self, next: &Transaction, arrival: Arrival) -> bool {
        let Transaction { kind, purpose, address, .. } = self.first;
        let goes_on = (kind, purpose, self.arrival) == (next.kind, next.purpose, arrival)
            && address.wrapping_add(self.bytes) == next.address;
        if goes_on {
            self.bytes = self.bytes.saturating_add(next.length);
            self.count += next.tlp_count();
        }
        goes_on
    }
}

#[derive(Debug, Clone, Copy)]
enum Happened {
    Requests(Requests),
    Record(Record),
    Iommu(u64, Request),
}

/// The last events of one kind, the latest last, each with its place among all events.
#[derive(Debug, Default)]
struct Ring(VecDeque<(u64, Happened)>);

impl Ring {
    fn push(&mut self, place: u64, what: Happened) {
        if self.0.len() == EVENTS {
            self.0.pop_front();
        }
        self.0.push_back((place, what));
    }
}

/// What the guest's kernel reported for a function.
#[derive(Debug, Default)]
struct Reported {
    ring: Ring,
    buffers: VecDeque<u64>,
}

/// See the module.
#[derive(Debug)]
pub struct History {
    /// By the functions' index.
    names: Vec<String>,
    requests: Vec<Ring>,
    reported: BTreeMap<Bdf, Reported>,
    /// By domain.
    iommu: BTreeMap<u32, Ring>,
    domains: BTreeMap<Bdf, u32>,
    place: u64,
}

impl History {
    /// Of the functions with these names, in the system's order.
    pub fn new(names: Vec<String>) -> Self {
        Self {
            requests: std::iter::repeat_with(Ring::default).take(names.len()).collect(),
            names,
            reported: BTreeMap::new(),
            iommu: BTreeMap::new(),
            domains: BTreeMap::new(),
            place: 0,
        }
    }

    /// A function's request was carried out.
    pub fn request(&mut self, transaction: &Transaction, delivery: &Delivery) {
        self.place += 1;
        let place = self.place;
        let Some(ring) = self.requests.get_mut(transaction.function.index()) else { return };
        let arrival = Arrival::of(delivery);
        if let Some((at, Happened::Requests(last))) = ring.0.back_mut()
            && last.takes(transaction, arrival)
        {
            *at = place;
            return;
        }
        let (bytes, count) = (transaction.length, transaction.tlp_count());
        ring.push(
            place,
            Happened::Requests(Requests { first: *transaction, bytes, count, arrival }),
        );
    }

    /// The guest's kernel reported something.
    pub fn record(&mut self, record: &Record) {
        self.place += 1;
        let event = (self.place, Happened::Record(*record));
        match (record.kind, record.bdf()) {
            (Some(Kind::Invalidate | Kind::Release), _) => {
                let attached = |reported: &&mut Reported| reported.buffers.contains(&record.buffer);
                for reported in self.reported.values_mut().filter(attached) {
                    reported.ring.push(event.0, event.1);
                }
            }
            (Some(kind), Some(bdf)) if word(kind).is_some() => {
                if self.reported.len() >= MAX_RINGS && !self.reported.contains_key(&bdf) {
                    return;
                }
                let reported = self.reported.entry(bdf).or_default();
                reported.ring.push(event.0, event.1);
                if kind == Kind::Attach {
                    if reported.buffers.len() == MAX_BUFFERS {
                        reported.buffers.pop_front();
                    }
                    reported.buffers.push_back(record.buffer);
                }
            }
            _ => {}
        }
    }

    /// The guest's IOMMU driver made a request.
    pub fn iommu(&mut self, number: u64, request: &Request) {
        self.place += 1;
        let domain = match *request {
            Request::Attach { domain, endpoint, .. } => {
                let bdf = u16::try_from(endpoint).map(Bdf);
                if let Ok(bdf) = bdf
                    && (self.domains.len() < MAX_RINGS || self.domains.contains_key(&bdf))
                {
                    self.domains.insert(bdf, domain);
                }
                domain
            }
            Request::Detach { domain, .. }
            | Request::Map { domain, .. }
            | Request::Unmap { domain, .. } => domain,
            Request::Probe { .. } | Request::Unknown { .. } => return,
        };
        if self.iommu.len() < MAX_RINGS || self.iommu.contains_key(&domain) {
            let ring = self.iommu.entry(domain).or_default();
            ring.push(self.place, Happened::Iommu(number, *request));
        }
    }

    /// The last events before `finding` that concern its function, the oldest first, a line each.
    pub fn before(&self, finding: &Finding) -> Vec<String> {
        let own = finding.transaction.map(|transaction| transaction.function.index());
        // One that is not about a request is about a function by its requester ID.
        let is_its = |ring: &&Ring| {
            ring.0.iter().any(|(_, what)| {
                matches!(what, Happened::Requests(requests) if requests.first.requester == finding.requester)
            })
        };
        let requests = match own {
            Some(index) => self.requests.get(index),
            None => self.requests.iter().find(is_its),
        };
        let reported = self.reported.get(&finding.requester).map(|reported| &reported.ring);
        let domain = self.domains.get(&finding.requester);
        let iommu = domain.and_then(|domain| self.iommu.get(domain));
        let rings = [requests, reported, iommu];
        let mut all: Vec<_> = rings.into_iter().flatten().flat_map(|ring| &ring.0).collect();
        // The request itself may have been seen already.
        all.retain(|(_, what)| match (what, finding.transaction) {
            (Happened::Requests(requests), Some(own)) => requests.first.sequence < own.sequence,
            _ => true,
        });
        all.sort_by_key(|(place, _)| *place);
        let skip = all.len().saturating_sub(EVENTS);
        let line = |(_, what): &(u64, Happened)| Line { what, names: &self.names }.to_string();
        all.into_iter().skip(skip).map(line).collect()
    }
}

/// What a record's kind is called; none for what says nothing about a finding.
fn word(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Map => "mapped",
        Kind::Unmap => "unmapped",
        Kind::SyncForCpu => "synced for the CPU",
        Kind::SyncForDevice => "synced for the device",
        Kind::Bind => "driver bound",
        Kind::Unbind => "driver unbound",
        Kind::Gone => "device gone",
        Kind::Attach => "attached to",
        Kind::Detach => "detached from",
        Kind::BufferMap => "mapped",
        Kind::BufferUnmap => "about to unmap",
        Kind::Invalidate => "invalidated",
        Kind::Pin => "pinned",
        Kind::Unpin => "unpinned",
        Kind::Release => "freed",
        Kind::Loaded | Kind::Missed | Kind::Export | Kind::FenceAdd | Kind::FenceSignaled => {
            return None;
        }
    })
}

/// An event in words.
struct Line<'a> {
    what: &'a Happened,
    names: &'a [String],
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.what {
            Happened::Requests(requests) => self.requests(requests, f),
            Happened::Record(record) => reported(record, f),
            Happened::Iommu(number, request) => write!(f, "IOMMU: request #{number} {request}"),
        }
    }
}

impl Line<'_> {
    fn requests(&self, requests: &Requests, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requests { first, bytes, count, arrival } = requests;
        let Transaction { sequence, kind, address, purpose, .. } = first;
        write!(f, "#{sequence} {kind} addr={address:#x} len={bytes} ({})", purpose.name())?;
        if *count > 1 {
            write!(f, " in {count} requests")?;
        }
        match *arrival {
            Arrival::Ram => f.write_str(": RAM"),
            Arrival::Bar(index) => match self.names.get(index) {
                Some(name) => write!(f, ": BAR of {name}"),
                None => f.write_str(": a BAR"),
            },
            Arrival::Interrupt => f.write_str(": interrupt"),
            Arrival::Failed(status) => write!(f, ": failed ({status})"),
        }
    }
}

fn reported(record: &Record, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some((kind, word)) = record.kind.and_then(|kind| Some((kind, word(kind)?))) else {
        return f.write_str("kernel: a record of an unknown kind");
    };
    write!(f, "kernel: {word}")?;
    match kind {
        Kind::Map | Kind::Unmap | Kind::SyncForCpu | Kind::SyncForDevice | Kind::BufferMap => {
            write!(f, " {} bytes at {:#x}", record.length, record.address)?;
            match record.has(flags::COHERENT) {
                true => f.write_str(" (coherent)")?,
                false => write!(f, " ({})", record.direction)?,
            }
            if kind == Kind::BufferMap {
                write!(f, " of dma-buf {}", record.buffer)?;
            }
        }
        Kind::Attach
        | Kind::Detach
        | Kind::BufferUnmap
        | Kind::Invalidate
        | Kind::Pin
        | Kind::Unpin
        | Kind::Release => write!(f, " dma-buf {}", record.buffer)?,
        Kind::Bind => return write!(f, " ({})", record.event.caller),
        _ => {}
    }
    match record.event.pid {
        0 => f.write_str(" in an interrupt"),
        pid => write!(f, " by pid {pid} ({})", record.event.task),
    }
}

#[cfg(test)]
mod tests;
