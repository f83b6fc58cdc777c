//! A trace for <https://ui.perfetto.dev>: a track for each source, turns and tests as slices, transactions and findings as
//! instants, and flows from a doorbell to the transactions that it brings about, and on to the interrupt.
//!
//! The messages are the few that are needed of Perfetto's `trace_packet.proto`, `track_descriptor.proto` and
//! `track_event.proto`, under the same field numbers.

use std::io::{self, Write};

use prost::Message;

use super::event::{Event, TestMark, TlpRun};
use super::filter::{Context, kind_of};
use super::flows::{Flow, Flows};
use super::reader::Entry;

#[derive(Clone, PartialEq, Message)]
struct TracePacket {
    #[prost(uint64, optional, tag = "8")]
    timestamp: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    trusted_packet_sequence_id: Option<u32>,
    #[prost(message, optional, tag = "11")]
    track_event: Option<TrackEvent>,
    #[prost(uint32, optional, tag = "13")]
    sequence_flags: Option<u32>,
    #[prost(message, optional, tag = "60")]
    track_descriptor: Option<TrackDescriptor>,
}

/// What a file consists of: one packet after the other, each a field of its own.
#[derive(Clone, PartialEq, Message)]
struct Trace {
    #[prost(message, repeated, tag = "1")]
    packet: Vec<TracePacket>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackDescriptor {
    #[prost(uint64, optional, tag = "1")]
    uuid: Option<u64>,
    #[prost(string, optional, tag = "2")]
    name: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct TrackEvent {
    #[prost(message, repeated, tag = "4")]
    debug_annotations: Vec<DebugAnnotation>,
    #[prost(enumeration = "Kind", optional, tag = "9")]
    r#type: Option<i32>,
    #[prost(uint64, optional, tag = "11")]
    track_uuid: Option<u64>,
    #[prost(string, repeated, tag = "22")]
    categories: Vec<String>,
    #[prost(string, optional, tag = "23")]
    name: Option<String>,
    #[prost(fixed64, repeated, packed = "false", tag = "47")]
    flow_ids: Vec<u64>,
    #[prost(fixed64, repeated, packed = "false", tag = "48")]
    terminating_flow_ids: Vec<u64>,
}

#[derive(Clone, PartialEq, Message)]
struct DebugAnnotation {
    #[prost(uint64, optional, tag = "3")]
    uint_value: Option<u64>,
    #[prost(string, optional, tag = "6")]
    string_value: Option<String>,
    #[prost(uint64, optional, tag = "7")]
    pointer_value: Option<u64>,
    #[prost(string, optional, tag = "10")]
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
enum Kind {
    Unspecified = 0,
    SliceBegin = 1,
    SliceEnd = 2,
    Instant = 3,
}

/// The one sequence of packets there is.
const SEQUENCE: u32 = 1;
/// `SEQ_INCREMENTAL_STATE_CLEARED`: nothing that came before matters.
const STATE_CLEARED: u32 = 1;

/// Writes a trace for Perfetto.
#[derive(Debug)]
pub struct Perfetto<W> {
    out: W,
    begun: bool,
    /// Tracks that have a turn, whose slice is open.
    turn: Option<u64>,
    flows: Flows,
    packet: Trace,
}

/// Track numbers begin behind 0, which stands for no track.
fn track(interface: u32) -> u64 {
    u64::from(interface) + 1
}

impl<W: Write> Perfetto<W> {
    /// Begins one with a track for each of these sources.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, interfaces: &[String]) -> io::Result<Self> {
        let (flows, packet) = (Flows::default(), Trace::default());
        let mut this = Self { out, begun: false, turn: None, flows, packet };
        for (name, number) in interfaces.iter().zip(0..) {
            let (uuid, name) = (Some(track(number)), Some(name.clone()));
            let track_descriptor = Some(TrackDescriptor { uuid, name });
            this.write(TracePacket { track_descriptor, ..TracePacket::default() })?;
        }
        Ok(this)
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// What `out` says.
    pub fn add(&mut self, entry: &Entry, context: &Context) -> io::Result<()> {
        let time = u64::try_from(context.time(entry).as_nanos()).unwrap_or(u64::MAX);
        let track = track(entry.interface);
        let flow = self.flows.follow(entry, context);
        if entry.event.is_cause() || entry.event.is_last() {
            self.end_turn(time)?;
        }
        match &entry.event {
            Event::Step { .. } => {
                self.turn = Some(track);
                self.event(time, event(Kind::SliceBegin, track, "turn"))
            }
            Event::Test(TestMark { name, result: None }) => {
                self.event(time, event(Kind::SliceBegin, track, name))
            }
            Event::Test(TestMark { result: Some(_), .. }) => {
                self.event(time, event(Kind::SliceEnd, track, ""))
            }
            Event::RegisterWrite { address, .. } => {
                let mut ring = event(Kind::Instant, track, "register write");
                ring.flow_ids.push(entry.number);
                ring.debug_annotations.push(pointer("address", *address));
                ring.debug_annotations.push(text("what", entry.event.to_string()));
                self.event(time, ring)
            }
            Event::Transaction(run) => self.event(time, transaction(track, run, flow)),
            Event::Finding(finding) => {
                let mut found = event(Kind::Instant, track, &finding.class);
                found.categories.push(kind_of(&entry.event).to_owned());
                found.debug_annotations.push(text("text", finding.text.clone()));
                found.flow_ids.extend(flow.map(|flow| flow.doorbell));
                self.event(time, found)
            }
            other => {
                let mut what = event(Kind::Instant, track, other.name());
                what.debug_annotations.push(text("what", other.to_string()));
                self.event(time, what)
            }
        }
    }

    /// Ends it; gives back what it was written to.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.out.flush()?;
        Ok(self.out)
    }

    fn end_turn(&mut self, time: u64) -> io::Result<()> {
        match self.turn.take() {
            Some(track) => self.event(time, event(Kind::SliceEnd, track, "")),
            None => Ok(()),
        }
    }

    fn event(&mut self, time: u64, event: TrackEvent) -> io::Result<()> {
        self.write(TracePacket {
            timestamp: Some(time),
            track_event: Some(event),
            ..TracePacket::default()
        })
    }

    fn write(&mut self, mut packet: TracePacket) -> io::Result<()> {
        packet.trusted_packet_sequence_id = Some(SEQUENCE);
        packet.sequence_flags =
            (!std::mem::replace(&mut self.begun, true)).then_some(STATE_CLEARED);
        self.packet.packet.clear();
        self.packet.packet.push(packet);
        self.out.write_all(&self.packet.encode_to_vec())
    }
}

fn transaction(track: u64, run: &TlpRun, flow: Option<Flow>) -> TrackEvent {
    let name = format!("{} {}", run.kind, run.purpose.name());
    let mut all = event(Kind::Instant, track, &name);
    all.categories.push(run.purpose.name().to_owned());
    if let Some(verdict) = run.verdict {
        all.categories.push("finding".to_owned());
        all.debug_annotations.push(text("finding", verdict.name().to_owned()));
    }
    all.debug_annotations.push(pointer("address", run.address));
    all.debug_annotations.push(number("bytes", run.length));
    all.debug_annotations.push(number("tlp", run.sequence));
    all.debug_annotations.push(text("outcome", run.outcome.to_string()));
    match flow {
        Some(Flow { doorbell, ends: true }) => all.terminating_flow_ids.push(doorbell),
        Some(Flow { doorbell, ends: false }) => all.flow_ids.push(doorbell),
        None => {}
    }
    all
}

fn event(kind: Kind, track: u64, name: &str) -> TrackEvent {
    TrackEvent {
        r#type: Some(kind.into()),
        track_uuid: Some(track),
        name: (!name.is_empty()).then(|| name.to_owned()),
        ..TrackEvent::default()
    }
}

fn text(name: &str, value: String) -> DebugAnnotation {
    let name = Some(name.to_owned());
    DebugAnnotation { name, string_value: Some(value), ..DebugAnnotation::default() }
}

fn number(name: &str, value: u64) -> DebugAnnotation {
    let name = Some(name.to_owned());
    DebugAnnotation { name, uint_value: Some(value), ..DebugAnnotation::default() }
}

fn pointer(name: &str, value: u64) -> DebugAnnotation {
    let name = Some(name.to_owned());
    DebugAnnotation { name, pointer_value: Some(value), ..DebugAnnotation::default() }
}
