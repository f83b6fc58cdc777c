//! A client's bytes as messages.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use gdbstub::conn::{Connection, ConnectionExt};

/// Longest message, in bytes: more is sent in several.
const MAX_MESSAGE: usize = 64 << 10;
/// Messages that wait to be read.
const QUEUE: usize = 64;
/// How long to wait for the client before the guest is looked at again.
const TICK: Duration = Duration::from_millis(5);

/// The client is gone.
#[derive(Debug, thiserror::Error)]
#[error("gdb is gone")]
pub(super) struct Gone;

/// Messages to and from clients, one client at a time.
pub(super) struct Messages {
    incoming: Receiver<Vec<u8>>,
    /// A client has come, and its going has not been seen.
    present: bool,
    read: VecDeque<u8>,
    output: Box<dyn Write + Send>,
    written: Vec<u8>,
}

/// Writes `bytes` as one message; none say that a client has come or gone.
///
/// # Errors
/// When writing fails.
pub fn message(out: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(bytes)?;
    out.flush()
}

/// Reads one.
fn read_message(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
    if length > MAX_MESSAGE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl Messages {
    /// Out of `input`, which a thread of its own reads, and into `output`.
    pub(super) fn new(
        mut input: impl Read + Send + 'static,
        output: Box<dyn Write + Send>,
    ) -> io::Result<Self> {
        let (sender, incoming) = sync_channel(QUEUE);
        thread::Builder::new().name("gdb-input".into()).spawn(move || {
            while let Ok(bytes) = read_message(&mut input) {
                if sender.send(bytes).is_err() {
                    return;
                }
            }
        })?;
        let (read, written) = (VecDeque::new(), Vec::new());
        Ok(Self { incoming, present: false, read, output, written })
    }

    /// Waits for a client; false when there will be none.
    pub(super) fn next_client(&mut self) -> bool {
        self.read.clear();
        self.written.clear();
        loop {
            match self.incoming.recv() {
                Ok(bytes) if bytes.is_empty() => {
                    self.present = !self.present;
                    if self.present {
                        return true;
                    }
                }
                // What the last one has sent after its session was over.
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    }

    /// Tells the other side that the session is over.
    pub(super) fn hang_up(&mut self) {
        let _ = message(&mut *self.output, &[]);
    }

    /// Whether there is something to read, after a moment at most.
    pub(super) fn wait(&mut self) -> Result<bool, Gone> {
        if self.read.is_empty() {
            match self.incoming.recv_timeout(TICK) {
                Ok(bytes) => self.take(bytes)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
        }
        Ok(!self.read.is_empty())
    }

    fn take(&mut self, bytes: Vec<u8>) -> Result<(), Gone> {
        if bytes.is_empty() {
            self.present = false;
            return Err(Gone);
        }
        self.read.extend(bytes);
        Ok(())
    }
}

/// A session's view of them.
pub(super) struct Client<'a>(pub(super) &'a mut Messages);

impl Connection for Client<'_> {
    type Error = Gone;

    fn write(&mut self, byte: u8) -> Result<(), Gone> {
        self.0.write(byte)
    }

    fn flush(&mut self) -> Result<(), Gone> {
        self.0.flush()
    }
}

impl ConnectionExt for Client<'_> {
    fn read(&mut self) -> Result<u8, Gone> {
        self.0.read()
    }

    fn peek(&mut self) -> Result<Option<u8>, Gone> {
        if self.0.read.is_empty()
            && let Ok(bytes) = self.0.incoming.try_recv()
        {
            self.0.take(bytes)?;
        }
        Ok(self.0.read.front().copied())
    }
}

impl Messages {
    fn write(&mut self, byte: u8) -> Result<(), Gone> {
        self.written.push(byte);
        if self.written.len() == MAX_MESSAGE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Gone> {
        let bytes = std::mem::take(&mut self.written);
        if bytes.is_empty() {
            return Ok(());
        }
        message(&mut *self.output, &bytes).map_err(|_| Gone)
    }

    fn read(&mut self) -> Result<u8, Gone> {
        loop {
            if let Some(byte) = self.read.pop_front() {
                return Ok(byte);
            }
            let bytes = self.incoming.recv().map_err(|_| Gone)?;
            self.take(bytes)?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(all: &[&[u8]]) -> Messages {
        let mut bytes = Vec::new();
        all.iter().for_each(|one| message(&mut bytes, one).unwrap());
        Messages::new(io::Cursor::new(bytes), Box::new(io::sink())).unwrap()
    }

    #[test]
    fn clients_come_one_after_the_other() {
        let mut messages = messages(&[b"", b"ab", b"", b"", b"x", b"y", b"", b"", b"c"]);
        assert!(messages.next_client());
        assert_eq!((messages.read().unwrap(), messages.read().unwrap()), (b'a', b'b'));
        assert!(messages.read().is_err(), "it is gone");
        // The second one's session ends before it goes: what is left of it does not reach the third, and its going is not
        // taken for that one's coming.
        assert!(messages.next_client());
        assert_eq!(messages.read().unwrap(), b'x');
        assert!(messages.next_client());
        assert_eq!(messages.read().unwrap(), b'c');
        assert!(messages.read().is_err());
        assert!(!messages.next_client());
    }

    #[test]
    fn a_length_that_cannot_be_ends_the_input() {
        let mut bytes = Vec::new();
        message(&mut bytes, &[]).unwrap();
        bytes.extend(u32::MAX.to_le_bytes());
        let mut messages = Messages::new(io::Cursor::new(bytes), Box::new(io::sink())).unwrap();
        assert!(messages.next_client());
        assert!(messages.read().is_err());
    }
}
