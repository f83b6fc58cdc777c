//! Files that go between this guest and the host while it runs: `guest-agent get`, `put` and `reload`.

mod get;
mod holders;
mod modinfo;
mod put;
mod reload;

pub use get::{fetch, list};
pub use put::put;
pub use reload::reload;

use crate::vmm::VmmError;

/// Why a file did not get to where it should, in a sentence for the person at the prompt.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FilesError(pub(crate) String);

impl FilesError {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }

    /// Of a file in the guest.
    fn here(path: &std::path::Path, error: &std::io::Error) -> Self {
        let hint = match error.kind() {
            std::io::ErrorKind::StorageFull => "; the guest's file system is full",
            std::io::ErrorKind::OutOfMemory => "; the guest's memory is full",
            _ => "",
        };
        Self(format!("{}: {error}{hint}", path.display()))
    }
}

impl From<VmmError> for FilesError {
    fn from(error: VmmError) -> Self {
        match error {
            // What was asked for stands in the reason.
            VmmError::Refused { reason, .. } => Self(reason),
            error => Self(error.to_string()),
        }
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) => {
            let tenths = u128::from(bytes) * 10 / u128::from(*unit);
            format!("{}.{} {name}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            (1 << 20, "1.0 MiB"),
            ((1 << 20) - 1, "1023.9 KiB"),
            (3 << 29, "1.5 GiB"),
            (u64::MAX, "17179869183.9 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
