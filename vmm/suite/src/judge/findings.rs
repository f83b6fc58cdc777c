//! Findings as they come: to the running test, to users and programs, and which of them ends the run.

use std::sync::Arc;

use device_models::checker::{Finding, Severity};
use device_models::pci::Bdf;

use super::case::Case;
use super::{Judge, MAX_DIAGNOSTICS, MAX_FINDINGS, Mode, milliseconds, shorten};
use crate::event::Event;
use crate::found::Found;
use crate::stop::StopOn;
use crate::suppression::{Suppression, Suppressions};

/// What a finding does to the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the guest is to be frozen"]
pub enum Reaction {
    /// Nothing.
    GoOn,
    /// It stands still from here on, and a user may look at it.
    Pause,
    /// Its run is over.
    Stop,
}

/// The finding that has ended or paused a run.
#[derive(Debug, Clone)]
pub struct Stopped {
    /// The finding.
    pub finding: Finding,
    /// Its line.
    pub text: String,
    /// What happened before it, a line each.
    pub before: Vec<String>,
}

impl Judge {
    /// Findings that do not fail a test. `functions` are those that may be named by number.
    pub fn suppress(&mut self, all: &[Suppression], functions: &[(String, Bdf)]) {
        self.suppressions = Arc::new(Suppressions::new(&self.report.name, all, functions));
        self.stray.suppress(Arc::clone(&self.suppressions));
    }

    /// Findings that end the run, unless the running test expects them, or they are suppressed.
    pub fn stop_on(&mut self, wanted: &[StopOn]) {
        self.stop_on = wanted.to_vec();
    }

    /// Findings that pause the guest, under the same conditions.
    pub fn pause_on(&mut self, wanted: &[StopOn]) {
        self.pause_on = wanted.to_vec();
    }

    /// The finding that has ended the run.
    pub fn stopped(&self) -> Option<&Stopped> {
        self.stopped.as_ref()
    }

    /// The finding at which the guest was paused last, line by line.
    pub fn paused_at(&self) -> Option<&Stopped> {
        self.paused.as_ref()
    }

    /// The checker found something; `before` gives what happened before it. What becomes of the guest.
    ///
    /// Where no tests report, a user looks on: a finding is printed as it happens, and how many have been folded into those
    /// already printed, when another one comes.
    pub fn finding(&mut self, finding: &Finding, before: impl FnOnce() -> Vec<String>) -> Reaction {
        if self.stopped.is_some() {
            return Reaction::GoOn;
        }
        let case = self.current.as_mut().unwrap_or(&mut self.stray);
        let wanted = |all: &[StopOn]| all.iter().any(|stop| stop.covers(finding));
        let reaction = match (wanted(&self.stop_on), wanted(&self.pause_on)) {
            _ if !case.is_mistake(finding.class, &finding.function) => Reaction::GoOn,
            (true, _) => Reaction::Stop,
            (false, true) => Reaction::Pause,
            (false, false) => Reaction::GoOn,
        };
        let kept = case.finding(finding).map(|fold| {
            self.found += 1;
            fold.found.number = self.found;
            fold.found.scenario.clone_from(&self.report.name);
            fold.found.milliseconds = milliseconds(self.begun);
            fold.found.before = before();
            (fold.text.clone(), fold.found.clone())
        });
        if reaction != Reaction::GoOn {
            let (text, before) = match &kept {
                Some((text, found)) => (text.clone(), found.before.clone()),
                None => (shorten(&finding.to_string()), Vec::new()),
            };
            let scene = Some(Stopped { finding: finding.clone(), text, before });
            match reaction {
                Reaction::Stop => self.stopped = scene,
                _ => self.paused = scene,
            }
        }
        let Some((text, found)) = kept else {
            if case.is_first_dropped() {
                let text = format!(
                    "{MAX_FINDINGS} causes are listed; what has others is only counted from here on"
                );
                self.report(finding.severity, None, text);
            }
            return reaction;
        };
        let found = case.judged(finding.class, &finding.function, found);
        let suppressed = found.suppressed.clone();
        self.send_found([found]);
        if self.mode != Mode::Test {
            self.tell_sums();
            self.report(finding.severity, suppressed, text);
        }
        reaction
    }

    /// Reports to programs what has come to findings that they know.
    pub fn tell_grown(&mut self) {
        let mut grown = self.stray.grown();
        grown.extend(self.current.as_mut().map(Case::grown).unwrap_or_default());
        self.send_found(grown);
    }

    /// Reports how many findings have been folded into those already reported.
    pub(super) fn tell_sums(&mut self) {
        self.tell_grown();
        if self.mode == Mode::Test {
            return;
        }
        let mut sums = self.stray.sums();
        sums.extend(self.current.as_mut().map(Case::sums).unwrap_or_default());
        sums.into_iter().for_each(|(severity, text)| self.report(severity, None, text));
    }

    /// Findings for programs.
    fn send_found(&mut self, all: impl IntoIterator<Item = Found>) {
        for found in all {
            if self.sent < MAX_DIAGNOSTICS {
                self.sent += 1;
                self.events.send(Event::Found { found: Box::new(found) });
            }
        }
    }

    fn report(&mut self, severity: Severity, suppressed: Option<String>, text: String) {
        if self.reported < MAX_DIAGNOSTICS {
            self.reported += 1;
            let (scenario, note) = (self.report.name.clone(), severity == Severity::Note);
            self.events.send(Event::Finding { scenario, text, note, suppressed });
        }
    }
}
