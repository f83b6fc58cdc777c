//! `peerdma replay`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use clap::Args;
use peerdma_suite::report::ktap::plain;
use peerdma_trace::{Reader, Replay, ReplayError, replay};
use serde_json::json;

use super::{Exit, Failure, output};

/// Findings that are printed; the rest are counted.
const SHOWN: usize = 1000;

/// What to replay.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Ends with 0 when everything came out as recorded, with 1 at the first difference, which is then printed.

Example:
  peerdma test --record traces
  peerdma replay traces/basic.trace")]
pub(super) struct Arguments {
    /// The trace, as `--record` wrote it
    #[arg(value_name = "FILE")]
    record: PathBuf,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let path = &arguments.record;
    let file = File::open(path).map_err(|error| Failure::usage(named(path, error)))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::usage(named(path, "it is a folder; name a trace file")));
    }
    let failed = |error: ReplayError| match error.is_of_the_machine() {
        true => Failure::environment(named(path, error)),
        false => Failure::usage(named(path, error)),
    };
    let mut reader = Reader::new(BufReader::new(file)).map_err(|error| failed(error.into()))?;
    let result = replay(&mut reader).map_err(failed)?;
    if arguments.json {
        output::json(&json!({
            "events": result.events,
            "transactions": result.transactions,
            "findings": result.findings,
            "findings-in-all": result.found,
            "identical": result.difference.is_none(),
            "difference": result.difference.as_ref().map(|difference| json!({
                "line": difference.line,
                "recorded": difference.recorded,
                "replayed": difference.replayed,
            })),
            "truncated": result.truncated,
            "cut": result.cut,
        }))?;
    } else {
        output::print(&text(&result))?;
    }
    Ok(if result.difference.is_some() { Exit::Failed as u8 } else { Exit::Success as u8 })
}

fn named(path: &Path, error: impl std::fmt::Display) -> String {
    // What is wrong with a file may quote it.
    format!("{}: {}", path.display(), plain(&error.to_string()))
}

fn text(result: &Replay) -> String {
    let mut text = String::new();
    let line = |text: &mut String, line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    for finding in result.findings.iter().take(SHOWN) {
        line(&mut text, format_args!("{}", plain(finding)));
    }
    let shown = result.findings.len().min(SHOWN) as u64;
    if result.found > shown {
        line(&mut text, format_args!("and {} more", result.found - shown));
    }
    if let Some(difference) = &result.difference {
        line(&mut text, format_args!("first difference, at line {}:", difference.line));
        let event = |event: &Option<_>| {
            event
                .as_ref()
                .and_then(|event| serde_json::to_string(event).ok())
                .unwrap_or_else(|| "nothing".into())
        };
        line(&mut text, format_args!("  recorded: {}", event(&difference.recorded)));
        line(&mut text, format_args!("  replayed: {}", event(&difference.replayed)));
    }
    if result.truncated {
        line(
            &mut text,
            format_args!("the trace has no end mark: it was cut, or its writer was killed"),
        );
    }
    if result.cut {
        line(&mut text, format_args!("the trace was cut at its size limit"));
    }
    let verdict = match (&result.difference, result.truncated || result.cut) {
        (Some(_), _) => "different",
        (None, true) => "identical as far as the trace goes",
        (None, false) => "identical",
    };
    line(
        &mut text,
        format_args!(
            "{verdict}: {} events, {} transactions, {} findings",
            result.events, result.transactions, result.found
        ),
    );
    text
}

#[cfg(test)]
mod tests {
    use peerdma_trace::{Difference, Event};

    use super::*;

    #[test]
    fn a_difference_is_named() {
        let mut result =
            Replay { events: 3, transactions: 2, truncated: true, ..Replay::default() };
        result.findings.push("#1 x".into());
        result.found = 1;
        assert_eq!(
            text(&result),
            "#1 x\nthe trace has no end mark: it was cut, or its writer was killed\n\
             identical as far as the trace goes: 3 events, 2 transactions, 1 findings\n"
        );
        result.difference =
            Some(Difference { line: 7, recorded: Some(Event::End { events: 1 }), replayed: None });
        let text = text(&result);
        assert!(
            text.contains("first difference, at line 7:\n  recorded: {\"event\":\"end\""),
            "{text}"
        );
        assert!(
            text.contains("  replayed: nothing\n") && text.contains("\ndifferent: 3 events"),
            "{text}"
        );
    }

    #[test]
    fn what_is_not_a_record_is_a_usage_error() {
        let run =
            |record: &Path| run(&Arguments { record: record.into(), json: false }).unwrap_err();
        assert_eq!(run(Path::new("/no/such/file")).exit, Exit::Usage);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "nonsense\n").unwrap();
        let failure = run(&path);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("not a trace"), "{}", failure.message);
    }
}
