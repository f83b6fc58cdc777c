//! `peerdma trace show`.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::PathBuf;

use clap::Args;
use peerdma_suite::report::ktap::plain;
use peerdma_support::say;
use peerdma_trace::{Context, Entry, Event, ReplayError, TransactionResult};

use super::super::replay::{failure, open_quietly};
use super::super::{Exit, Failure};
use super::{filter, fits_to, remark};

/// What to print.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A filter is KEY=VALUE, with several values separated by commas, or KEY!=VALUE; all filters must fit. Keys: function, \
requester, target (names, addresses, ram), address and tlp and entry (a number or FROM-TO), kind (MRd, MWr, finding, note, \
turn, test, config-write and so on), purpose, route, status, finding (a class, the beginning of one, or any), test (a name, \
or the beginning of one and *), time (seconds, or FROM-TO), record (a witness record: map, unmap, buffer-map and so on), \
buffer (the inode number of a dma-buf in those).

Columns: number of the entry, seconds since the beginning, source, and what happened.

Examples:
  peerdma trace show t.pcapng.zst finding=any
  peerdma trace show t.pcapng.zst function=peer0,peer1 kind!=turn time=0.5-0.6
  peerdma trace show t.pcapng.zst status=UR,CA --json")]
pub(super) struct Arguments {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Which entries; all without
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// Print no more entries than this
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print each TLP of a run
    #[arg(long)]
    tlps: bool,
    /// A JSON object each
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let filter = filter(&arguments.filters)?;
    let mut reader = open_quietly(&arguments.trace)?;
    fits_to(&filter, reader.header())?;
    let mut context = Context::new(reader.header(), reader.begun());
    let interfaces = reader.interfaces();
    let stdout = io::stdout().lock();
    let colours =
        stdout.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty());
    let mut out = BufWriter::with_capacity(1 << 16, stdout);
    let limit = arguments.limit.unwrap_or(u64::MAX);
    let mut left = limit;
    let mut printed = Ok(());
    let mut failed = None;
    for entry in reader.by_ref() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                failed = Some(error);
                break;
            }
        };
        context.follow(&entry);
        if filter.fits(&entry, &context) {
            if left == 0 {
                break;
            }
            left -= 1;
            let number = usize::try_from(entry.interface).unwrap_or(usize::MAX);
            let source = interfaces.get(number).map_or("?", String::as_str);
            let line = Line { entry: &entry, context: &context, source, colours };
            printed = if arguments.json {
                line.json(&mut out)
            } else {
                line.text(&mut out, arguments.tlps)
            };
            if printed.is_err() {
                break;
            }
        }
        context.leave(&entry);
    }
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Exit::Success as u8),
        Err(error) => {
            return Err(Failure::environment(format_args!("writing to stdout: {error}")));
        }
        Ok(()) => {}
    }
    if let Some(error) = failed {
        return Err(failure(&arguments.trace, &ReplayError::Trace(error)));
    }
    if left == limit && limit > 0 && !arguments.filters.is_empty() {
        say!("no entry fits to the filters");
    }
    remark(reader.ending());
    Ok(Exit::Success as u8)
}

struct Line<'a> {
    entry: &'a Entry,
    context: &'a Context,
    source: &'a str,
    colours: bool,
}

impl Line<'_> {
    fn text(&self, out: &mut impl Write, tlps: bool) -> io::Result<()> {
        let Self { entry, context, source, .. } = self;
        let (colour, end) = match self.colour() {
            Some(colour) if self.colours => (format!("\x1b[{colour}m"), "\x1b[0m"),
            _ => (String::new(), ""),
        };
        let (number, seconds) = (entry.number, context.time(entry).as_secs_f64());
        let (source, what) = (plain(source), plain(&entry.event.to_string()));
        writeln!(out, "{colour}{number:>8} {seconds:>12.6} {source:<14} {what}{end}")?;
        if let (true, Event::Transaction(run)) = (tlps, &entry.event) {
            for (number, address, length) in run.tlps() {
                let kind = run.kind;
                writeln!(out, "{:>37}#{number} {kind} addr={address:#x} len={length}", "")?;
            }
        }
        Ok(())
    }

    fn json(&self, out: &mut impl Write) -> io::Result<()> {
        peerdma_trace::jsonl(self.entry, self.source, self.context, out)
    }

    /// The colour of the line, as a number for terminals.
    fn colour(&self) -> Option<&'static str> {
        match &self.entry.event {
            Event::Finding(finding) => Some(if finding.note { "33" } else { "31;1" }),
            Event::Transaction(run) => match run.outcome {
                TransactionResult::Failed(_) => Some("31"),
                TransactionResult::Delivered { .. } if run.verdict.is_some() => Some("33"),
                TransactionResult::Delivered { .. } => None,
            },
            Event::Step { .. } => Some("2"),
            Event::Test(_) => Some("36"),
            Event::Lost { .. } | Event::Cut { .. } => Some("35;1"),
            _ => None,
        }
    }
}
