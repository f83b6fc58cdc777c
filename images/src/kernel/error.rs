//! Errors of getting a kernel.

use std::io;
use std::path::{Path, PathBuf};

use super::config::Rejected;
use crate::cache::CacheError;
use crate::command::CommandError;

/// Why a kernel could not be built.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A program that was needed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// apt knows no Debian mirror.
    #[error(
        "apt on this machine knows no Debian mirror, and the guest kernel's source comes from Debian's {suite}. Set \
         PEERDMA_DEBIAN_MIRROR to the address of one (it ends in /debian/), or PEERDMA_KERNEL_TREE to an unpacked \
         Linux source of at least {minimum}."
    )]
    NoMirror {
        /// The suite that was wanted.
        suite: String,
        /// The oldest version that serves.
        minimum: String,
    },
    /// The mirror does not answer, or not with what it should.
    #[error(
        "{0}\nIs the network up? PEERDMA_DEBIAN_MIRROR names another Debian mirror, PEERDMA_KERNEL_TREE an unpacked Linux \
         source to use instead."
    )]
    Mirror(#[source] CommandError),
    /// Debian's archive keys are not installed.
    #[error(
        "Debian's archive keyring is not at {}: `make setup` installs it (package debian-archive-keyring). Without it \
         the kernel's source cannot be verified.", path.display()
    )]
    NoKeyring {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The suite has no source that is new enough.
    #[error(
        "{suite} carries no kernel source of at least {minimum} (it has: {found}). Set PEERDMA_KERNEL_TREE to an \
         unpacked Linux source instead."
    )]
    NoCandidate {
        /// The suite.
        suite: String,
        /// The oldest version that serves.
        minimum: String,
        /// What is there.
        found: String,
    },
    /// The suite no longer has the binaries of the source's version.
    #[error(
        "{suite} carries no {variant} kernel of the version {version}, which is that of the source in the cache. Run \
         `peerdma kernel build --refresh` to take the source that it carries now."
    )]
    NoStock {
        /// The suite.
        suite: String,
        /// Which of the distribution's kernels.
        variant: String,
        /// The version that was wanted.
        version: String,
    },
    /// The download is not what the signed index or the project's pin says.
    #[error(
        "The downloaded {package} has the SHA-256 {actual}, and {wanted} was expected: it is not used. Try again \
         later, or with another mirror (PEERDMA_DEBIAN_MIRROR)."
    )]
    Checksum {
        /// The package.
        package: String,
        /// What it should be.
        wanted: String,
        /// What it is.
        actual: String,
    },
    /// The user's tree is not a kernel source.
    #[error("{} is not a Linux source tree: it has no {missing}.", path.display())]
    NotATree {
        /// The folder given.
        path: PathBuf,
        /// The file that every kernel tree has.
        missing: &'static str,
    },
    /// The user's tree was built in place.
    #[error(
        "{} was configured or built in place, and then nothing can be built outside of it. Run `make mrproper` there, \
         or use that very build with `--kernel {}`.", path.display(), path.display()
    )]
    DirtyTree {
        /// The folder given.
        path: PathBuf,
    },
    /// Kconfig refused part of the configuration.
    #[error("{}", .0)]
    Config(#[from] Rejected),
    /// Kbuild cannot work in such a folder.
    #[error("The kernel cannot be built below {}: a path with spaces or colons confuses its build. {advice}", path.display())]
    BadPath {
        /// The folder.
        path: PathBuf,
        /// The way out.
        advice: &'static str,
    },
    /// A file.
    #[error("{action} {} failed: {source}.", path.display())]
    Io {
        /// What was attempted, as in "Reading".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// images/kernel/source.toml does not say what it must.
    #[error("The project's images/kernel/source.toml is wrong: {0}.")]
    Recipe(String),
}

impl KernelError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
