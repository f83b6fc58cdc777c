//! `peerdma replay --minimise`: the smallest trace that still has a finding.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use peerdma_suite::report::ktap::plain;
use peerdma_trace::{MinimiseError, Minimised, Wanted, minimise};

use super::progress::Ticker;
use super::record::EXTENSION;
use super::replay::{failure, named, open_quietly};
use super::{Exit, Failure, output};

/// Where the small trace goes.
pub(super) fn destination(
    trace: &Path,
    out: Option<&Path>,
    cases: Option<&Path>,
    wanted: Wanted,
) -> Result<PathBuf, Failure> {
    let name = trace.file_name().map_or_else(|| "trace".into(), |name| name.to_string_lossy());
    let stem = name.strip_suffix(&format!(".{EXTENSION}")).unwrap_or(&name);
    let path = match (out, cases) {
        (Some(out), _) => out.to_owned(),
        (None, Some(folder)) => {
            fs::create_dir_all(folder)
                .map_err(|error| Failure::environment(named(folder, error)))?;
            let finding = match wanted {
                Wanted::Class(class) => class.name().to_owned(),
                Wanted::Tlp(number) => format!("tlp-{number}"),
            };
            folder.join(format!("{finding}-{stem}.{EXTENSION}"))
        }
        (None, None) => trace.with_file_name(format!("{stem}.min.{EXTENSION}")),
    };
    let same = |one: &Path, other: &Path| match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    };
    if same(trace, &path) {
        return Err(Failure::usage(named(&path, "that is the trace itself")));
    }
    Ok(path)
}

pub(super) fn run(
    trace: &Path,
    wanted: Wanted,
    budget: Duration,
    out: &Path,
) -> Result<u8, Failure> {
    let reader = open_quietly(trace)?;
    // Nothing is replaced before there is something to replace it with.
    let mut small = Vec::new();
    let ticker = Ticker::new("minimising", budget);
    let result = minimise(reader, wanted, budget, &mut small).map_err(|error| match &error {
        MinimiseError::Replay(of_replay) => failure(trace, of_replay),
        _ => Failure::usage(named(trace, &error)),
    })?;
    drop(ticker);
    let written = File::create(out).and_then(|file| {
        let mut file = BufWriter::new(file);
        file.write_all(&small)?;
        file.flush()
    });
    written.map_err(|error| Failure::environment(named(out, error)))?;
    output::print(&text(&result, out))?;
    Ok(Exit::Success as u8)
}

fn text(result: &Minimised, out: &Path) -> String {
    let Minimised { finding, others, snapshot, events, runs, finished } = result;
    let end = if *finished { "" } else { "; time was up before all was tried" };
    let others: String =
        others.iter().map(|other| format!("with it: {}\n", plain(other))).collect();
    format!(
        "{}\n{others}{}: {events} entries behind a state of {snapshot}, after {runs} replays{end}\n",
        plain(finding),
        out.display()
    )
}
