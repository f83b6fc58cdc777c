//! Figures: a table for people, `target/bench/summary.json` for programs.

use std::path::Path;

use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What it was compared with in the same run.
    pub compared_with: &'static str,
    /// What the project promises; at least this, or at most for a size.
    pub goal: f64,
    /// The rate behind a ratio, with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<(f64, &'static str)>,
}

#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    pub fn print(&self) {
        println!("{:<44} {:>10} {:<16} {:>8}  rate", "figure", "value", "unit", "goal");
        for figure in &self.figures {
            let Figure { name, value, unit, goal, rate, .. } = figure;
            let rate = rate.map(|(rate, unit)| format!("{rate:.2} {unit}")).unwrap_or_default();
            println!("{name:<44} {value:>10.2} {unit:<16} {goal:>8}  {rate}");
        }
    }

    pub fn write(&self) -> std::io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
        std::fs::create_dir_all(&folder)?;
        let file = folder.join("summary.json");
        let mut text = serde_json::to_string_pretty(&self.figures)?;
        text.push('\n');
        std::fs::write(file, text)?;
        println!("written to target/bench/summary.json");
        Ok(())
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
