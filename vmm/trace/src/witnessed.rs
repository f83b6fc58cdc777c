//! What an input of the guest's witness says, in words and for filters.

use std::fmt;

use device_models::fabric::WitnessInput;
use device_models::witness::{Bytes, Record};
use guest_protocol::witness::Kind;
use serde::Serialize;

/// The witness record of an input, if it is one.
pub(crate) fn record(kind: WitnessInput, data: &[u8]) -> Option<Record> {
    let bytes: &Bytes = data.try_into().ok()?;
    (kind == WitnessInput::Record).then(|| Record::of(bytes))
}

/// What a witness record reports, in a word.
pub(crate) fn word(record: &Record) -> &'static str {
    match record.kind {
        None => "unknown",
        Some(Kind::Loaded) => "loaded",
        Some(Kind::Map) => "map",
        Some(Kind::Unmap) => "unmap",
        Some(Kind::SyncForCpu) => "sync-for-cpu",
        Some(Kind::SyncForDevice) => "sync-for-device",
        Some(Kind::Bind) => "bind",
        Some(Kind::Unbind) => "unbind",
        Some(Kind::Gone) => "gone",
        Some(Kind::Missed) => "missed",
        Some(Kind::Export) => "export",
        Some(Kind::Attach) => "attach",
        Some(Kind::Detach) => "detach",
        Some(Kind::BufferMap) => "buffer-map",
        Some(Kind::BufferUnmap) => "buffer-unmap",
        Some(Kind::Invalidate) => "invalidate",
        Some(Kind::Pin) => "pin",
        Some(Kind::Unpin) => "unpin",
        Some(Kind::Release) => "release",
        Some(Kind::FenceAdd) => "fence-add",
        Some(Kind::FenceSignaled) => "fence-signaled",
    }
}

/// The words of all records, for filters.
pub(crate) fn words() -> impl Iterator<Item = &'static str> {
    let word_of = |&kind: &Kind| {
        let bytes = device_models::witness::Builder::new(kind).bytes();
        word(&Record::of(&bytes))
    };
    Kind::ALL.iter().map(word_of)
}

/// Whether its address and length are DMA addresses.
pub(crate) fn has_addresses(record: &Record) -> bool {
    matches!(
        record.kind,
        Some(
            Kind::Map
                | Kind::Unmap
                | Kind::SyncForCpu
                | Kind::SyncForDevice
                | Kind::BufferMap
                | Kind::BufferUnmap
        )
    )
}

/// A witness record with its fields by name, for JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Named {
    record: &'static str,
    ticket: u64,
    /// The guest's clock, in nanoseconds.
    guest_time_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    requester: Option<u16>,
    address: u64,
    length: u64,
    direction: String,
    flags: u8,
    group: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    buffer: Option<u64>,
    pid: u32,
    task: String,
    text: String,
}

impl From<&Record> for Named {
    fn from(record: &Record) -> Self {
        Self {
            record: word(record),
            ticket: record.ticket,
            guest_time_ns: record.event.time,
            requester: record.bdf().map(|bdf| bdf.0),
            address: record.address,
            length: record.length,
            direction: record.direction.to_string(),
            flags: record.flags,
            group: record.group,
            buffer: (record.buffer != 0).then_some(record.buffer),
            pid: record.event.pid,
            task: record.event.task.to_string(),
            text: record.event.caller.to_string(),
        }
    }
}

/// An input in words.
pub(crate) struct Words<'a>(pub(crate) WitnessInput, pub(crate) &'a [u8]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(kind, data) = *self;
        let Some(record) = record(kind, data) else {
            return f.write_str(match kind {
                WitnessInput::Attach => "the witness is there",
                WitnessInput::Detach => "the witness is gone",
                WitnessInput::Drain => "the witness asks for room",
                WitnessInput::Record => "a witness record of another length",
            });
        };
        write!(f, "witness #{} {}", record.ticket, word(&record))?;
        if let Some(bdf) = record.bdf() {
            write!(f, " {bdf}")?;
        }
        if has_addresses(&record) {
            let (address, length) = (record.address, record.length);
            write!(f, " addr={address:#x} len={length} {}", record.direction)?;
        }
        if record.buffer != 0 {
            write!(f, " buffer={}", record.buffer)?;
        }
        write!(f, " by pid {}", record.event.pid)?;
        if !record.event.task.is_empty() {
            write!(f, " ({})", record.event.task)?;
        }
        if !record.event.caller.is_empty() {
            write!(f, " [{}]", record.event.caller)?;
        }
        Ok(())
    }
}
