//! First process and test program of a peerdma guest.

use std::process::ExitCode;

fn main() -> ExitCode {
    guest_agent::command_line::main().into()
}
