//! The traces of a run.

use std::path::{Path, PathBuf};

use peerdma_suite::job::Job;
use peerdma_suite::report::{ScenarioReport, Status};
use peerdma_support::say;
use peerdma_trace::{RING_FILES, ring_file};

use super::super::{Failure, record};

/// The first files of the traces.
fn all(job: &Job) -> impl Iterator<Item = PathBuf> {
    let in_folder = |folder: &Path| {
        let files = job.runs.iter().filter_map(|run| run.record.as_ref());
        files.map(|file| folder.join(file)).collect::<Vec<_>>()
    };
    job.record.as_deref().map(in_folder).unwrap_or_default().into_iter()
}

/// Removes what an earlier run's rings have left beside the traces that are to be written.
pub(super) fn forget_rings(job: &Job) -> Result<(), Failure> {
    all(job).try_for_each(|first| record::forget_ring(&first))
}

/// Removes the traces of scenarios that did not fail.
pub(super) fn forget_passed(job: &Job, scenarios: &[ScenarioReport]) -> Result<(), Failure> {
    for run in &job.runs {
        let (Some(folder), Some(name)) = (&job.record, &run.record) else { continue };
        let report = scenarios.iter().find(|report| report.name == run.name);
        if report.is_none_or(|report| report.status == Status::Failed) {
            continue;
        }
        (0..RING_FILES)
            .try_for_each(|slot| record::forget(&ring_file(&folder.join(name), slot)))?;
    }
    Ok(())
}

/// Where the traces are, if there are any.
pub(super) fn tell(job: &Job) {
    // Of a ring with several files the notes say which there are.
    let files: Vec<_> =
        all(job).filter(|file| file.exists() && !ring_file(file, 1).exists()).collect();
    match files.as_slice() {
        [] => {}
        [file] => say!("trace: peerdma replay {}", file.display()),
        [file, ..] => {
            say!("{} traces: peerdma replay {}, and so on", files.len(), file.display());
        }
    }
}
