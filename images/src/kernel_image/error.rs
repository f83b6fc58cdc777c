//! Why a file cannot be booted.

use std::io;
use std::path::{Path, PathBuf};

/// Why a file or folder is not a kernel for this lab.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// It cannot be read.
    #[error("{action} {} failed: {source}.", path.display())]
    Io {
        /// What was attempted, as in "Reading".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Its end is missing.
    #[error("{} is truncated: its {part} ends at byte {needed}, and the file has {actual}. Copy or build it again.", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// What reaches past the end.
        part: &'static str,
        /// Bytes that the file should have at least.
        needed: u64,
        /// Bytes that it has.
        actual: u64,
    },
    /// It is for another processor.
    #[error("{} is a kernel for {found}; the lab's machine is 64-bit x86 (build with ARCH=x86_64).", path.display())]
    WrongArchitecture {
        /// The file.
        path: PathBuf,
        /// What it is for.
        found: String,
    },
    /// It is something else.
    #[error("{} is not a kernel: {why}. Give a vmlinux, a bzImage, or the folder in which a kernel was built.", path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The folder holds no kernel.
    #[error("No kernel has been built in {}: it has no vmlinux. Run `make vmlinux modules` there first.", path.display())]
    NotBuilt {
        /// The folder.
        path: PathBuf,
    },
    /// A bzImage's payload is packed in a way that cannot be unpacked here.
    #[error("The payload of {} is compressed with {method}, which is not supported. Give the vmlinux of the same build.", path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// The method's name.
        method: &'static str,
    },
    /// The payload does not unpack.
    #[error("The payload of {} does not unpack ({method}): {source}. Copy or build it again.", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The compression method.
        method: &'static str,
        /// What the unpacker says.
        source: io::Error,
    },
}

impl ImageError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
