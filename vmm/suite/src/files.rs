//! The files that a run leaves: console logs in its output folder, traces in the folder of traces.
//!
//! The runner writes them through [`Files`]: into the folders themselves where it runs on this
//! machine, and out through a port where it runs in the nested test host.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use peerdma_trace::{Output, Slots};
use serde::{Deserialize, Serialize};

use super::job::Job;

/// Which of the run's folders a file belongs into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Folder {
    /// [`Job::out`].
    Out,
    /// [`Job::record`].
    Record,
}

/// Where files go. A name is relative to its folder.
pub trait Files: Debug + Sync {
    /// Begins a file; replaces an earlier one, and makes the folders above it.
    ///
    /// # Errors
    /// When it cannot be written.
    fn create(&self, folder: Folder, name: &Path) -> io::Result<Box<dyn Output>>;

    /// The files of a ring whose first has this name, each of which can be begun more than once.
    fn ring(&self, folder: Folder, name: &Path) -> Box<dyn Slots>;

    /// Returns when all that was written to the file is where it belongs.
    ///
    /// # Errors
    /// What kept something from getting there, if the writer has not heard of it yet.
    fn settle(&self, folder: Folder, name: &Path) -> io::Result<()>;

    /// What to call the file in a message.
    fn path(&self, folder: Folder, name: &Path) -> PathBuf;
}

/// Files of a run on this machine.
#[derive(Debug)]
pub struct Local<'a>(pub &'a Job);

impl Files for Local<'_> {
    fn create(&self, folder: Folder, name: &Path) -> io::Result<Box<dyn Output>> {
        let path = self.path(folder, name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(Box::new(File::create(path)?))
    }

    fn ring(&self, folder: Folder, name: &Path) -> Box<dyn Slots> {
        Box::new(self.path(folder, name))
    }

    fn settle(&self, _: Folder, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn path(&self, folder: Folder, name: &Path) -> PathBuf {
        match (folder, &self.0.record) {
            (Folder::Record, Some(record)) => record.join(name),
            (Folder::Out | Folder::Record, _) => self.0.out.join(name),
        }
    }
}
