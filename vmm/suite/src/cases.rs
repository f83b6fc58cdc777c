//! Which tests a scenario's guest runs. The guest's agent is part of this program and says so here, on the host.

use guest_agent::cases::{self, Case};
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
    fn new(case: &Case) -> Self {
        Self { name: case.full_name(), kind: case.kind.name().to_owned() }
    }

    /// Its group, and its name within that.
    pub fn parts(&self) -> (&str, &str) {
        self.name.split_once('.').unwrap_or((&self.name, ""))
    }
}

/// A scenario asks for tests that there are not.
#[derive(Debug, thiserror::Error)]
#[error("the scenario {scenario}: {source}")]
pub struct UnknownCase {
    scenario: String,
    #[source]
    source: cases::Unknown,
}

/// The tests that a guest of `scenario` runs, in their order. None where it runs the user's command.
///
/// # Errors
/// When there is no test of a name that it asks for.
pub fn of(scenario: &Scenario) -> Result<Vec<ListedCase>, UnknownCase> {
    // Without a name the agent would take all.
    if scenario.groups.is_empty() {
        return Ok(Vec::new());
    }
    let unknown = |source| UnknownCase { scenario: scenario.name.clone(), source };
    let cases = cases::select(&scenario.groups).map_err(unknown)?;
    Ok(cases.iter().map(ListedCase::new).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scenario_demands_every_test_that_it_asks_for() {
        let all = Scenario::all().unwrap();
        let wrong: Vec<_> = all
            .iter()
            .map(|scenario| (scenario, of(scenario).unwrap().len()))
            .filter(|(scenario, tests)| scenario.at_least != *tests)
            .map(|(scenario, tests)| format!("{}: at_least = {tests}", scenario.name))
            .collect();
        assert!(wrong.is_empty(), "vmm/suite/scenarios should have {wrong:#?}");
    }

    #[test]
    fn a_test_that_there_is_not_is_named_with_its_scenario() {
        let mut scenario = Scenario::all().unwrap().swap_remove(0);
        scenario.groups = vec!["copy".into(), "nonsense".into()];
        let error = of(&scenario).unwrap_err().to_string();
        assert!(error.starts_with("the scenario basic: ") && error.contains("nonsense"), "{error}");
    }
}
