//! `peerdma trace`: looking at what was recorded.

mod convert;
mod cut;
mod diff;
mod export;
mod show;
mod stats;
mod verify;

use clap::{Args, Subcommand};
use peerdma_support::say;
use peerdma_trace::{Ending, Filter, Header};

use super::replay::ending;
use super::{Failure, output};

/// What to do with a trace.
#[derive(Debug, Args)]
#[command(after_long_help = "\
A trace is a pcapng file in zstd frames; Wireshark opens it as it is, and dissects it with vmm/trace/wireshark/peerdma.lua. \
docs/trace-format.md describes the format.

Examples:
  peerdma trace show basic.pcapng.zst finding=any
  peerdma trace show basic.pcapng.zst function=peer0 kind=MWr address=0x1000-0x1fff
  peerdma trace stats basic.pcapng.zst --json
  peerdma trace verify basic.pcapng.zst
  peerdma trace cut basic.pcapng.zst --to 1.5 small.pcapng.zst")]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print entries, a line each
    Show(show::Arguments),
    /// Print what a trace adds up to: per function and route, sizes, findings, tests
    Stats(stats::Arguments),
    /// Check that a trace is complete and undamaged
    Verify(verify::Arguments),
    /// Print where two traces part
    Diff(diff::Arguments),
    /// Write a part of a trace, by time or test
    Cut(cut::Arguments),
    /// Write a trace in another program's format
    Export(export::Arguments),
    /// Convert a trace of the earlier JSON format
    Convert(convert::Arguments),
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    match &arguments.command {
        Command::Show(arguments) => show::run(arguments),
        Command::Stats(arguments) => stats::run(arguments),
        Command::Verify(arguments) => verify::run(arguments),
        Command::Diff(arguments) => diff::run(arguments),
        Command::Cut(arguments) => cut::run(arguments),
        Command::Export(arguments) => export::run(arguments),
        Command::Convert(arguments) => convert::run(arguments),
    }
}

/// The filter of a command line.
fn filter(terms: &[String]) -> Result<Filter, Failure> {
    Filter::new(terms).map_err(|error| {
        Failure::usage(error).hint("`peerdma trace show --help` explains the keys")
    })
}

/// Whether a trace has the functions that a filter names.
fn fits_to(filter: &Filter, header: &Header) -> Result<(), Failure> {
    filter.check(header).map_err(Failure::usage)
}

/// Says so where a trace is not complete.
fn remark(how: Option<&Ending>) {
    if let Some(how @ (Ending::Cut | Ending::Truncated { .. })) = how {
        say!("{}", ending(how));
    }
}
