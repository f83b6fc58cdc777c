//! What a running job reports to whatever started it.
//!
//! The same events flow within one process, when guests run on this machine's KVM, and as JSON lines out of the
//! nested test host: the code that prints and judges the run need not know which.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::SyncSender;

use peerdma_machine::kvm_probe::KvmProbe;
use serde::{Deserialize, Serialize};

use crate::found::Found;
use crate::report::{CaseReport, ScenarioReport};

/// Longest JSON line that is accepted, in bytes. A scenario's report with its bounded numbers of cases and findings
/// stays far below.
const MAX_LINE: u64 = 64 << 20;

/// How many events may wait for their reader before the sender does.
pub const QUEUE: usize = 1024;

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The nested test host runs our program.
    HostUp {
        /// Since its kernel started, in milliseconds.
        uptime: u64,
    },
    /// What the nested test host's KVM is good for; of a job without guests.
    Probed {
        /// What came of the payloads.
        probe: KvmProbe,
    },
    /// A guest is about to be started.
    Started {
        /// The scenario.
        scenario: String,
        /// The guest is killed after this many seconds.
        limit: u64,
    },
    /// What a guest is doing that reports nothing yet.
    Stage {
        /// The scenario.
        scenario: String,
        /// A few words.
        text: String,
    },
    /// The user's command or shell runs, and reads its input.
    Running {
        /// The scenario.
        scenario: String,
    },
    /// The number of tests that will report.
    Plan {
        /// The scenario.
        scenario: String,
        /// The number.
        count: usize,
    },
    /// A test ended.
    Case {
        /// The scenario.
        scenario: String,
        /// How it ended.
        case: CaseReport,
    },
    /// Something for people to read.
    Diagnostic {
        /// The scenario.
        scenario: String,
        /// One line.
        text: String,
    },
    /// The checker found something while no test of the lab's own was running. It is reported as it happens, and stands
    /// once more in the report.
    Finding {
        /// The scenario.
        scenario: String,
        /// The finding, one line; or what has come to it since, in numbers.
        text: String,
        /// It is worth a note, and no mistake for certain.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        note: bool,
        /// Why it is suppressed; none if it is not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        suppressed: Option<String>,
    },
    /// The checker found something, or more of what it had found before: for programs.
    Found {
        /// All about it.
        found: Box<Found>,
    },
    /// A guest's run is over; the report is complete.
    Ended {
        /// All about it.
        report: Box<ScenarioReport>,
    },
    /// A guest stands still: by a user's wish, at a finding, or in a debugger.
    Paused {
        /// The scenario.
        scenario: String,
        /// Why.
        reason: String,
    },
    /// It goes on.
    Resumed {
        /// The scenario.
        scenario: String,
    },
    /// The job as a whole cannot go on.
    Broken {
        /// Why.
        message: String,
    },
    /// The job is over.
    Done,
}

/// Where events go. A receiver that went away is not an error: the run goes on to its end.
#[derive(Debug, Clone)]
pub struct Events(SyncSender<Event>);

impl Events {
    /// Sends into `sender`, which should hold [`QUEUE`] events.
    pub fn new(sender: SyncSender<Event>) -> Self {
        Self(sender)
    }

    /// Hands over one event; waits while the queue is full.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// Writes one event as a line.
///
/// # Errors
/// When writing fails.
pub fn write_line(out: &mut impl Write, event: &Event) -> io::Result<()> {
    let mut line = serde_json::to_vec(event).map_err(io::Error::other)?;
    line.push(b'\n');
    out.write_all(&line)
}

/// Reads one event; `None` at the end of the stream, also if it ends within a line.
///
/// # Errors
/// When reading fails, or what comes is not an event.
pub fn read_line(input: &mut impl BufRead) -> io::Result<Option<Event>> {
    let mut line = Vec::new();
    let length = input.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)?;
    if length == 0 || line.last() != Some(&b'\n') {
        return Ok(None);
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_survive_the_wire_and_a_cut_line_ends_the_stream() {
        let events = [
            Event::HostUp { uptime: 7 },
            Event::Diagnostic { scenario: "s".into(), text: "a\nb \u{1b}".into() },
            Event::Ended { report: Box::new(ScenarioReport::new("s")) },
            Event::Done,
        ];
        let mut bytes = Vec::new();
        for event in &events {
            write_line(&mut bytes, event).unwrap();
        }
        bytes.extend_from_slice(b"{\"event\":\"do");
        let mut input = &bytes[..];
        for event in events {
            assert_eq!(read_line(&mut input).unwrap(), Some(event));
        }
        assert_eq!(read_line(&mut input).unwrap(), None);
    }

    #[test]
    fn nonsense_is_an_error() {
        assert!(read_line(&mut &b"{\"event\":\"dance\"}\n"[..]).is_err());
        assert!(read_line(&mut &b"\xff\n"[..]).is_err());
    }
}
