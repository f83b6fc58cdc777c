//! Figures: a table for people, `target/bench/summary.json` for programs.

use std::fmt;
use std::path::Path;

use serde::Serialize;

/// What the project promises.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(untagged)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// Whether `value` reaches it; what is not a number does not.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(goal) => value >= goal,
            Self::AtMost(goal) => value <= goal,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(goal) => f.pad(&format!(">= {goal}")),
            Self::AtMost(goal) => f.pad(&format!("<= {goal}")),
        }
    }
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Figure {
    pub name: &'static str,
    pub value: f64,
    pub unit: &'static str,
    /// What it was compared with in the same run.
    pub compared_with: &'static str,
    pub goal: Goal,
    /// The rate behind a ratio, with its unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<(f64, &'static str)>,
}

impl Figure {
    fn meets_its_goal(&self) -> bool {
        self.goal.is_met(self.value)
    }
}

/// A figure, and what is to be said of it.
#[derive(Serialize)]
struct Judged<'a> {
    #[serde(flatten)]
    figure: &'a Figure,
    met: bool,
}

#[derive(Debug, Default)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    pub fn add(&mut self, figure: Figure) {
        self.figures.push(figure);
    }

    /// Whether there is a goal that was missed.
    pub fn misses_a_goal(&self) -> bool {
        !self.figures.iter().all(Figure::meets_its_goal)
    }

    /// As JSON, with a newline.
    pub fn json(&self) -> serde_json::Result<String> {
        let judged = |figure| Judged { figure, met: figure.meets_its_goal() };
        let figures: Vec<_> = self.figures.iter().map(judged).collect();
        Ok(serde_json::to_string_pretty(&figures)? + "\n")
    }

    pub fn write(&self) -> std::io::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("summary.json"), self.json()?)?;
        println!("written to target/bench/summary.json");
        Ok(())
    }
}

/// The table: three decimals, so that a goal that was barely missed does not look reached.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<44} {:>10} {:<16} {:>8}         rate", "figure", "value", "unit", "goal")?;
        for figure in &self.figures {
            let Figure { name, value, unit, goal, rate, .. } = figure;
            let mark = if figure.meets_its_goal() { "" } else { "MISSED" };
            let rate = rate.map(|(rate, unit)| format!("{rate:.2} {unit}")).unwrap_or_default();
            let line = format!("{name:<44} {value:>10.3} {unit:<16} {goal:>8} {mark:<6}  {rate}");
            writeln!(f, "{}", line.trim_end())?;
        }
        let missed = self.figures.iter().filter(|figure| !figure.meets_its_goal()).count();
        match missed {
            0 => writeln!(f, "no goal of {} was missed", self.figures.len()),
            missed => writeln!(f, "{missed} of {} goals MISSED", self.figures.len()),
        }
    }
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
