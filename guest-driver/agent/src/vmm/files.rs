//! Requests about files: what the host shares, and results.

use super::{Vmm, VmmError};
use guest_protocol::Request;
use guest_protocol::exchange::{FileRequest, LATER, Listing, Piece};
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// How often a host is asked again that is not ready yet.
const PAUSE: Duration = Duration::from_millis(10);
/// How long a host's disk may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

impl Vmm {
    /// Entries of the shared folder `name` behind the first `skip`; all shares if it is empty.
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such folder.
    pub fn list_shared(&mut self, skip: usize, name: &str) -> Result<Listing, VmmError> {
        self.ask_files(FileRequest::List { skip: skip as u64, name })
    }

    /// A piece of a shared file: the first one for the stamp [`ANY_STAMP`](guest_protocol::exchange::ANY_STAMP).
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such file, or it has changed.
    pub fn read_shared(&mut self, offset: u64, stamp: &str, name: &str) -> Result<Piece, VmmError> {
        self.ask_files(FileRequest::Read { offset, stamp, name })
    }

    /// Begins a result; gives its number.
    ///
    /// # Errors
    /// When the conversation breaks down, or the host takes no such result.
    pub fn begin_result(&mut self, executable: bool, name: &str) -> Result<u32, VmmError> {
        self.ask_files(FileRequest::Begin { executable, name })
    }

    /// Sends a piece of one, in Base64.
    ///
    /// # Errors
    /// When the conversation breaks down, or the host cannot write it.
    pub fn write_result(&mut self, result: u32, offset: u64, data: &str) -> Result<(), VmmError> {
        self.ask_patiently(&Request::Files(FileRequest::Write { result, offset, data })).map(drop)
    }

    /// Ends one; gives its path on the host.
    ///
    /// # Errors
    /// When the conversation breaks down, or the host cannot give it its name.
    pub fn end_result(&mut self, result: u32, size: u64) -> Result<String, VmmError> {
        self.ask_files(FileRequest::End { result, size })
    }

    fn ask_files<T: DeserializeOwned>(&mut self, request: FileRequest<'_>) -> Result<T, VmmError> {
        let request = Request::Files(request);
        let answer = self.ask_patiently(&request)?;
        serde_json::from_str(&answer).map_err(|error| VmmError::Malformed {
            request: request.to_string(),
            answer: answer.chars().take(200).collect(),
            reason: error.to_string(),
        })
    }

    fn ask_patiently(&mut self, request: &Request<'_>) -> Result<String, VmmError> {
        let begun = Instant::now();
        loop {
            let answer = self.ask(request)?;
            if answer != LATER {
                return Ok(answer);
            }
            if begun.elapsed() > PATIENCE {
                return Err(VmmError::Refused {
                    request: request.to_string().chars().take(200).collect(),
                    reason: format!(
                        "the host's file system has not answered for {} s",
                        PATIENCE.as_secs()
                    ),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }
}
