//! The bench's judgement of its figures. Its program has no test harness, so these parts of it are
//! tested here.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(dead_code, missing_debug_implementations, reason = "the bench itself uses the rest")]
#![allow(unreachable_pub, reason = "modules of a program")]

#[path = "../benches/checking/options.rs"]
mod options;
#[path = "../benches/checking/report.rs"]
mod report;

use options::Options;
use report::{Figure, Goal, Report, median};

fn report(figures: &[(f64, Goal)]) -> Report {
    let mut report = Report::default();
    for &(value, goal) in figures {
        let (name, unit, compared_with) = ("a figure", "of memcpy", "memcpy");
        report.add(Figure { name, value, unit, compared_with, goal, rate: Some((1.5, "GB/s")) });
    }
    report
}

#[test]
fn a_goal_that_was_missed_is_marked() {
    let report = report(&[
        (0.8, Goal::AtLeast(0.8)),
        (0.7999, Goal::AtLeast(0.8)),
        (32.0, Goal::AtMost(32.0)),
        (32.5, Goal::AtMost(32.0)),
    ]);
    assert!(report.misses_a_goal());
    let table = report.to_string();
    let missed: Vec<_> = table.lines().map(|line| line.contains("MISSED")).collect();
    assert_eq!(missed, [false, false, true, false, true, true], "{table}");
    assert!(table.ends_with("2 of 4 goals MISSED\n"), "{table}");
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    let met: Vec<_> = json.as_array().unwrap().iter().map(|figure| &figure["met"]).collect();
    assert_eq!(met, [true, false, true, false]);
    assert_eq!(json[3]["goal"], 32.0);
}

#[test]
fn goals_that_are_met_are_not() {
    let report = report(&[(0.9, Goal::AtLeast(0.8)), (1.0, Goal::AtMost(32.0))]);
    assert!(!report.misses_a_goal());
    assert!(!report.to_string().contains("MISSED"), "{report}");
}

#[test]
fn what_was_not_measured_meets_no_goal() {
    for goal in [Goal::AtLeast(0.8), Goal::AtMost(32.0)] {
        assert!(report(&[(median(vec![]), goal)]).misses_a_goal());
    }
}

#[test]
fn nothing_on_the_command_line_is_passed_over() {
    let read = |line: &str| Options::read(line.split_whitespace().map(ToOwned::to_owned));
    assert_eq!(read("--bench").unwrap(), Options::default());
    assert!(read("--bench").unwrap().is_whole());
    let options = read("--strict copies --bench").unwrap();
    assert!(options.strict && options.wants("copies") && !options.wants("ioat"));
    assert!(!options.is_whole());
    for wrong in ["--strikt", "copy", "--bench strict"] {
        let error = read(wrong).unwrap_err();
        assert!(error.contains("neither --strict nor one of copies, ioat"), "{error}");
    }
}
