//! Options of `test` and `boot` about findings: where else they go, which end the run, which are known.

use std::path::PathBuf;

use clap::Args;
use peerdma_suite::found::Writer;
use peerdma_suite::report::ScenarioReport;
use peerdma_suite::scenario::Scenario;
use peerdma_suite::stop::StopOn;
use peerdma_suite::suppression::Suppression;

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
    let finished = writer.map_or(Ok(()), Writer::finish);
    finished.map_err(|error| Failure::environment(format_args!("writing findings: {error}")))
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
    let mut unused = Vec::new();
    for suppression in all.filter(|suppression| !used.contains(&suppression.place.as_str())) {
        let line = suppression.to_string();
        if !unused.contains(&line) {
            unused.push(line);
        }
    }
    unused
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
        assert_eq!(unused(twice(), &[scenario]), both[1..]);
    }
}
