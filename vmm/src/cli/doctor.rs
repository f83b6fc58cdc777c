//! `peerdma doctor`.

use clap::Args;

use super::{Exit, Failure, output};
use crate::host::doctor::diagnose;

/// How to tell it.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Ends with 0 when guests can be built and run here, with 3 when something that this takes is missing. Whether KVM works \
is found out by running a payload in it, not by opening it: there are machines where it opens and runs no kernel.")]
pub(super) struct Arguments {
    /// Print the table as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Failure> {
    let diagnosis = diagnose();
    if arguments.json {
        output::json(&diagnosis)?;
    } else {
        output::print(&diagnosis.to_string())?;
    }
    Ok(if diagnosis.is_fit() { Exit::Success as u8 } else { Exit::Environment as u8 })
}
