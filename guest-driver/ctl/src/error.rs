//! What goes wrong, with the way out.

use guest_agent::cases::Stop;
use guest_agent::device::DeviceError;
use guest_agent::vmm::VmmError;
use rustix::io::Errno;
use std::fmt;

/// The driver or the device refused, or what was verified differs.
pub(crate) const REFUSED: u8 = 1;
/// The command line, a name or an operand is wrong.
pub(crate) const USAGE: u8 = 2;
/// The guest lacks something.
pub(crate) const ENVIRONMENT: u8 = 3;

/// A command that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CtlError {
    /// The exit code.
    pub(crate) code: u8,
    /// What happened.
    pub(crate) message: String,
    /// What to do about it, if that is known.
    pub(crate) hint: Option<String>,
}

impl CtlError {
    pub(crate) fn refused(message: impl fmt::Display) -> Self {
        Self { code: REFUSED, message: message.to_string(), hint: None }
    }

    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { code: USAGE, message: message.to_string(), hint: None }
    }

    pub(crate) fn environment(message: impl fmt::Display) -> Self {
        Self { code: ENVIRONMENT, message: message.to_string(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for CtlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  {hint}"),
            None => Ok(()),
        }
    }
}

/// What an error of a call means, and what helps.
const HINTS: &[(&str, Errno, &str)] = &[
    (
        "IMPORT",
        Errno::REMOTEIO,
        "the kernel has no path for peer-to-peer DMA between the two: `list` shows which pairs have one, `peerdma explain` \
         on the host why",
    ),
    (
        "IMPORT",
        Errno::OPNOTSUPP,
        "the exporter does not give this kind of memory to this kind of importer: the others are in `import --help` and \
         `alloc --help`",
    ),
    ("MAP", Errno::BUSY, "it is mapped: `unmap` it first"),
    ("MAP", Errno::NODEV, "the memory was revoked for good: its device is gone"),
    (
        "MAP",
        Errno::INVAL,
        "only imports and system memory are mapped; local memory of the device needs no mapping. For an import it can be \
         the exporter's word: no path for peer-to-peer DMA",
    ),
    ("UNMAP", Errno::INVAL, "it is not mapped"),
    (
        "ALLOC",
        Errno::NOSPC,
        "the local memory is full: `close` something, or boot with more (memory of the device)",
    ),
    (
        "BUFFER_ALLOC",
        Errno::NOSPC,
        "the local memory is full, or the part of it that has struct pages (p2pmem_percent)",
    ),
    ("BUFFER_ALLOC", Errno::OPNOTSUPP, "kernel or device have no p2pdma (CONFIG_PCI_P2PDMA)"),
    ("EXPORT", Errno::OPNOTSUPP, "kernel or device have no p2pdma (CONFIG_PCI_P2PDMA)"),
    (
        "EXPORT",
        Errno::INVAL,
        "only memory of the device and buffers can be exported: see `alloc --help`",
    ),
    ("SUBMIT", Errno::RANGE, "the operand ends past its object"),
    (
        "SUBMIT",
        Errno::ACCESS,
        "the mapping's direction does not permit it: `unmap`, then `map --direction both`",
    ),
    ("SUBMIT", Errno::INVAL, "an operand is not mapped, or the channel does not exist"),
    (
        "INVALIDATE",
        Errno::TIME,
        "an importer keeps its mapping: it has not answered invalidate_mappings in time",
    ),
    ("BUFFER_MOVE", Errno::INVAL, "only buffers of kind `migrating` can be moved"),
    ("BUFFER_MOVE", Errno::BUSY, "it is pinned, or an attachment cannot have it there"),
];

impl From<DeviceError> for CtlError {
    fn from(error: DeviceError) -> Self {
        let hint =
            HINTS.iter().find(|(call, errno, _)| (*call, *errno) == (error.call, error.errno));
        let hint = hint.map(|(.., hint)| (*hint).to_owned()).or_else(|| match error.errno {
            Errno::NODEV => Some("the device was unbound or is lost".to_owned()),
            Errno::AGAIN => Some("the device is being reset: try again".to_owned()),
            Errno::PERM => Some("run it as root".to_owned()),
            _ => None,
        });
        Self { code: REFUSED, message: error.to_string(), hint }
    }
}

impl From<VmmError> for CtlError {
    fn from(error: VmmError) -> Self {
        Self::environment(error)
    }
}

impl From<Stop> for CtlError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Fail(reason) => Self::refused(reason),
            Stop::Skip(reason) => Self::refused(format!("this guest cannot make it: {reason}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_driver_say_what_to_do() {
        let error = |call, errno| CtlError::from(DeviceError { instance: 0, call, errno });
        let refused = error("IMPORT", Errno::REMOTEIO);
        assert_eq!(refused.code, REFUSED);
        assert!(refused.to_string().contains("\n  the kernel has no path"), "{refused}");
        assert!(error("IMPORT", Errno::NODEV).hint.unwrap().contains("unbound"));
        assert_eq!(error("IMPORT", Errno::IO).hint, None);
        let calls = guest_agent::uapi::calls();
        for (call, ..) in HINTS {
            assert!(calls.iter().any(|(name, _)| name == call), "{call} is not a call");
        }
    }
}
