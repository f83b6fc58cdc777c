//! The test report in KTAP, version 1 (Documentation/dev-tools/ktap.rst of the kernel).

use crate::cases::{Stop, Verdict};
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

/// The lines before the first result of `count`.
pub fn head(count: usize) -> [String; 2] {
    ["KTAP version 1".into(), format!("1..{count}")]
}

/// The lines for the result number `number`. The reason of a failure comes before it, as KTAP wants diagnostics.
pub fn result(number: usize, name: &str, verdict: &Verdict) -> Vec<String> {
    match verdict {
        Ok(()) => vec![format!("ok {number} {name}")],
        Err(Stop::Skip(reason)) => vec![format!("ok {number} {name} # SKIP {}", one_line(reason))],
        Err(Stop::Fail(reason)) => {
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
        assert_eq!(result(1, "a.b", &Ok(())), ["ok 1 a.b"]);
        assert_eq!(
            result(2, "a.c", &Err(Stop::Skip("no\nway".into()))),
            ["ok 2 a.c # SKIP no; way"]
        );
        assert_eq!(
            result(3, "a.d", &Err(Stop::Fail("first\nsecond".into()))),
            ["# first", "# second", "not ok 3 a.d"]
        );
        assert_eq!(head(4), ["KTAP version 1", "1..4"]);
    }
}
