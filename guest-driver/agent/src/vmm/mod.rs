//! The agent's side of the conversation with the VMM.
//!
//! One request line, one answer line, always started by the guest. [`Vmm`] knows the words, a [`Wire`] carries them:
//! the I/O port in a guest, a script in the tests.

mod files;
mod port;

pub use guest_protocol::wire::{CALL_PORT, MAX_ANSWER};
pub use guest_protocol::{
    Address, Arrival, CaseEnd, Counters, Expectation, Expected, FunctionTraffic, Hello, Mode,
    Module, Other, Path, PathKind, RAM, Traffic,
};
use guest_protocol::{FAIL, OK, Request};
pub use port::PortWire;
use serde::de::DeserializeOwned;

/// What can go wrong in the guest protocol.
#[derive(Debug, thiserror::Error)]
pub enum VmmError {
    /// The kernel does not let us use the I/O port.
    #[error(
        "the kernel refuses access to the VMM's I/O port {CALL_PORT:#06x} ({0}); run this as root"
    )]
    Permission(#[source] std::io::Error),
    /// Nothing answers.
    #[error(
        "nothing answers at the I/O port {CALL_PORT:#06x}: this machine is not a guest of peerdma"
    )]
    Absent,
    /// The answer is longer than the protocol allows.
    #[error("an answer of the VMM is longer than {MAX_ANSWER} bytes")]
    TooLong,
    /// The answer is not UTF-8.
    #[error("an answer of the VMM is not text")]
    NotText,
    /// The answer starts with neither `ok` nor `fail`, or its content has not the agreed form.
    #[error("the VMM answered {answer:?} to {request:?}: {reason}")]
    Malformed {
        /// What was asked.
        request: String,
        /// What came back.
        answer: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The VMM refused a request that cannot be refused for a test's sake.
    #[error("the VMM refused {request:?}: {reason}")]
    Refused {
        /// What was asked.
        request: String,
        /// The VMM's reason.
        reason: String,
    },
}

/// Carries one line to the VMM and its answer back, both without the line end.
pub trait Wire: std::fmt::Debug {
    /// Sends `line` and waits for the answer.
    ///
    /// # Errors
    /// When there is no answer or it is not a line of text.
    fn exchange(&mut self, line: &str) -> Result<String, VmmError>;
}

/// The words of the conversation.
#[derive(Debug)]
pub struct Vmm<W: Wire + ?Sized = dyn Wire> {
    wire: Box<W>,
}

impl Vmm {
    /// A VMM behind the given wire.
    pub fn new(wire: Box<dyn Wire>) -> Self {
        Self { wire }
    }

    /// Asks what this guest is for.
    ///
    /// # Errors
    /// [`VmmError::Absent`] when this is not a guest of ours, other variants when the answer is unusable.
    pub fn hello(&mut self) -> Result<Hello, VmmError> {
        let hello: Hello = self.ask_json(&Request::Hello)?;
        crate::device::learn_names(&hello.peers);
        Ok(hello)
    }

    /// Hands over one line of the test report.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn ktap(&mut self, line: &str) -> Result<(), VmmError> {
        self.ask(&Request::Ktap(line)).map(drop)
    }

    /// A test begins: what the checker finds from here on is its.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn case_begin(&mut self, name: &str) -> Result<(), VmmError> {
        self.ask(&Request::CaseBegin(name)).map(drop)
    }

    /// The running test wants findings of `class`, between `min` and `max` of them.
    ///
    /// # Errors
    /// When the conversation breaks down, or the VMM knows no such class.
    pub fn case_expect(&mut self, class: &str, min: u32, max: Option<u32>) -> Result<(), VmmError> {
        let max = max.map_or(u64::MAX, u64::from);
        let expectation = Expectation { min: min.into(), max, ..Expectation::some(class) };
        self.ask(&Request::CaseExpect(expectation)).map(drop)
    }

    /// The running test is over, with what the report should say besides. The VMM's verdict includes the findings:
    /// `Some(reason)` when it sees a failure.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn case_end(&mut self, end: CaseEnd, detail: &str) -> Result<Option<String>, VmmError> {
        self.ask_or_refused(&Request::CaseEnd(end, detail))
    }

    /// The user's command expects or allows findings, from its beginning to its end.
    ///
    /// # Errors
    /// When the conversation breaks down, or the VMM knows no such class or function.
    pub fn expect(&mut self, expectation: Expectation<'_>) -> Result<(), VmmError> {
        self.ask(&Request::Expect(expectation)).map(drop)
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
    ) -> Result<(), VmmError> {
        let client = &client.to_string();
        self.ask(&Request::Path { owner, client, distance, address }).map(drop)
    }

    /// The VMM's counters at this moment.
    ///
    /// # Errors
    /// When the conversation breaks down or the answer holds something else.
    pub fn stat(&mut self) -> Result<Counters, VmmError> {
        self.ask_json(&Request::Stat)
    }

    /// What a function (`BUS:DEVICE.FUNCTION`) has moved since power-on, by target.
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such function.
    pub fn traffic(&mut self, function: &str) -> Result<FunctionTraffic, VmmError> {
        self.ask_json(&Request::Traffic(function))
    }

    /// Keeps posted writes of `requester` to `target` (functions, or [`RAM`]) under way: `pushed`, until a read of the
    /// same path pushes them; a number: that many turns of the requester; `off`, no longer.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such path, or too many are delayed already.
    pub fn delay(&mut self, requester: &str, target: &str, delay: &str) -> Result<(), VmmError> {
        self.ask(&Request::Delay { requester, target, delay }).map(drop)
    }

    /// A fence that stands for work of `function` has been seen: what is still under way then is a finding.
    ///
    /// # Errors
    /// When the conversation breaks down, or there is no such function.
    pub fn fence_seen(&mut self, function: &str) -> Result<(), VmmError> {
        self.ask(&Request::Fence(function)).map(drop)
    }

    /// Waits until the devices have nothing left to do and their interrupts are with the processors; `Some(reason)` when
    /// they go on and on.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn settle(&mut self) -> Result<Option<String>, VmmError> {
        self.ask_or_refused(&Request::Settle)
    }

    /// Pulls everything below a port out of its slot, without notice. `port` is `BUS:DEVICE.FUNCTION`.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such slot, or it is empty.
    pub fn unplug(&mut self, port: &str) -> Result<(), VmmError> {
        self.ask(&Request::Unplug(port)).map(drop)
    }

    /// Plugs it in again.
    ///
    /// # Errors
    /// When the conversation breaks down, there is no such slot, or it is occupied.
    pub fn plug(&mut self, port: &str) -> Result<(), VmmError> {
        self.ask(&Request::Plug(port)).map(drop)
    }

    /// The user's command begins: from here on an exit code is its status.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn started(&mut self) -> Result<(), VmmError> {
        self.ask(&Request::Started).map(drop)
    }

    /// Ends the guest, with a reason when the agent itself wants it. Returns only when the VMM did
    /// not do it.
    ///
    /// # Errors
    /// When the conversation breaks down.
    pub fn exit(&mut self, code: u8, reason: Option<&str>) -> Result<(), VmmError> {
        let reason = reason.unwrap_or_default();
        self.ask(&Request::Exit { code: code.into(), reason }).map(drop)
    }

    /// Sends a request that may well be refused; gives the reason then.
    fn ask_or_refused(&mut self, request: &Request<'_>) -> Result<Option<String>, VmmError> {
        match self.ask(request) {
            Ok(_) => Ok(None),
            Err(VmmError::Refused { reason, .. }) => Ok(Some(reason)),
            Err(error) => Err(error),
        }
    }

    /// Sends a request; gives what the JSON behind `ok` holds.
    fn ask_json<T: DeserializeOwned>(&mut self, request: &Request<'_>) -> Result<T, VmmError> {
        let answer = self.ask(request)?;
        serde_json::from_str(&answer).map_err(|error| VmmError::Malformed {
            request: request.to_string(),
            answer,
            reason: error.to_string(),
        })
    }

    /// Sends a request; gives what follows `ok`.
    fn ask(&mut self, request: &Request<'_>) -> Result<String, VmmError> {
        let request = request.to_string();
        let answer = self.wire.exchange(&request)?;
        let (word, rest) = answer.split_once(' ').unwrap_or((answer.as_str(), ""));
        match word {
            OK => Ok(rest.to_owned()),
            FAIL => Err(VmmError::Refused { request, reason: rest.to_owned() }),
            _ => Err(VmmError::Malformed {
                request,
                reason: "an answer starts with `ok` or `fail`".into(),
                answer,
            }),
        }
    }
}

/// A wire that plays a script, for tests of what stands on top.
#[cfg(test)]
pub(crate) mod script {
    use super::{VmmError, Wire};
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
        fn exchange(&mut self, line: &str) -> Result<String, VmmError> {
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

    fn vmm(script: &Script) -> Vmm {
        Vmm::new(Box::new(script.clone()))
    }

    #[test]
    fn requests_have_the_agreed_words() {
        let script = Script::default();
        let mut vmm = vmm(&script);
        vmm.ktap("ok 1 a").unwrap();
        vmm.case_begin("a").unwrap();
        vmm.case_expect("iommu.unmapped", 1, None).unwrap();
        vmm.case_expect("iommu.stale", 0, Some(3)).unwrap();
        assert_eq!(vmm.case_end(CaseEnd::Fail, "why").unwrap(), None);
        vmm.unplug("00:04.0").unwrap();
        vmm.plug("00:04.0").unwrap();
        vmm.delay("02:00.0", RAM, "40").unwrap();
        vmm.fence_seen("02:00.0").unwrap();
        assert_eq!(vmm.settle().unwrap(), None);
        vmm.started().unwrap();
        vmm.exit(3, None).unwrap();
        vmm.exit(123, Some("no module")).unwrap();
        assert_eq!(
            script.lines(),
            [
                "ktap ok 1 a",
                "case begin a",
                "case expect iommu.unmapped",
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
            vmm(&script).case_end(CaseEnd::Ok, "").unwrap().as_deref(),
            Some("2 unexpected findings")
        );
        let script = Script::default().answer("case begin", "fail no");
        assert!(matches!(vmm(&script).case_begin("a"), Err(VmmError::Refused { .. })));
    }

    #[test]
    fn a_malformed_answer_is_distinguished() {
        let script = Script::default().answer("ktap", "what?");
        assert!(matches!(vmm(&script).ktap("x"), Err(VmmError::Malformed { .. })));
        let script = Script::default().answer("hello", "ok {");
        assert!(matches!(vmm(&script).hello(), Err(VmmError::Malformed { .. })));
    }
}
