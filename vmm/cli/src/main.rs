//! The command line tool of the peerdma lab.

use std::process::ExitCode;

fn main() -> ExitCode {
    peerdma::main()
}
