//! Options of `test` and `boot` about findings: where else they go, which end the run, which are known.

use std::path::PathBuf;

use clap::Args;
use peerdma_suite::found::Writer;
use peerdma_suite::report::ScenarioReport;
use peerdma_suite::scenario::Scenario;
use peerdma_suite::stop::StopOn;
use peerdma_suite::suppression::Suppression;

use peerdma_topology::Plan;

use super::Failure;

/// What is to become of findings.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct FindingOptions {
    /// Write each finding into this file as it happens, as a line of JSON (docs/findings.md)
    #[arg(long, value_name = "FILE")]
    findings: Option<PathBuf>,
    /// End the run at the first finding, the first request that the IOMMU refuses, or the first finding of a class, and
    /// show what led to it; may be repeated. Expected and suppressed findings do not count
    #[arg(long, value_name = "finding|fault|CLASS")]
    pub(super) stop_on: Vec<StopOn>,
    /// Findings that are known and fail no test: lines of CLASS [FUNCTION [TEST]] # REASON; may be repeated
    #[arg(long, value_name = "FILE")]
    suppress: Vec<PathBuf>,
}

impl FindingOptions {
    /// Whether findings go to stdout.
    pub(super) fn to_stdout(&self) -> bool {
        self.findings.as_ref().is_some_and(|path| path.as_os_str() == "-")
    }

    /// Opens the file for findings, if one is wanted.
    pub(super) fn writer(&self) -> Result<Option<Writer>, Failure> {
        let open = |path: &PathBuf| {
            Writer::open(path).map_err(|error| {
                Failure::environment(format_args!("--findings {}: {error}", path.display()))
            })
        };
        self.findings.as_ref().map(open).transpose()
    }

    /// All that is known of findings: by the files, and by `scenario` itself.
    pub(super) fn suppressions(&self, scenario: &Scenario) -> Result<Vec<Suppression>, Failure> {
        let mut all = Vec::new();
        for path in &self.suppress {
            all.extend(Suppression::load(path).map_err(Failure::usage)?);
        }
        all.extend(scenario.suppressions().map_err(Failure::usage)?);
        Ok(all)
    }
}

/// Says that not all findings could be written down.
pub(super) fn finish(writer: Option<Writer>) -> Result<(), Failure> {
    let Some(writer) = writer else { return Ok(()) };
    let name = writer.name().to_owned();
    let failed =
        |error| Failure::environment(format_args!("--findings {name} is not complete: {error}"));
    writer.finish().map_err(failed)
}

/// Those of `all` that no finding of `scenarios` needed, once each, a line each.
pub(super) fn unused<'a>(
    all: impl Iterator<Item = &'a Suppression>,
    scenarios: &[ScenarioReport],
) -> Vec<String> {
    let used: Vec<_> = scenarios
        .iter()
        .flat_map(ScenarioReport::findings)
        .filter_map(|finding| finding.suppressed.as_ref())
        .map(|suppressed| suppressed.place.as_str())
        .collect();
    let plans = plans(scenarios);
    let mut unused = Vec::new();
    for suppression in all.filter(|suppression| !used.contains(&suppression.place.as_str())) {
        let mut line = suppression.to_string();
        let is_in = |plan: &Plan| suppression.is_about_one_of(&plan.addresses());
        if plans.as_ref().is_some_and(|plans| !plans.iter().any(is_in)) {
            line += &format!(" (no topology of this run has a function {})", suppression.function);
        }
        if !unused.contains(&line) {
            unused.push(line);
        }
    }
    unused
}

/// The topologies of all guests; none if that is not known of each.
fn plans(scenarios: &[ScenarioReport]) -> Option<Vec<Plan>> {
    let plan = |scenario: &ScenarioReport| {
        let setup = scenario.setup.as_deref()?;
        Plan::new(&setup.topology, setup.guest.iommu.has_iommu()).ok()
    };
    scenarios.iter().map(plan).collect()
}

#[cfg(test)]
mod tests {
    use peerdma_suite::report::{FindingReport, Suppressed};

    use super::*;

    #[test]
    fn what_no_finding_needed_is_unused_once() {
        let text = "iommu.stale # a\niommu.unmapped peer0 # b\n";
        let all = Suppression::parse_all(text, "k.txt").unwrap();
        let mut scenario = ScenarioReport::new("s");
        let twice = || all.iter().chain(&all);
        let both = ["iommu.stale (at k.txt:1): a", "iommu.unmapped peer0 (at k.txt:2): b"];
        assert_eq!(unused(twice(), std::slice::from_ref(&scenario)), both);
        let suppressed = Some(Suppressed { reason: "a".into(), place: "k.txt:1".into() });
        scenario.stray_findings = vec![FindingReport { suppressed, ..FindingReport::default() }];
        assert_eq!(unused(twice(), std::slice::from_ref(&scenario)), both[1..]);
        // Where it is known which functions there were, one that was not is named.
        let text = "pci.no-target peer7 # a\npci.no-target peer? # b\npci.no-target 01:00.0 # c\npci.no-target # d\n";
        let all = Suppression::parse_all(text, "j.txt").unwrap();
        let topology = peerdma_topology::Topology::default();
        let guest = peerdma_topology::linux::Guest {
            iommu: peerdma_topology::assembly::IommuMode::Strict,
            cpu: peerdma_topology::Topology::default().cpu,
            parameters: Default::default(),
        };
        scenario.setup = Some(Box::new(peerdma_suite::report::Setup { topology, guest }));
        let lines = unused(all.iter(), &[scenario]);
        let unknown: Vec<_> = lines.iter().filter(|line| line.contains("no topology")).collect();
        assert_eq!(
            unknown,
            ["pci.no-target peer7 (at j.txt:1): a (no topology of this run has a function peer7)"]
        );
    }
    #[test]
    fn a_file_for_findings_that_takes_nothing_is_named() {
        let mut writer = Writer::open("/dev/full".as_ref()).unwrap();
        writer.write(&peerdma_suite::found::Found::default());
        let error = finish(Some(writer)).unwrap_err().to_string();
        assert!(error.contains("--findings /dev/full is not complete: No space left"), "{error}");
    }
}
