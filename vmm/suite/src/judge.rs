//! The judge: takes what the guest says at the protocol port and what the checker finds, and decides how each test ended.
//!
//! The guest's word counts only against itself: it can fail a test that looks fine from here, never pass one that does
//! not. Every amount that a guest controls has a bound; going over one fails the run.

mod case;
mod findings;
mod finish;
mod folds;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use device_models::fabric::PostedDelay;
use device_models::pci::Bdf;
use guest_protocol::{CaseEnd, FAIL, OK, RAM, Request};

use self::case::{Case, Origin};
pub use self::findings::{Reaction, Stopped};
pub use self::finish::{End, Ending};
use peerdma_topology::{MAX_ENDPOINTS, MAX_PEERS};
use peerdma_trace::{Recording, TestMark, TestResult};

use self::folds::Keep;
use super::event::{Event, Events};
use super::expectation::Expectation;
use super::hello::{self, Hello, Mode, TooLong};
use crate::report::ktap::{self, Line};
use crate::report::{CaseReport, FindingReport, ObservedPath, ScenarioReport, Status};
use crate::stop::StopOn;
use crate::suppression::Suppressions;

/// Most tests in one run.
const MAX_CASES: usize = 10_000;
/// Most diagnostic lines handed on in one run.
const MAX_DIAGNOSTICS: usize = 20_000;
/// Most findings whose text is kept, those with the same cause as one: per test, and outside of all tests. The rest are
/// counted.
pub const MAX_FINDINGS: usize = 50;
/// Most failures of the run that the guest's own words can bring about.
const MAX_FAILURES: usize = 20;
/// Most paths whose decision is kept: into the memory of each of the peer devices, by every other device.
const MAX_DECISIONS: usize = MAX_PEERS * (MAX_PEERS - 1 + MAX_ENDPOINTS);
/// Longest text of one finding or name that is kept, in bytes.
const MAX_TEXT: usize = 1000;
/// The name under which the user's own command is reported.
const COMMAND: &str = "command";

/// What to answer the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// This line.
    Line(String),
    /// `ok` and the system's counters as JSON, which the judge does not have.
    Counters,
    /// `ok` once a slot, which the judge does not have, is empty or filled.
    Slot {
        /// The port above it.
        port: Bdf,
        /// Filled.
        filled: bool,
    },
    /// `ok` and what a function has moved, by target, as JSON.
    Traffic(Bdf),
    /// `ok` once a path is armed or disarmed.
    Delay {
        /// The function that issues the posted writes.
        requester: Bdf,
        /// Whose BARs they go to; none for the root complex.
        target: Option<Bdf>,
        /// For how long they stay under way.
        delay: PostedDelay,
    },
    /// `ok` once the system knows that a fence of this function's work has been seen.
    Fence(Bdf),
    /// `ok` once the devices have nothing left to do.
    Settle,
    /// What the host says to a request about files, which the judge does not have.
    Files,
    /// Nothing: it asked for its end, with this code.
    Exit(i32),
}

impl Answer {
    fn ok() -> Self {
        Self::Line(OK.into())
    }

    fn fail(reason: impl std::fmt::Display) -> Self {
        Self::Line(format!("{FAIL} {reason}"))
    }
}

/// Judges one guest's run.
#[derive(Debug)]
pub struct Judge {
    events: Events,
    mode: Mode,
    hello: String,
    at_least: usize,
    begun: Instant,
    report: ScenarioReport,
    /// Names of tests that have ended, and how often one was wanted.
    names: BTreeMap<String, u32>,
    current: Option<Case>,
    /// How the findings of the tests to come are kept.
    keep: Keep,
    /// Findings outside of any test.
    stray: Case,
    /// Findings that each test may bring about.
    allowed: Vec<Expectation>,
    /// Findings that do not count.
    suppressions: Arc<Suppressions>,
    /// Findings that end the run.
    stop_on: Vec<StopOn>,
    /// Findings that pause the guest.
    pause_on: Vec<StopOn>,
    /// The one at which it was paused last.
    paused: Option<Stopped>,
    /// The one that has ended it: nothing counts that comes later.
    stopped: Option<Stopped>,
    /// Findings with a number of their own, and how often one was reported to programs.
    found: u64,
    sent: usize,
    /// Names and numbers of the functions.
    functions: Vec<(String, Bdf)>,
    /// Results that the guest announced, at the outermost level.
    planned: Option<usize>,
    /// Results at the outermost level that no test of the agent stands behind, and those below them.
    depth: usize,
    diagnostics: usize,
    /// Findings reported as they happened.
    reported: usize,
    /// The user's command has been started.
    started: bool,
    /// Why the guest's agent gave up; none when the guest's end was asked for otherwise.
    gave_up: Option<String>,
    /// A bound was exceeded: said once.
    overflow: Option<&'static str>,
    /// Where begin and end of each test are marked.
    marks: Option<Recording>,
}

impl Judge {
    /// A judge of a guest that gets `hello`, and that must report at least `at_least` tests.
    ///
    /// # Errors
    /// [`TooLong`] when `hello` does not fit through the protocol port.
    pub fn new(hello: &Hello, at_least: usize, events: Events) -> Result<Self, TooLong> {
        Ok(Self {
            events,
            mode: hello.mode,
            hello: hello::line(hello)?,
            at_least,
            begun: Instant::now(),
            report: ScenarioReport::new(&hello.scenario),
            names: BTreeMap::new(),
            current: None,
            keep: Keep::Folded,
            stray: stray(hello.mode, Keep::Folded, Arc::default()),
            allowed: Vec::new(),
            suppressions: Arc::default(),
            stop_on: Vec::new(),
            pause_on: Vec::new(),
            paused: None,
            stopped: None,
            found: 0,
            sent: 0,
            functions: Vec::new(),
            planned: None,
            depth: 0,
            diagnostics: 0,
            reported: 0,
            started: false,
            gave_up: None,
            overflow: None,
            marks: None,
        })
    }

    /// From here on begin and end of each test are marked in this trace.
    pub fn record_marks(&mut self, recording: Recording) {
        self.marks = Some(recording);
    }

    fn mark(&self, name: &str, result: Option<TestResult>) {
        if let Some(recording) = &self.marks {
            recording.mark(TestMark { name: name.to_owned(), result });
        }
    }

    /// From here on each finding is kept, up to a bound, and those with the same cause are not folded into one.
    pub fn list_each_finding(&mut self) {
        self.keep = Keep::EACH;
        self.stray.list_each_finding();
    }

    /// What the command must or may bring about; of the lab's own tests, what each may. `functions` are those that may be
    /// named: without them any.
    pub fn expect(&mut self, expectations: &[Expectation], functions: Vec<(String, Bdf)>) {
        self.functions = functions;
        for expectation in expectations {
            self.allowed.push(expectation.clone().allowed());
            self.stray.expect(expectation.clone(), Origin::Outside);
        }
    }

    /// The test that is running.
    pub fn running(&self) -> Option<&str> {
        self.current.as_ref().map(|case| case.name.as_str())
    }

    /// Answers one line of the guest's.
    pub fn line(&mut self, line: &str) -> Answer {
        match Request::parse(line) {
            Ok(request) => self.request(&request),
            Err(error) => {
                // A test that expects what cannot come is wrong, whatever it says later.
                if let (Some(case), true) = (&mut self.current, line.starts_with("case expect")) {
                    case.object(&error.to_string());
                }
                Answer::fail(error)
            }
        }
    }

    fn request(&mut self, request: &Request<'_>) -> Answer {
        match *request {
            Request::Hello => {
                if self.report.boot_milliseconds.is_none() {
                    self.report.boot_milliseconds = Some(milliseconds(self.begun));
                    self.stage("the guest is up");
                }
                Answer::Line(format!("{OK} {}", self.hello))
            }
            Request::Ktap(line) => {
                self.ktap(line);
                Answer::ok()
            }
            Request::CaseBegin(name) => {
                self.break_off("it did not end before the next one began");
                let name = shorten(&ktap::plain(name));
                self.mark(&name, None);
                self.current = Some(self.new_case(&name));
                Answer::ok()
            }
            Request::CaseExpect(expectation) => match &mut self.current {
                Some(case) => match Expectation::of(&expectation) {
                    Ok(expectation) => {
                        case.expect(expectation, Origin::Test);
                        Answer::ok()
                    }
                    Err(reason) => {
                        case.object(&reason);
                        Answer::fail(shorten(&reason))
                    }
                },
                None => Answer::fail("no case has begun"),
            },
            Request::CaseEnd(end, detail) => self.case_end(end, detail),
            Request::Expect(expectation) => self.expect_in_guest(&expectation),
            Request::Path { .. } => self.decision(request),
            Request::Stat => Answer::Counters,
            Request::Unplug(port) => function(port, |port| Answer::Slot { port, filled: false }),
            Request::Plug(port) => function(port, |port| Answer::Slot { port, filled: true }),
            Request::Delay { requester, target, delay } => self::delay(requester, target, delay),
            Request::Fence(of) => function(of, Answer::Fence),
            Request::Traffic(of) => function(of, Answer::Traffic),
            Request::Settle => Answer::Settle,
            Request::Files(_) => Answer::Files,
            Request::Started => {
                // A trace's part of the user's command is found by the name that reports have for it.
                if !std::mem::replace(&mut self.started, true) {
                    self.mark(COMMAND, None);
                }
                self.events.send(Event::Running { scenario: self.report.name.clone() });
                Answer::ok()
            }
            Request::Exit { code, reason } => {
                let reason = shorten(&ktap::plain(reason));
                self.gave_up = Some(reason).filter(|reason| !reason.is_empty());
                Answer::Exit(code)
            }
        }
    }

    /// A test with what every one may bring about.
    fn new_case(&self, name: &str) -> Case {
        let mut case = Case::new(name, self.keep, Arc::clone(&self.suppressions));
        for expectation in &self.allowed {
            case.expect(expectation.clone(), Origin::Outside);
        }
        // In a user's own guest any program may say that it is a test.
        if self.mode != Mode::Test {
            case.list_own_expectations();
        }
        case
    }

    /// The command expects findings, or a shell's user does.
    fn expect_in_guest(&mut self, expectation: &guest_protocol::Expectation<'_>) -> Answer {
        if self.mode == Mode::Test {
            return Answer::fail("the lab's tests say what they expect when they begin");
        }
        let expectation = Expectation::of(expectation)
            .and_then(|expectation| expectation.resolve(&self.functions));
        match expectation {
            Ok(expectation) if self.stray.has_room(&expectation, Origin::Guest) => {
                self.stray.expect(expectation, Origin::Guest);
                Answer::ok()
            }
            Ok(_) => Answer::fail("a command cannot expect more than that"),
            Err(reason) => Answer::fail(shorten(&reason)),
        }
    }

    /// What the kernel decided about a path; what is said later goes before what was said first.
    fn decision(&mut self, request: &Request<'_>) -> Answer {
        let decision = match ObservedPath::of(request) {
            Ok(decision) => decision,
            Err(error) => return Answer::fail(shorten(&error.to_string())),
        };
        let same = |known: &&mut ObservedPath| {
            (known.owner, known.client) == (decision.owner, decision.client)
        };
        if let Some(known) = self.report.decisions.iter_mut().find(same) {
            *known = decision;
        } else if self.report.decisions.len() < MAX_DECISIONS {
            self.report.decisions.push(decision);
        } else {
            return Answer::fail("more paths than a topology can have");
        }
        Answer::ok()
    }

    fn case_end(&mut self, end: CaseEnd, detail: &str) -> Answer {
        let said = match end {
            CaseEnd::Ok => Status::Passed,
            CaseEnd::Fail => Status::Failed,
            CaseEnd::Skip => Status::Skipped,
        };
        self.tell_sums();
        let Some(case) = self.current.take() else { return Answer::fail("no case has begun") };
        self.stray.count_also(&case);
        let objection = case.objection(said);
        let report = case.conclude(said, &shorten(&ktap::plain(detail)));
        self.push(report);
        objection.map_or_else(Answer::ok, Answer::fail)
    }

    /// The running test, if there is one, failed for `reason`.
    fn break_off(&mut self, reason: &str) {
        self.tell_sums();
        if let Some(case) = self.current.take() {
            self.stray.count_also(&case);
            let report = case.conclude(Status::Failed, reason);
            self.push(report);
        }
    }

    fn push(&mut self, mut case: CaseReport) {
        if self.report.cases.len() >= MAX_CASES {
            self.overflow.get_or_insert("the guest reported more tests than a run may have");
            return;
        }
        self.keep = self.keep.after(case.findings.len());
        let result = match case.status {
            Status::Passed => TestResult::Passed,
            Status::Failed => TestResult::Failed,
            Status::Skipped => TestResult::Skipped,
        };
        self.mark(&case.name, Some(result));
        let name = case.name.clone();
        let mut number = self.names.get(&name).copied().unwrap_or(1);
        while self.names.contains_key(&case.name) {
            number += 1;
            case.name = format!("{name} ({number})");
        }
        self.names.insert(case.name.clone(), 1);
        self.names.insert(name, number);
        self.events.send(Event::Case { scenario: self.report.name.clone(), case: case.clone() });
        self.report.cases.push(case);
    }

    fn ktap(&mut self, text: &str) {
        let (depth, line) = ktap::parse(text);
        match line {
            // The first one counts.
            Line::Plan(count) if depth == 0 && self.planned.is_none() => {
                self.planned = Some(count);
                self.events.send(Event::Plan { scenario: self.report.name.clone(), count });
            }
            Line::Result(result) => self.ktap_result(depth, result),
            Line::Diagnostic(text) | Line::Other(text) if !text.is_empty() => {
                self.diagnostic(&text)
            }
            Line::BailOut(reason) => {
                self.fail(&format!("the guest's tests gave up: {reason}"));
            }
            Line::Version
            | Line::Plan(_)
            | Line::Subtest(_)
            | Line::Diagnostic(_)
            | Line::Other(_) => {}
        }
    }

    /// The run as a whole failed for a reason that the guest brought about.
    fn fail(&mut self, reason: &str) {
        if self.report.failures.len() < MAX_FAILURES {
            self.report.failures.push(shorten(reason));
        } else {
            self.overflow.get_or_insert("the guest failed in more ways than a report holds");
        }
    }

    /// A result line. Tests of the agent have been judged already; what else there is counts as it says.
    fn ktap_result(&mut self, depth: usize, result: ktap::TestResult) {
        let sums_up = depth < self.depth;
        self.depth = depth;
        let name = shorten(&ktap::plain(&result.name));
        let known = self.names.contains_key(&name);
        let find = || self.report.cases.iter().rfind(|case| case.name == name);
        if let Some(case) = known.then(find).flatten() {
            if case.status != Status::Failed && result.status == Status::Failed {
                self.fail(&format!("the guest reported {name} as failed after it had ended well"));
            }
            return;
        }
        if sums_up && result.status != Status::Failed {
            return;
        }
        let name = match (name.is_empty(), result.number) {
            (false, _) => name,
            (true, Some(number)) => format!("test {number}"),
            (true, None) => "test".into(),
        };
        let detail = shorten(&ktap::plain(&result.detail));
        self.push(CaseReport {
            expectations: Vec::new(),
            name,
            status: result.status,
            detail,
            milliseconds: 0,
            findings: Vec::new(),
        });
    }

    fn diagnostic(&mut self, text: &str) {
        self.diagnostics = self.diagnostics.saturating_add(1);
        if self.diagnostics > MAX_DIAGNOSTICS {
            self.overflow.get_or_insert("the guest sent more diagnostic lines than a run may have");
            return;
        }
        let text = ktap::plain(text);
        self.events.send(Event::Diagnostic { scenario: self.report.name.clone(), text });
    }

    fn stage(&self, text: &str) {
        self.events.send(Event::Stage { scenario: self.report.name.clone(), text: text.into() });
    }
}

/// What belongs to no test; a user's own command is all there is, and reported as one.
fn stray(mode: Mode, keep: Keep, suppressions: Arc<Suppressions>) -> Case {
    match mode {
        Mode::Test => Case::outside(keep, suppressions),
        Mode::Command | Mode::Shell => Case::new(COMMAND, keep, suppressions),
    }
}

/// What `answer` makes of the function that `text` names.
fn function(text: &str, answer: impl FnOnce(Bdf) -> Answer) -> Answer {
    match text.parse() {
        Ok(function) => answer(function),
        Err(_) => Answer::fail(format_args!(
            "{:?} is not a function; write BUS:DEVICE.FUNCTION in hexadecimal",
            shorten(text)
        )),
    }
}

/// The answer to `delay`.
fn delay(requester: &str, target: &str, delay: &str) -> Answer {
    let delay = match delay.parse() {
        Ok(delay) => delay,
        Err(error) => return Answer::fail(format_args!("{:?}: {error}", shorten(delay))),
    };
    function(requester, |requester| match target {
        RAM => Answer::Delay { requester, target: None, delay },
        target => {
            function(target, |target| Answer::Delay { requester, target: Some(target), delay })
        }
    })
}

/// Since `begun`.
fn milliseconds(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// At most [`MAX_TEXT`] bytes of `text`.
fn shorten(text: &str) -> String {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
