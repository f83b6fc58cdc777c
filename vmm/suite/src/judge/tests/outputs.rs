//! Findings for programs, findings that end a run, findings that are known.

use super::*;
use crate::found::Found;
use crate::suppression::Suppression;

fn found(events: &Receiver<Event>) -> Vec<Found> {
    let one = |event| match event {
        Event::Found { found } => Some(*found),
        _ => None,
    };
    events.try_iter().filter_map(one).collect()
}

fn suppress(judge: &mut Judge, lines: &str) {
    judge.suppress(&Suppression::parse_all(lines, "k.txt").unwrap(), &[]);
}

#[test]
fn a_finding_goes_out_as_it_happens_and_its_sum_when_the_test_ends() {
    for mode in [Mode::Test, Mode::Command] {
        let (mut judge, events) = judge(mode, 0);
        say(&mut judge, &["case begin a", "case expect iommu.stale"]);
        report_finding(&mut judge, FindingClass::Stale, "one");
        let first = found(&events);
        assert_eq!(first.len(), 1);
        let Found { number, count, expected, ref test, ref before, .. } = first[0];
        assert_eq!((number, count, expected), (1, 1, true));
        assert_eq!((test.as_deref(), before.as_slice()), (Some("a"), &["before one".into()][..]));
        report_finding(&mut judge, FindingClass::Stale, "one");
        note(&mut judge, FindingClass::MappingEdge, "two");
        say(&mut judge, &["case end ok"]);
        let rest = found(&events);
        let numbers: Vec<_> = rest.iter().map(|found| (found.number, found.count)).collect();
        // In a user's own guest the sum is there before the next finding is.
        assert!(numbers.contains(&(1, 2)) && numbers.contains(&(2, 1)), "{mode:?} {numbers:?}");
        assert_eq!(numbers.len(), 2);
        assert!(rest.iter().any(|found| found.severity == "note" && !found.expected));
        judge.finish(end(Ending::Exit(0)));
        assert_eq!(found(&events), []);
    }
}

#[test]
fn a_guest_that_dies_has_its_findings_and_their_sums_out() {
    let (mut judge, events) = judge(Mode::Test, 0);
    (0..3).for_each(|_| report_finding(&mut judge, FindingClass::Stale, "stray"));
    judge.finish(end(Ending::Broke("triple fault".into())));
    let found = found(&events);
    assert_eq!(found.iter().map(|found| found.count).collect::<Vec<_>>(), [1, 3]);
    assert!(found.iter().all(|found| found.test.is_none() && found.number == 1));
}

#[test]
fn a_mistake_has_what_happened_before_it_in_the_report_and_no_other_finding_has() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    suppress(&mut judge, "pci.link-down # known");
    say(&mut judge, &["case begin a", "case expect iommu.stale"]);
    report_finding(&mut judge, FindingClass::Stale, "expected");
    report_finding(&mut judge, FindingClass::LinkDown, "suppressed");
    report_finding(&mut judge, FindingClass::Unmapped, "bad");
    say(&mut judge, &["case end ok"]);
    let report = judge.finish(end(Ending::Exit(1)));
    let before: Vec<_> = report.cases[0].findings.iter().map(|f| f.before.clone()).collect();
    assert_eq!(before, [vec![], vec![], vec!["before bad".to_owned()]]);
}

#[test]
fn a_suppressed_finding_fails_nothing_and_its_neighbours_do() {
    let (mut judge, events) = judge(Mode::Test, 0);
    suppress(&mut judge, "iommu.stale peer0 a* # known bug\npci.link-down # unused");
    say(&mut judge, &["case begin a"]);
    (0..2).for_each(|_| report_finding(&mut judge, FindingClass::Stale, "one"));
    assert_eq!(say(&mut judge, &["case end ok"]), ["ok"]);
    assert!(found(&events).iter().all(|found| found.suppressed.as_deref() == Some("known bug")));
    // Another test, another class, another function.
    say(&mut judge, &["case begin b"]);
    report_finding(&mut judge, FindingClass::Stale, "one");
    say(&mut judge, &["case end ok", "case begin a2"]);
    report_finding(&mut judge, FindingClass::Unmapped, "one");
    say(&mut judge, &["case end ok", "case begin a3"]);
    let other = Finding { function: "peer1".into(), ..finding(FindingClass::Stale, "one") };
    assert_eq!(judge.finding(&other, Vec::new), Reaction::GoOn);
    // What a test expects counts for it, suppressed or not.
    say(&mut judge, &["case end ok", "case begin a4", "case expect iommu.stale"]);
    report_finding(&mut judge, FindingClass::Stale, "one");
    say(&mut judge, &["case end ok", "case begin a5", "case expect iommu.unmapped"]);
    report_finding(&mut judge, FindingClass::Stale, "one");
    say(&mut judge, &["case end ok"]);
    report_finding(&mut judge, FindingClass::Stale, "outside");
    let report = judge.finish(end(Ending::Exit(1)));
    let status: Vec<_> = report.cases.iter().map(|case| case.status).collect();
    use Status::{Failed, Passed};
    assert_eq!(status, [Passed, Failed, Failed, Failed, Passed, Failed]);
    let first = &report.cases[0].findings[0];
    assert_eq!((first.kind(), first.count()), ("suppressed finding", 2));
    let suppressed = first.suppressed.as_ref().unwrap();
    assert_eq!(suppressed.to_string(), "known bug (k.txt:1)");
    assert_eq!(report.cases[4].findings[0].kind(), "expected finding");
    assert_eq!(report.cases[4].findings[0].suppressed, None, "its suppression is not in use");
    assert_eq!(report.failures, ["outside of any test: 1 unexpected finding"]);
}

#[test]
fn a_users_command_and_what_is_outside_of_all_tests_can_be_suppressed_too() {
    let (mut command, _events) = judge(Mode::Command, 0);
    suppress(&mut command, "iommu.stale * command # known");
    say(&mut command, &["hello", "started"]);
    report_finding(&mut command, FindingClass::Stale, "one");
    let report = command.finish(end(Ending::Exit(0)));
    assert_eq!(report.status, Status::Passed, "{report:?}");
    for (line, passes) in [("iommu.stale # x", true), ("iommu.stale * command # x", false)] {
        let (mut judge, _events) = judge(Mode::Test, 0);
        suppress(&mut judge, line);
        say(&mut judge, &["case begin a", "case end ok"]);
        report_finding(&mut judge, FindingClass::Stale, "one");
        let report = judge.finish(end(Ending::Exit(0)));
        assert_eq!(report.status == Status::Passed, passes, "{line}: {report:?}");
    }
}

#[test]
fn what_ends_a_run_is_the_first_finding_that_is_a_mistake() {
    let (mut judge, events) = judge(Mode::Test, 5);
    suppress(&mut judge, "pci.link-down # known");
    judge.stop_on(&["finding".parse().unwrap()]);
    say(&mut judge, &["hello", "ktap 1..5", "case begin a", "case expect iommu.stale"]);
    // Neither an expected one, nor a suppressed one, nor a note.
    report_finding(&mut judge, FindingClass::Stale, "expected");
    report_finding(&mut judge, FindingClass::LinkDown, "suppressed");
    note(&mut judge, FindingClass::BusMasterOff, "left over");
    assert!(judge.stopped().is_none());
    let reaction = judge.finding(&finding(FindingClass::Unmapped, "bad"), || vec!["why".into()]);
    assert_eq!(reaction, Reaction::Stop);
    let stopped = judge.stopped().unwrap().clone();
    assert_eq!(stopped.text, "peer0: iommu.unmapped: bad");
    assert_eq!(stopped.before, ["why"]);
    // Nothing counts that comes later.
    assert_eq!(judge.finding(&finding(FindingClass::Unmapped, "later"), Vec::new), Reaction::GoOn);
    let report = judge.finish(end(Ending::StoppedOnFinding));
    assert!(report.stopped && !report.hung && report.status == Status::Failed);
    assert_eq!(
        report.failures,
        ["stopped on finding while a was running: peer0: iommu.unmapped: bad"]
    );
    assert!(report.cases[0].detail.starts_with("stopped on finding"), "{:?}", report.cases[0]);
    assert_eq!(found(&events).len(), 4);
}

#[test]
fn a_class_ends_a_run_by_a_note_and_no_other_class_does() {
    let (mut judge, _events) = judge(Mode::Command, 0);
    judge.stop_on(&["iommu.mapping-edge".parse().unwrap()]);
    say(&mut judge, &["hello", "started"]);
    report_finding(&mut judge, FindingClass::Stale, "another");
    let edge =
        Finding { severity: Severity::Note, ..finding(FindingClass::MappingEdge, "over the edge") };
    assert_eq!(judge.finding(&edge, Vec::new), Reaction::Stop);
    let report = judge.finish(end(Ending::StoppedOnFinding));
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert_eq!(report.cases[0].name, "command");
    assert!(report.cases[0].detail.starts_with("stopped on finding"), "{:?}", report.cases[0]);
    assert_eq!((report.cases[0].status, report.not_run), (Status::Failed, false));
}

#[test]
fn a_paused_run_goes_on_and_pauses_again() {
    let (mut judge, _events) = judge(Mode::Command, 0);
    judge.pause_on(&["fault".parse().unwrap()]);
    say(&mut judge, &["hello", "started"]);
    report_finding(&mut judge, FindingClass::LinkDown, "no fault");
    for text in ["one", "another"] {
        let reaction = judge.finding(&finding(FindingClass::Unmapped, text), Vec::new);
        assert_eq!(reaction, Reaction::Pause);
        assert!(judge.paused_at().unwrap().text.ends_with(text) && judge.stopped().is_none());
    }
    // What ends a run goes before what pauses it.
    judge.stop_on(&["iommu.unmapped".parse().unwrap()]);
    let reaction = judge.finding(&finding(FindingClass::Unmapped, "last"), Vec::new);
    assert_eq!(reaction, Reaction::Stop);
}
