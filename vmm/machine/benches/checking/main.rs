//! `make bench`: what checking costs, next to a plain copy over the same places in the same run.
//!
//! One thread, IOMMU on, every transaction checked. Each figure is the median of several rounds, and each round
//! measures the system and its peer one after the other, so that a machine whose speed drifts does not matter. Time is
//! this thread's processor time: what other programs take meanwhile does not count.

#![allow(unreachable_pub, missing_debug_implementations, reason = "a program, not a library")]
#![allow(clippy::expect_used, reason = "a bench that cannot go on ends")]

mod clock;
mod copies;
mod ioat;
mod mappings;
mod memory;
mod options;
mod record;
mod report;
mod rig;
mod transactions;
mod witness;

use std::process::ExitCode;

use options::Options;
use report::Report;

/// Groups can be picked, and goals made to count: `make bench ARGS='copies --strict'`.
fn main() -> std::io::Result<ExitCode> {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("error: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    let rounds = if options.quick { 1 } else { 7 };
    let mut report = Report::default();
    if options.wants("copies") {
        copies::run(&mut report, rounds);
    }
    if options.wants("ioat") {
        ioat::run(&mut report, rounds);
    }
    if options.wants("transactions") {
        transactions::run(&mut report, rounds);
    }
    if options.wants("witness") {
        witness::run(&mut report, rounds);
    }
    if options.wants("mappings") {
        mappings::run(&mut report, rounds);
    }
    if options.wants("record") {
        record::run(&mut report, rounds);
    }
    if options.wants("memory") {
        memory::run(&mut report);
    }
    print!("{report}");
    if options.is_whole() {
        report.write()?;
    }
    Ok(if options.strict && report.misses_a_goal() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
