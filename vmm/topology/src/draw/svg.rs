//! A picture: boxes from left to right, a column for each level of the tree.

use std::fmt::Write as _;

use super::{Branch, Drawing};

/// Space between two columns, in pixels.
const LANE: usize = 40;
/// Least width of a box.
const BOX: usize = 340;
/// Width of eight characters, rounded up.
const EIGHT: usize = 59;
/// Height of a line of text.
const LINE: usize = 16;
/// Space around everything, and between boxes.
const GAP: usize = 14;

pub(super) fn draw(drawing: &Drawing) -> String {
    let longest = drawing.host_bridges.iter().map(longest).max().unwrap_or(0);
    let boxes = BOX.max((longest * EIGHT).div_ceil(8) + GAP);
    let mut body = String::new();
    let mut bottom = GAP + 2 * LINE;
    for bridge in &drawing.host_bridges {
        place(&mut body, bridge, 0, boxes, &mut bottom);
    }
    let depth = drawing.host_bridges.iter().map(depth).max().unwrap_or(0);
    let (width, height) = (depth * (boxes + LANE) + GAP, bottom + GAP);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"monospace\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{GAP}\" y=\"{}\" \
         font-weight=\"bold\">{}</text>\n{body}</svg>\n",
        GAP + LINE,
        escape(&drawing.headline())
    )
}

fn depth(branch: &Branch) -> usize {
    1 + branch.below.iter().map(depth).max().unwrap_or(0)
}

/// Characters of the longest line in it.
fn longest(branch: &Branch) -> usize {
    let lines = std::iter::once(&branch.title).chain(&branch.details);
    let own = lines.map(|line| line.chars().count()).max().unwrap_or(0);
    branch.below.iter().map(longest).fold(own, usize::max)
}

/// Draws a box of this `width` and what is below it; gives where lines end that lead to it.
fn place(
    body: &mut String,
    branch: &Branch,
    level: usize,
    width: usize,
    bottom: &mut usize,
) -> (usize, usize) {
    let (x, y) = (GAP + level * (width + LANE), *bottom);
    let lines = 1 + branch.details.len();
    let height = lines * LINE + GAP / 2;
    let joint = (x, y + LINE / 2 + GAP / 4);
    // Writing to a string does not fail.
    let _ = writeln!(
        body,
        "<rect x=\"{x}\" y=\"{y}\" width=\"{width}\" height=\"{height}\" fill=\"#f4f6fa\" stroke=\"#345\"/>"
    );
    for (index, line) in std::iter::once(&branch.title).chain(&branch.details).enumerate() {
        let weight = if index == 0 { " font-weight=\"bold\"" } else { "" };
        let _ = writeln!(
            body,
            "<text x=\"{}\" y=\"{}\"{weight}>{}</text>",
            x + 6,
            y + LINE * (index + 1) - 2,
            escape(line)
        );
    }
    let own_bottom = y + height + GAP;
    for child in &branch.below {
        let (to_x, to_y) = place(body, child, level + 1, width, bottom);
        let from = x + width;
        let _ = writeln!(
            body,
            "<path d=\"M{from},{} H{} V{to_y} H{to_x}\" fill=\"none\" stroke=\"#345\"/>",
            joint.1,
            from + LANE / 2
        );
    }
    *bottom = own_bottom.max(*bottom);
    joint
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
