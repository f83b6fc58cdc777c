//! `peerdma trace stats`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use peerdma_suite::report::ktap::plain;
use peerdma_trace::{Context, Lengths, ReplayError, Stats, Traffic};

use super::super::replay::{failure, open};
use super::super::{Exit, Failure};
use super::{filter, fits_to, output, remark};

/// What to add up.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The trace
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// Which entries, as for `show`; all without
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let filter = filter(&arguments.filters)?;
    let mut reader = open(&arguments.trace)?;
    fits_to(&filter, reader.header())?;
    let header = reader.header().clone();
    let mut context = Context::new(&header, reader.begun());
    let mut stats = Stats::default();
    for entry in reader.by_ref() {
        let entry = entry.map_err(|error| failure(&arguments.trace, &ReplayError::Trace(error)))?;
        context.follow(&entry);
        if filter.fits(&entry, &context) {
            stats.add(&entry, &header, &context);
        }
        context.leave(&entry);
    }
    match arguments.json {
        true => output::json(&stats)?,
        false => output::print(&text(&stats))?,
    }
    remark(reader.ending());
    Ok(Exit::Success as u8)
}

/// The sums as a table.
pub(super) fn text(stats: &Stats) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{} entries in {:.3} s", stats.entries, stats.seconds);
    if stats.lost > 0 {
        let _ = writeln!(text, "{} entries were dropped", stats.lost);
    }
    let _ = writeln!(
        text,
        "\n{:<16} {:<20} {:>12} {:>12} {:>16} {:>16}",
        "function", "route or status", "transactions", "TLPs", "bytes read", "bytes written"
    );
    for (name, routes) in &stats.traffic {
        for (route, Traffic { transactions, tlps, read, written }) in routes {
            let name = plain(name);
            let _ = writeln!(
                text,
                "{name:<16} {route:<20} {transactions:>12} {tlps:>12} {read:>16} {written:>16}"
            );
        }
    }
    if !stats.sizes.is_empty() {
        let _ = writeln!(text, "\ntransactions by size, in bytes, up to:");
        for (size, count) in &stats.sizes {
            let _ = writeln!(text, "{size:>16} {count:>12}");
        }
    }
    let Traffic { transactions, read, written, .. } = stats.iommu;
    if transactions > 0 {
        let _ = writeln!(
            text,
            "\nIOMMU: {transactions} transactions of its virtqueues, {read} bytes read, {written} written"
        );
    }
    mappings(stats, &mut text);
    for (title, rows) in [("findings and notes", &stats.findings)] {
        if !rows.is_empty() {
            let _ = writeln!(text, "\n{title}:");
            rows.iter().for_each(|(name, count)| {
                let _ = writeln!(text, "{:<30} {count:>12}", plain(name));
            });
        }
    }
    if !stats.tests.is_empty() {
        let tests: Vec<_> =
            stats.tests.iter().map(|(how, count)| format!("{count} {how}")).collect();
        let _ = writeln!(text, "\ntests: {}", tests.join(", "));
    }
    for (title, rows) in [("witness records", &stats.records), ("entries by kind", &stats.kinds)] {
        if !rows.is_empty() {
            let _ = writeln!(text, "\n{title}:");
            rows.iter().for_each(|(kind, count)| {
                let _ = writeln!(text, "{kind:<30} {count:>12}");
            });
        }
    }
    text
}

/// How long mappings lived.
fn mappings(stats: &Stats, text: &mut String) {
    if !stats.mappings.is_empty() {
        let _ = writeln!(
            text,
            "\n{:<16} {:<10} {:>12} {:>16} {:>12} {:>12}",
            "mappings for", "made by", "made", "never unmapped", "median life", "longest"
        );
    }
    for (name, by) in &stats.mappings {
        for (by, lengths) in by {
            let median = lengths.median_ns().map_or_else(String::new, time);
            let longest =
                lengths.median_ns().map_or_else(String::new, |_| time(lengths.longest_ns));
            let (name, Lengths { mappings, never_unmapped, .. }) = (plain(name), lengths);
            let _ = writeln!(
                text,
                "{name:<16} {by:<10} {mappings:>12} {never_unmapped:>16} {median:>12} {longest:>12}"
            );
        }
    }
    if stats.mappings_missed > 0 {
        let _ = writeln!(text, "{} mappings more were not followed", stats.mappings_missed);
    }
}

/// A time in a unit that suits it.
fn time(nanoseconds: u64) -> String {
    let time = std::time::Duration::from_nanos(nanoseconds).as_secs_f64();
    match nanoseconds {
        0..1_000_000 => format!("{:.1} us", time * 1e6),
        1_000_000..1_000_000_000 => format!("{:.1} ms", time * 1e3),
        _ => format!("{time:.2} s"),
    }
}
