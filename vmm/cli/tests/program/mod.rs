//! Running the program as a user does.

#![allow(clippy::unwrap_used, dead_code, reason = "tests, not all of which use all of it")]

use std::process::{Command, Output, Stdio};

pub(crate) fn peerdma(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_peerdma"));
    command.args(arguments).stdin(Stdio::null()).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// Runs it; its exit code, what went to stdout, what went to stderr.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    outcome(&peerdma(arguments).output().unwrap())
}

pub(crate) fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}
