//! A trace for <https://ui.perfetto.dev>: a track for each source, turns and tests as slices, transactions and findings as
//! instants, mappings as slices below the track of their function, and flows from a doorbell to the transactions that it
//! brings about, and on to the interrupt.

mod lanes;
mod messages;

use std::io::{self, Write};

use prost::Message;

use self::lanes::{Drawn, Lanes};
use self::messages::{
    Kind, Trace, TracePacket, TrackDescriptor, TrackEvent, event, number, pointer, text,
};

use super::event::{Event, Header, TestMark, TlpRun};
use super::filter::{Context, kind_of};
use super::flows::{Flow, Flows};
use super::owners::Register;
use super::reader::Entry;

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
    lanes: Lanes,
    packet: Trace,
}

/// Track numbers begin behind 0, which stands for no track.
fn track(interface: u32) -> u64 {
    u64::from(interface) + 1
}

impl<W: Write> Perfetto<W> {
    /// Begins one of a trace with this header, with a track for each of these sources.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, header: &Header, interfaces: &[String]) -> io::Result<Self> {
        let (flows, lanes) = (Flows::new(header), Lanes::new(interfaces));
        let packet = Trace::default();
        let mut this = Self { out, begun: false, turn: None, flows, lanes, packet };
        for (name, number) in interfaces.iter().zip(0..) {
            let (uuid, name) = (Some(track(number)), Some(name.clone()));
            let track_descriptor = Some(TrackDescriptor { uuid, name, parent_uuid: None });
            this.write(TracePacket { track_descriptor, ..TracePacket::default() })?;
        }
        Ok(this)
    }

    /// Takes notice of an entry, and adds it if it is `kept`. All entries of the trace must come, in their order: mappings
    /// may have been made before what is kept.
    ///
    /// # Errors
    /// What `out` says.
    pub fn add(&mut self, entry: &Entry, context: &Context, kept: bool) -> io::Result<()> {
        let flow = self.flows.follow(entry, context);
        self.lanes.follow(entry, context, kept);
        while let Some(drawn) = self.lanes.next() {
            self.draw(drawn)?;
        }
        if !kept {
            return self.end_turn_before(entry, context);
        }
        let time = u64::try_from(context.time(entry).as_nanos()).unwrap_or(u64::MAX);
        let track = track(entry.interface);
        self.end_turn_before(entry, context)?;
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
            Event::RegisterWrite { address, .. } | Event::RegisterRead { address, .. } => {
                let is_write = matches!(entry.event, Event::RegisterWrite { .. });
                let function = flow.register.and_then(|it| context.name(it.function.into()));
                let name = match (function, is_write) {
                    (Some(function), true) => format!("register write to {function}"),
                    (Some(function), false) => format!("register read from {function}"),
                    (None, _) => entry.event.name().to_owned(),
                };
                let mut access = event(Kind::Instant, track, &name);
                if is_write {
                    access.flow_ids.push(entry.number);
                }
                if let Some(Register { bar, offset, .. }) = flow.register {
                    access
                        .debug_annotations
                        .push(text("register", format!("BAR {bar}+{offset:#x}")));
                }
                access.debug_annotations.push(pointer("address", *address));
                access.debug_annotations.push(text("what", entry.event.to_string()));
                self.event(time, access)
            }
            Event::Transaction(run) => self.event(time, transaction(track, run, flow)),
            Event::Finding(finding) => {
                let mut found = event(Kind::Instant, track, &finding.class);
                found.categories.push(kind_of(&entry.event).to_owned());
                found.debug_annotations.push(text("text", finding.text.clone()));
                found.flow_ids.extend(flow.doorbell);
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

    fn end_turn_before(&mut self, entry: &Entry, context: &Context) -> io::Result<()> {
        if !entry.event.is_cause() && !entry.event.is_last() {
            return Ok(());
        }
        let time = u64::try_from(context.time(entry).as_nanos()).unwrap_or(u64::MAX);
        match self.turn.take() {
            Some(track) => self.event(time, event(Kind::SliceEnd, track, "")),
            None => Ok(()),
        }
    }

    /// A lane, or where a mapping begins or ends in one.
    fn draw(&mut self, drawn: Drawn) -> io::Result<()> {
        match drawn {
            Drawn::Lane(lane) => {
                self.write(TracePacket { track_descriptor: Some(lane), ..TracePacket::default() })
            }
            Drawn::Slice(time, slice) => self.event(time, slice),
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

fn transaction(track: u64, run: &TlpRun, flow: Flow) -> TrackEvent {
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
    let flows = if flow.ends { &mut all.terminating_flow_ids } else { &mut all.flow_ids };
    flows.extend(flow.doorbell);
    all
}
