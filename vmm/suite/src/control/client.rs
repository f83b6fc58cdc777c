//! A client of the control socket.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::link::read_line;
use super::message::{Answer, Command, MAX_ANSWER};

/// How long the program behind the socket may take; it gives its guest less.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The socket.
    #[error("{}: {source}", path.display())]
    Connect {
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// The connection.
    #[error("the program with the guest does not answer: {0}")]
    Lost(#[source] io::Error),
    /// What was asked for.
    #[error("{0}")]
    Refused(String),
}

/// A connection.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    input: BufReader<UnixStream>,
    number: u64,
}

impl Client {
    /// Connects to the socket at `path`.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let connect = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(ANSWER_LIMIT))?;
            stream.set_write_timeout(Some(ANSWER_LIMIT))?;
            let input = BufReader::new(stream.try_clone()?);
            Ok(Self { stream, input, number: 0 })
        };
        connect().map_err(|source| ClientError::Connect { path: path.to_owned(), source })
    }

    /// Asks, and gives the answer as it came.
    ///
    /// # Errors
    /// When the connection is lost, or the request is refused.
    pub fn ask(&mut self, command: &Command) -> Result<Value, ClientError> {
        let mut request = serde_json::to_value(command)
            .map_err(|error| ClientError::Lost(io::Error::other(error)))?;
        self.number += 1;
        if let Value::Object(fields) = &mut request {
            fields.insert("id".into(), self.number.into());
        }
        let mut line = request.to_string().into_bytes();
        line.push(b'\n');
        // A server that takes no more clients says so before it hangs up, without having read anything.
        let sent = self.stream.write_all(&line);
        let line = read_line(&mut self.input, MAX_ANSWER)
            .and_then(|line| line.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()))
            .map_err(|error| ClientError::Lost(sent.err().unwrap_or(error)))?;
        let answer: Answer = serde_json::from_slice(&line)
            .map_err(|error| ClientError::Lost(io::Error::other(error)))?;
        match answer.error {
            Some(error) => Err(ClientError::Refused(error)),
            None => Ok(answer.ok.unwrap_or_default()),
        }
    }

    /// Asks for something of a known form.
    ///
    /// # Errors
    /// As [`Client::ask`], and when the answer has another form.
    pub fn get<T: DeserializeOwned>(&mut self, command: &Command) -> Result<T, ClientError> {
        let value = self.ask(command)?;
        serde_json::from_value(value).map_err(|error| ClientError::Lost(io::Error::other(error)))
    }
}
