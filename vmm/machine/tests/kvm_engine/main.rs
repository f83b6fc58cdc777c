//! The machine on this computer's real KVM, driven by programs of plain integer code that need no kernel. They run
//! even where KVM emulates all code at CPL 0. Without KVM they are skipped, and counted as ignored: libtest cannot do
//! that at run time, so this has a harness of its own.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

/// Tests of the module that this stands in.
macro_rules! trials {
    ($($test:ident),* $(,)?) => {
        vec![$($crate::harness::trial(module_path!(), stringify!($test), $test)),*]
    };
}

mod beside;
mod delayed;
mod ending;
mod harness;
mod interrupts;
mod memory;
mod mmio;
mod pausing;
mod ports;
mod program;
mod smp;

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let trials = [
        beside::trials(),
        delayed::trials(),
        delayed::running::trials(),
        ending::trials(),
        interrupts::trials(),
        memory::trials(),
        mmio::trials(),
        pausing::trials(),
        ports::trials(),
        smp::trials(),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials.into_iter().flatten().collect()).exit_code()
}
