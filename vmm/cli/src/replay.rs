//! `peerdma replay`.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use peerdma_suite::report::ktap::plain;
use peerdma_trace::{
    Change, Changes, Ending, Reader, Replay, ReplayError, Until, Wanted, replay_what_if,
};
use serde_json::json;

use super::progress::Watched;
use super::{Exit, Failure, minimise, output, step};

/// Findings that are printed; the rest are counted.
const SHOWN: usize = 1000;

/// What to replay.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Ends with 0 when everything came out as recorded, with 1 at the first difference, which is then printed,
and with 2 when nothing could be compared.

Example:
  peerdma test --record traces
  peerdma replay traces/basic.pcapng.zst
  peerdma replay traces/basic.pcapng.zst --step --until iommu.stale
  peerdma replay traces/basic.pcapng.zst --minimise iommu.stale --out stale.pcapng.zst
  peerdma replay traces/switch.pcapng.zst --what-if down0.acs=+RR --what-if down1.acs=+RR")]
pub(super) struct Arguments {
    /// The trace, as `--record` wrote it
    #[arg(value_name = "FILE")]
    trace: PathBuf,
    /// List the transactions that would have ended in another way: PORT.acs=+RR,-CR (or a list of what is on),
    /// PORT.acs-without-effect=RR, BRIDGE.peer-routing=nowhere, or strict, for addresses that the kernel has unmapped;
    /// may be given several times
    #[arg(long, value_name = "CHANGE")]
    what_if: Vec<Change>,
    /// Make the smallest trace that still has this finding: the first of a class, as iommu.stale, or about a TLP, as #1042
    #[arg(long, value_name = "FINDING", conflicts_with_all = ["what_if", "json"])]
    minimise: Option<Wanted>,
    /// Where the small trace goes [default: FILE with .min before its ending]
    #[arg(long, value_name = "FILE", requires = "minimise")]
    out: Option<PathBuf>,
    /// Time for making it small; the best that was found by then is written
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60s", requires = "minimise")]
    budget: Duration,
    /// Put the small trace into this folder of regression cases instead, named for its finding
    #[arg(long, value_name = "DIR", requires = "minimise", conflicts_with = "out")]
    to_test: Option<PathBuf>,
    /// Stop at a finding, and take commands on stdin: look at mappings, registers and topology, go on in steps; `help`
    /// lists them
    #[arg(long, conflicts_with_all = ["what_if", "minimise", "json"])]
    step: bool,
    /// Where to stop first: `finding`, a class or group of findings, a TLP as #1042, or the number of an entry
    #[arg(long, value_name = "PLACE", default_value = "finding", requires = "step")]
    until: Until,
    /// Print the result as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let path = &arguments.trace;
    if let Some(wanted) = arguments.minimise {
        let out = minimise::destination(
            path,
            arguments.out.as_deref(),
            arguments.to_test.as_deref(),
            wanted,
        )?;
        return minimise::run(path, wanted, arguments.budget, &out);
    }
    if arguments.step {
        return step::run(path, &arguments.until);
    }
    let result =
        replay_what_if(open(path)?, &arguments.what_if).map_err(|error| failure(path, &error))?;
    if result.events == 0 && result.difference.is_none() {
        return Err(Failure::usage(named(path, nothing(&result))));
    }
    if arguments.json {
        output::json(&json!({
            "entries": result.entries,
            "events": result.events,
            "transactions": result.transactions,
            "findings": result.findings,
            "findings-in-all": result.found,
            "identical": result.difference.is_none(),
            "difference": result.difference.as_ref().map(|difference| json!({
                "entry": difference.entry,
                "recorded": difference.recorded,
                "replayed": difference.replayed,
            })),
            "what-if": result.changes.as_ref().map(changes_json),
            "truncated": matches!(result.ending, Some(Ending::Truncated { .. })),
            "cut": result.ending == Some(Ending::Cut),
            "ending": result.ending.as_ref().map(ending),
        }))?;
    } else {
        output::print(&text(&result))?;
    }
    Ok(if result.difference.is_some() { Exit::Failed as u8 } else { Exit::Success as u8 })
}

/// Why nothing was compared.
fn nothing(result: &Replay) -> String {
    let why = match &result.ending {
        Some(how) if result.is_partial() => ending(how),
        _ => "the trace has no entries that a replay could compare".to_owned(),
    };
    format!("nothing was compared: {why}")
}

/// A time, for example `60s`.
fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok();
    let time = number.and_then(|number| Duration::try_from_secs_f64(number).ok());
    time.filter(|time| *time <= Duration::from_secs(86_400))
        .ok_or_else(|| "a time is a number of seconds, at most a day".to_owned())
}

/// What would have been, for programs.
fn changes_json(changes: &Changes) -> serde_json::Value {
    let list: Vec<_> = changes
        .list
        .iter()
        .map(|it| {
            json!({
                "tlp": it.tlp,
                "function": it.function,
                "kind": it.kind.to_string(),
                "address": it.address,
                "length": it.length,
                "was": it.was,
                "would-be": it.would_be,
            })
        })
        .collect();
    json!({ "changes": list, "count": changes.count })
}

/// What would have been, for people.
fn changes_text(changes: &Changes, text: &mut String) {
    for changed in changes.list.iter().take(SHOWN) {
        let _ = writeln!(text, "{}", plain(&changed.to_string()));
    }
    let shown = changes.list.len().min(SHOWN) as u64;
    if changes.count > shown {
        let _ = writeln!(text, "and {} more", changes.count - shown);
    }
    for ((function, was, would_be), (count, bytes)) in &changes.sums {
        let line = format!("{function}: {was} -> {would_be}: {count} transactions, {bytes} bytes");
        let _ = writeln!(text, "{}", plain(&line));
    }
    let _ = match changes.count {
        0 => writeln!(text, "no verdict or route changes"),
        1 => writeln!(text, "the verdict or route of 1 transaction, or part of one, changes"),
        count => {
            writeln!(
                text,
                "the verdict or route of {count} transactions, or parts of them, changes"
            )
        }
    };
}

/// A trace's file.
pub(super) type TraceFile = BufReader<Watched<File>>;

/// Opens a trace; how far it has been read is printed where that takes long.
pub(super) fn open(path: &Path) -> Result<Reader<TraceFile>, Failure> {
    let file = open_file(path)?;
    let size = file.metadata().map(|metadata| metadata.len()).ok();
    read(path, Watched::new(file, size))
}

/// Opens a trace for something that prints while it reads.
pub(super) fn open_quietly(path: &Path) -> Result<Reader<TraceFile>, Failure> {
    read(path, Watched::new(open_file(path)?, None))
}

fn read(path: &Path, file: Watched<File>) -> Result<Reader<TraceFile>, Failure> {
    Reader::ahead(BufReader::with_capacity(1 << 17, file))
        .map_err(|error| failure(path, &ReplayError::Trace(error)))
}

/// Opens a file that may be a trace.
pub(super) fn open_file(path: &Path) -> Result<File, Failure> {
    let file = File::open(path).map_err(|error| Failure::usage(named(path, error)))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Failure::usage(named(path, "it is a folder; name a trace file")));
    }
    Ok(file)
}

/// A trace that cannot be used, or a machine that lacks something.
pub(super) fn failure(path: &Path, error: &ReplayError) -> Failure {
    match error.is_of_the_machine() {
        true => Failure::environment(named(path, error)),
        false => Failure::usage(named(path, error)),
    }
}

/// How a trace ends, in a sentence without a full stop.
pub(super) fn ending(ending: &Ending) -> String {
    match ending {
        Ending::Complete => "the trace is complete".to_owned(),
        Ending::Cut => "the trace was cut, by its size limit or `trace cut`".to_owned(),
        Ending::Truncated { place, reason } => format!(
            "the trace has no end mark, so its recorder was killed, the disk was full, or the file was cut: it ends \
             before {place}: {reason}"
        ),
    }
}

pub(super) fn named(path: &Path, error: impl std::fmt::Display) -> String {
    // What is wrong with a file may quote it.
    format!("{}: {}", path.display(), plain(&error.to_string()))
}

pub(super) fn text(result: &Replay) -> String {
    let mut text = String::new();
    // What was asked for is the answer; what the trace has found is not.
    if let Some(changes) = &result.changes {
        changes_text(changes, &mut text);
    }
    let asked = result.changes.is_some();
    let line = |text: &mut String, line: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{line}");
    };
    let findings = if asked { &[][..] } else { &result.findings };
    for finding in findings.iter().take(SHOWN) {
        line(&mut text, format_args!("{}", plain(finding)));
    }
    let shown = result.findings.len().min(SHOWN) as u64;
    if result.found > shown && !asked {
        line(&mut text, format_args!("and {} more", result.found - shown));
    }
    if let Some(difference) = &result.difference {
        line(&mut text, format_args!("first difference, at entry {}:", difference.entry));
        let event = |event: &Option<_>| {
            event
                .as_ref()
                .and_then(|event| serde_json::to_string(event).ok())
                .unwrap_or_else(|| "nothing".into())
        };
        line(&mut text, format_args!("  recorded: {}", event(&difference.recorded)));
        line(&mut text, format_args!("  replayed: {}", event(&difference.replayed)));
    }
    if result.is_partial()
        && let Some(how) = &result.ending
    {
        line(&mut text, format_args!("{}", ending(how)));
    }
    let verdict = match (&result.difference, result.is_partial()) {
        (None, false) if asked => "as recorded it replays",
        (None, true) if asked => "as recorded it replays as far as the trace goes",
        (Some(_), _) => "different",
        (None, true) => "identical as far as the trace goes",
        (None, false) => "identical",
    };
    line(
        &mut text,
        format_args!(
            "{verdict}: {} entries, {} transactions, {} findings",
            result.entries, result.transactions, result.found
        ),
    );
    text
}

#[cfg(test)]
mod tests {
    use peerdma_trace::{Difference, Event, TracePlace};

    use super::*;

    #[test]
    fn a_difference_is_named() {
        let place = TracePlace { entry: 5, offset: 600, frame: 70 };
        let ending = Some(Ending::Truncated { place, reason: "a block is cut".into() });
        let mut result =
            Replay { entries: 4, events: 3, transactions: 2, ending, ..Replay::default() };
        result.findings.push("#1 x".into());
        result.found = 1;
        assert_eq!(
            text(&result),
            "#1 x\nthe trace has no end mark, so its recorder was killed, the disk was full, or the file was cut: \
             it ends before entry 5, at byte 600 unpacked, in the frame at byte 70: a block is cut\n\
             identical as far as the trace goes: 4 entries, 2 transactions, 1 findings\n"
        );
        result.difference =
            Some(Difference { entry: 7, recorded: Some(Event::End { events: 1 }), replayed: None });
        let text = text(&result);
        assert!(
            text.contains("first difference, at entry 7:\n  recorded: {\"event\":\"end\""),
            "{text}"
        );
        assert!(
            text.contains("  replayed: nothing\n") && text.contains("\ndifferent: 4 entries"),
            "{text}"
        );
    }

    fn run_on(trace: &Path, json: bool) -> Result<u8, Failure> {
        run(&Arguments {
            trace: trace.into(),
            what_if: Vec::new(),
            minimise: None,
            out: None,
            budget: Duration::ZERO,
            to_test: None,
            step: false,
            until: Until::Finding,
            json,
        })
    }

    #[test]
    fn where_nothing_was_compared_nothing_is_identical() {
        use peerdma_trace::{Header, Payload, Writer};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let header = Header {
            system: peerdma_topology::assembly::SystemConfig::default(),
            ram: vec![(0, 1 << 20)],
            functions: Vec::new(),
            payload: Payload::None,
            part: false,
        };
        // No entry, with and without an end mark; a cause is something to replay.
        for (events, what) in [
            (vec![], Some("the trace has no end mark")),
            (vec![Event::End { events: 0 }], Some("no entries that a replay could compare")),
            (vec![Event::Step { function: 0 }], None),
        ] {
            let mut writer =
                Writer::new(File::create(&path).unwrap(), &header, Duration::ZERO).unwrap();
            events.iter().for_each(|event| writer.append(event, Duration::ZERO).unwrap());
            writer.finish().unwrap();
            for json in [false, true] {
                match (run_on(&path, json), what) {
                    (Err(failure), Some(what)) => {
                        assert_eq!(failure.exit, Exit::Usage);
                        assert!(failure.message.contains("nothing was compared: "), "{what}");
                        assert!(failure.message.contains(what), "{}", failure.message);
                    }
                    (result, what) => assert_eq!((result.unwrap(), what), (0, None)),
                }
            }
        }
    }

    #[test]
    fn what_is_not_a_trace_is_a_usage_error() {
        let run = |trace: &Path| run_on(trace, false).unwrap_err();
        assert_eq!(run(Path::new("/no/such/file")).exit, Exit::Usage);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, "nonsense\n").unwrap();
        let failure = run(&path);
        assert_eq!(failure.exit, Exit::Usage);
        assert!(failure.message.contains("not a trace"), "{}", failure.message);
    }
}
