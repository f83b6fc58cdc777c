//! Running tests and judging them: by what they say, by what the checker found, by what the kernel complained about.

use super::lane::traffic_goes_on;
use super::watchdog::Watchdog;
use super::{Bench, Case, Kind, Stop, Verdict};
use crate::device::bus_error::{self, BusErrors};
use crate::ktap::{self, Output, Status};
use crate::sys::children::reap;
use crate::sys::kernel_log::{KernelLog, OVERWRITTEN, Record, complaints};
use crate::sys::{patience, processors};
use crate::vmm::{CaseEnd, Vmm, VmmError};
use std::time::{Duration, Instant};

/// A kernel that has said nothing for so long after a failure has said everything about it; and how long a test waits
/// for that.
const QUIET: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(3);

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Passed.
    pub passed: usize,
    /// Failed.
    pub failed: usize,
    /// Skipped.
    pub skipped: usize,
}

impl Summary {
    fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Ok(()) => self.passed += 1,
            Err(Stop::Fail(_)) => self.failed += 1,
            Err(Stop::Skip(_)) => self.skipped += 1,
        }
    }

    /// The code to end with.
    pub fn exit_code(&self) -> u8 {
        if self.failed == 0 { crate::exit::SUCCESS } else { crate::exit::TESTS_FAILED }
    }
}

/// Runs the tests in order and reports each. `hang` ends the guest when a test does not end.
///
/// # Errors
/// When the conversation with the VMM breaks down: nothing can be judged or reported then.
pub fn run(
    cases: &[Case],
    mut vmm: Option<&mut Vmm>,
    output: Output,
    hang: fn(&str) -> !,
) -> Result<Summary, VmmError> {
    let mut log = KernelLog::open().ok();
    // Everything before the first test belongs to the test of the boot messages, which finds it here.
    let boot = log.as_mut().map(KernelLog::drain).unwrap_or_default();
    for line in ktap::head(cases.len()) {
        output.line(vmm.as_deref_mut(), &line)?;
    }
    let mut summary = Summary::default();
    let hello = vmm.as_mut().map(|vmm| vmm.hello()).transpose()?;
    if let Err(error) = bus_error::survive() {
        output.line(vmm.as_deref_mut(), &format!("# SIGBUS will end the guest: {error}"))?;
    }
    let factor = hello.as_ref().map_or(1, |hello| hello.time_factor);
    let expected = hello.and_then(|hello| hello.expected);
    // Any test may make the kernel decide about a path, and comment on it.
    let predicted = expected.map(|expected| expected.messages).unwrap_or_default();
    patience::stretch(factor);
    let watchdog = Watchdog::start(factor, hang);
    for (number, case) in (1..).zip(cases) {
        watchdog.test(case);
        let verdict = run_one(case, vmm.as_deref_mut(), log.as_mut(), (&boot, &predicted), output)?;
        summary.count(&verdict);
        for line in ktap::result(number, &case.full_name(), status(&verdict)) {
            output.line(vmm.as_deref_mut(), &line)?;
        }
        reap(None);
    }
    Ok(summary)
}

/// A verdict as the report has it.
fn status(verdict: &Verdict) -> Status<'_> {
    match verdict {
        Ok(()) => Status::Passed,
        Err(Stop::Skip(reason)) => Status::Skipped(reason),
        Err(Stop::Fail(reason)) => Status::Failed(reason),
    }
}

fn run_one(
    case: &Case,
    mut vmm: Option<&mut Vmm>,
    mut log: Option<&mut KernelLog>,
    (boot, predicted): (&[Record], &[String]),
    output: Output,
) -> Result<Verdict, VmmError> {
    let name = case.full_name();
    if let Some(log) = log.as_mut() {
        log.mark(&format!("test {name}"));
    }
    if let Some(vmm) = vmm.as_mut() {
        vmm.case_begin(&name)?;
    }
    let mut bench = Bench::new(vmm.as_deref_mut(), boot);
    let mut verdict = case
        .needs
        .iter()
        .try_for_each(|need| need.check(&mut bench))
        .and_then(|()| (case.body)(&mut bench));
    if verdict.is_ok() && case.kind == Kind::Negative {
        verdict = traffic_goes_on(&mut bench);
    }
    let expected = std::mem::take(&mut bench.expected_messages);
    let mut notes = std::mem::take(&mut bench.notes);
    // Closes the devices: what that still does belongs to this test.
    drop(bench);
    verdict = with_bus_errors(verdict, bus_error::take());
    // What the devices have not done yet they would do, and the kernel would complain of, in the middle of the next test.
    if let Some(vmm) = vmm.as_mut()
        && let Some(busy) = vmm.settle()?
    {
        notes.push(busy);
    }
    if let Some(log) = log {
        if expected.is_empty() {
            processors::let_handlers_run();
        } else {
            processors::let_handlers_finish();
        }
        let mut records = log.drain();
        if matches!(verdict, Err(Stop::Fail(_))) {
            settle(log, &mut records);
        }
        let all: Vec<_> =
            expected.iter().copied().chain(predicted.iter().map(String::as_str)).collect();
        verdict = with_complaints(verdict, &complaints(&records, &all));
        // Where that belongs to the test it is still worth knowing.
        let losses = records.iter().filter(|record| record.text.starts_with(OVERWRITTEN));
        notes.extend(losses.map(|record| record.text.clone()));
    }
    if vmm.is_none() {
        for note in &notes {
            output.line(None, &format!("# {note}"))?;
        }
    }
    if let Some(vmm) = vmm {
        let (end, detail) = match &verdict {
            Ok(()) => (CaseEnd::Ok, notes.join("; ")),
            Err(Stop::Fail(reason)) => (CaseEnd::Fail, first_line(reason)),
            Err(Stop::Skip(reason)) => (CaseEnd::Skip, first_line(reason)),
        };
        if let Some(reason) = vmm.case_end(end, &detail)? {
            verdict = Err(Stop::Fail(match verdict {
                Err(Stop::Fail(own)) if own == reason => own,
                Err(Stop::Fail(own)) => format!("{own}\n{reason}"),
                _ => reason,
            }));
        }
    }
    Ok(verdict)
}

/// A test that failed may have set off more than it waited for, and the kernel's handlers of port errors run as threads:
/// what they say belongs to this test and not to the next one, which may have nothing to do with it.
fn settle(log: &mut KernelLog, records: &mut Vec<Record>) {
    let begun = Instant::now();
    loop {
        std::thread::sleep(QUIET);
        let more = log.drain();
        let over = more.is_empty() || begun.elapsed() > PATIENCE;
        records.extend(more);
        if over {
            return;
        }
    }
}

/// A device whose memory went while the test was using it fails the test, which would have been killed.
fn with_bus_errors(verdict: Verdict, errors: Option<BusErrors>) -> Verdict {
    let Some(BusErrors { count, last }) = errors else { return verdict };
    let gone = format!(
        "memory of a device was gone when it was used, {count} times, the last time at {last:#x}"
    );
    Err(Stop::Fail(match verdict {
        Err(Stop::Fail(reason)) => format!("{reason}\n{gone}"),
        _ => gone,
    }))
}

/// A complaint of the kernel's fails a test whatever the test says itself.
fn with_complaints(verdict: Verdict, complaints: &[&Record]) -> Verdict {
    if complaints.is_empty() {
        return verdict;
    }
    let mut lines: Vec<String> = match verdict {
        Err(Stop::Fail(reason)) => vec![reason],
        _ => Vec::new(),
    };
    // A splat has a hundred lines; the first few say what it is, the console log has the rest.
    lines.extend(
        complaints.iter().take(8).map(|record| format!("the kernel's log: {}", record.text)),
    );
    if complaints.len() > 8 {
        lines.push(format!("and {} more", complaints.len() - 8));
    }
    Err(Stop::Fail(lines.join("\n")))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmm::script::Script;

    fn case(name: &'static str, body: fn(&mut Bench<'_>) -> Verdict) -> Case {
        Case::new("g", name, Kind::Positive, &[], body)
    }

    fn run_scripted(script: &Script, cases: &[Case]) -> Vec<Verdict> {
        let mut vmm = Vmm::new(Box::new(script.clone()));
        cases
            .iter()
            .map(|case| run_one(case, Some(&mut vmm), None, (&[], &[]), Output::Vmm).unwrap())
            .collect()
    }

    #[test]
    fn the_conversation_around_a_test() {
        let script = Script::default();
        let fails: fn(&mut Bench<'_>) -> Verdict = |_| Err(Stop::Fail("broken\nmore".into()));
        let verdicts = run_scripted(
            &script,
            &[case("good", |bench| bench.expect("x.y", 1, None)), case("bad", fails)],
        );
        assert_eq!(verdicts, [Ok(()), Err(Stop::Fail("broken\nmore".into()))]);
        assert_eq!(
            script.lines(),
            [
                "case begin g.good",
                "case expect x.y",
                "settle",
                "case end ok",
                "case begin g.bad",
                "settle",
                "case end fail broken"
            ]
        );
    }

    #[test]
    fn a_bus_error_fails_whatever_the_test_says() {
        let errors = Some(BusErrors { count: 2, last: 0x7000 });
        let skip = Err(Stop::Skip("no".into()));
        for verdict in [Ok(()), skip.clone(), Err(Stop::Fail("own".into()))] {
            let Err(Stop::Fail(reason)) = with_bus_errors(verdict, errors) else { panic!() };
            assert!(reason.ends_with("2 times, the last time at 0x7000"), "{reason}");
        }
        assert_eq!(with_bus_errors(skip.clone(), None), skip);
    }

    #[test]
    fn the_monitors_verdict_overrules_a_pass_and_a_skip() {
        let script = Script::default().answer("case end", "fail unexpected finding");
        let verdicts = run_scripted(
            &script,
            &[case("a", |_| Ok(())), case("b", |_| Err(Stop::Skip("no".into())))],
        );
        for verdict in verdicts {
            assert_eq!(verdict, Err(Stop::Fail("unexpected finding".into())));
        }
    }

    #[test]
    fn a_need_that_is_not_met_skips_without_running() {
        let case = Case::new("g", "n", Kind::Positive, &[super::super::Need::Vmm], |_| {
            panic!("must not run")
        });
        let verdict = run_one(&case, None, None, (&[], &[]), Output::Terminal).unwrap();
        assert!(matches!(verdict, Err(Stop::Skip(_))));
    }

    #[test]
    fn complaints_of_the_kernel_fail_a_test() {
        let record = Record { level: 4, text: "peerdma: bad".into() };
        assert_eq!(with_complaints(Ok(()), &[]), Ok(()));
        let Err(Stop::Fail(text)) = with_complaints(Err(Stop::Fail("own".into())), &[&record])
        else {
            panic!()
        };
        assert_eq!(text, "own\nthe kernel's log: peerdma: bad");
        assert!(matches!(with_complaints(Ok(()), &[&record]), Err(Stop::Fail(_))));
    }

    #[test]
    fn one_failure_decides_the_exit_code() {
        let mut summary = Summary::default();
        summary.count(&Ok(()));
        summary.count(&Err(Stop::Skip(String::new())));
        assert_eq!(summary.exit_code(), 0);
        summary.count(&Err(Stop::Fail(String::new())));
        assert_eq!(
            (summary.passed, summary.failed, summary.skipped, summary.exit_code()),
            (1, 1, 1, 1)
        );
    }
}
