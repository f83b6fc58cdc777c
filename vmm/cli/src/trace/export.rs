//! `peerdma trace export`.

use std::io::{self, BufRead, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use peerdma_trace::{Context, Entry, Reader, ReplayError};

use super::super::replay::{failure, named, open};
use super::super::{Exit, Failure};
use super::{convert::Whole, filter, fits_to, remark};

/// What to write, and how.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Which entries, as for `show`; all without
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// The format
    #[arg(long, value_enum)]
    to: Format,
    /// Where it goes [default: stdout]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON object for each entry, a line each
    Jsonl,
    /// For https://ui.perfetto.dev: tracks, slices, findings, and flows from doorbells to interrupts
    #[cfg(feature = "perfetto")]
    Perfetto,
    /// For DuckDB, Spark and others: a row for each entry; docs/traces.md lists the columns
    #[cfg(feature = "parquet")]
    Parquet,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.out {
        Some(path) => {
            let whole = Whole::create(path)?;
            let failed = |error: io::Error| Failure::environment(named(path, error));
            write(arguments, whole.file())?.map_err(failed)?;
            whole.keep()?;
        }
        None if !matches!(arguments.to, Format::Jsonl) && io::stdout().is_terminal() => {
            return Err(Failure::usage("this format is binary, and stdout is a terminal")
                .hint("give --out FILE, or a pipe"));
        }
        None => match write(arguments, BufWriter::new(io::stdout()))? {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(Failure::environment(format_args!("writing to stdout: {error}")));
            }
            _ => {}
        },
    }
    Ok(Exit::Success as u8)
}

/// Where entries go.
enum Sink<W: Write + Send> {
    Jsonl(W),
    #[cfg(feature = "perfetto")]
    Perfetto(Box<peerdma_trace::Perfetto<W>>),
    #[cfg(feature = "parquet")]
    Parquet(Box<peerdma_trace::Parquet<W>>),
}

impl<W: Write + Send> Sink<W> {
    fn new(arguments: &Arguments, out: W, reader: &Reader<impl BufRead>) -> io::Result<Self> {
        Ok(match arguments.to {
            Format::Jsonl => Self::Jsonl(out),
            #[cfg(feature = "perfetto")]
            Format::Perfetto => {
                let (header, names) = (reader.header(), reader.interfaces());
                Self::Perfetto(Box::new(peerdma_trace::Perfetto::new(out, header, &names)?))
            }
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                let name = arguments.trace.file_name().unwrap_or_default().to_string_lossy();
                let (header, begun) = (reader.header(), reader.begun());
                Self::Parquet(Box::new(peerdma_trace::Parquet::new(out, &name, header, begun)?))
            }
        })
    }

    /// Takes an entry, with the name of its source; `kept` if the filters let it through.
    fn add(
        &mut self,
        entry: &Entry,
        source: &str,
        context: &Context,
        kept: bool,
    ) -> io::Result<()> {
        match self {
            Self::Jsonl(out) if kept => peerdma_trace::jsonl(entry, source, context, out),
            #[cfg(feature = "perfetto")]
            Self::Perfetto(perfetto) => perfetto.add(entry, context, kept),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.add(entry, source, context, kept),
            _ => Ok(()),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Jsonl(mut out) => out.flush(),
            #[cfg(feature = "perfetto")]
            Self::Perfetto(perfetto) => perfetto.finish().map(drop),
            #[cfg(feature = "parquet")]
            Self::Parquet(parquet) => parquet.finish()?.flush(),
        }
    }
}

/// Writes the entries. The outer error is the trace's.
fn write(arguments: &Arguments, out: impl Write + Send) -> Result<io::Result<()>, Failure> {
    let filter = filter(&arguments.filters)?;
    let mut reader = open(&arguments.trace)?;
    fits_to(&filter, reader.header())?;
    let mut context = Context::new(reader.header(), reader.begun());
    let interfaces = reader.interfaces();
    let mut sink = match Sink::new(arguments, out, &reader) {
        Ok(sink) => sink,
        Err(error) => return Ok(Err(error)),
    };
    for entry in reader.by_ref() {
        let entry = entry.map_err(|error| failure(&arguments.trace, &ReplayError::Trace(error)))?;
        context.follow(&entry);
        let kept = filter.fits(&entry, &context);
        let number = usize::try_from(entry.interface).unwrap_or(usize::MAX);
        let source = interfaces.get(number).map_or("?", String::as_str);
        if let Err(error) = sink.add(&entry, source, &context, kept) {
            return Ok(Err(error));
        }
        context.leave(&entry);
    }
    remark(reader.ending());
    Ok(sink.finish())
}
