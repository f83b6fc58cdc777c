//! Results on stdout.

use std::io::{self, Write};

use serde::Serialize;

use super::Failure;

/// Prints `text`. A reader that closed the pipe is content with what it has.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    check(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

/// Prints `value` as JSON.
pub(super) fn json(value: &impl Serialize) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(value).map_err(Failure::internal)?;
    text.push('\n');
    print(&text)
}

fn check(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::environment(format_args!("writing to stdout: {error}")))
        }
        _ => Ok(()),
    }
}
