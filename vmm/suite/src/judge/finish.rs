//! The end of a run: what it says about the run as a whole.

use std::sync::Arc;

use guest_protocol::exit;

use super::super::console::agents_words;
use super::{Judge, MAX_FINDINGS, Mode, ScenarioReport, Status, milliseconds};
use crate::report::CaseReport;

/// The guest agent's exit code for "at least one test failed".
const TESTS_FAILED: i32 = exit::TESTS_FAILED as i32;
/// Its codes for a command that cannot be executed, or is not there: a shell has the same, so they are the command's own.
const NO_COMMAND: [i32; 2] = [exit::NOT_EXECUTABLE as i32, exit::NOT_FOUND as i32];

/// How a guest's run came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// It asked for it, with a code.
    Exit(i32),
    /// It switched itself off.
    PowerOff,
    /// It did something that ends a run early: a reset, a triple fault. As a sentence.
    Broke(String),
    /// It was killed when its time was up.
    TimedOut {
        /// The time it had, in seconds.
        limit: u64,
    },
    /// The user wanted it to end.
    Interrupted,
    /// It was frozen at a finding, see [`Judge::stopped`](super::Judge::stopped).
    StoppedOnFinding,
}

/// All that is known at the end besides what the judge has seen.
#[derive(Debug, Clone)]
pub struct End {
    /// How it ended.
    pub ending: Ending,
    /// What the guest's kernel complained about on its console.
    pub complaints: Vec<String>,
    /// The console's last lines.
    pub console_tail: Vec<String>,
}

impl Judge {
    /// Concludes the run; the report is taken out, and nothing comes after it.
    pub fn finish(&mut self, end: End) -> ScenarioReport {
        self.tell_sums();
        let running = self.running().map(ToOwned::to_owned);
        self.break_off(match &end.ending {
            Ending::TimedOut { .. } => "the guest hung while it ran",
            Ending::Interrupted => "interrupted",
            Ending::StoppedOnFinding => "stopped on finding",
            Ending::Exit(_) | Ending::PowerOff | Ending::Broke(_) => {
                "the guest came to its end while it ran"
            }
        });
        self.agents_last_words(&end);
        self.ending(&end.ending, running.as_deref());
        // Whatever ended the guest before that is nothing that the command has to say.
        self.report.not_run |= self.mode == Mode::Command
            && !self.started
            && !matches!(end.ending, Ending::Interrupted | Ending::StoppedOnFinding);
        for complaint in &end.complaints {
            self.report.failures.push(format!("the guest's kernel complained: {complaint}"));
        }
        if self.mode == Mode::Test
            && matches!(end.ending, Ending::Exit(_) | Ending::PowerOff | Ending::Broke(_))
        {
            self.count();
        }
        if let Some(overflow) = self.overflow {
            self.report.failures.push(overflow.into());
        }
        if matches!(end.ending, Ending::StoppedOnFinding) && self.mode == Mode::Command {
            self.conclude_command(Status::Failed, "stopped on finding");
        }
        self.findings_outside();
        self.report.failures.truncate(MAX_FINDINGS);
        self.report.milliseconds = milliseconds(self.begun);
        self.report.conclude();
        if self.report.status == Status::Failed {
            self.report.console_tail = end.console_tail;
        }
        std::mem::replace(&mut self.report, ScenarioReport::new(""))
    }

    fn ending(&mut self, ending: &Ending, running: Option<&str>) {
        let while_running = match running {
            Some(name) => format!(" while {name} was running"),
            None if self.mode == Mode::Command && !self.started => {
                " before the command began".into()
            }
            None => String::new(),
        };
        let failure = match ending {
            Ending::Exit(code) => {
                self.report.exit_code = Some(*code);
                self.exit_code(*code)
            }
            Ending::PowerOff if self.mode == Mode::Shell => None,
            Ending::PowerOff => Some(format!(
                "the guest switched itself off before its work was done{while_running}"
            )),
            Ending::Broke(what) => Some(format!("{what}{while_running}")),
            Ending::TimedOut { limit } => {
                self.report.hung = true;
                let what = match (self.report.boot_milliseconds, running) {
                    (None, _) => " before it reported for the first time".to_owned(),
                    (Some(_), None) if self.mode == Mode::Test => " between two tests".to_owned(),
                    (Some(_), _) => while_running,
                };
                Some(format!("the guest hung: it was killed after {limit} s{what}"))
            }
            Ending::Interrupted => Some(format!("interrupted{while_running}")),
            Ending::StoppedOnFinding => {
                self.report.stopped = true;
                let text = self.stopped.as_ref().map_or("", |stopped| stopped.text.as_str());
                // A user's own command is a test, which says the same.
                (self.mode != Mode::Command || running.is_some())
                    .then(|| format!("stopped on finding{while_running}: {text}"))
            }
        };
        self.report.failures.extend(failure);
    }

    /// An agent that could not report anything has said on the console why it gave up.
    fn agents_last_words(&mut self, end: &End) {
        let is_silent = self.report.boot_milliseconds.is_none() && self.mode != Mode::Shell;
        let words = end.console_tail.iter().rev().find_map(|line| agents_words(line));
        if let (true, Some(words)) = (is_silent, words) {
            self.report.failures.push(format!("the guest's agent gave up: {words}"));
        }
    }

    /// What an exit code says that the tests have not said already.
    fn exit_code(&mut self, code: i32) -> Option<String> {
        let failed = self.report.cases.iter().any(|case| case.status == Status::Failed);
        match (self.mode, self.gave_up.take(), code) {
            (Mode::Test, _, 0) | (Mode::Shell, None, _) => None,
            (Mode::Test, None, TESTS_FAILED) if failed => None,
            (Mode::Test, None, code) => Some(format!(
                "the guest's test program ended with code {code}; the console log says why"
            )),
            (Mode::Test, Some(reason), code) => {
                Some(format!("the guest's test program ended with code {code}: {reason}"))
            }
            (Mode::Shell, Some(reason), _) => {
                self.report.not_run = true;
                Some(format!("the guest's agent gave up: {reason}"))
            }
            (Mode::Command, reason, code) if !self.started => {
                let reason = reason.unwrap_or_else(|| format!("the guest ended with code {code}"));
                Some(format!("the command was not run: {reason}"))
            }
            (Mode::Command, Some(reason), code) if !NO_COMMAND.contains(&code) => {
                self.report.not_run = true;
                Some(format!("the command did not come to its end: {reason}"))
            }
            (Mode::Command, reason, code) => {
                let (status, detail) = match (code, reason) {
                    (0, _) => (Status::Passed, String::new()),
                    (code, None) => (Status::Failed, format!("exit status {code}")),
                    (code, Some(reason)) => {
                        (Status::Failed, format!("exit status {code}: {reason}"))
                    }
                };
                self.conclude_command(status, &detail);
                None
            }
        }
    }

    /// The user's command is over, and what was found while it ran belongs to it.
    fn conclude_command(&mut self, status: Status, detail: &str) {
        let next = super::stray(self.mode, self.keep, Arc::clone(&self.suppressions));
        let report: CaseReport = std::mem::replace(&mut self.stray, next).conclude(status, detail);
        self.push(report);
    }

    /// Whether all tests that were to report have done so.
    fn count(&mut self) {
        let reported = self.report.cases.len();
        match self.planned {
            Some(planned) if reported < planned => {
                self.report
                    .failures
                    .push(format!("{planned} tests were announced and {reported} reported"));
            }
            None if reported == 0 => {
                self.report.failures.push("the guest reported no test at all".into())
            }
            _ if reported < self.at_least => self.report.failures.push(format!(
                "{reported} tests reported, and the scenario demands {} at least",
                self.at_least
            )),
            _ => {}
        }
    }

    fn findings_outside(&mut self) {
        if self.stray.is_empty() {
            return;
        }
        self.report.stray_findings = self.stray.finding_reports();
        // At a shell a finding is printed and fails nothing.
        if self.mode != Mode::Shell
            && let Some(what) = self.stray.unexpected()
        {
            self.report.failures.push(format!("outside of any test: {what}"));
        }
    }
}
