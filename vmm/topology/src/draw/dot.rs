//! Drawings for Graphviz.

use std::fmt::Write as _;

use super::{Branch, Drawing};

pub(super) fn draw(drawing: &Drawing) -> String {
    let mut text = format!(
        "digraph {:?} {{\n  rankdir=LR;\n  node [shape=box fontname=monospace];\n",
        drawing.name
    );
    let mut next = 0;
    for bridge in &drawing.host_bridges {
        node(&mut text, bridge, None, &mut next);
    }
    text.push_str("}\n");
    text
}

fn node(text: &mut String, branch: &Branch, above: Option<usize>, next: &mut usize) {
    let own = *next;
    *next += 1;
    let lines: Vec<_> = std::iter::once(&branch.title).chain(&branch.details).collect();
    // Writing to a string does not fail. Names are plain, so nothing needs quoting but the line ends.
    let label = lines.iter().map(|line| format!("{line}\\l")).collect::<String>();
    let _ = writeln!(text, "  n{own} [label=\"{label}\"];");
    if let Some(above) = above {
        let _ = writeln!(text, "  n{above} -> n{own};");
    }
    for child in &branch.below {
        node(text, child, Some(own), next);
    }
}
