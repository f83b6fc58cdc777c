//! How to record: options of `peerdma test` and `peerdma boot`.

use std::fs;
use std::io;
use std::path::Path;

use clap::{Args, ValueEnum};
use peerdma_trace::{Payload, RING_FILES, RecordOptions, ring_file};

use super::Failure;

/// The end of a trace's file name.
pub(super) const EXTENSION: &str = "pcapng.zst";

/// Options of a recording.
#[derive(Debug, Clone, Args)]
pub(super) struct RecordFlags {
    /// A trace is cut at about this size, in bytes; k, M and G stand for powers of 1024
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1G", requires = "record")]
    record_limit: u64,
    /// Keep the newest of a trace, in four files with this size together: NAME.pcapng.zst, NAME.2.pcapng.zst and so on. They
    /// replace each other; where the beginning has been overwritten nothing can be replayed
    #[arg(long, value_name = "SIZE", value_parser = ring_size, requires = "record", conflicts_with = "record_limit")]
    record_ring: Option<u64>,
    /// Drop what the disk is too slow for, and count it, instead of holding up the devices: such a trace cannot be replayed
    #[arg(long, requires = "record")]
    record_lossy: bool,
    /// What is kept of bulk data; what steers a device is kept in full in any case
    #[arg(long, value_enum, default_value_t, requires = "record")]
    payload: PayloadChoice,
}

impl RecordFlags {
    pub(super) fn options(&self) -> RecordOptions {
        let payload = match self.payload {
            PayloadChoice::None => Payload::None,
            PayloadChoice::Digest => Payload::Digest,
            PayloadChoice::Full => Payload::Full,
        };
        let (limit, ring, lossy) = (self.record_limit, self.record_ring, self.record_lossy);
        RecordOptions { limit, ring, lossy, payload }
    }
}

/// Removes a trace, if it is there.
pub(super) fn forget(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::environment(format_args!("{}: {error}", path.display())))
        }
        _ => Ok(()),
    }
}

/// Removes what an earlier ring has left beside the trace that is to be written at this place.
pub(super) fn forget_ring(first: &Path) -> Result<(), Failure> {
    (1..RING_FILES).try_for_each(|slot| forget(&ring_file(first, slot)))
}

/// `--payload`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PayloadChoice {
    /// Nothing
    None,
    /// A CRC-32C of the bytes of each transaction
    #[default]
    Digest,
    /// The bytes of each transaction, the first 64 KiB of it
    Full,
}

/// `--record-on`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum RecordOn {
    /// Every scenario's trace is kept
    #[default]
    Always,
    /// Those of scenarios that failed are kept
    Failed,
    /// Nothing is recorded
    Never,
}

/// A size, for example `512M`.
fn size(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, 'k' | 'K')) => (text.get(..at), 10),
        Some((at, 'M')) => (text.get(..at), 20),
        Some((at, 'G')) => (text.get(..at), 30),
        _ => (Some(text), 0),
    };
    let number = digits.and_then(|digits| digits.parse::<u64>().ok());
    let bytes = number.and_then(|number| number.checked_mul(1 << shift));
    match bytes {
        Some(bytes) if bytes >= 4096 => Ok(bytes),
        Some(_) => Err("a trace has at least 4096 bytes".to_owned()),
        None => Err("a size is a number of bytes, or one with k, M or G behind it".to_owned()),
    }
}

/// The size of a ring.
fn ring_size(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes >= 4 << 20 => Ok(bytes),
        _ => Err("a ring has at least 4M".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_a_unit() {
        for (text, bytes) in [("4096", 4096), ("4k", 4096), ("512M", 512 << 20), ("2G", 2 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "4095", "1k", "-1", "1T", "99999999999G", "1.5G", "1 G", "ü"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
