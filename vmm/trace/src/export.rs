//! Entries in formats of other programs.

use std::io::{self, Write};

use serde::Serialize;

use super::event::Event;
use super::filter::Context;
use super::reader::Entry;
use super::witnessed::Named;

#[derive(Serialize)]
struct Line<'a> {
    entry: u64,
    /// Seconds since 1970 have no room in a JSON number: nanoseconds since the beginning.
    time_ns: u64,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<&'a str>,
    #[serde(flatten)]
    event: &'a Event,
    /// What a witness record says.
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<Named>,
}

/// Writes an entry as a line of JSON: its number, nanoseconds since the beginning, its source, the test that runs, and what
/// it says.
///
/// # Errors
/// What `out` says.
pub fn jsonl(
    entry: &Entry,
    source: &str,
    context: &Context,
    out: &mut impl Write,
) -> io::Result<()> {
    let time = context.time(entry).as_nanos();
    let line = Line {
        entry: entry.number,
        time_ns: u64::try_from(time).unwrap_or(u64::MAX),
        source,
        test: context.test(),
        event: &entry.event,
        says: entry.event.witness_record().as_ref().map(Named::from),
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}
