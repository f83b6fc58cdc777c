//! `make bench`: what checking costs, next to a plain copy over the same places in the same run.
//!
//! One thread, IOMMU on, every transaction checked. Each figure is the median of several rounds, and each round
//! measures the lab and its peer one after the other, so that a machine whose speed drifts does not matter. Time is
//! this thread's processor time: what other programs take meanwhile does not count.

#![allow(unreachable_pub, missing_debug_implementations, reason = "a program, not a library")]
#![allow(clippy::expect_used, reason = "a bench that cannot go on ends")]

mod clock;
mod copies;
mod ioat;
mod mappings;
mod memory;
mod report;
mod rig;
mod transactions;

use report::Report;

fn main() -> std::io::Result<()> {
    // `cargo test --benches` only asks whether it runs.
    let quick = std::env::args().any(|argument| argument == "--test");
    let rounds = if quick { 1 } else { 7 };
    // Any other argument picks a group: `cargo bench -p vmm --bench lab -- copies`.
    let chosen: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wanted = |group: &str| chosen.is_empty() || chosen.iter().any(|choice| choice == group);
    let mut report = Report::default();
    if wanted("copies") {
        copies::run(&mut report, rounds);
    }
    if wanted("ioat") {
        ioat::run(&mut report, rounds);
    }
    if wanted("transactions") {
        transactions::run(&mut report, rounds);
    }
    if wanted("mappings") {
        mappings::run(&mut report, rounds);
    }
    if wanted("memory") {
        memory::run(&mut report);
    }
    report.print();
    if quick || !chosen.is_empty() { Ok(()) } else { report.write() }
}
