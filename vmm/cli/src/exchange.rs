//! Options of `boot` for files that go between this machine and the guest while it runs.

use std::path::PathBuf;

use clap::Args;
use peerdma_suite::exchange::Exchange;

use super::Failure;
use super::test::prepare_folder;

/// What the guest may fetch, and where its results go.
#[derive(Debug, Clone, Args)]
pub(super) struct ExchangeOptions {
    /// Share a file or folder with the guest, read-only: `guest-agent get NAME` there fetches what it is at that moment,
    /// `guest-agent reload NAME.ko` loads it anew; may be repeated
    #[arg(long, value_name = "PATH")]
    share: Vec<PathBuf>,
    /// Folder for what `guest-agent put FILE` in the guest brings out; made if it is not there
    #[arg(long, value_name = "FOLDER")]
    results: Option<PathBuf>,
}

impl ExchangeOptions {
    /// What the job is to exchange.
    ///
    /// # Errors
    /// When a path is not there or cannot be shared, or the folder cannot be made.
    pub(super) fn exchange(&self) -> Result<Exchange, Failure> {
        let results = self.results.as_deref();
        let results = results.map(|folder| prepare_folder(folder, "results")).transpose()?;
        Exchange::new(&self.share, results.as_deref()).map_err(Failure::usage)
    }
}
