//! Marks that the shell script in `docs/machine-files.md` prints between its parts.

use crate::gather::Gathered;
use crate::system;

/// Begins a part.
const MARK: &str = "## peerdma: ";

/// A part whose lines have no form of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `uname -r`.
    Release,
    /// `/proc/cmdline`, or some of its parameters, one a line.
    CommandLine,
    /// All others: their lines say what they are.
    Other,
}

/// The part that `text` begins.
pub(super) fn mark(text: &str, gathered: &mut Gathered) -> Option<Part> {
    let name = text.strip_prefix(MARK)?;
    gathered.sources.insert("script");
    Some(match name.trim() {
        "uname" => Part::Release,
        "cmdline" => Part::CommandLine,
        "sysfs" => {
            gathered.is_live = true;
            Part::Other
        }
        _ => Part::Other,
    })
}

/// Takes a line of `part`; `parameters` collects those of the command line.
pub(super) fn line(
    part: Part,
    parameters: &mut Option<(String, usize)>,
    gathered: &mut Gathered,
    text: &str,
    number: usize,
) -> bool {
    match part {
        Part::Release => system::release(gathered, text, number),
        Part::CommandLine => {
            let (all, _) = parameters.get_or_insert_with(|| (String::new(), number));
            // Linux takes no more than this; nor does anything here.
            if all.len() < 4096 {
                all.push_str(text);
                all.push(' ');
            }
        }
        Part::Other => return false,
    }
    true
}
