//! The test host's files on their way out: console logs and traces, through a virtio-serial port.
//!
//! A frame is a line of JSON, and for [`Frame::Write`] the bytes that it announces. The test host asks for a file by
//! name, writes it from its beginning to its end, and asks whether all of it has arrived; [`Frame::Create`] and
//! [`Frame::Settle`] are answered by an [`Answer`], a line of JSON too.
//!
//! The test host runs a guest that may have taken it over, so the outer side trusts nothing of this: it knows which
//! files the job has and how long each may become, and takes no others.

mod name;
mod receiver;
mod sender;

use std::io::{self, BufRead, Read};

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub(super) use self::name::{Name, create_below, open_folder, read_below};
pub(super) use self::receiver::Receiver;
pub(super) use self::sender::Sender;
use crate::files::Folder;

/// The longest line, in bytes: a name in JSON, where a byte may take six, and some words.
const MAX_LINE: u64 = 8 << 10;
/// The most that one frame brings, in bytes.
const MAX_DATA: usize = 256 << 10;

/// From the test host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Frame {
    /// Begins a file. Answered.
    Create {
        /// Where it belongs.
        folder: Folder,
        /// Its name there.
        name: Name,
    },
    /// The bytes that follow belong to the file.
    Write {
        /// Where it belongs.
        folder: Folder,
        /// Its name there.
        name: Name,
        /// How much of it has been sent before, in bytes.
        offset: u64,
        /// How many bytes follow, at least one and at most [`MAX_DATA`].
        length: usize,
    },
    /// The file is whole. Answered.
    Settle {
        /// Where it belongs.
        folder: Folder,
        /// Its name there.
        name: Name,
    },
}

/// To the test host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Answer {
    /// What the system said to the first attempt that failed; 0 when none did.
    errno: i32,
}

impl Answer {
    fn of(error: Option<&io::Error>) -> Self {
        let number = |error: &io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
        Self { errno: error.map_or(0, number) }
    }

    fn result(self) -> io::Result<()> {
        match self.errno {
            0 => Ok(()),
            errno => Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// Reads one line; `None` at the end of the stream, also if it ends within a line.
fn read_line<T: DeserializeOwned>(input: &mut impl BufRead) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let length = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if line.last() != Some(&b'\n') {
        if length as u64 == MAX_LINE {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line has no end"));
        }
        return Ok(None);
    }
    let wrong = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    serde_json::from_slice(&line).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests;
