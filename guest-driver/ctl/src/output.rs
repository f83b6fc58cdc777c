//! Results, for people or as JSON.

use crate::error::CtlError;
use serde_json::{Value, json};
use std::io::Write;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// As text.
    People,
    /// One JSON object a line.
    Json,
}

/// What a command has found out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    /// For people, without the last line feed; may be empty.
    pub(crate) text: String,
    /// For programs.
    pub(crate) json: Value,
}

impl Answer {
    pub(crate) fn new(text: impl Into<String>, json: Value) -> Self {
        Self { text: text.into(), json }
    }
}

impl Output {
    /// Prints an answer. A reader that is gone is not an error.
    pub(crate) fn answer(self, answer: &Answer) {
        match self {
            Self::People if answer.text.is_empty() => {}
            Self::People => line(&answer.text),
            Self::Json => line(&answer.json.to_string()),
        }
    }

    /// Prints an error: to standard error for people, among the results for programs.
    pub(crate) fn error(self, error: &CtlError, place: &str) {
        match self {
            Self::People => eprintln!("peerdmactl: {place}{error}"),
            Self::Json => line(
                &json!({ "error": error.message, "hint": error.hint, "code": error.code })
                    .to_string(),
            ),
        }
    }
}

fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
    let _ = out.flush();
}

/// An address as JSON has it: a string, since its numbers end at 2^53.
pub(crate) fn hex(address: u64) -> String {
    format!("{address:#x}")
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    const UNITS: [(u32, &str); 3] = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match UNITS.iter().find(|(shift, _)| count >= 1 << shift && count.trailing_zeros() >= *shift) {
        Some((shift, unit)) => format!("{} {unit}", count >> shift),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_exact() {
        let texts = [0, 1, 1023, 1024, 1025, 1 << 20, 3 << 20, 1 << 30].map(super::bytes);
        assert_eq!(
            texts,
            ["0 bytes", "1 bytes", "1023 bytes", "1 KiB", "1025 bytes", "1 MiB", "3 MiB", "1 GiB"]
        );
    }
}
