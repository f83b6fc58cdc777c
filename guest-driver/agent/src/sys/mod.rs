//! What the kernel says about itself through its file systems.

pub mod children;
pub mod config_space;
pub mod dma_buf;
pub mod kernel_config;
pub mod kernel_log;
pub mod leaks;
pub mod patience;
pub mod pci;
pub mod processors;
pub mod sw_sync;

use std::path::{Path, PathBuf};

/// A file of the kernel's that could not be read or written, with the reason.
#[derive(Debug, thiserror::Error)]
#[error("{what} {path} failed: {source}", path = path.display())]
pub struct FileError {
    /// `reading` or `writing ... to`.
    pub what: String,
    /// The file.
    pub path: PathBuf,
    /// The kernel's reason.
    #[source]
    pub source: std::io::Error,
}

/// A whole file as text, without the white space at its end.
///
/// # Errors
/// When it cannot be read or is not text.
pub fn read(path: impl AsRef<Path>) -> Result<String, FileError> {
    let path = path.as_ref();
    match std::fs::read_to_string(path) {
        Ok(mut text) => {
            text.truncate(text.trim_end().len());
            Ok(text)
        }
        Err(source) => Err(FileError { what: "reading".into(), path: path.to_owned(), source }),
    }
}

/// Writes to a file of the kernel's in one call, without creating it.
///
/// # Errors
/// When it does not exist or the kernel refuses the value.
pub fn write(path: impl AsRef<Path>, value: &str) -> Result<(), FileError> {
    use std::io::Write as _;
    let path = path.as_ref();
    std::fs::OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(value.as_bytes()))
        .map_err(|source| FileError {
            what: format!("writing {value:?} to"),
            path: path.to_owned(),
            source,
        })
}
