//! A tree of lines.

use std::fmt::Write as _;

use super::{Branch, Drawing};

pub(super) fn draw(drawing: &Drawing) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{}", drawing.headline());
    for bridge in &drawing.host_bridges {
        let _ = writeln!(text, "{}", bridge.title);
        rest(&mut text, bridge, "");
    }
    text
}

fn rest(text: &mut String, branch: &Branch, indent: &str) {
    let rail = if branch.below.is_empty() { "  " } else { "│ " };
    for detail in &branch.details {
        let _ = writeln!(text, "{indent}{rail}  {detail}");
    }
    for (index, child) in branch.below.iter().enumerate() {
        let last = index + 1 == branch.below.len();
        let (knot, rail) = if last { ("└─", "  ") } else { ("├─", "│ ") };
        let _ = writeln!(text, "{indent}{knot} {}", child.title);
        rest(text, child, &format!("{indent}{rail} "));
    }
}
