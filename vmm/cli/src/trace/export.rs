//! `peerdma trace export`.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use peerdma_trace::{Context, Entry, ReplayError};

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
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.out {
        Some(path) => {
            let whole = Whole::create(path)?;
            let mut out = whole.file();
            let failed = |error: io::Error| Failure::environment(named(path, error));
            write(arguments, &mut out)?.and_then(|()| out.flush()).map_err(failed)?;
            drop(out);
            whole.keep()?;
        }
        None if !matches!(arguments.to, Format::Jsonl) && io::stdout().is_terminal() => {
            return Err(Failure::usage("this format is binary, and stdout is a terminal")
                .hint("give --out FILE, or a pipe"));
        }
        None => {
            let mut out = BufWriter::new(io::stdout().lock());
            match write(arguments, &mut out)?.and_then(|()| out.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    return Err(Failure::environment(format_args!("writing to stdout: {error}")));
                }
                _ => {}
            }
        }
    }
    Ok(Exit::Success as u8)
}

/// An entry goes somewhere, with the name of its source.
type Sink<'a> = Box<dyn FnMut(&Entry, &str, &Context) -> io::Result<()> + 'a>;

/// Writes the entries. The outer error is the trace's.
fn write<'a>(arguments: &Arguments, out: &'a mut impl Write) -> Result<io::Result<()>, Failure> {
    let filter = filter(&arguments.filters)?;
    let mut reader = open(&arguments.trace)?;
    fits_to(&filter, reader.header())?;
    let mut context = Context::new(reader.header(), reader.begun());
    let interfaces = reader.interfaces();
    let mut sink: Sink<'a> = match arguments.to {
        Format::Jsonl => {
            Box::new(|entry, source, context| peerdma_trace::jsonl(entry, source, context, out))
        }
        #[cfg(feature = "perfetto")]
        Format::Perfetto => match peerdma_trace::Perfetto::new(out, &interfaces) {
            Ok(mut perfetto) => Box::new(move |entry, _, context| perfetto.add(entry, context)),
            Err(error) => return Ok(Err(error)),
        },
    };
    for entry in reader.by_ref() {
        let entry = entry.map_err(|error| failure(&arguments.trace, &ReplayError::Trace(error)))?;
        context.follow(&entry);
        if filter.fits(&entry, &context) {
            let number = usize::try_from(entry.interface).unwrap_or(usize::MAX);
            let source = interfaces.get(number).map_or("?", String::as_str);
            if let Err(error) = sink(&entry, source, &context) {
                return Ok(Err(error));
            }
        }
        context.leave(&entry);
    }
    remark(reader.ending());
    Ok(Ok(()))
}
