//! Which tests a scenario's guest runs. The agent knows, and nobody else: it is asked, here on the host.

use std::path::Path;

use peerdma_images::command::{CommandError, Job};
use peerdma_images::progress::Silent;
use serde::Serialize;

use super::scenario::Scenario;

/// One test, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedCase {
    /// `GROUP.NAME`, as in reports.
    pub name: String,
    /// How it is judged: `positive`, `negative` or `partner`.
    pub kind: String,
}

impl ListedCase {
    /// Its group, and its name within that.
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or((&self.name, ""))
    }
}

/// The agent does not say which tests there are.
#[derive(Debug, thiserror::Error)]
pub enum CasesError {
    /// It cannot be asked, or does not know what the scenario asks for.
    #[error(
        "the scenario {scenario}: {source} Does {agent} belong to this peerdma? `make build` makes both"
    )]
    Agent {
        /// The scenario.
        scenario: String,
        /// The agent's file.
        agent: String,
        /// What went wrong.
        #[source]
        source: Box<CommandError>,
    },
    /// It said something else.
    #[error("{agent} listed {line:?}, which is not a test; is it a guest's agent?")]
    Line {
        /// The agent's file.
        agent: String,
        /// What it said.
        line: String,
    },
}

/// The tests that a guest of `scenario` runs, in their order, as its `agent` has them.
///
/// # Errors
/// When the agent does not say.
pub fn of(scenario: &Scenario, agent: &Path) -> Result<Vec<ListedCase>, CasesError> {
    // Without a name the agent would list all.
    if scenario.groups.is_empty() {
        return Ok(Vec::new());
    }
    let job = Job::new("Asking the guest's agent for its tests", &agent.to_string_lossy());
    let job = job.arg("list").args(&scenario.groups);
    let text = job.output(&Silent).map_err(|source| CasesError::Agent {
        scenario: scenario.name.clone(),
        agent: agent.display().to_string(),
        source: Box::new(source),
    })?;
    let wrong = |line: &str| CasesError::Line {
        agent: agent.display().to_string(),
        line: line.chars().take(100).collect(),
    };
    // Groups without a test are none: an agent that knows nothing of them says so.
    if text.is_empty() {
        return Err(wrong(""));
    }
    text.lines().map(|line| parse(line).ok_or_else(|| wrong(line))).collect()
}

/// `KIND GROUP.NAME`.
fn parse(line: &str) -> Option<ListedCase> {
    let (kind, name) = line.split_once(' ')?;
    let name = name.trim_start();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let (group, rest) = name.split_once('.')?;
    let is_plain = |text: &str| !text.is_empty() && text.chars().all(plain);
    [kind, group, rest]
        .into_iter()
        .all(is_plain)
        .then(|| ListedCase { name: name.to_owned(), kind: kind.to_owned() })
}

#[cfg(test)]
mod tests {
    use guest_agent::{cases, command_line};

    use super::*;

    #[test]
    fn what_the_agent_lists_is_understood() {
        let cases = cases::all();
        for (line, case) in command_line::list(&cases).lines().zip(&cases) {
            let listed = parse(line).unwrap();
            assert_eq!((listed.name, listed.kind.as_str()), (case.full_name(), case.kind.name()));
        }
        for line in ["", "x", "positive", "positive copy", "positive .x", "Usage: a.b <c>", " a.b"]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }

    #[test]
    fn a_scenario_demands_every_test_that_it_asks_for() {
        let tests = |groups: &[String]| match groups {
            // It runs the user's command.
            [] => 0,
            groups => cases::select(groups).unwrap().len(),
        };
        let all = Scenario::all().unwrap();
        let wrong = all.iter().filter(|scenario| scenario.at_least != tests(&scenario.groups));
        let wrong: Vec<_> = wrong
            .map(|scenario| format!("{}: at_least = {}", scenario.name, tests(&scenario.groups)))
            .collect();
        assert!(wrong.is_empty(), "vmm/suite/scenarios should have {wrong:#?}");
    }
}
