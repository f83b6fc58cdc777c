//! Follows a run by its events: prints it while it goes on, and has the whole report at its end.

use std::collections::VecDeque;
use std::io::{self, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::event::Event;
use crate::report::ktap::{self, Printer};
use crate::report::{RunReport, ScenarioReport};

/// A scenario that has begun and whose report is not complete.
#[derive(Debug)]
struct Open {
    report: ScenarioReport,
    /// What could not be printed yet, because an earlier scenario is still reporting.
    waiting: Vec<Event>,
}

/// Takes events, gives a report.
pub struct Collector<'a> {
    /// KTAP, unless that stream is wanted for something else.
    printer: Option<Printer<Box<dyn Write + 'a>>>,
    progress: ProgressBar,
    /// In the order in which they began; the first one is printed live.
    open: VecDeque<Open>,
    finished: Vec<ScenarioReport>,
    /// The first error of printing: reported once, at the end.
    error: Option<io::Error>,
}

impl std::fmt::Debug for Collector<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Collector")
            .field("open", &self.open)
            .field("finished", &self.finished.len())
            .finish()
    }
}

impl<'a> Collector<'a> {
    /// Prints KTAP about `scenarios` scenarios to `out`, if there is one; progress goes to stderr if it is a terminal.
    ///
    /// # Errors
    /// When `out` cannot be written, for another reason than a closed pipe.
    pub fn new(out: Option<Box<dyn Write + 'a>>, scenarios: usize) -> io::Result<Self> {
        let printer = match out.map(|out| Printer::new(out, scenarios)).transpose() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => None,
            printer => printer?,
        };
        let progress = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>4} {wide_msg}") {
            progress.set_style(style);
        }
        Ok(Self { printer, progress, open: VecDeque::new(), finished: Vec::new(), error: None })
    }

    /// Says what is being done while nothing else is to be seen.
    pub fn status(&self, text: impl Into<String>) {
        self.progress.set_message(text.into());
        if !self.progress.is_hidden() {
            self.progress.enable_steady_tick(std::time::Duration::from_millis(120));
        }
    }

    /// Takes in one event.
    pub fn event(&mut self, event: Event) {
        match event {
            Event::HostUp { uptime } => {
                log::info!("test host up after {uptime} ms");
                self.status("test host is up, starting the guest");
            }
            Event::Started { scenario, .. } => {
                self.status(format!("{scenario}: starting the guest"));
                self.open.push_back(Open {
                    report: ScenarioReport::new(&scenario),
                    waiting: Vec::new(),
                });
                if self.open.len() == 1 {
                    self.print(|printer| printer.begin(&scenario));
                }
            }
            Event::Stage { scenario, text } => {
                self.status(format!("{scenario}: {}", ktap::plain(&text)))
            }
            Event::Running { scenario } => {
                self.status(format!("{scenario}: running the command"));
            }
            Event::Plan { ref scenario, .. }
            | Event::Diagnostic { ref scenario, .. }
            | Event::Finding { ref scenario, .. } => {
                let scenario = scenario.clone();
                self.show(&scenario, event);
            }
            Event::Case { ref scenario, ref case } => {
                let (scenario, name) = (scenario.clone(), ktap::plain(&case.name));
                if let Some(open) = self.open.iter_mut().find(|open| open.report.name == scenario) {
                    open.report.cases.push(case.clone());
                }
                self.status(format!("{scenario}: {name}"));
                self.show(&scenario, event);
            }
            Event::Ended { report } => self.ended(*report),
            Event::Broken { message } => log::error!("{message}"),
            // Only an interactive guest is paused.
            Event::Paused { .. }
            | Event::Resumed { .. }
            | Event::Found { .. }
            | Event::Probed { .. }
            | Event::Done => {}
        }
    }

    /// The run cannot go on: what has begun, and the `missing` that never did, failed for this reason.
    pub fn abandon(
        &mut self,
        reason: &str,
        hung: bool,
        console_tail: &[String],
        missing: &[String],
    ) {
        let open: Vec<String> = self.open.iter().map(|open| open.report.name.clone()).collect();
        for name in open {
            let Some(index) = self.open.iter().position(|open| open.report.name == name) else {
                continue;
            };
            let mut report = self.open[index].report.clone();
            report.failures.push(reason.to_owned());
            report.hung = hung;
            report.console_tail = console_tail.to_vec();
            report.conclude();
            self.ended(report);
        }
        let known: Vec<String> = self.finished.iter().map(|report| report.name.clone()).collect();
        for name in missing.iter().filter(|name| !known.contains(name)) {
            self.event(Event::Started { scenario: name.clone(), limit: 0 });
            let mut report = ScenarioReport::new(name.clone());
            report.failures.push(format!("not run: {reason}"));
            report.hung = hung;
            report.console_tail = console_tail.to_vec();
            report.conclude();
            self.ended(report);
        }
    }

    /// Clears the progress line; afterwards others may write to the terminal.
    pub fn quiet(&self) {
        self.progress.finish_and_clear();
    }

    /// Ends the report: the closing line is printed.
    ///
    /// # Errors
    /// The first error that printing had on the way.
    pub fn finish(mut self) -> io::Result<Vec<ScenarioReport>> {
        self.quiet();
        let totals = RunReport::totals_of(&self.finished);
        self.print(|printer| printer.close(totals));
        match self.error {
            // A reader that closes the pipe has seen enough.
            Some(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(self.finished),
        }
    }

    fn ended(&mut self, mut report: ScenarioReport) {
        report.conclude();
        let Some(index) = self.open.iter().position(|open| open.report.name == report.name) else {
            return self.finished.push(report);
        };
        let name = report.name.clone();
        if index == 0 {
            self.print(|printer| printer.end(&report));
            self.open.pop_front();
        } else if let Some(open) = self.open.get_mut(index) {
            // Not its turn to be printed: the end waits behind what it has to say.
            open.waiting.push(Event::Ended { report: Box::new(report) });
            return;
        }
        log::debug!("scenario {name} ended");
        self.finished.push(report);
        self.next_in_turn();
    }

    /// The next scenario is printed live from here on: first what it has said so far.
    fn next_in_turn(&mut self) {
        let Some(open) = self.open.front_mut() else { return };
        let (name, waiting) = (open.report.name.clone(), std::mem::take(&mut open.waiting));
        self.print(|printer| printer.begin(&name));
        for event in waiting {
            match event {
                Event::Ended { report } => return self.ended(*report),
                other => self.show(&name, other),
            }
        }
    }

    fn show(&mut self, scenario: &str, event: Event) {
        if let Some(open) = self.open.iter_mut().skip(1).find(|open| open.report.name == scenario) {
            return open.waiting.push(event);
        }
        match event {
            Event::Plan { count, .. } => self.print(|printer| printer.plan(count)),
            Event::Case { case, .. } => self.print(|printer| printer.case(&case)),
            Event::Diagnostic { text, .. } => self.print(|printer| printer.diagnostic(&text)),
            Event::Finding { text, note, suppressed, .. } => {
                self.print(|printer| printer.finding(&text, note, suppressed.as_deref()));
            }
            _ => {}
        }
    }

    fn print(&mut self, write: impl FnOnce(&mut Printer<Box<dyn Write + 'a>>) -> io::Result<()>) {
        let Some(printer) = &mut self.printer else { return };
        let result = self.progress.suspend(|| write(printer));
        if let Err(error) = result {
            self.error.get_or_insert(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::model::{CaseReport, FindingReport, Status};

    fn started(scenario: &str) -> Event {
        Event::Started { scenario: scenario.into(), limit: 10 }
    }

    fn case(scenario: &str, name: &str) -> Event {
        let case = CaseReport {
            expectations: Vec::new(),
            name: name.into(),
            status: Status::Passed,
            detail: String::new(),
            milliseconds: 1,
            findings: Vec::new(),
        };
        Event::Case { scenario: scenario.into(), case }
    }

    fn ended(scenario: &str) -> Event {
        Event::Ended { report: Box::new(ScenarioReport::new(scenario)) }
    }

    fn printed(
        scenarios: usize,
        feed: impl FnOnce(&mut Collector<'_>),
    ) -> (String, Vec<ScenarioReport>) {
        let mut text = Vec::new();
        let mut collector = Collector::new(Some(Box::new(&mut text)), scenarios).unwrap();
        feed(&mut collector);
        let reports = collector.finish().unwrap();
        (String::from_utf8(text).unwrap(), reports)
    }

    #[test]
    fn a_reader_that_is_gone_from_the_start_is_not_an_error() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let mut collector = Collector::new(Some(Box::new(writer)), 1).unwrap();
        collector.event(started("a"));
        collector.event(ended("a"));
        assert_eq!(collector.finish().unwrap().len(), 1);
    }

    #[test]
    fn two_guests_at_once_are_printed_one_after_the_other() {
        let (text, reports) = printed(2, |collector| {
            for event in [
                started("a"),
                started("b"),
                case("b", "b1"),
                case("a", "a1"),
                ended("b"),
                case("a", "a2"),
                ended("a"),
                Event::Done,
            ] {
                collector.event(event);
            }
        });
        let order: Vec<&str> =
            text.lines().filter_map(|line| line.split_once("ok ").map(|(_, rest)| rest)).collect();
        assert_eq!(order, ["1 a1", "2 a2", "1 a", "1 b1", "2 b"]);
        assert_eq!(reports.len(), 2);
    }

    #[test]
    fn a_finding_is_printed_once_whether_it_was_reported_as_it_happened_or_not() {
        let finding = |text: &str| FindingReport { text: text.into(), ..FindingReport::default() };
        let text = |live: bool, stray: bool| {
            let (text, _) = printed(1, |collector| {
                collector.event(started("a"));
                if live {
                    collector.event(Event::Finding {
                        scenario: "a".into(),
                        text: "#1 bad".into(),
                        note: false,
                        suppressed: None,
                    });
                }
                let mut report = ScenarioReport::new("a");
                if stray {
                    report.stray_findings = vec![finding("#1 bad")];
                } else {
                    let case = CaseReport {
                        expectations: Vec::new(),
                        name: "command".into(),
                        status: Status::Failed,
                        detail: "exit status 1; 1 unexpected finding".into(),
                        milliseconds: 1,
                        findings: vec![finding("#1 bad")],
                    };
                    report.cases = vec![case.clone()];
                    collector.event(Event::Case { scenario: "a".into(), case });
                }
                collector.event(Event::Ended { report: Box::new(report) });
            });
            text
        };
        for (live, stray) in [(false, false), (true, false), (false, true), (true, true)] {
            let text = text(live, stray);
            assert_eq!(text.matches("#1 bad").count(), 1, "live {live}, stray {stray}: {text}");
        }
        assert!(
            text(true, false).contains("  # finding: #1 bad\n  not ok 1 command # exit status")
        );
    }

    #[test]
    fn what_was_cut_off_is_in_the_report_with_the_reason() {
        let (text, reports) = printed(3, |collector| {
            collector.event(started("a"));
            collector.event(case("a", "a1"));
            collector.event(ended("a"));
            collector.event(started("b"));
            collector.event(case("b", "b1"));
            let names = ["a".to_owned(), "b".to_owned(), "c".to_owned()];
            collector.abandon("the test host hung", true, &["last words".to_owned()], &names);
        });
        assert_eq!(
            reports.iter().map(|report| report.name.as_str()).collect::<Vec<_>>(),
            ["a", "b", "c"]
        );
        assert_eq!(reports[1].cases.len(), 1);
        assert_eq!(reports[1].failures, ["the test host hung"]);
        assert!(reports[1].hung && reports[2].hung);
        assert!(text.contains("  # console: last words\nnot ok 2 b\n"), "{text}");
        assert!(text.contains("not ok 3 c\n"), "{text}");
    }
}
