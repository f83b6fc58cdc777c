//! The way from the socket to where the guest runs: one stream, one request at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;

use super::guest::Controlled;
use super::message::{Answer, Command, MAX_ANSWER, MAX_REQUEST, Request};

/// How long an answer may take: a nested test host is slow, and a port may have a lot to unplug.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Reads a line of at most `most` bytes, without its line feed; none at the end.
///
/// # Errors
/// When reading fails, or the line is longer.
pub(super) fn read_line(input: &mut impl BufRead, most: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    input.by_ref().take(limit).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() >= most => {
            Err(io::Error::new(io::ErrorKind::InvalidData, format!("a line has over {most} bytes")))
        }
        _ => Ok(None),
    }
}

/// The end at the socket's side. Clones are not needed: it is shared by reference.
#[derive(Debug)]
pub struct Link(Mutex<Open>);

#[derive(Debug)]
struct Open {
    stream: UnixStream,
    input: BufReader<UnixStream>,
    number: u64,
    broken: bool,
}

impl Link {
    /// Over `stream`, whose other end [`serve`] has.
    ///
    /// # Errors
    /// When the stream cannot be set up.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        let input = BufReader::new(stream.try_clone()?);
        Ok(Self(Mutex::new(Open { stream, input, number: 0, broken: false })))
    }

    /// Has a request carried out where the guest runs.
    ///
    /// # Errors
    /// Why it was not, in a sentence.
    pub fn ask(&self, command: &Command) -> Result<Value, String> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.broken {
            return Err("the guest does not answer any more".into());
        }
        open.number += 1;
        let result = open.exchange(command);
        result.unwrap_or_else(|error| {
            // What comes later would be taken for the answer to another request.
            open.broken = true;
            Err(match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                    format!("the guest does not answer within {} s", ANSWER_LIMIT.as_secs())
                }
                io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe => {
                    "the guest has ended".to_owned()
                }
                _ => format!("the guest does not answer: {error}"),
            })
        })
    }
}

impl Open {
    fn exchange(&mut self, command: &Command) -> io::Result<Result<Value, String>> {
        let mut request = serde_json::to_value(command).map_err(io::Error::other)?;
        if let Value::Object(fields) = &mut request {
            fields.insert("id".into(), self.number.into());
        }
        let mut line = serde_json::to_vec(&request).map_err(io::Error::other)?;
        line.push(b'\n');
        self.stream.write_all(&line)?;
        let line = read_line(&mut self.input, MAX_ANSWER)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        let answer: Answer = serde_json::from_slice(&line).map_err(io::Error::other)?;
        if answer.id != self.number {
            return Err(io::Error::other("an answer to something else came"));
        }
        Ok(match answer.error {
            Some(error) => Err(error),
            None => Ok(answer.ok.unwrap_or_default()),
        })
    }
}

/// Carries out what comes through `input`, until it ends.
pub fn serve(input: impl Read, mut output: impl Write, guest: &Controlled) {
    let mut input = BufReader::new(input);
    // The sender is this program, a line at a time: anything else ends it.
    while let Ok(Some(line)) = read_line(&mut input, MAX_REQUEST) {
        let answer = match Request::parse(&line) {
            Ok(Request { id, command }) => Answer::new(id, guest.answer(&command)),
            Err((id, error)) => Answer::new(id, Err(error)),
        };
        if output.write_all(&answer.line()).and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_line_has_a_bound_and_a_cut_one_is_none() {
        let mut input = &b"ab\n\nabc\nab"[..];
        let mut next = || read_line(&mut input, 3);
        assert_eq!(next().unwrap(), Some(b"ab".to_vec()));
        assert_eq!(next().unwrap(), Some(Vec::new()));
        assert_eq!(next().unwrap(), Some(b"abc".to_vec()));
        assert_eq!(next().unwrap(), None);
        assert!(read_line(&mut &b"abcd\n"[..], 3).is_err());
        assert!(read_line(&mut &b"abcd"[..], 3).is_err());
    }

    #[test]
    fn an_answer_to_something_else_breaks_the_link_for_good() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours).unwrap();
        let guest = thread::spawn(move || {
            let mut input = BufReader::new(theirs.try_clone().unwrap());
            let mut output = theirs;
            for id in [1, 7] {
                read_line(&mut input, MAX_REQUEST).unwrap().unwrap();
                output.write_all(&Answer::new(id.into(), Ok("x".into())).line()).unwrap();
            }
        });
        assert_eq!(link.ask(&Command::Status {}), Ok("x".into()));
        let error = link.ask(&Command::Status {}).unwrap_err();
        assert!(error.contains("something else"), "{error}");
        guest.join().unwrap();
        assert!(link.ask(&Command::Status {}).unwrap_err().contains("any more"));
    }

    #[test]
    fn a_guest_that_is_gone_is_said_to_be() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let link = Link::new(ours).unwrap();
        drop(theirs);
        assert_eq!(link.ask(&Command::Status {}), Err("the guest has ended".into()));
    }
}
