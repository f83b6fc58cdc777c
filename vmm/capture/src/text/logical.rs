//! A statement that the width of a terminal or a mail may have broken into several lines.

use super::values::is_port_type;

/// A line of `lspci` with those that look like its continuation.
#[derive(Debug, Clone, Default)]
pub(super) struct Statement {
    /// Of its first line.
    pub(super) number: usize,
    /// The first line, without indentation.
    pub(super) first: String,
    /// All lines without any white space: wherever it was broken, what belongs together is together.
    pub(super) squeezed: String,
    /// All lines, with a space between them.
    pub(super) spaced: String,
    /// All lines without anything between them.
    pub(super) tight: String,
}

impl Statement {
    pub(super) fn new(number: usize, first: &str) -> Self {
        let mut statement = Self {
            number,
            first: first.trim().trim_end_matches('=').to_owned(),
            ..Self::default()
        };
        statement.join(first);
        statement
    }

    /// Adds a line that continues it.
    pub(super) fn join(&mut self, line: &str) {
        // A mail in quoted-printable ends a broken line so.
        let line = line.trim_end();
        let line = line.strip_suffix('=').unwrap_or(line);
        self.squeezed.extend(line.chars().filter(|c| !c.is_whitespace()));
        if !self.spaced.is_empty() {
            self.spaced.push(' ');
        }
        self.spaced.push_str(line.trim());
        self.tight.push_str(line.trim());
    }

    /// What `key` stands before, without white space.
    pub(super) fn after(&self, key: &str) -> Option<&str> {
        self.squeezed.strip_prefix(key)
    }
}

/// Beginnings of lines that `lspci` prints below a function's first line, apart from those that begin like `Word:`.
const KEYS: [&str; 6] =
    ["Memory at ", "I/O ports at ", "I/O behind ", "Expansion ROM at ", "Memory behind ", "Bus: "];

/// Whether `line` (trimmed) begins a statement. What does not may continue the one before.
pub(super) fn begins(line: &str) -> bool {
    if KEYS.iter().any(|key| line.starts_with(key)) || is_type(line) {
        return true;
    }
    let Some((key, _)) = line.split_once(':') else { return false };
    let letter = |c: char| c.is_ascii_alphanumeric() || " /-_.()#".contains(c);
    key.len() <= 40 && key.starts_with(|c: char| c.is_ascii_alphabetic()) && key.chars().all(letter)
        // The second part of a name that was broken begins with a small letter; keys of other files do, too.
        && (key.starts_with(|c: char| c.is_ascii_uppercase()) || OTHER_KEYS.contains(&key.trim()))
}

/// `Express Root Port (Slot+)`, shortened by `Capabilities: [40]`. Names of devices have such
/// words, too, and go on behind them.
fn is_type(line: &str) -> bool {
    let Some(rest) = line.strip_prefix("Express ") else { return false };
    let end = rest.find(['(', ',']).unwrap_or(rest.len());
    let name: String = rest[..end].split_whitespace().collect();
    is_port_type(&name)
}

/// Keys of `/proc/cpuinfo`.
const OTHER_KEYS: [&str; 4] = ["vendor_id", "cpu family", "model", "model name"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_begin_with_a_key() {
        for yes in [
            "ACSCtl: SrcValid+",
            "Kernel driver in use: nvme",
            "Capabilities: [40]",
            "Bus: x",
            "Memory at fb (x)",
            "Express Root Port (Slot+)",
            "Express Endpoint",
            "I/O behind bridge: x",
            "cpu family : 6",
            "Region 0: x",
        ] {
            assert!(begins(yes), "{yes}");
        }
        for no in [
            "ReqRedir- CmpltRedir-",
            "ze=1M]",
            "nd bridge: cba",
            "Prefix without",
            "Express Root Port A",
            "",
            "]: x",
        ] {
            assert!(!begins(no), "{no}");
        }
    }
}
