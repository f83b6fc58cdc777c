//! Findings for programs: a JSON object for each, on a line of its own, as it happens. docs/findings.md describes the
//! fields.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

/// A finding, or several with the same cause.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The scenario.
    pub scenario: String,
    /// The test that was running; none outside of all tests. A user's own command is `command`.
    pub test: Option<String>,
    /// Counts the findings of a scenario from 1. An object with a number that was there before takes the place of that
    /// one: more findings have come from the same cause.
    pub number: u64,
    /// The class, for example `iommu.stale`.
    pub class: String,
    /// `finding` or `note`.
    pub severity: String,
    /// Whether the test expects or allows it, as far as is known at this moment.
    pub expected: bool,
    /// Why it is suppressed; none if it is not.
    pub suppressed: Option<String>,
    /// The function's name in the topology.
    pub function: String,
    /// Its requester ID, `bb:dd.f`.
    pub requester: String,
    /// Number of the request TLP since power-on; this and the next four are none for a finding without a request.
    pub sequence: Option<u64>,
    /// `read` or `write`.
    pub operation: Option<String>,
    /// What the request is for: `data`, `descriptor`, `completion-record`, `interrupt`, `virtqueue`.
    pub purpose: Option<String>,
    /// The address in the request, in hexadecimal: JSON numbers of 64 bits do not survive every reader.
    pub address: Option<String>,
    /// Bytes.
    pub length: Option<u64>,
    /// What is wrong, and the event that explains it.
    pub message: String,
    /// How many findings this object stands for.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Since the guest's start.
    pub milliseconds: u64,
    /// What happened before: the last events that concern the function, the oldest first.
    pub before: Vec<String>,
}

/// Writes findings down, each in one piece.
pub struct Writer {
    out: Box<dyn Write + Send>,
    /// The file's.
    name: String,
    /// The first error: reported once, at the end.
    error: Option<io::Error>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("error", &self.error).finish_non_exhaustive()
    }
}

impl Writer {
    /// Writes to a file, which is emptied first; `-` is stdout.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let out: Box<dyn Write + Send> = match path.to_str() {
            Some("-") => Box::new(io::stdout()),
            _ => Box::new(File::create(path)?),
        };
        Ok(Self { name: path.display().to_string(), ..Self::new(out) })
    }

    /// The name of the file; empty if there is none.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Writes to `out`.
    pub fn new(out: Box<dyn Write + Send>) -> Self {
        Self { out, name: String::new(), error: None }
    }

    /// Writes one finding. Whatever ends the run afterwards, it is there.
    pub fn write(&mut self, found: &Found) {
        if self.error.is_some() {
            return;
        }
        let line = serde_json::to_vec(found).map_err(io::Error::other).map(|mut line| {
            line.push(b'\n');
            line
        });
        let written =
            line.and_then(|line| self.out.write_all(&line).and_then(|()| self.out.flush()));
        self.error = written.err();
    }

    /// The first error that there was. A reader that closed the pipe has seen enough.
    ///
    /// # Errors
    /// As the file's system says.
    pub fn finish(self) -> io::Result<()> {
        match self.error {
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_is_a_line_and_is_there_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f.jsonl");
        std::fs::write(&path, "what was there before").unwrap();
        let mut writer = Writer::open(&path).unwrap();
        let found = Found { message: "a\nb \"c\"".into(), count: 2, ..Found::default() };
        for number in [1, 2] {
            writer.write(&Found { number, ..found.clone() });
            let text = std::fs::read_to_string(&path).unwrap();
            let read: Vec<Found> =
                text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            assert_eq!(read.len() as u64, number);
            assert_eq!(read.last().unwrap(), &Found { number, ..found.clone() });
        }
        writer.finish().unwrap();
        assert!(Writer::open(folder.path()).is_err());
        assert!(Writer::open(&folder.path().join("no/f")).is_err());
    }

    #[test]
    fn a_full_disk_is_reported_once_and_a_closed_pipe_never() {
        let mut writer = Writer::open(Path::new("/dev/full")).unwrap();
        writer.write(&Found::default());
        writer.write(&Found::default());
        assert!(writer.finish().is_err());
        let (reader, pipe) = io::pipe().unwrap();
        drop(reader);
        let mut writer = Writer::new(Box::new(pipe));
        writer.write(&Found::default());
        writer.finish().unwrap();
    }
}
