//! `peerdma trace cut`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use peerdma_trace::{CutError, Part, ReplayError, cut};

use super::super::replay::{failure, named, open};
use super::super::{Exit, Failure};
use super::{convert::Whole, output};

/// Which part to write.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A part that begins where the trace does can be replayed; another one cannot, because what came before is missing.

Examples:
  peerdma trace cut t.pcapng.zst --to 2.5 t1.pcapng.zst
  peerdma trace cut t.pcapng.zst --test dma_buf_matrix t2.pcapng.zst")]
pub(super) struct Arguments {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Where the part goes
    #[arg(value_name = "OUT")]
    out: PathBuf,
    /// Seconds since the beginning
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    from: Option<Duration>,
    /// Seconds since the beginning
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    to: Option<Duration>,
    /// From where this test begins to where it ends; `command` is a command of your own
    #[arg(long, value_name = "NAME")]
    test: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Arguments { trace, out, from, to, test } = arguments;
    let reader = open(trace)?;
    not_itself(trace, out)?;
    let whole = Whole::create(out)?;
    let part = Part { from: *from, to: *to, test: test.clone() };
    let events = cut(reader, whole.file(), &part).map_err(|error| match error {
        CutError::Trace(error) => failure(trace, &ReplayError::Trace(error)),
        CutError::Write(error) => Failure::environment(named(out, error)),
        CutError::Nothing => Failure::usage(named(trace, error)),
    })?;
    whole.keep()?;
    output::print(&format!("{events} entries\n"))?;
    Ok(Exit::Success as u8)
}

/// The part would take the place of the trace.
fn not_itself(trace: &Path, out: &Path) -> Result<(), Failure> {
    match (trace.canonicalize(), out.canonicalize()) {
        (Ok(trace), Ok(out)) if trace == out => {
            Err(Failure::usage("the part would replace the trace that it is of")
                .hint("give it another name"))
        }
        _ => Ok(()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let bad = || "not a number of seconds".to_owned();
    let seconds = text.parse::<f64>().map_err(|_| bad())?;
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}
