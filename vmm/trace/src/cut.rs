//! A part of a trace as a trace of its own.

use std::io::{self, BufRead, Write};
use std::time::Duration;

use super::event::{Event, Header, TestMark};
use super::filter::Context;
use super::reader::{Entry, Reader, TraceError};
use super::writer::Writer;

/// Which part: what fits to all that is given, from the first such entry to the last.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// Not before this, since the beginning.
    pub from: Option<Duration>,
    /// Not behind this.
    pub to: Option<Duration>,
    /// From where this test begins to where it ends.
    pub test: Option<String>,
}

/// Why a part could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The part cannot be written.
    #[error("the part cannot be written: {0}")]
    Write(#[source] io::Error),
    /// Nothing is in it.
    #[error("nothing in the trace is in that part")]
    Nothing,
}

impl Part {
    fn has(&self, entry: &Entry, context: &Context) -> bool {
        let time = context.time(entry);
        self.from.is_none_or(|from| time >= from)
            && self.to.is_none_or(|to| time <= to)
            && self.test.as_deref().is_none_or(|name| context.test() == Some(name))
    }
}

/// Writes a part of a trace; how many entries it has, without its end mark. One that begins where the trace does can be
/// replayed; another says that it cannot.
///
/// # Errors
/// When one cannot be read or the other not be written.
pub fn cut<R: BufRead, W: Write>(
    mut reader: Reader<R>,
    out: W,
    part: &Part,
) -> Result<u64, CutError> {
    let (header, begun) = (reader.header().clone(), reader.begun());
    let mut context = Context::new(&header, begun);
    let mut out = Some(out);
    let mut writer: Option<Writer<W>> = None;
    let (mut before, mut whole) = (0_u64, false);
    for entry in reader.by_ref() {
        let entry = entry?;
        context.follow(&entry);
        let kept = part.has(&entry, &context);
        let ends = matches!(entry.event, Event::Test(TestMark { result: Some(_), .. }));
        context.leave(&entry);
        if entry.event.is_last() {
            whole = matches!(entry.event, Event::End { .. }) && kept;
            break;
        }
        match (&mut writer, kept) {
            (Some(writer), true) => {
                writer.append(&entry.event, entry.time).map_err(CutError::Write)?;
            }
            (None, true) => {
                let header = Header { part: header.part || before > 0, ..header.clone() };
                let Some(out) = out.take() else { break };
                let mut begun = Writer::new(out, &header, begun).map_err(CutError::Write)?;
                begun.append(&entry.event, entry.time).map_err(CutError::Write)?;
                writer = Some(begun);
            }
            (Some(_), false) => break,
            (None, false) => before += 1,
        }
        if ends && part.test.is_some() && writer.is_some() {
            break;
        }
    }
    let Some(mut writer) = writer else { return Err(CutError::Nothing) };
    let events = writer.events();
    let end = if whole { Event::End { events } } else { Event::Cut { events } };
    let time = begun.saturating_add(part.to.unwrap_or_default());
    writer.append(&end, time).map_err(CutError::Write)?;
    writer.finish().map_err(CutError::Write)?;
    Ok(events)
}
