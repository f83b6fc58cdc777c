//! `peerdma test --list`: the scenarios, and the tests in them.

use std::fmt::Write as _;

use peerdma_suite::cases::{self, ListedCase};
use peerdma_suite::prepare;
use peerdma_suite::scenario::Scenario;
use peerdma_support::say;
use serde::Serialize;

use super::{Exit, Failure, output};

/// What stands between the two ends of a path in a test's name.
const TO: &str = "-to-";

/// A scenario with its tests.
#[derive(Debug, Serialize)]
struct Listed<'s> {
    #[serde(flatten)]
    scenario: &'s Scenario,
    /// None: the agent could not be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    cases: Option<Vec<ListedCase>>,
}

/// Lists all scenarios with the number of their tests; of those that are `wanted`, if any are, every test by name.
pub(super) fn run(wanted: Option<&[Scenario]>, json: bool) -> Result<u8, Failure> {
    let all = Scenario::all().map_err(Failure::internal)?;
    let listed = match (with_cases(wanted.unwrap_or(&all)), wanted) {
        (Err(failure), None) => {
            say!(
                "the scenarios without their tests, which the guest's agent knows: {}",
                failure.message
            );
            all.iter().map(|scenario| Listed { scenario, cases: None }).collect()
        }
        (listed, _) => listed?,
    };
    match (json, wanted) {
        (true, _) => output::json(&listed)?,
        (false, None) => {
            output::print(&overview(&listed))?;
            say!("* runs by default; l takes many minutes: by its name, or with --all --long");
            say!("--list --scenario NAME names its tests, --list --all --long those of all");
        }
        (false, Some(_)) => output::print(&listed.iter().map(in_full).collect::<String>())?,
    }
    Ok(Exit::Success as u8)
}

fn with_cases(scenarios: &[Scenario]) -> Result<Vec<Listed<'_>>, Failure> {
    let agent = prepare::agent().map_err(Failure::environment)?;
    let list = |scenario| {
        let cases = cases::of(scenario, &agent).map_err(Failure::environment)?;
        Ok(Listed { scenario, cases: Some(cases) })
    };
    scenarios.iter().map(list).collect()
}

/// A line for each scenario.
fn overview(listed: &[Listed<'_>]) -> String {
    let width = listed.iter().map(|listed| listed.scenario.name.len()).max().unwrap_or(0);
    let line = |Listed { scenario, cases }: &Listed<'_>| {
        let mark = match (scenario.default, scenario.long) {
            (true, _) => '*',
            (_, true) => 'l',
            (false, false) => ' ',
        };
        let count = match cases.as_deref() {
            None => String::new(),
            // It runs the user's command.
            Some([]) => format!("{:>4}  ", '-'),
            Some(cases) => format!("{:>4}  ", cases.len()),
        };
        format!("{mark} {:width$}  {count}{}\n", scenario.name, scenario.description)
    };
    listed.iter().map(line).collect()
}

/// A scenario with every test by name; a group that is a matrix is drawn as one first.
fn in_full(Listed { scenario, cases }: &Listed<'_>) -> String {
    let cases = cases.as_deref().unwrap_or_default();
    let count = match cases.len() {
        0 => "no test of its own".into(),
        1 => "1 test".into(),
        count => format!("{count} tests"),
    };
    let mut text = format!("{}: {}: {count}\n", scenario.name, scenario.description);
    for group in cases.chunk_by(|one, next| one.parts().0 == next.parts().0) {
        text += &matrix(group).unwrap_or_default();
        for case in group {
            // Writing to a string does not fail.
            let _ = writeln!(text, "  {:9} {}", case.kind, case.name);
        }
    }
    text
}

/// The tests of a group whose names are all `FROM-to-TO`, as a table.
fn matrix(group: &[ListedCase]) -> Option<String> {
    let cells: Vec<_> =
        group.iter().map(|case| case.parts().1.split_once(TO)).collect::<Option<_>>()?;
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    for (row, column) in &cells {
        if !rows.contains(row) {
            rows.push(*row);
        }
        if !columns.contains(column) {
            columns.push(*column);
        }
    }
    if rows.len() < 2 || columns.len() < 2 {
        return None;
    }
    let name = group.first()?.parts().0;
    let width = rows.iter().map(|row| row.len()).max().unwrap_or(0).max("FROM".len());
    let heads: String = columns.iter().map(|column| format!("  {column}")).collect();
    let mut text =
        format!("  {name}.FROM{TO}TO, {} cells:\n    {:width$}{heads}\n", cells.len(), "FROM");
    for row in rows {
        let marks = columns.iter().map(|column| {
            let mark = if cells.contains(&(row, *column)) { 'x' } else { '-' };
            format!("  {mark:<width$}", width = column.len())
        });
        let _ = writeln!(text, "    {row:width$}{}", marks.collect::<String>().trim_end());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(names: &[&str]) -> Vec<ListedCase> {
        let case = |name: &&str| ListedCase { name: (*name).into(), kind: "positive".into() };
        names.iter().map(case).collect()
    }

    #[test]
    fn a_matrix_shows_the_cell_that_is_missing() {
        let names = ["m.a-to-x", "m.a-to-long", "m.bb-to-x"];
        assert_eq!(
            matrix(&cases(&names)).unwrap(),
            "  m.FROM-to-TO, 3 cells:\n    FROM  x  long\n    a     x  x\n    bb    x  -\n"
        );
        for other in [&names[..2], &[], &["m.a-to-x", "m.b-to-y", "m.c"]] {
            assert_eq!(matrix(&cases(other)), None, "{other:?}");
        }
    }
}
