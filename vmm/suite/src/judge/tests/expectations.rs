//! What a user's own test, or a guest, expects.

use super::*;

#[test]
fn a_user_s_test_says_what_it_expects() {
    let functions =
        || vec![("peer0".to_owned(), Bdf::new(1, 0, 0)), ("peer1".into(), Bdf::new(2, 0, 0))];
    // Expected outside; said in the guest; found, by peer0; how it ends.
    for (outside, inside, found, passes) in [
        (&["iommu.stale"][..], &[][..], 1, true),
        (&["iommu.stale"], &[], 0, false),
        (&["iommu.stale:peer0"], &[], 3, true),
        (&["iommu.stale:peer1"], &[], 1, false),
        (&["iommu.stale 0"], &[], 0, true),
        (&["iommu.stale 0"], &[], 2, true),
        (&["iommu.unmapped 0"], &[], 1, false),
        (&[], &["expect iommu.stale:01:00.0"], 1, true),
        (&[], &["expect iommu.stale:02:00.0 0"], 1, false),
        (&[], &["expect iommu.stale 1 2"], 3, false),
        (&[], &["expect iommu.stale"], 0, false),
    ] {
        let (mut judge, _events) = judge(Mode::Command, 0);
        let expectations: Vec<Expectation> =
            outside.iter().map(|text| text.parse().unwrap()).collect();
        judge.expect(&expectations, functions());
        say(&mut judge, &["started"]);
        let answers = say(&mut judge, inside);
        assert!(answers.iter().all(|answer| answer == "ok"), "{answers:?}");
        (0..found).for_each(|_| report_finding(&mut judge, FindingClass::Stale, "#1"));
        let report = judge.finish(end(Ending::Exit(0)));
        let case = &report.cases[0];
        let wanted = if passes { Status::Passed } else { Status::Failed };
        assert_eq!(case.status, wanted, "{outside:?} {inside:?} {found}: {case:?}");
        assert_eq!(case.expectations.len(), outside.len() + inside.len());
        let listed = case.expectations.iter().any(|text| text.contains("from inside the guest"));
        assert_eq!(listed, !inside.is_empty());
        // It is listed all the same.
        assert_eq!(case.findings.is_empty(), found == 0);
    }
}

#[test]
fn what_a_guest_expects_is_bounded_and_makes_sense() {
    let (mut judge, _events) = judge(Mode::Command, 0);
    judge.expect(&[], vec![("peer0".into(), Bdf::new(1, 0, 0))]);
    for wrong in
        ["expect iommu.stael", "expect iommu.stale:peer7", "expect iommu.stale 3 2", "expect"]
    {
        assert!(say(&mut judge, &[wrong])[0].starts_with("fail "), "{wrong}");
    }
    let (mut judge, _events) = super::judge(Mode::Command, 0);
    let lines: Vec<_> = (0..1000).map(|i| format!("expect iommu.stale:f{i} 0")).collect();
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let answers = say(&mut judge, &lines);
    assert!(answers[0] == "ok" && answers[999].starts_with("fail "));
    // The same once more takes no room.
    assert_eq!(say(&mut judge, &["expect iommu.stale:f0 1"]), ["ok"]);
    let (mut judge, _events) = super::judge(Mode::Test, 0);
    assert!(say(&mut judge, &["expect iommu.stale"])[0].starts_with("fail "));
}

#[test]
fn what_is_allowed_outside_holds_for_each_test() {
    let (mut judge, _events) = judge(Mode::Test, 0);
    judge.expect(&["iommu.stale:peer0".parse().unwrap()], Vec::new());
    say(&mut judge, &["case begin a"]);
    report_finding(&mut judge, FindingClass::Stale, "#1");
    assert_eq!(say(&mut judge, &["case end ok", "case begin b", "case end ok"]), ["ok"; 3]);
    say(&mut judge, &["case begin c"]);
    report_finding(&mut judge, FindingClass::Unmapped, "#2");
    assert!(say(&mut judge, &["case end ok"])[0].starts_with("fail "));
}

#[test]
fn a_guest_cannot_take_back_what_the_user_demands_nor_hide_what_was_found() {
    let (mut judge, _events) = judge(Mode::Command, 0);
    judge.expect(&["iommu.stale".parse().unwrap()], Vec::new());
    assert_eq!(say(&mut judge, &["started", "expect iommu.stale 0"]), ["ok"; 2]);
    let report = judge.finish(end(Ending::Exit(0)));
    assert_eq!(report.cases[0].status, Status::Failed, "{report:?}");

    // A program of the guest's that calls itself a test is listed with all that it expects.
    let (mut judge, _events) = super::judge(Mode::Command, 0);
    judge.expect(&["iommu.stale".parse().unwrap()], Vec::new());
    say(&mut judge, &["started", "case begin x", "case expect iommu.stale 0"]);
    report_finding(&mut judge, FindingClass::Stale, "#1");
    say(&mut judge, &["case end ok"]);
    let report = judge.finish(end(Ending::Exit(0)));
    assert!(report.cases[0].expectations.iter().any(|listed| listed.contains("inside the guest")));
    assert_eq!(report.cases[0].findings.len(), 1);
    // What was demanded has come, although within that test.
    assert_eq!(report.cases[1].status, Status::Passed, "{report:?}");
}

#[test]
fn a_note_is_not_the_finding_that_a_test_of_the_lab_s_wants() {
    for (mode, line, passes) in [
        (Mode::Test, "case expect pci.bus-master-off", false),
        (Mode::Command, "expect pci.bus-master-off", true),
    ] {
        let (mut judge, _events) = judge(mode, 0);
        say(&mut judge, &["started"]);
        if mode == Mode::Test {
            say(&mut judge, &["case begin a"]);
        }
        say(&mut judge, &[line]);
        note(&mut judge, FindingClass::BusMasterOff, "#1");
        say(&mut judge, &["case end ok"]);
        let report = judge.finish(end(Ending::Exit(0)));
        let wanted = if passes { Status::Passed } else { Status::Failed };
        assert_eq!(report.cases[0].status, wanted, "{report:?}");
    }
}
