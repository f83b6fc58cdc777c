//! The agent's side of the conversation with the virtual machine monitor ("the lab").
//!
//! One request line, one answer line, always started by the guest. [`Lab`] knows the words, a [`Wire`] carries them:
//! the I/O port in a guest, a script in the tests.

mod hello;
mod port;
mod stat;
mod traffic;

pub use hello::{Address, Expected, Hello, Mode, Module, Other, Way};
pub use port::{MAX_ANSWER, MAX_LINE, PORT, PortWire};
pub use stat::Stat;
pub use traffic::{Moved, RAM};

/// What can go wrong on the lab port.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The kernel does not let us use the I/O port.
    #[error("the kernel refuses access to the lab's I/O port {PORT:#06x} ({0}); run this as root")]
    Permission(#[source] std::io::Error),
    /// Nobody answers.
    #[error(
        "nobody answers at the lab's I/O port {PORT:#06x}: this machine is no guest of peerdma"
    )]
    Absent,
    /// The answer is longer than the protocol allows.
    #[error("an answer of the lab port is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The answer is not UTF-8.
    #[error("an answer of the lab port is not text")]
    NotText,
    /// The answer starts with neither `ok` nor `fail`, or its content has not the agreed form.
    #[error("the lab port answered {answer:?} to {request:?}: {reason}")]
    Malformed {
        /// What was asked.
        request: String,
        /// What came back.
        answer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The monitor refused a request that cannot be refused for a test's sake.
    #[error("the lab refused {request:?}: {reason}")]
    Refused {
        /// What was asked.
        request: String,
        /// The monitor's reason.
        reason: String,
    },
}

/// Carries one line to the monitor and its answer back, both without the line end.
pub trait Wire: std::fmt::Debug {
    /// Sends `line` and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer or it is not a line of text.
    fn exchange(&mut self, line: &str) -> Result<String, LabError>;
}

/// How the agent thinks a test ended; the monitor may know better.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaseEnd {
    /// Passed, with what the report should say besides; may be empty.
    Ok(String),
    /// Failed, with a reason.
    Fail(String),
    /// Not run, with a reason.
    Skip(String),
}

/// The words of the conversation.
#[derive(Debug)]
pub struct Lab<W: Wire + ?Sized = dyn Wire> {
    wire: Box<W>,
}

impl Lab {
    /// A lab behind the given wire.
    pub fn new(wire: Box<dyn Wire>) -> Self {
        Self { wire }
    }

    /// Asks what this guest is for.
    ///
    /// # Errors
    /// [`LabError::Absent`] when this is no guest of ours, other variants when the answer is unusable.
    pub fn hello(&mut self) -> Result<Hello, LabError> {
        let answer = self.ask("hello")?;
        Hello::parse(&answer).map_err(|error| LabError::Malformed {
            request: "hello".into(),
            answer,
            reason: error.to_string(),
        })
    }

    /// Hands over one line of the test report.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn ktap(&mut self, line: &str) -> Result<(), LabError> {
        self.ask(&format!("ktap {line}")).map(drop)
    }

    /// A test begins: what the checker finds from here on is its.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn case_begin(&mut self, name: &str) -> Result<(), LabError> {
        self.ask(&format!("case begin {name}")).map(drop)
    }

    /// The running test wants findings of `class`, between `min` and `max` of them.
    ///
    /// # Errors
    /// When the conversation breaks down, or the monitor knows no such class.
    pub fn case_expect(&mut self, class: &str, min: u32, max: Option<u32>) -> Result<(), LabError> {
        let line = match max {
            Some(max) => format!("case expect {class} {min} {max}"),
            None => format!("case expect {class} {min}"),
        };
        self.ask(&line).map(drop)
    }

    /// The running test is over. The monitor's verdict includes the findings: `Some(reason)` when it sees a failure.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn case_end(&mut self, end: &CaseEnd) -> Result<Option<String>, LabError> {
        let line = match end {
            CaseEnd::Ok(note) if note.is_empty() => "case end ok".into(),
            CaseEnd::Ok(note) => format!("case end ok {note}"),
            CaseEnd::Fail(reason) => format!("case end fail {reason}"),
            CaseEnd::Skip(reason) => format!("case end skip {reason}"),
        };
        self.ask_or_refused(&line)
    }

    /// What the kernel decided about DMA by `client`, a peer device's number or a function's address, into the memory of
    /// peer device `owner`: the distance, and the DMA address with its kind, if the client got one.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn path(
        &mut self,
        owner: u32,
        client: &dyn std::fmt::Display,
        distance: i32,
        address: Option<(Address, u64)>,
    ) -> Result<(), LabError> {
        let address = address.and_then(|(kind, value)| Some((kind.word()?, value)));
        let line = match address {
            Some((kind, value)) => format!("path {owner} {client} {distance} {kind} {value:#x}"),
            None => format!("path {owner} {client} {distance}"),
        };
        self.ask(&line).map(drop)
    }

    /// The monitor's counters at this moment.
    ///
    /// # Errors
    /// When the conversation breaks down or the answer is no JSON object.
    pub fn stat(&mut self) -> Result<Stat, LabError> {
        let answer = self.ask("stat")?;
        Stat::parse(&answer).map_err(|error| LabError::Malformed {
            request: "stat".into(),
            answer,
            reason: error.to_string(),
        })
    }

    /// What a function (`BUS:DEVICE.FUNCTION`) has moved since power-on, by target.
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such function.
    pub fn traffic(&mut self, function: &str) -> Result<Moved, LabError> {
        let request = format!("traffic {function}");
        let answer = self.ask(&request)?;
        serde_json::from_str(&answer).map_err(|error| LabError::Malformed {
            request,
            answer,
            reason: error.to_string(),
        })
    }

    /// Keeps posted writes of `requester` to `target` (functions, or [`RAM`]) under way: `pushed`, until a read of the
    /// same path pushes them; a number, so many turns of the requester; `off`, no longer.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such path, or too many are delayed already.
    pub fn delay(&mut self, requester: &str, target: &str, delay: &str) -> Result<(), LabError> {
        self.ask(&format!("delay {requester} {target} {delay}")).map(drop)
    }

    /// A fence that stands for work of `function` has been seen: what is still under way then is a finding.
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such function.
    pub fn fence_seen(&mut self, function: &str) -> Result<(), LabError> {
        self.ask(&format!("fence {function}")).map(drop)
    }

    /// Waits until the devices have nothing left to do and their interrupts are with the processors; `Some(reason)` when
    /// they go on and on.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn settle(&mut self) -> Result<Option<String>, LabError> {
        self.ask_or_refused("settle")
    }

    /// Pulls everything below a port out of its slot, without notice. `port` is `BUS:DEVICE.FUNCTION`.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such slot, or it is empty.
    pub fn unplug(&mut self, port: &str) -> Result<(), LabError> {
        self.ask(&format!("unplug {port}")).map(drop)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such slot, or it is occupied.
    pub fn plug(&mut self, port: &str) -> Result<(), LabError> {
        self.ask(&format!("plug {port}")).map(drop)
    }

    /// The user's command begins: from here on an exit code is its status.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn started(&mut self) -> Result<(), LabError> {
        self.ask("started").map(drop)
    }

    /// Ends the guest, with a reason when that is the agent's wish and nobody else's. Returns only when the monitor did
    /// not do it.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn exit(&mut self, code: u8, reason: Option<&str>) -> Result<(), LabError> {
        let request = match reason {
            Some(reason) => format!("exit {code} {reason}"),
            None => format!("exit {code}"),
        };
        self.ask(&request).map(drop)
    }

    /// Sends a request that may well be refused; gives the reason then.
    fn ask_or_refused(&mut self, request: &str) -> Result<Option<String>, LabError> {
        match self.ask(request) {
            Ok(_) => Ok(None),
            Err(LabError::Refused { reason, .. }) => Ok(Some(reason)),
            Err(error) => Err(error),
        }
    }

    /// Sends a request; gives what follows `ok`.
    fn ask(&mut self, request: &str) -> Result<String, LabError> {
        let answer = self.wire.exchange(request)?;
        let (word, rest) = answer.split_once(' ').unwrap_or((answer.as_str(), ""));
        match word {
            "ok" => Ok(rest.to_owned()),
            "fail" => {
                Err(LabError::Refused { request: request.to_owned(), reason: rest.to_owned() })
            }
            _ => Err(LabError::Malformed {
                request: request.to_owned(),
                reason: "an answer starts with `ok` or `fail`".into(),
                answer,
            }),
        }
    }
}

/// A wire that plays a script, for tests of what stands on top.
#[cfg(test)]
pub(crate) mod script {
    use super::{LabError, Wire};
    use std::sync::{Arc, Mutex};

    /// Answers `ok`, unless the script says otherwise; remembers what was asked.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Script {
        pub(crate) asked: Arc<Mutex<Vec<String>>>,
        pub(crate) answers: Arc<Mutex<Vec<(String, String)>>>,
    }

    impl Script {
        pub(crate) fn answer(self, prefix: &str, answer: &str) -> Self {
            self.answers.lock().unwrap().push((prefix.into(), answer.into()));
            self
        }

        pub(crate) fn lines(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }
    }

    impl Wire for Script {
        fn exchange(&mut self, line: &str) -> Result<String, LabError> {
            self.asked.lock().unwrap().push(line.into());
            let answers = self.answers.lock().unwrap();
            Ok(answers
                .iter()
                .find(|(prefix, _)| line.starts_with(prefix))
                .map_or("ok".into(), |(_, a)| a.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::script::Script;
    use super::*;

    fn lab(script: &Script) -> Lab {
        Lab::new(Box::new(script.clone()))
    }

    #[test]
    fn requests_have_the_agreed_words() {
        let script = Script::default();
        let mut lab = lab(&script);
        lab.ktap("ok 1 a").unwrap();
        lab.case_begin("a").unwrap();
        lab.case_expect("iommu.unmapped", 1, None).unwrap();
        lab.case_expect("iommu.stale", 0, Some(3)).unwrap();
        assert_eq!(lab.case_end(&CaseEnd::Fail("why".into())).unwrap(), None);
        lab.unplug("00:04.0").unwrap();
        lab.plug("00:04.0").unwrap();
        lab.delay("02:00.0", RAM, "40").unwrap();
        lab.fence_seen("02:00.0").unwrap();
        assert_eq!(lab.settle().unwrap(), None);
        lab.started().unwrap();
        lab.exit(3, None).unwrap();
        lab.exit(123, Some("no module")).unwrap();
        assert_eq!(
            script.lines(),
            [
                "ktap ok 1 a",
                "case begin a",
                "case expect iommu.unmapped 1",
                "case expect iommu.stale 0 3",
                "case end fail why",
                "unplug 00:04.0",
                "plug 00:04.0",
                "delay 02:00.0 ram 40",
                "fence 02:00.0",
                "settle",
                "started",
                "exit 3",
                "exit 123 no module"
            ]
        );
    }

    #[test]
    fn the_monitors_verdict_is_not_an_error_of_the_conversation() {
        let script = Script::default().answer("case end", "fail 2 unexpected findings");
        assert_eq!(
            lab(&script).case_end(&CaseEnd::Ok(String::new())).unwrap().as_deref(),
            Some("2 unexpected findings")
        );
        let script = Script::default().answer("case begin", "fail no");
        assert!(matches!(lab(&script).case_begin("a"), Err(LabError::Refused { .. })));
    }

    #[test]
    fn an_answer_that_is_none_is_told_apart() {
        let script = Script::default().answer("ktap", "what?");
        assert!(matches!(lab(&script).ktap("x"), Err(LabError::Malformed { .. })));
        let script = Script::default().answer("hello", "ok {");
        assert!(matches!(lab(&script).hello(), Err(LabError::Malformed { .. })));
    }
}
