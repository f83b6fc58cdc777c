//! The table of all pairs as a page, and as a picture.

use std::fmt::Write as _;

use super::matrix::{Cell, Matrix};
use crate::linux::MapType;

/// Side of a cell in the picture, in pixels.
const SIDE: usize = 44;
/// Room for names, on the left and on top.
const MARGIN: usize = 110;

impl Matrix<'_, '_> {
    /// A page with the table; each cell says why on hovering, and below.
    pub fn to_html(&self) -> String {
        let mut text = String::from(
            "<!doctype html>\n<meta charset=\"utf-8\">\n<title>P2P DMA between devices</title>\n\
             <style>body{font-family:sans-serif}td,th{padding:4px 8px;text-align:center}\
             .bus{background:#b7e1a1}.host{background:#fce8a6}.none{background:#f4b6b0}\
             .unknown{background:#d9d9d9}</style>\n<table>\n<tr><th></th>",
        );
        for at in &self.devices {
            let _ = write!(text, "<th>{}</th>", escaped(self.machine.name(*at)));
        }
        text += "</tr>\n";
        for (at, row) in self.devices.iter().zip(&self.cells) {
            let _ = write!(text, "<tr><th>{}</th>", escaped(self.machine.name(*at)));
            for cell in row {
                let _ = match cell {
                    None => write!(text, "<td></td>"),
                    Some(cell) => write!(
                        text,
                        "<td class=\"{}\" title=\"{}\">{}</td>",
                        class(cell),
                        escaped(&cell.reason),
                        cell.symbol()
                    ),
                };
            }
            text += "</tr>\n";
        }
        let _ = write!(text, "</table>\n<pre>{}</pre>\n", escaped(&self.to_text()));
        text
    }

    /// The table as a picture.
    pub fn to_svg(&self) -> String {
        let side = MARGIN + SIDE * self.devices.len() + 10;
        let mut text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{side}\" height=\"{side}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n"
        );
        for (index, at) in self.devices.iter().enumerate() {
            let name = escaped(self.machine.name(*at));
            let middle = MARGIN + SIDE * index + SIDE / 2;
            let _ = writeln!(
                text,
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{name}</text>\n\
                 <text transform=\"translate({},{}) rotate(-60)\">{name}</text>",
                MARGIN - 6,
                middle + 4,
                middle,
                MARGIN - 6
            );
        }
        for (row, cells) in self.cells.iter().enumerate() {
            for (column, cell) in cells.iter().enumerate() {
                let Some(cell) = cell else { continue };
                let (x, y) = (MARGIN + SIDE * column, MARGIN + SIDE * row);
                let fill = match class(cell) {
                    "bus" => "#b7e1a1",
                    "host" => "#fce8a6",
                    "none" => "#f4b6b0",
                    _ => "#d9d9d9",
                };
                let _ = writeln!(
                    text,
                    "<g><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{SIDE}\" \
                     height=\"{SIDE}\" fill=\"{fill}\" stroke=\"white\"/><text x=\"{}\" y=\"{}\" \
                     text-anchor=\"middle\">{}</text></g>",
                    escaped(&cell.reason),
                    x + SIDE / 2,
                    y + SIDE / 2 + 4,
                    cell.symbol()
                );
            }
        }
        text + "</svg>\n"
    }
}

fn class(cell: &Cell) -> &'static str {
    match cell.verdict.certain() {
        Some(MapType::BusAddress) => "bus",
        Some(MapType::ThroughHostBridge) => "host",
        Some(MapType::NotSupported) => "none",
        None => "unknown",
    }
}

/// Names come from a stranger's file.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
