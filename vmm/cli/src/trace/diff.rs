//! `peerdma trace diff`.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use peerdma_suite::report::ktap::plain;
use peerdma_trace::{Diff, Entry, ReplayError, Stats, diff};

use super::super::replay::{failure, open};
use super::super::{Exit, Failure};
use super::{filter, output};

/// What to compare.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Times are not compared. Ends with 0 if nothing differs, and with 1 otherwise.

Example:
  peerdma trace diff good.pcapng.zst bad.pcapng.zst kind=MRd,MWr function=peer0")]
pub(super) struct Arguments {
    /// A trace
    #[arg(value_name = "A")]
    one: PathBuf,
    /// Another
    #[arg(value_name = "B")]
    other: PathBuf,
    /// Which entries, as for `show`; all without
    #[arg(value_name = "FILTER")]
    filters: Vec<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let filter = filter(&arguments.filters)?;
    let paths = [&arguments.one, &arguments.other];
    let result = diff(open(paths[0])?, open(paths[1])?, &filter).map_err(|(which, error)| {
        failure(paths.get(which).unwrap_or(&paths[0]), &ReplayError::Trace(error))
    })?;
    output::print(&text(&result))?;
    Ok(if result.first.is_some() { Exit::Failed as u8 } else { Exit::Success as u8 })
}

fn text(diff: &Diff) -> String {
    let mut text = String::new();
    let Some((one, other)) = &diff.first else {
        return format!("nothing differs: {} entries\n", diff.same);
    };
    let entry = |entry: &Option<Entry>| match entry {
        Some(entry) => format!("entry {}: {}", entry.number, plain(&entry.event.to_string())),
        None => "its end".to_owned(),
    };
    // Writing to a string does not fail.
    let _ = writeln!(text, "first difference, behind {} entries:", diff.same);
    let _ = writeln!(text, "  A: {}\n  B: {}\n", entry(one), entry(other));
    let _ = writeln!(text, "{:<30} {:>12} {:>12}", "", "A", "B");
    let (a, b) = &diff.stats;
    let rows = |stats: &Stats| {
        let kinds = stats.kinds.iter().map(|(name, count)| ((*name).to_owned(), *count));
        let found = stats.findings.iter().map(|(name, count)| (format!("finding {name}"), *count));
        kinds.chain(found).collect::<std::collections::BTreeMap<_, _>>()
    };
    let (a, b) = (rows(a), rows(b));
    for name in a.keys().chain(b.keys()).collect::<BTreeSet<_>>() {
        let count =
            |rows: &std::collections::BTreeMap<_, u64>| rows.get(name).copied().unwrap_or(0);
        let _ = writeln!(text, "{:<30} {:>12} {:>12}", plain(name), count(&a), count(&b));
    }
    text
}
