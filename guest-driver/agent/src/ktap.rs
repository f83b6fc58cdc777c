//! The test report in KTAP, version 1 (Documentation/dev-tools/ktap.rst of the kernel).

use crate::vmm::{Vmm, VmmError};

/// Where the report goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Line by line over the guest protocol: the VMM prints and collects it.
    Vmm,
    /// To the terminal, for a user who runs the tests by hand.
    Terminal,
}

impl Output {
    /// Hands over one line. Without a VMM it goes to the terminal.
    ///
    /// # Errors
    /// When the conversation with the VMM breaks down.
    pub fn line(self, vmm: Option<&mut Vmm>, line: &str) -> Result<(), VmmError> {
        match (self, vmm) {
            (Self::Vmm, Some(vmm)) => vmm.ktap(line),
            _ => {
                println!("{line}");
                Ok(())
            }
        }
    }
}

/// How a test ended, with the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'a> {
    /// It passed.
    Passed,
    /// It could not run here.
    Skipped(&'a str),
    /// It failed.
    Failed(&'a str),
}

/// The lines before the first result of `count`.
pub fn head(count: usize) -> [String; 2] {
    ["KTAP version 1".into(), format!("1..{count}")]
}

/// The lines for the result number `number`. The reason of a failure comes before it, as KTAP wants diagnostics.
pub fn result(number: usize, name: &str, status: Status<'_>) -> Vec<String> {
    match status {
        Status::Passed => vec![format!("ok {number} {name}")],
        Status::Skipped(reason) => vec![format!("ok {number} {name} # SKIP {}", one_line(reason))],
        Status::Failed(reason) => {
            let reasons = reason.lines().map(|line| format!("# {}", line.trim_end()));
            reasons.chain([format!("not ok {number} {name}")]).collect()
        }
    }
}

/// Joins lines: a directive has only one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_in_ktap() {
        assert_eq!(result(1, "a.b", Status::Passed), ["ok 1 a.b"]);
        assert_eq!(result(2, "a.c", Status::Skipped("no\nway")), ["ok 2 a.c # SKIP no; way"]);
        assert_eq!(
            result(3, "a.d", Status::Failed("first\nsecond")),
            ["# first", "# second", "not ok 3 a.d"]
        );
        assert_eq!(head(4), ["KTAP version 1", "1..4"]);
    }
}
