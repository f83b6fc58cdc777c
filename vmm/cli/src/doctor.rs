//! `peerdma doctor`.

use clap::Args;
use peerdma_suite::doctor::{self, Proof, diagnose};
use peerdma_suite::host::PROGRAM;
use peerdma_suite::test_host;

use super::{Exit, Failure, output};

/// The form of the answer.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Ends with 0 when guests can be built and run here, with 3 when something that this takes is missing. Whether KVM works \
is found out by running a payload in it, not by opening it: there are machines where it opens and runs no kernel. Where \
guests will run nested, the same payload runs in a test host as well, on the processor that QEMU emulates; skipped while \
the test host's kernel is not in the cache. PEERDMA_QEMU_CPU names another processor (-cpu of QEMU).")]
pub(super) struct Arguments {
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let diagnosis = diagnose(|qemu| {
        let skipped = |why: &dyn std::fmt::Display| Proof::Skipped(why.to_string());
        match test_host::in_cache() {
            Ok(Some(kernel)) => doctor::prove(qemu, kernel, PROGRAM.into()),
            Ok(None) => skipped(&"the test host's kernel is not in the cache yet"),
            Err(error) => skipped(&error),
        }
    });
    if arguments.json {
        output::json(&diagnosis)?;
    } else {
        output::print(&diagnosis.to_string())?;
    }
    Ok(if diagnosis.is_fit() { Exit::Success as u8 } else { Exit::Environment as u8 })
}
