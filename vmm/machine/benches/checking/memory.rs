//! What a VMM takes besides the memory that it lends to its guest: measured in a guest's run,
//! reported here.

use std::path::Path;

use serde_json::Value;

use crate::report::{Figure, Goal, Report};

/// Where `make vm-test` leaves its figures.
const SUMMARY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/vm-test/summary.json");

pub fn run(report: &mut Report) {
    let Some(kib) = most(Path::new(SUMMARY)) else {
        eprintln!(
            "memory: no figure, since there is no target/vm-test/summary.json: make vm-test writes it"
        );
        return;
    };
    report.add(Figure {
        name: "VMM's own memory, last make vm-test",
        value: kib / 1024.0,
        unit: "MiB",
        compared_with: "nothing: anonymous and file pages at the end of the largest scenario",
        goal: Goal::AtMost(32.0),
        rate: None,
    });
}

/// The most that any scenario took, in KiB.
fn most(summary: &Path) -> Option<f64> {
    let summary: Value = serde_json::from_slice(&std::fs::read(summary).ok()?).ok()?;
    let scenarios = summary.get("scenarios")?.as_array()?.iter();
    scenarios
        .filter_map(|scenario| scenario.pointer("/counters/vmm-own-memory-kib")?.as_f64())
        .max_by(f64::total_cmp)
}
