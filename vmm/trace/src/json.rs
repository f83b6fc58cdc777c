//! Traces in the format of earlier versions: a line of JSON for the header, then one for each event. They are converted,
//! for one release more; nothing else reads them, and nothing writes them.

use std::io::{self, BufRead, Write};
use std::ops::RangeInclusive;
use std::time::Duration;

use device_models::fabric::{CompletionStatus, Kind, Purpose, RouteKind, WitnessInput};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::event::{
    ConfigAccess, Destination, Event, FindingEvent, Header, Payload, TlpRun, TransactionResult,
};
use super::names::{self, KINDS, PURPOSES, ROUTES, STATUSES};
use super::replay::{self, ReplayError};
use super::writer::Writer;

const FORMAT: &str = "peerdma-trace";
/// The versions that are converted: 5 has witness records, 4 none.
const VERSIONS: RangeInclusive<u64> = 4..=5;

/// No first line is longer, in bytes: it holds a topology, which has at most 16 peer devices and 16 others.
const MAX_FIRST_LINE: u64 = 4 << 20;

/// No event is longer: its data are those of 64 KiB at most, in hexadecimal digits.
const MAX_LINE: u64 = 256 << 10;

/// As much of a parser's words as is of use: they may hold the whole line.
const MAX_REASON: usize = 200;

/// Why a trace cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The file cannot be read.
    #[error("the trace cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The other one cannot be written.
    #[error("the converted trace cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The first line is not that of a trace.
    #[error("this is not a trace in the JSON format: {0}")]
    NotATrace(String),
    /// Of a version that this program never read.
    #[error("the trace has JSON format version {0}, and only versions 4 and 5 can be converted")]
    Version(u64),
    /// Its devices cannot be built.
    #[error(transparent)]
    Devices(#[from] ReplayError),
    /// A line in the middle makes no sense.
    #[error("line {line} is not an event: {reason}")]
    Malformed {
        /// Which line, the header being 1.
        line: u64,
        /// What the parser says.
        reason: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
enum Line {
    ConfigWrite {
        function: u16,
        offset: u16,
        length: u8,
        value: u32,
    },
    ConfigRead {
        function: u16,
        offset: u16,
        length: u8,
        value: u32,
    },
    RegisterWrite {
        address: u64,
        data: Hex,
    },
    RegisterRead {
        address: u64,
        data: Hex,
    },
    CpuPush {
        function: usize,
    },
    Unplug {
        port: u16,
    },
    Plug {
        port: u16,
    },
    DelayPosted {
        requester: u16,
        #[serde(default)]
        target: Option<u16>,
        delay: String,
    },
    FenceSeen {
        requester: u16,
    },
    Witness {
        #[serde(deserialize_with = "witness")]
        kind: WitnessInput,
        data: Hex,
    },
    Step {
        function: usize,
    },
    Outside {
        function: usize,
        data: Hex,
    },
    Transaction {
        sequence: u64,
        requester: u16,
        #[serde(deserialize_with = "kind")]
        kind: Kind,
        #[serde(deserialize_with = "purpose")]
        purpose: Purpose,
        address: u64,
        length: u64,
        outcome: LineOutcome,
        #[serde(default)]
        data: Option<Hex>,
    },
    Finding {
        class: String,
        #[serde(default)]
        note: bool,
        text: String,
    },
    End {},
    Cut {},
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LineOutcome {
    Delivered {
        #[serde(deserialize_with = "route")]
        route: RouteKind,
        address: u64,
        target: String,
    },
    Failed(#[serde(deserialize_with = "status")] CompletionStatus),
}

/// Bytes as hexadecimal text.
#[derive(Debug)]
struct Hex(Vec<u8>);

impl<'de> Deserialize<'de> for Hex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) {
            return Err(D::Error::custom("an odd number of hexadecimal digits"));
        }
        let byte = |pair: &[u8]| {
            let text = std::str::from_utf8(pair).map_err(D::Error::custom)?;
            u8::from_str_radix(text, 16).map_err(D::Error::custom)
        };
        digits.chunks_exact(2).map(byte).collect::<Result<_, _>>().map(Self)
    }
}

fn named<'de, D: Deserializer<'de>, T: Copy>(
    deserializer: D,
    all: &[T],
    name: impl Fn(T) -> &'static str,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    let found = all.iter().copied().find(|&it| name(it) == text);
    found.ok_or_else(|| D::Error::custom("an unknown word"))
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Kind, D::Error> {
    named(deserializer, &KINDS, names::kind_name)
}

fn purpose<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Purpose, D::Error> {
    named(deserializer, &PURPOSES, Purpose::name)
}

fn witness<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WitnessInput, D::Error> {
    named(deserializer, WitnessInput::ALL, WitnessInput::name)
}

fn route<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RouteKind, D::Error> {
    named(deserializer, &ROUTES, RouteKind::name)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<CompletionStatus, D::Error> {
    named(deserializer, &STATUSES.map(|(status, _)| status), CompletionStatus::name)
}

/// The memory or registers that a line names, for example `function 5 BAR0+0x28`.
fn destination(text: &str) -> Option<Destination> {
    if text.is_empty() {
        return Some(Destination::Window);
    }
    let (place, offset) = text.split_once("+0x")?;
    let offset = u64::from_str_radix(offset, 16).ok()?;
    if place == "ram" {
        return Some(Destination::Ram { offset });
    }
    if let Some(function) = place.strip_prefix("memory of function ") {
        return Some(Destination::Memory { function: function.parse().ok()?, offset });
    }
    let (function, bar) = place.strip_prefix("function ")?.split_once(" BAR")?;
    let (function, bar) = (function.parse().ok()?, bar.parse().ok()?);
    Some(Destination::Registers { function, bar, offset })
}

impl Line {
    /// The event; none for the end marks.
    fn event(self) -> Result<Option<Event>, &'static str> {
        Ok(Some(match self {
            Self::ConfigWrite { function, offset, length, value } => {
                Event::ConfigWrite(ConfigAccess { function, offset, length, value })
            }
            Self::ConfigRead { function, offset, length, value } => {
                Event::ConfigRead(ConfigAccess { function, offset, length, value })
            }
            Self::RegisterWrite { address, data } => {
                Event::RegisterWrite { address, data: access(data)? }
            }
            Self::RegisterRead { address, data } => {
                Event::RegisterRead { address, data: access(data)? }
            }
            Self::CpuPush { function } => Event::CpuPush { function },
            Self::Unplug { port } => Event::Unplug { port },
            Self::Plug { port } => Event::Plug { port },
            Self::DelayPosted { requester, target, delay } => {
                Event::DelayPosted { requester, target, delay }
            }
            Self::FenceSeen { requester } => Event::FenceSeen { requester },
            Self::Witness { kind, data } => Event::Witness { kind, data: witnessed(kind, data)? },
            Self::Step { function } => Event::Step { function },
            Self::Outside { function, data } => Event::Outside { function, data: data.0 },
            Self::Transaction {
                sequence,
                requester,
                kind,
                purpose,
                address,
                length,
                outcome,
                data,
            } => Event::Transaction(TlpRun {
                sequence,
                requester,
                function: None,
                kind,
                purpose,
                address,
                length,
                tlp_limit: 0,
                outcome: match outcome {
                    LineOutcome::Failed(status) => TransactionResult::Failed(status),
                    LineOutcome::Delivered { route, address, target } => {
                        let target = destination(&target).ok_or("its target makes no sense")?;
                        TransactionResult::Delivered { route, address, target }
                    }
                },
                verdict: None,
                digest: None,
                data: data.map(|data| data.0),
            }),
            Self::Finding { class, note, text } => Event::Finding(FindingEvent {
                class,
                note,
                transaction: None,
                function: String::new(),
                text,
            }),
            Self::End {} | Self::Cut {} => return Ok(None),
        }))
    }
}

fn access(data: Hex) -> Result<Vec<u8>, &'static str> {
    if (1..=8).contains(&data.0.len()) { Ok(data.0) } else { Err("a CPU accesses 1 to 8 bytes") }
}

fn witnessed(kind: WitnessInput, data: Hex) -> Result<Vec<u8>, &'static str> {
    if data.0.len() == names::witness_bytes(kind) {
        Ok(data.0)
    } else {
        Err("an input of the witness has other bytes")
    }
}

/// Converts the trace of `input`: how many entries there are, and whether it had its end mark.
///
/// The JSON format knows no times, and not where a run's TLPs were cut: the converted trace does not, either.
///
/// # Errors
/// When it cannot be read or written, or is not what the earlier version wrote.
pub fn convert<W: Write>(mut input: impl BufRead, out: W) -> Result<(u64, bool), ConvertError> {
    let (line, end) = read_line(&mut input, MAX_FIRST_LINE)?;
    if matches!(end, LineEnd::TooFar) {
        return Err(ConvertError::NotATrace("its first line is too long".to_owned()));
    }
    let first: serde_json::Value =
        serde_json::from_slice(&line).map_err(|error| ConvertError::NotATrace(reason(&error)))?;
    if first.get("format").and_then(|format| format.as_str()) != Some(FORMAT) {
        return Err(ConvertError::NotATrace("its first line does not say so".to_owned()));
    }
    match first.get("version").and_then(serde_json::Value::as_u64) {
        Some(version) if VERSIONS.contains(&version) => {}
        version => return Err(ConvertError::Version(version.unwrap_or(0))),
    }
    let first: Header =
        serde_json::from_value(first).map_err(|error| ConvertError::NotATrace(reason(&error)))?;
    // The format has no names of functions: the devices have them.
    let system = replay::build(&first)?;
    let header = Header::of(&first.system, first.ram, &system, Payload::None);
    drop(system);
    let mut writer = Writer::new(out, &header, Duration::ZERO).map_err(ConvertError::Write)?;
    let mut number = 1;
    let whole = loop {
        let (line, end) = read_line(&mut input, MAX_LINE)?;
        if matches!(end, LineEnd::OfFile) {
            // The end of the file without an end mark, perhaps in the middle of a line.
            break false;
        }
        number += 1;
        let malformed = |reason: String| ConvertError::Malformed { line: number, reason };
        if matches!(end, LineEnd::TooFar) {
            return Err(malformed(format!("it is longer than {MAX_LINE} bytes")));
        }
        let line: Line =
            serde_json::from_slice(&line).map_err(|error| malformed(reason(&error)))?;
        let cut = matches!(line, Line::Cut {});
        let event = line.event().map_err(|error| malformed(error.to_owned()))?;
        let last = event.is_none();
        let events = writer.events();
        let event =
            event.unwrap_or(if cut { Event::Cut { events } } else { Event::End { events } });
        writer.append(&event, Duration::ZERO).map_err(ConvertError::Write)?;
        if last {
            break true;
        }
    };
    let events = writer.events() - u64::from(whole);
    writer.finish().map_err(ConvertError::Write)?;
    Ok((events, whole))
}

/// Where a line ended.
enum LineEnd {
    /// Where the next begins.
    Newline,
    /// With the file.
    OfFile,
    /// Nowhere as far as it was read.
    TooFar,
}

/// A line without its newline, at most `limit` bytes of it.
fn read_line(input: &mut impl BufRead, limit: u64) -> Result<(Vec<u8>, LineEnd), ConvertError> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, limit)
        .read_until(b'\n', &mut line)
        .map_err(ConvertError::Read)?;
    let end = match line.last() {
        Some(b'\n') => {
            line.pop();
            LineEnd::Newline
        }
        _ if read as u64 == limit => LineEnd::TooFar,
        _ => LineEnd::OfFile,
    };
    Ok((line, end))
}

/// What is wrong with a line, in a few words.
fn reason(error: &serde_json::Error) -> String {
    error.to_string().chars().take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests;
