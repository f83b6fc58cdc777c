//! Answers a guest's requests about files, on the machine that has them.

use std::io::{self, BufRead, BufReader, Read, Write};

use guest_protocol::exchange::FileRequest;
use guest_protocol::wire::MAX_REQUEST;
use guest_protocol::{FAIL, OK, Request};
use serde::Serialize;

use super::Exchange;
use super::results::Results;
use super::share::Shares;

/// The files of one run.
#[derive(Debug)]
pub struct Server {
    shares: Shares,
    results: Option<Results>,
}

impl Server {
    /// For what is exchanged in a run.
    ///
    /// # Errors
    /// When the folder for results cannot be opened.
    pub fn new(exchange: &Exchange) -> io::Result<Self> {
        let results = exchange.results.as_deref().map(Results::new).transpose()?;
        Ok(Self { shares: Shares(exchange.shares.clone()), results })
    }

    /// The answer to one line of the guest's.
    pub fn answer(&mut self, line: &str) -> String {
        let answer = match Request::parse(line) {
            Ok(Request::Files(request)) => self.serve(&request),
            Ok(_) => Err("this is not a request about files".into()),
            Err(error) => Err(error.to_string()),
        };
        // One line, whatever was in it.
        match answer {
            Ok(text) if text.is_empty() => OK.to_owned(),
            Ok(text) => format!("{OK} {}", text.replace('\n', " ")),
            Err(reason) => format!("{FAIL} {}", reason.replace('\n', " ")),
        }
    }

    fn serve(&mut self, request: &FileRequest<'_>) -> Result<String, String> {
        match *request {
            FileRequest::List { skip, name } => json(&self.shares.list(skip, name)?),
            FileRequest::Read { offset, stamp, name } => {
                json(&self.shares.read(offset, stamp, name)?)
            }
            FileRequest::Begin { executable, name } => {
                json(&self.results()?.begin(executable, name)?)
            }
            FileRequest::Write { result, offset, data } => {
                self.results()?.write(result, offset, data).map(|()| String::new())
            }
            FileRequest::End { result, size } => json(&self.results()?.end(result, size)?),
        }
    }

    fn results(&mut self) -> Result<&mut Results, String> {
        self.results.as_mut().ok_or_else(|| {
            "no folder was named for results: start the guest with boot --results FOLDER".into()
        })
    }

    #[cfg(test)]
    pub(super) fn limit_results(&mut self, room: u64) {
        self.results.as_mut().unwrap().limit(room);
    }

    /// Answers lines until the other end is gone.
    ///
    /// # Errors
    /// When something comes that is not a line of a guest's.
    pub(crate) fn serve_lines(
        &mut self,
        input: impl Read,
        mut answers: impl Write,
    ) -> io::Result<()> {
        let mut input = BufReader::new(input);
        while let Some(line) = read_line(&mut input, MAX_REQUEST)? {
            let answer = self.answer(&line) + "\n";
            if answers.write_all(answer.as_bytes()).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// Reads a line of at most `longest` bytes; `None` at the end of the stream, also if it ends within a line.
///
/// # Errors
/// When a line is longer, or not text. An end that was not announced is none.
pub(crate) fn read_line(input: &mut impl BufRead, longest: usize) -> io::Result<Option<String>> {
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why);
    let mut line = Vec::new();
    let most = u64::try_from(longest).unwrap_or(u64::MAX).saturating_add(1);
    // Reading fails when the other end is gone before it has read all answers.
    if input.by_ref().take(most).read_until(b'\n', &mut line).is_err() {
        return Ok(None);
    }
    if line.pop() != Some(b'\n') {
        return if line.len() == longest { Err(wrong("a line has no end")) } else { Ok(None) };
    }
    String::from_utf8(line).map(Some).map_err(|_| wrong("a line is not text"))
}

fn json(value: &impl Serialize) -> Result<String, String> {
    serde_json::to_string(value).map_err(|error| error.to_string())
}
