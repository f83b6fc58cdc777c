//! The judge, fed line by line.

use std::sync::mpsc::{Receiver, sync_channel};

use device_models::checker::{Cause, Finding, FindingClass, Severity};

use super::*;

mod expectations;
mod folding;
mod outputs;

fn judge(mode: Mode, at_least: usize) -> (Judge, Receiver<Event>) {
    let (sender, receiver) = sync_channel(1 << 16);
    (Judge::new(&Hello::new(mode, "s"), at_least, Events::new(sender)).unwrap(), receiver)
}

fn end(ending: Ending) -> End {
    End { ending, complaints: Vec::new(), console_tail: vec!["last".into()] }
}

fn say(judge: &mut Judge, lines: &[&str]) -> Vec<String> {
    let text = |answer| match answer {
        Answer::Line(line) => line,
        Answer::Counters => "counters".into(),
        Answer::Slot { port, filled } => format!("slot {port} {filled}"),
        Answer::Delay { requester, target, delay } => {
            let target = target.map_or("ram".into(), |target| target.to_string());
            format!("delay {requester} {target} {delay}")
        }
        Answer::Fence(requester) => format!("fence {requester}"),
        Answer::Settle => "settle".into(),
        Answer::Traffic(requester) => format!("traffic {requester}"),
        Answer::Exit(code) => format!("exit {code}"),
        Answer::Files => "files".into(),
    };
    lines.iter().map(|line| text(judge.line(line))).collect()
}

/// A finding with a cause of its own.
fn finding(class: FindingClass, text: &str) -> Finding {
    let address = text.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31) + u64::from(byte));
    Finding {
        class,
        severity: Severity::Finding,
        cause: Cause::Message { address, data: 0 },
        transaction: None,
        requester: Bdf::new(1, 0, 0),
        function: "peer0".into(),
        explanation: text.into(),
    }
}

fn report_finding(judge: &mut Judge, class: FindingClass, text: &str) {
    let reaction = judge.finding(&finding(class, text), || vec![format!("before {text}")]);
    assert_eq!(reaction, Reaction::GoOn);
}

fn note(judge: &mut Judge, class: FindingClass, text: &str) {
    let note = Finding { severity: Severity::Note, ..finding(class, text) };
    assert_eq!(judge.finding(&note, Vec::new), Reaction::GoOn);
}

#[test]
fn a_run_without_fault_passes() {
    let (mut judge, events) = judge(Mode::Test, 2);
    let answers = say(
        &mut judge,
        &[
            "hello",
            "ktap KTAP version 1",
            "ktap 1..2",
            "case begin a",
            "case end ok",
            "ktap ok 1 a",
            "case begin b",
        ],
    );
    assert!(answers[0].starts_with("ok {\"mode\":\"test\""));
    assert!(answers[1..].iter().all(|answer| answer == "ok"));
    assert_eq!(
        say(&mut judge, &["case end skip no CONFIG_X", "stat", "exit 0"]),
        ["ok", "counters", "exit 0"]
    );
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.status, Status::Passed, "{report:?}");
    assert_eq!(report.cases[1].detail, "no CONFIG_X");
    assert!(report.console_tail.is_empty() && report.boot_milliseconds.is_some());
    let cases = events.try_iter().filter(|event| matches!(event, Event::Case { .. })).count();
    assert_eq!(cases, 2);
}

#[test]
fn an_unexpected_finding_fails_a_test_that_says_ok() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a"]);
    report_finding(&mut judge, FindingClass::Unmapped, "#1 bad");
    assert_eq!(
        say(&mut judge, &["case end ok"]),
        ["fail 1 unexpected finding: peer0: iommu.unmapped: #1 bad"]
    );
    // Not even a skip hides it.
    say(&mut judge, &["case begin b"]);
    report_finding(&mut judge, FindingClass::Unmapped, "#2 bad");
    report_finding(&mut judge, FindingClass::Unmapped, "#3 bad");
    assert_eq!(
        say(&mut judge, &["case end skip why"]),
        ["fail 2 unexpected findings, first: peer0: iommu.unmapped: #2 bad"]
    );
    let report = judge.finish(end(Ending::Exit(1)));
    assert!(report.cases.iter().all(|case| case.status == Status::Failed));
    assert_eq!(report.cases[1].detail, "why; 2 unexpected findings");
    assert_eq!(report.console_tail, ["last"]);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
}

#[test]
fn an_expected_finding_must_come_in_the_right_number() {
    for (expect, found, good) in [
        ("iommu.stale", 1, true),
        ("iommu.stale", 5, true),
        ("iommu.stale", 0, false),
        ("iommu.stale 2", 1, false),
        ("iommu.stale 2 3", 3, true),
        ("iommu.stale 2 3", 4, false),
        ("iommu.stale 0 0", 0, true),
    ] {
        let (mut judge, _events) = judge(Mode::Test, 0);
        say(&mut judge, &["case begin a", &format!("case expect {expect}")]);
        for _ in 0..found {
            report_finding(&mut judge, FindingClass::Stale, "x");
        }
        assert_eq!(say(&mut judge, &["case end ok"]) == ["ok"], good, "{expect} found {found}");
    }
}

#[test]
fn a_skipped_test_may_lack_what_it_expected() {
    for (found, other, answer) in
        [(0, false, "ok"), (1, false, "ok"), (2, false, "fail"), (0, true, "fail")]
    {
        let (mut judge, _events) = judge(Mode::Test, 0);
        say(&mut judge, &["case begin a", "case expect iommu.stale 1 1"]);
        (0..found).for_each(|_| report_finding(&mut judge, FindingClass::Stale, "x"));
        if other {
            report_finding(&mut judge, FindingClass::Unmapped, "y");
        }
        let said = say(&mut judge, &["case end skip too busy"]);
        assert!(said[0].starts_with(answer), "{found} {other}: {said:?}");
        let report = judge.finish(end(Ending::Exit(0)));
        let status = if answer == "ok" { Status::Skipped } else { Status::Failed };
        assert_eq!(report.cases[0].status, status, "{found} {other}");
    }
}

#[test]
fn an_expectation_that_makes_no_sense_fails_the_test() {
    for expect in [
        "iommu.stael",
        "",
        "iommu.stale x",
        "iommu.stale 3 2",
        "iommu.stale 1 2 3",
        "iommu.stale -1",
    ] {
        let (mut judge, _events) = judge(Mode::Test, 0);
        let answers =
            say(&mut judge, &["case begin a", &format!("case expect {expect}"), "case end ok"]);
        assert!(answers[1].starts_with("fail ") && answers[2].starts_with("fail "), "{answers:?}");
    }
    let (mut judge, _events) = judge(Mode::Test, 0);
    let answers = say(&mut judge, &["case begin a", "case expect iommu.stael"]);
    assert!(answers[1].contains("did you mean iommu.stale?"), "{answers:?}");
}

#[test]
fn findings_outside_of_tests_fail_the_run() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a", "case end ok"]);
    report_finding(&mut judge, FindingClass::NotAVector, "#9 late");
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.status, Status::Failed);
    assert_eq!(report.failures, ["outside of any test: 1 unexpected finding"]);
    assert_eq!(report.stray_findings.len(), 1);
}

#[test]
fn a_guest_that_stops_early_does_not_pass() {
    let cases: [(&[&str], Ending, &str); 8] = [
        (&["hello"], Ending::Exit(0), "no test at all"),
        (
            &["ktap 1..2", "case begin a", "case end ok"],
            Ending::Exit(0),
            "2 tests were announced and 1 reported",
        ),
        (&["case begin a", "case end ok"], Ending::Exit(0), "demands 2 at least"),
        (
            &["hello", "case begin a"],
            Ending::TimedOut { limit: 9 },
            "killed after 9 s while a was running",
        ),
        (&[], Ending::TimedOut { limit: 9 }, "before it reported"),
        (&["hello", "case begin a"], Ending::PowerOff, "switched itself off"),
        (&["case begin a", "case end ok"], Ending::Exit(122), "ended with code 122"),
        (&["case begin a", "case end ok"], Ending::Exit(1), "ended with code 1"),
    ];
    for (lines, ending, part) in cases {
        let (mut judge, _events) = judge(Mode::Test, 2);
        say(&mut judge, lines);
        let report = judge.finish(end(ending.clone()));
        assert_eq!(report.status, Status::Failed);
        assert!(
            report.failures.iter().any(|failure| failure.contains(part)),
            "{ending:?}: {:?}",
            report.failures
        );
        assert_eq!(report.hung, matches!(ending, Ending::TimedOut { .. }));
    }
}

#[test]
fn a_test_that_never_ends_fails_by_name() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a", "case begin b"]);
    let report = judge.finish(end(Ending::Broke("triple fault".into())));
    assert_eq!(
        report.cases.iter().map(|case| case.status).collect::<Vec<_>>(),
        [Status::Failed; 2]
    );
    assert!(
        report.failures.contains(&"triple fault while b was running".to_owned()),
        "{:?}",
        report.failures
    );
}

#[test]
fn the_kernel_s_complaint_fails_the_run() {
    let (mut judge, _events) = judge(Mode::Shell, 0);
    say(&mut judge, &["hello"]);
    let mut end = end(Ending::PowerOff);
    assert_eq!(self::judge(Mode::Shell, 0).0.finish(end.clone()).status, Status::Passed);
    end.complaints.push("[ 1.0] BUG: x".into());
    assert_eq!(judge.finish(end).status, Status::Failed);
}

#[test]
fn what_keeps_a_command_from_running_is_not_its_status() {
    let no_module = "exit 123 loading x.ko failed: no\tsuch symbol";
    for (mode, lines, ending, failure) in [
        (
            Mode::Command,
            &["hello", no_module][..],
            Ending::Exit(123),
            "the command was not run: loading x.ko failed: no such symbol",
        ),
        (
            Mode::Command,
            &["hello", "exit 0"],
            Ending::Exit(0),
            "the command was not run: the guest ended with code 0",
        ),
        (
            Mode::Command,
            &["hello"],
            Ending::Broke("triple fault".into()),
            "triple fault before the command began",
        ),
        (
            Mode::Command,
            &["hello", "started", "exit 120 panicked"],
            Ending::Exit(120),
            "the command did not come to its end: panicked",
        ),
        (
            Mode::Shell,
            &["hello", no_module],
            Ending::Exit(123),
            "the guest's agent gave up: loading x.ko failed: no such symbol",
        ),
    ] {
        let (mut judge, _events) = judge(mode, 0);
        say(&mut judge, lines);
        let report = judge.finish(end(ending));
        assert_eq!((report.status, report.not_run), (Status::Failed, true), "{failure}");
        assert_eq!(
            (report.failures.as_slice(), report.cases.len()),
            (&[failure.to_owned()][..], 0)
        );
    }
    // Tests have a reason to give as well, and a command that crashes the guest has been run.
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a", "case end ok", no_module]);
    let report = judge.finish(end(Ending::Exit(123)));
    assert!(report.failures[0].ends_with("code 123: loading x.ko failed: no such symbol"));
    let (mut judge, _events) = self::judge(Mode::Command, 0);
    say(&mut judge, &["started"]);
    let report = judge.finish(end(Ending::Broke("triple fault".into())));
    assert_eq!((report.not_run, report.failures[0].as_str()), (false, "triple fault"));
}

#[test]
fn an_agent_without_an_answer_is_reported_from_the_console() {
    let no_answer = "peerdma agent: nothing answers";
    let failures = |mode, said: &[&str], ending| {
        let (mut judge, _events) = self::judge(mode, 0);
        say(&mut judge, said);
        let watch = crate::console::ConsoleWatch::default();
        let lines = ["peerdma agent: first", no_answer, "[    1.500000] reboot: Power down"];
        watch.feed(lines.map(|line| format!("{line}\r\n")).concat().as_bytes());
        let console_tail = watch.tail();
        judge.finish(End { console_tail, ..end(ending) }).failures
    };
    let words = "the guest's agent gave up: nothing answers";
    for ending in [Ending::PowerOff, Ending::TimedOut { limit: 9 }, Ending::Broke("reset".into())] {
        assert_eq!(failures(Mode::Test, &[], ending.clone())[0], words, "{ending:?}");
        assert_eq!(failures(Mode::Command, &[], ending)[0], words);
    }
    // A guest that has reported has a port to say it by, and a shell may be switched off.
    assert!(!failures(Mode::Test, &["hello"], Ending::PowerOff).contains(&words.to_owned()));
    assert!(failures(Mode::Shell, &[], Ending::PowerOff).is_empty());
}

#[test]
fn a_user_s_command_is_one_test_with_all_findings() {
    let (mut judge, _events) = self::judge(Mode::Command, 0);
    assert_eq!(say(&mut judge, &["hello", "started"])[1], "ok");
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!((report.status, report.cases.len(), report.not_run), (Status::Passed, 1, false));

    for (request, detail) in [
        ("exit 7", "exit status 7"),
        // The command's own, or a shell's word for it.
        ("exit 123", "exit status 123"),
        ("exit 127 running x failed", "exit status 127: running x failed"),
    ] {
        let (mut judge, _events) = self::judge(Mode::Command, 0);
        let Answer::Exit(code) = ["started", request].map(|line| judge.line(line))[1] else {
            panic!("{request}")
        };
        let report = judge.finish(end(Ending::Exit(code)));
        assert_eq!((report.status, report.exit_code), (Status::Failed, Some(code)));
        assert_eq!((report.cases[0].detail.as_str(), report.not_run), (detail, false));
        assert!(report.failures.is_empty());
    }

    let (mut judge, _events) = self::judge(Mode::Command, 0);
    say(&mut judge, &["started"]);
    report_finding(&mut judge, FindingClass::Stale, "#1");
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.cases[0].status, Status::Failed);
    assert!(report.stray_findings.is_empty() && report.cases[0].findings.len() == 1);
}

#[test]
fn a_user_s_ktap_counts_and_sums_are_not_counted_twice() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(
        &mut judge,
        &[
            "ktap 1..1",
            "ktap   1..2",
            "ktap   ok 1 x",
            "ktap   not ok 2 y # bad",
            "ktap not ok 1 both",
            "ktap ok 2",
        ],
    );
    let report = judge.finish(end(Ending::Exit(1)));
    let cases: Vec<_> = report.cases.iter().map(|case| (case.name.as_str(), case.status)).collect();
    let (good, bad) = (Status::Passed, Status::Failed);
    assert_eq!(cases, [("x", good), ("y", bad), ("both", bad), ("test 2", good)]);
}

#[test]
fn the_guest_s_report_counts_only_against_it() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a", "case end fail broken", "ktap ok 1 a"]);
    say(&mut judge, &["case begin b", "case end ok", "ktap not ok 2 b"]);
    let report = judge.finish(end(Ending::Exit(1)));
    assert_eq!(
        report.cases.iter().map(|case| case.status).collect::<Vec<_>>(),
        [Status::Failed, Status::Passed]
    );
    assert_eq!(report.failures, ["the guest reported b as failed after it had ended well"]);
}

#[test]
fn decisions_about_paths_are_kept_once_each_and_no_more_than_there_can_be() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["path 0 1 4 iova 0x1000", "path 1 0 -1", "path 0 1 4 bus 0x2000"]);
    for owner in 0..=255 {
        say(&mut judge, &[&format!("path {owner} 9 4"), &format!("path {owner} 05:00.0 4")]);
    }
    assert!(say(&mut judge, &["path 0 8 4"])[0].starts_with("fail "));
    let decisions = judge.finish(end(Ending::Exit(0))).decisions;
    let printed: Vec<_> = decisions.iter().take(2).map(ToString::to_string).collect();
    assert_eq!(
        printed,
        ["distance 4, bus address 0x2000", "no way between the two, no DMA address"]
    );
    assert_eq!(decisions.len(), MAX_DECISIONS);
}

#[test]
fn malformed_requests_are_refused() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    let huge = "x".repeat(100_000);
    let lines = [
        "",
        "dance",
        "case",
        "case begin",
        "case begin ",
        "case end ok",
        "case expect a",
        "exit",
        "exit x",
        "path 0 1",
        "path 0 1 2 nowhere 0x1",
        "case end",
        &huge,
    ];
    for (line, answer) in lines.iter().zip(say(&mut judge, &lines)) {
        assert!(answer.starts_with("fail "), "{line:?}: {answer}");
        assert!(answer.len() < 3000);
    }
}

#[test]
fn floods_are_bounded_and_fail_the_run() {
    let (mut judge, events) = judge(Mode::Test, 0);
    let reader = std::thread::spawn(move || events.iter().count());
    for i in 0..MAX_CASES + 10 {
        say(&mut judge, &[&format!("ktap ok {i} t{i}"), "ktap # noise", "ktap # more noise"]);
    }
    say(&mut judge, &["case begin f"]);
    for i in 0..1000 {
        report_finding(&mut judge, FindingClass::Unmapped, &format!("#{i}"));
    }
    report_finding(&mut judge, FindingClass::Stale, "another");
    for _ in 0..3000 {
        say(&mut judge, &["case expect x 9 1", "ktap Bail out! again", "ktap 1..7"]);
        say(&mut judge, &["ktap not ok 1 t1"]);
    }
    let ended = say(&mut judge, &["case end ok"]);
    assert!(ended[0].len() < 20_000, "{}", ended[0].len());
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.cases.len(), MAX_CASES);
    assert!(report.failures.len() <= MAX_FINDINGS, "{}", report.failures.len());
    assert_eq!(report.status, Status::Failed);
    // The reader ends when no sender is left.
    drop(judge);
    assert!(reader.join().unwrap() < MAX_CASES + 2 * MAX_DIAGNOSTICS + 10);
}

#[test]
fn the_first_finding_of_every_class_is_kept() {
    let mut case = Case::new("f", Keep::Folded, Arc::default());
    for i in 0..1000 {
        case.finding(&finding(FindingClass::Unmapped, &format!("#{i}")));
    }
    case.finding(&finding(FindingClass::Stale, "another"));
    let report = case.conclude(Status::Passed, "");
    assert_eq!(report.findings.len(), MAX_FINDINGS + 1);
    assert!(report.detail.ends_with("(51 of 1001 findings are listed)"), "{}", report.detail);
}

#[test]
fn equal_names_are_counted_and_not_searched_for() {
    let (mut judge, events) = judge(Mode::Test, 0);
    let reader = std::thread::spawn(move || events.iter().count());
    for _ in 0..MAX_CASES {
        say(&mut judge, &["case begin same", "case end ok"]);
    }
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.cases.last().unwrap().name, format!("same ({MAX_CASES})"));
    drop(judge);
    reader.join().unwrap();
}

#[test]
fn equal_names_are_distinguished() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    for _ in 0..3 {
        say(&mut judge, &["case begin a", "case end ok"]);
    }
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(
        report.cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>(),
        ["a", "a (2)", "a (3)"]
    );
}

#[test]
fn findings_of_an_interactive_guest_are_printed_as_they_happen() {
    for (mode, printed) in [(Mode::Test, false), (Mode::Command, true), (Mode::Shell, true)] {
        let (mut judge, events) = judge(mode, 0);
        report_finding(&mut judge, FindingClass::Stale, "#7 stale");
        let seen = events.try_iter().any(
            |event| matches!(event, Event::Finding { text, .. } if text.ends_with("#7 stale")),
        );
        assert_eq!(seen, printed, "{mode:?}");
    }
}

#[test]
fn slots_are_named_by_their_ports() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    let answers = say(&mut judge, &["unplug 00:04.0", "plug 00:04.0", "unplug", "plug peer0"]);
    assert_eq!(answers[..2], ["slot 00:04.0 false", "slot 00:04.0 true"]);
    assert!(
        answers[2..].iter().all(|answer| answer.contains("wants BUS:DEVICE.FUNCTION")
            || answer.contains("is not a function")),
        "{answers:?}"
    );
}

#[test]
fn paths_are_delayed_by_requester_and_target() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    let good = [
        "delay 02:00.0 01:00.0 pushed",
        "delay 02:00.0 ram 40",
        "delay 02:00.0 01:00.0 off",
        "fence 02:00.0",
        "traffic 01:00.0",
        "settle",
    ];
    assert_eq!(say(&mut judge, &good), good);
    let bad = [
        "delay",
        "delay 02:00.0 01:00.0",
        "delay 02:00.0 01:00.0 0",
        "delay 02:00.0 01:00.0 70000",
        "delay ram 01:00.0 off",
        "delay 02:00.0 01:00.0 off now",
    ];
    for answer in say(&mut judge, &bad) {
        assert!(answer.starts_with("fail "), "{answer}");
    }
    for answer in say(&mut judge, &["fence", "fence peer0", "traffic ram"]) {
        assert!(
            answer.contains("wants BUS:DEVICE.FUNCTION") || answer.contains("is not a function"),
            "{answer}"
        );
    }
}
