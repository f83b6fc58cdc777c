//! `peerdma report`.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use peerdma_suite::report::merge::{self, MergedReport};
use peerdma_suite::report::write_whole;
use peerdma_suite::report::{RunReport, junit, markdown};

use super::test::prepare_folder;
use super::{Exit, Failure, output};

/// What about reports.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Merge the reports of several runs: parts of a run (--shard), or runs on several kernels
    ///
    /// Writes junit.xml, summary.json and report.md, and prints a line for each kernel, the reasons
    /// of skipped tests, and totals. Fails when tests failed, and when a part of a run is missing.
    /// The exit codes are those of `peerdma test`.
    Merge(Merge),
}

#[derive(Debug, Args)]
struct Merge {
    /// Output folders of the runs, or their summary.json
    #[arg(required = true, value_name = "DIR")]
    runs: Vec<PathBuf>,
    /// Folder for the merged report
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let Command::Merge(arguments) = &arguments.command;
    let same = |run: &PathBuf| {
        let folder = if run.is_dir() { Some(run.as_path()) } else { run.parent() };
        let folder = folder.and_then(|folder| folder.canonicalize().ok());
        folder.is_some() && folder == arguments.out.canonicalize().ok()
    };
    if let Some(run) = arguments.runs.iter().find(|run| same(run)) {
        return Err(Failure::usage(format_args!(
            "the merged report would overwrite that of {}: give --out another folder",
            run.display()
        )));
    }
    let reports = arguments.runs.iter().map(|path| merge::read(path)).collect::<Result<_, _>>();
    let merged = reports.and_then(MergedReport::new).map_err(Failure::usage)?;
    let out = prepare_folder(&arguments.out, "output")?;
    let summary = serde_json::to_vec_pretty(&merged).map_err(Failure::internal)?;
    write_whole(&out.join(merge::SUMMARY), &summary)
        .and_then(|()| junit::write_merged(&merged, &out.join("junit.xml")))
        .and_then(|()| markdown::write_merged(&merged, &out.join("report.md")))
        .map_err(|error| {
            Failure::environment(format_args!("writing the report to {}: {error}", out.display()))
        })?;
    output::print(&text(&merged))?;
    Ok(exit_code(&merged) as u8)
}

fn exit_code(merged: &MergedReport) -> Exit {
    if merged.runs.iter().any(RunReport::broke_down) {
        Exit::Internal
    } else if merged.totals.failed > 0 {
        Exit::Failed
    } else {
        Exit::Success
    }
}

/// The report for people.
fn text(merged: &MergedReport) -> String {
    let mut text = String::new();
    for (run, (_, skips)) in merged.runs.iter().zip(merged.skips()) {
        // Writing to a string never fails.
        let seconds = run.milliseconds / 1000;
        let _ = writeln!(text, "# {}: {} in {seconds} s", run.kernel_in_short(), run.totals);
        for (reason, count) in skips {
            let _ = writeln!(text, "#   {count} skipped: {reason}");
        }
    }
    let _ = writeln!(text, "{}", merged.totals);
    text
}
