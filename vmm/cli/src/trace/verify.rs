//! `peerdma trace verify`.

use std::path::PathBuf;

use clap::Args;
use peerdma_trace::{Ending, ReplayError, check_seek_table};

use super::super::replay::{ending, failure, named, open, open_file};
use super::super::{Exit, Failure};
use super::output;

/// What to check.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Reads the whole trace. Ends with 0 if it is complete, with 1 if it has no end mark, was cut at its size limit, or lacks \
entries that were dropped, and with 2 if it is damaged or not a trace. Wireshark shows no error where a trace is cut.")]
pub(super) struct Arguments {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let path = &arguments.trace;
    let mut reader = open(path)?;
    let (mut entries, mut first) = (0_u64, 0);
    for entry in reader.by_ref() {
        let entry = entry.map_err(|error| failure(path, &ReplayError::Trace(error)))?;
        if entries == 0 {
            first = entry.number;
        }
        entries += u64::from(!entry.event.is_last());
    }
    let how = reader.ending().cloned();
    let (lost, part, packed) = (reader.lost(), reader.header().part, reader.is_packed());
    let mut text = format!("{entries} entries, {} bytes unpacked\n", reader.bytes());
    let mut complete = matches!(how, Some(Ending::Complete));
    if let Some(how) = &how {
        text += &format!("{}\n", ending(how));
    }
    if lost > 0 {
        complete = false;
        text += &format!("{lost} entries were dropped when it was recorded (--record-lossy)\n");
    }
    if part {
        text += "it is a part of a trace, without its beginning";
        text += &match first {
            0 | 1 => "\n".to_owned(),
            first => format!(": its first entry has the number {first}\n"),
        };
    }
    if complete
        && packed
        && let Err(reason) = check_seek_table(&mut open_file(path)?)
    {
        complete = false;
        text += &named(path, format_args!("its seek table is missing or damaged: {reason}\n"));
    }
    output::print(&text)?;
    Ok(if complete { Exit::Success as u8 } else { Exit::Failed as u8 })
}
