//! The QEMU that runs the nested test host: which one, how new, and what it can be asked for.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::tools;

/// The variable that names another QEMU.
pub const VARIABLE: &str = "PEERDMA_QEMU";
/// The variable that names another processor for it to emulate, as QEMU's `-cpu` takes it.
pub const CPU_VARIABLE: &str = "PEERDMA_QEMU_CPU";
/// The processor that is emulated by default.
const CPU_MODEL: &str = "qemu64,+svm,+npt";
/// The program, as distributions call it.
const PROGRAM: &str = "qemu-system-x86_64";
/// Folders with QEMU's firmware, besides the one beside the program.
const FIRMWARE_FOLDERS: &[&str] =
    &["/usr/share/qemu", "/usr/local/share/qemu", "/usr/share/seabios"];

/// A QEMU that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// The program.
    pub path: PathBuf,
    /// Its version.
    pub version: Version,
}

/// A version of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// Raised every year.
    pub major: u32,
    /// Raised with every release.
    pub minor: u32,
    /// Raised with every correction.
    pub micro: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// There is no usable QEMU.
#[derive(Debug, thiserror::Error)]
pub enum QemuError {
    /// None is installed.
    #[error(
        "there is no {PROGRAM}: `make setup` installs it (package qemu-system-x86), or let {VARIABLE} name one"
    )]
    Missing,
    /// The program that the variable names is not there.
    #[error("{VARIABLE} names {}, which cannot be run: {source}", path.display())]
    NotRunnable {
        /// The program.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It does not say what it is.
    #[error("{} does not look like QEMU: `--version` says {answer:?}", path.display())]
    NotQemu {
        /// The program.
        path: PathBuf,
        /// What it said.
        answer: String,
    },
}

impl Qemu {
    /// The QEMU that the variable names, or the one in `PATH`.
    ///
    /// # Errors
    /// When there is no such program, or it is not QEMU.
    pub fn find() -> Result<Self, QemuError> {
        let named = env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        let path = named.or_else(|| tools::find(PROGRAM)).ok_or(QemuError::Missing)?;
        Self::at(&path)
    }

    fn at(path: &Path) -> Result<Self, QemuError> {
        let output = Command::new(path).arg("--version").stdin(Stdio::null()).output();
        let output =
            output.map_err(|source| QemuError::NotRunnable { path: path.into(), source })?;
        let text = String::from_utf8_lossy(&output.stdout);
        match parse_version(&text) {
            Some(version) => Ok(Self { path: path.into(), version }),
            None => {
                let answer = text.lines().next().unwrap_or_default().chars().take(80).collect();
                Err(QemuError::NotQemu { path: path.into(), answer })
            }
        }
    }

    /// The processor that it should emulate, unless [`CPU_VARIABLE`] names another: one with SVM and nested paging that
    /// upstream KVM and the guests on top get along with.
    ///
    /// The plain model on every version: 7.2's `max` has XSAVE features that an inner kernel panics over; 10.0's and
    /// 11.1's works, and takes half as long again (quick set, QEMU 10.0: 16 s of processor time against 9.5), for what the
    /// guests' kernels then use is emulated twice.
    pub fn cpu_model(&self) -> String {
        let named = env::var(CPU_VARIABLE).ok().filter(|model| !model.trim().is_empty());
        named.unwrap_or_else(|| CPU_MODEL.to_owned())
    }

    /// qboot, a firmware that starts a kernel in a few milliseconds, if it is installed. Without it QEMU's own is used.
    pub fn quick_firmware(&self) -> Option<PathBuf> {
        let beside =
            self.path.parent().and_then(Path::parent).map(|prefix| prefix.join("share/qemu"));
        let folders = beside.into_iter().chain(FIRMWARE_FOLDERS.iter().map(PathBuf::from));
        folders.map(|folder| folder.join("qboot.rom")).find(|path| path.is_file())
    }
}

/// The version in what `qemu --version` prints.
fn parse_version(text: &str) -> Option<Version> {
    let rest = text.strip_prefix("QEMU emulator version ")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
    let mut numbers = rest[..end].split('.').map(|number| number.parse().ok());
    let major = numbers.next()??;
    let mut next = || numbers.next().flatten().unwrap_or(0);
    Some(Version { major, minor: next(), micro: next() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_debian_ubuntu_and_upstream() {
        let version = |major, minor, micro| Some(Version { major, minor, micro });
        assert_eq!(
            parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nC"),
            version(7, 2, 22)
        );
        assert_eq!(parse_version("QEMU emulator version 10.0.2\n"), version(10, 0, 2));
        assert_eq!(parse_version("QEMU emulator version 11.1"), version(11, 1, 0));
        assert_eq!(parse_version("QEMU emulator version 99999999999.1"), None);
        assert_eq!(parse_version("qemu-nbd 7.2"), None);
        assert_eq!(parse_version(""), None);
    }

    #[test]
    fn what_is_not_a_qemu_is_refused() {
        assert!(matches!(Qemu::at(Path::new("/no/such")), Err(QemuError::NotRunnable { .. })));
        assert!(matches!(Qemu::at(Path::new("/bin/true")), Err(QemuError::NotQemu { .. })));
    }
}
