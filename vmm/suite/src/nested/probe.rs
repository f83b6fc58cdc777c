//! What the KVM of a test host is good for: the probe's payloads, run in one.

use std::path::{Path, PathBuf};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use peerdma_machine::kvm_probe::KvmProbe;

use super::{BOOT_LIMIT, NestedError, Recipe, TestHost};
use crate::drive::Streams;
use crate::event::Event;
use crate::job::Job;

/// What one payload may take at first where the processor is emulated.
pub(super) const PAYLOAD_LIMIT: Duration = Duration::from_secs(1);
/// What all of them may take together: one that does not answer is asked twice, the second time for ten times as long.
const PAYLOADS_LIMIT: Duration = Duration::from_secs(60);

/// Boots a test host, runs the payloads in it, and ends it. Takes a few seconds. The test host's log is left in `folder`.
///
/// # Errors
/// When there is no test host, or it does not come to an answer.
pub fn probe(recipe: &Recipe, folder: &Path) -> Result<KvmProbe, NestedError> {
    let limit = Duration::from_secs(BOOT_LIMIT) + PAYLOADS_LIMIT;
    let deadline = Instant::now() + limit;
    let (host, events) = TestHost::start(recipe, &job(folder), Streams::default())?;
    let mut is_up = false;
    let how = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match events.recv_timeout(left) {
            Ok(Event::Probed { probe }) => return Ok(probe),
            Ok(Event::Broken { message }) => break format!("gave up: {message}"),
            Ok(Event::HostUp { .. }) => is_up = true,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => break format!("hung for {} s", limit.as_secs()),
            Err(RecvTimeoutError::Disconnected) if is_up => break "ended early".into(),
            Err(RecvTimeoutError::Disconnected) => break "did not come up".into(),
        }
    };
    host.kill();
    Err(NestedError::Lost { how, last_words: host.last_words() })
}

/// A job without guests.
fn job(folder: &Path) -> Job {
    Job {
        kernel: PathBuf::new(),
        initramfs: PathBuf::new(),
        out: folder.to_owned(),
        record: None,
        recording: peerdma_trace::RecordOptions::default(),
        at_once: 1,
        jitter: None,
        exchange: crate::exchange::Exchange::default(),
        runs: Vec::new(),
    }
}
