//! The guest's root file system: a `newc` cpio archive, made without root, the same bytes for the same content.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use std::path::Path;
//! use peerdma_images::{cache::Cache, initramfs::Initramfs, progress::Silent};
//!
//! let mut image = Initramfs::new();
//! image.program("/init", Path::new("target/peerdma"))?;
//! image.busybox(&Silent)?;
//! image.pciutils()?;
//! image.module(Path::new("peerdma.ko"))?;
//! let path = image.store(&Cache::open()?)?;
//! # Ok(())
//! # }
//! ```
//!
//! The archive is not compressed: it is a few megabytes in memory that the kernel copies, and unpacking takes an
//! emulated processor longer.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

mod archive;
mod libraries;
mod programs;

use super::cache::{Cache, CacheError, Key};
use super::command::CommandError;

/// The cache's folder of initramfs.
const KIND: &str = "initramfs";
/// How many are kept: some scenarios have their own, and runs may go on beside each other.
const KEPT: usize = 32;
/// Counts changes of this code that change what comes out.
const RECIPE: u32 = 1;
/// `PATH_MAX` of Linux, with its final zero byte.
const PATH_LIMIT: usize = 4095;

/// Why an initramfs could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file of the host cannot be read.
    #[error("{} cannot be put into the guest: {source}.", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A path in the guest is not one.
    #[error(
        "`{path}` is not a path for a file in the guest: it must be absolute, without `..`, and at most {PATH_LIMIT} bytes long."
    )]
    BadPath {
        /// The path.
        path: String,
    },
    /// A folder and something else claim the same path.
    #[error("`{path}` in the guest would be a folder and something else at once.")]
    Conflict {
        /// The path.
        path: String,
    },
    /// cpio cannot hold it.
    #[error(
        "`{path}` is too large for an initramfs (4 GiB at most). Share a folder with the guest instead."
    )]
    TooLarge {
        /// Its path in the guest.
        path: String,
    },
    /// A program that belongs into the guest is not installed.
    #[error("`{program}` is not installed: `make setup` installs it (package {package}).")]
    Missing {
        /// The program.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program needs what the guest will not have.
    #[error(
        "{} needs the library {library}, which is in none of the usual folders. Link the program statically, or put the \
         library into the guest too.", program.display()
    )]
    Library {
        /// The program, or a library that it needs.
        program: PathBuf,
        /// The missing library.
        library: String,
    },
    /// A program is damaged or for another machine.
    #[error("{} cannot run in the guest: {why}.", program.display())]
    NotAProgram {
        /// The file.
        program: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// busybox did not list what it can do.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    Directory { mode: u32 },
    Device { mode: u32, major: u32, minor: u32 },
    File { mode: u32, content: Vec<u8> },
    Symlink { target: String },
}

/// An initramfs that is being put together. Later files replace earlier ones at the same path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Initramfs {
    /// By path, without the leading slash: a folder comes before what is in it.
    entries: BTreeMap<String, Entry>,
}

impl Default for Initramfs {
    fn default() -> Self {
        Self::new()
    }
}

impl Initramfs {
    /// One with what any guest needs: mount points, `/dev/console`, `/dev/null`.
    pub fn new() -> Self {
        let mut entries = BTreeMap::new();
        for (path, mode) in [
            ("bin", 0o755),
            ("dev", 0o755),
            ("etc", 0o755),
            ("lib", 0o755),
            ("mnt", 0o755),
            ("proc", 0o555),
            ("root", 0o700),
            ("run", 0o755),
            ("sys", 0o555),
            ("tmp", 0o1777),
        ] {
            entries.insert(path.to_owned(), Entry::Directory { mode });
        }
        // The kernel opens the console for init before anything is mounted. Numbers: Documentation/admin-guide/devices.txt.
        entries.insert("dev/console".to_owned(), Entry::Device { mode: 0o600, major: 5, minor: 1 });
        entries.insert("dev/null".to_owned(), Entry::Device { mode: 0o666, major: 1, minor: 3 });
        Self { entries }
    }

    /// A folder, with its parents.
    pub fn directory(&mut self, path: &str, mode: u32) -> Result<(), InitramfsError> {
        self.insert(path, Entry::Directory { mode: mode & 0o7777 })
    }

    /// A character device.
    pub fn device(
        &mut self,
        path: &str,
        mode: u32,
        major: u32,
        minor: u32,
    ) -> Result<(), InitramfsError> {
        self.insert(path, Entry::Device { mode: mode & 0o7777, major, minor })
    }

    /// A file with this content.
    pub fn file(
        &mut self,
        path: &str,
        mode: u32,
        content: impl Into<Vec<u8>>,
    ) -> Result<(), InitramfsError> {
        self.insert(path, Entry::File { mode: mode & 0o7777, content: content.into() })
    }

    /// A file of the host, executable for all if it is for its owner.
    pub fn host_file(&mut self, path: &str, host: &Path) -> Result<(), InitramfsError> {
        use std::os::unix::fs::PermissionsExt;
        let failed = |source| InitramfsError::Read { path: host.to_owned(), source };
        let content = std::fs::read(host).map_err(failed)?;
        let executable = host.metadata().map_err(failed)?.permissions().mode() & 0o100 != 0;
        // Nothing of the host's owners and permissions beyond that: the bytes must not depend on its umask.
        self.file(path, if executable { 0o755 } else { 0o644 }, content)
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), InitramfsError> {
        self.insert(path, Entry::Symlink { target: target.to_owned() })
    }

    /// A kernel module, in `/lib/modules`.
    pub fn module(&mut self, host: &Path) -> Result<(), InitramfsError> {
        let name = host.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.host_file(&format!("/lib/modules/{name}"), host)
    }

    /// True when something is at this path.
    pub fn contains(&self, path: &str) -> bool {
        normal(path).is_ok_and(|path| self.entries.contains_key(&path))
    }

    fn insert(&mut self, path: &str, entry: Entry) -> Result<(), InitramfsError> {
        let path = normal(path)?;
        let parents = path.match_indices('/').map(|(end, _)| &path[..end]);
        for parent in parents {
            match self.entries.get(parent) {
                None => {
                    drop(self.entries.insert(parent.to_owned(), Entry::Directory { mode: 0o755 }))
                }
                Some(Entry::Directory { .. }) => {}
                Some(_) => return Err(InitramfsError::Conflict { path: format!("/{parent}") }),
            }
        }
        let folder = |entry: &Entry| matches!(entry, Entry::Directory { .. });
        if self.entries.get(&path).is_some_and(|present| folder(present) != folder(&entry)) {
            return Err(InitramfsError::Conflict { path: format!("/{path}") });
        }
        self.entries.insert(path, entry);
        Ok(())
    }

    /// The archive.
    pub fn to_bytes(&self) -> Result<Vec<u8>, InitramfsError> {
        archive::write(&self.entries)
    }

    /// Writes the archive to the cache, unless it is there, and gives back its path. The name is a hash of the bytes.
    pub fn store(&self, cache: &Cache) -> Result<PathBuf, InitramfsError> {
        let bytes = self.to_bytes()?;
        let name = format!("{}.cpio", Key::new(KIND, RECIPE).field(&bytes).finish());
        let path = cache.path(KIND, &name);
        let present = path.metadata().is_ok_and(|metadata| metadata.len() == bytes.len() as u64);
        if !present {
            cache.require_space("Writing the initramfs", bytes.len() as u64)?;
            cache.write_file(KIND, &name, &bytes)?;
        }
        cache.keep_newest(KIND, &name, KEPT)?;
        Ok(path)
    }
}

/// A path as the archive has it.
fn normal(path: &str) -> Result<String, InitramfsError> {
    let bad = || InitramfsError::BadPath { path: path.to_owned() };
    if !path.starts_with('/') || path.len() > PATH_LIMIT || path.contains('\0') {
        return Err(bad());
    }
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.is_empty() || parts.contains(&"..") {
        return Err(bad());
    }
    Ok(parts.join("/"))
}

#[cfg(test)]
mod tests;
