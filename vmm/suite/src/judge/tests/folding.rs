//! Findings of one cause, and notes, in what the judge says.

use super::*;

#[test]
fn findings_with_one_cause_are_one_in_all_that_is_said() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    say(&mut judge, &["case begin a"]);
    (0..1023).for_each(|_| report_finding(&mut judge, FindingClass::MemoryDecodeOff, "off"));
    assert_eq!(
        say(&mut judge, &["case end ok"]),
        ["fail 1 unexpected finding, 1023 times: peer0: pci.memory-decode-off: off"]
    );
    // The next test's are its own, and what it expects is counted one by one.
    say(&mut judge, &["case begin b", "case expect pci.memory-decode-off 3 3"]);
    (0..3).for_each(|_| report_finding(&mut judge, FindingClass::MemoryDecodeOff, "off"));
    assert_eq!(say(&mut judge, &["case end ok"]), ["ok"]);
    say(&mut judge, &["case begin c"]);
    (0..2).for_each(|_| report_finding(&mut judge, FindingClass::MemoryDecodeOff, "off"));
    report_finding(&mut judge, FindingClass::MemoryDecodeOff, "another");
    say(&mut judge, &["case end ok"]);
    let report = judge.finish(end(Ending::Exit(1)));
    let counts = |case: usize| -> Vec<_> {
        let findings = report.cases[case].findings.iter();
        findings.map(|finding| finding.repeated.map_or(1, |repeated| repeated.count)).collect()
    };
    assert_eq!([counts(0), counts(1), counts(2)], [vec![1023], vec![3], vec![2, 1]]);
    assert_eq!(report.cases[2].detail, "2 unexpected findings, 3 times in all");
    assert!(report.cases[0].findings[0].to_string().ends_with("off; 1023 times in all"));
    assert_eq!(report.cases[0].findings[0].function, "peer0");
}

#[test]
fn each_finding_is_kept_where_that_is_wanted_up_to_a_bound() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    judge.list_each_finding();
    for name in ["a", "b", "c"] {
        say(&mut judge, &[&format!("case begin {name}")]);
        (0..7000).for_each(|_| report_finding(&mut judge, FindingClass::LinkDown, "down"));
        say(&mut judge, &["case end ok"]);
    }
    let report = judge.finish(end(Ending::Exit(1)));
    let kept: Vec<_> = report.cases.iter().map(|case| case.findings.len()).collect();
    // The first of a class is always there.
    assert_eq!(kept, [7000, 3000, 1]);
    assert!(report.cases[1].detail.ends_with("(3000 of 7000 findings are listed)"));
}

#[test]
fn a_note_fails_nothing_and_stands_in_the_report() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    note(&mut judge, FindingClass::BusMasterOff, "before");
    say(&mut judge, &["case begin a", "case expect pci.bus-master-off 0 0"]);
    note(&mut judge, FindingClass::BusMasterOff, "left over");
    assert_eq!(say(&mut judge, &["case end ok"]), ["ok"]);
    say(&mut judge, &["case begin b"]);
    note(&mut judge, FindingClass::BusMasterOff, "left over");
    assert_eq!(say(&mut judge, &["case end ok"]), ["ok"]);
    say(&mut judge, &["case begin c"]);
    note(&mut judge, FindingClass::BusMasterOff, "left over");
    report_finding(&mut judge, FindingClass::BusMasterOff, "new");
    assert!(say(&mut judge, &["case end ok"])[0].starts_with("fail 1 unexpected finding: "));
    let report = judge.finish(end(Ending::Exit(1)));
    let notes = |case: usize| report.cases[case].findings.iter().filter(|found| found.note).count();
    assert_eq!([notes(0), notes(1), notes(2)], [1; 3]);
    assert!(report.failures.is_empty(), "{:?}", report.failures);
    assert!(report.stray_findings.len() == 1 && report.stray_findings[0].note);
}

#[test]
fn a_flood_of_findings_is_printed_in_two_lines() {
    let (mut judge, events) = judge(Mode::Command, 0);
    say(&mut judge, &["started"]);
    (0..12_031).for_each(|_| report_finding(&mut judge, FindingClass::LinkDown, "down"));
    report_finding(&mut judge, FindingClass::Stale, "stale");
    report_finding(&mut judge, FindingClass::LinkDown, "down");
    note(&mut judge, FindingClass::BusMasterOff, "left over");
    judge.finish(end(Ending::Exit(0)));
    let reported = events.try_iter().filter_map(|event| match event {
        Event::Finding { text, note, .. } => Some((text, note)),
        _ => None,
    });
    let reported: Vec<_> = reported.collect();
    let reported: Vec<_> = reported.iter().map(|(text, note)| (text.as_str(), *note)).collect();
    assert_eq!(
        reported,
        [
            ("peer0: pci.link-down: down", false),
            ("peer0: pci.link-down: 12031 times in all", false),
            ("peer0: iommu.stale: stale", false),
            ("peer0: pci.link-down: 12032 times in all", false),
            ("peer0: pci.bus-master-off: left over", true),
        ]
    );
}
