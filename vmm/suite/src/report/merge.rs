//! Several runs in one report: the parts of a run that was split, the runs on several kernels.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::model::{RunReport, Status, Totals};

/// The file in a run's output folder.
pub const SUMMARY: &str = "summary.json";

/// Several runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MergedReport {
    /// Version of this form; raised when a field changes its meaning.
    pub version: u32,
    /// Sums over all runs.
    pub totals: Totals,
    /// The runs, one for each kernel, in the order in which they were given.
    pub runs: Vec<RunReport>,
}

/// Runs that do not make one report.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A run left no report.
    #[error("{} cannot be read: {source}; a run that ended early leaves no report", path.display())]
    Read {
        /// The report.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("{} is not a peerdma report: {source}", path.display())]
    Syntax {
        /// The report.
        path: PathBuf,
        /// What the parser said.
        #[source]
        source: serde_json::Error,
    },
    /// It is of several runs.
    #[error("{} is a merged report; name the folders of the runs in it", path.display())]
    Merged {
        /// The report.
        path: PathBuf,
    },
    /// Another program wrote it.
    #[error("{} has form {version} of a report, and this program reads form {}", path.display(), RunReport::VERSION)]
    Version {
        /// The report.
        path: PathBuf,
        /// Its form.
        version: u32,
    },
    /// A part is not there.
    #[error(
        "the run on {kernel} was split into {of} parts, and part {missing} is not among the reports"
    )]
    MissingPart {
        /// The kernel.
        kernel: String,
        /// How many parts there are.
        of: usize,
        /// The first that is missing.
        missing: usize,
    },
    /// Parts of different runs.
    #[error("the reports of the run on {kernel} do not belong together: {why}")]
    Mixed {
        /// The kernel.
        kernel: String,
        /// Why not.
        why: String,
    },
}

/// Reads a run's report. `path` is the file, or the output folder.
///
/// # Errors
/// [`MergeError::Read`] and [`MergeError::Syntax`].
pub fn read(path: &Path) -> Result<RunReport, MergeError> {
    let path = if path.is_dir() { path.join(SUMMARY) } else { path.to_owned() };
    let text = fs::read(&path).map_err(|source| MergeError::Read { path: path.clone(), source })?;
    let form: Form = match serde_json::from_slice(&text) {
        Ok(form) => form,
        Err(source) => return Err(MergeError::Syntax { path, source }),
    };
    match form {
        Form { runs: Some(_), .. } => Err(MergeError::Merged { path }),
        Form { version: Some(version), .. } if version != RunReport::VERSION => {
            Err(MergeError::Version { path, version })
        }
        _ => serde_json::from_slice(&text).map_err(|source| MergeError::Syntax { path, source }),
    }
}

/// As much of a report as shows which form it has.
#[derive(Deserialize)]
struct Form {
    version: Option<u32>,
    runs: Option<serde::de::IgnoredAny>,
}

impl MergedReport {
    /// Version of the form that this program writes.
    pub const VERSION: u32 = 1;

    /// Puts reports together: those of the same kernel become one.
    ///
    /// # Errors
    /// When a part of a run is missing, or there is anything twice: the sum would say less, or more, than was tested.
    pub fn new(reports: Vec<RunReport>) -> Result<Self, MergeError> {
        let mut kernels: Vec<String> = Vec::new();
        let mut groups: BTreeMap<String, Vec<RunReport>> = BTreeMap::new();
        for report in reports {
            if !kernels.contains(&report.kernel) {
                kernels.push(report.kernel.clone());
            }
            groups.entry(report.kernel.clone()).or_default().push(report);
        }
        let groups = kernels.into_iter().filter_map(|kernel| groups.remove(&kernel));
        let runs = groups.map(join).collect::<Result<Vec<_>, _>>()?;
        let totals =
            runs.iter().map(|run| run.totals).fold(Totals::default(), |sum, each| Totals {
                passed: sum.passed + each.passed,
                failed: sum.failed + each.failed,
                skipped: sum.skipped + each.skipped,
            });
        Ok(Self { version: Self::VERSION, totals, runs })
    }

    /// Why tests were skipped: for each run's kernel the reasons, with how many tests each.
    pub fn skips(&self) -> Vec<(&str, BTreeMap<&str, usize>)> {
        self.runs
            .iter()
            .map(|run| {
                let mut reasons = BTreeMap::new();
                let cases = run.scenarios.iter().flat_map(|scenario| &scenario.cases);
                for case in cases.filter(|case| case.status == Status::Skipped) {
                    *reasons.entry(case.detail.as_str()).or_default() += 1;
                }
                (run.kernel_in_short(), reasons)
            })
            .collect()
    }
}

/// Makes one report of those of one kernel.
fn join(mut reports: Vec<RunReport>) -> Result<RunReport, MergeError> {
    let kernel = reports.first().map(|report| report.kernel.clone()).unwrap_or_default();
    check_parts(&kernel, &reports)?;
    reports.sort_by_key(|report| report.shard);
    let mut names = BTreeSet::new();
    for scenario in reports.iter().flat_map(|report| &report.scenarios) {
        if !names.insert(&scenario.name) {
            let why = format!("the scenario {:?} is in two of them", scenario.name);
            return Err(MergeError::Mixed { kernel, why });
        }
    }
    let milliseconds = reports.iter().map(|report| report.milliseconds).sum();
    let mut reports = reports.into_iter();
    let Some(mut all) = reports.next() else {
        return Err(MergeError::Mixed { kernel, why: "there are none".into() });
    };
    for report in reports {
        // What one part needed is in use.
        all.unused_suppressions.retain(|unused| report.unused_suppressions.contains(unused));
        all.scenarios.extend(report.scenarios);
    }
    all.totals = RunReport::totals_of(&all.scenarios);
    all.milliseconds = milliseconds;
    all.shard = None;
    all.split = Vec::new();
    Ok(all)
}

/// The same jitter for all; every part once, if there are parts.
fn check_parts(kernel: &str, reports: &[RunReport]) -> Result<(), MergeError> {
    let mixed = |why: &str| Err(MergeError::Mixed { kernel: kernel.into(), why: why.into() });
    let mut seeds = reports.iter().map(|report| report.jitter);
    let first = seeds.next();
    if seeds.any(|seed| Some(seed) != first) {
        return mixed("their jitter was not the same: give all of them one --jitter=SEED");
    }
    let shards: Vec<_> = reports.iter().filter_map(|report| report.shard).collect();
    let Some(of) = shards.first().map(|shard| shard.of) else { return Ok(()) };
    if shards.len() != reports.len() || shards.iter().any(|shard| shard.of != of) {
        return mixed("they were split in different ways");
    }
    for index in 1..=of {
        match shards.iter().filter(|shard| shard.index == index).count() {
            0 => return Err(MergeError::MissingPart { kernel: kernel.into(), of, missing: index }),
            1 => {}
            _ => return mixed(&format!("part {index} is there twice")),
        }
    }
    one_run(reports).map_err(|why| MergeError::Mixed { kernel: kernel.into(), why })
}

/// Whether the parts are of one run, and each is what it should be; why not otherwise.
fn one_run(parts: &[RunReport]) -> Result<(), String> {
    let numbered: Vec<_> =
        parts.iter().filter_map(|part| part.shard.map(|shard| (shard, part))).collect();
    let Some((first_shard, first)) = numbered.first() else { return Ok(()) };
    for (shard, part) in &numbered {
        let index = shard.index;
        if part.split.is_empty() {
            return Err(format!(
                "part {index} does not say of which scenarios the whole run is; an older peerdma wrote it"
            ));
        }
        if part.split != first.split {
            let of = |part: &RunReport| part.split.len();
            return Err(format!(
                "part {} is of a run of {} scenarios, part {index} of one of {}: {}",
                first_shard.index,
                of(first),
                of(part),
                difference(&first.split, &part.split)
            ));
        }
        let should: Vec<_> = shard.select(part.split.iter().map(String::as_str));
        let has: Vec<_> = part.scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
        if should != has {
            let (should, has) = (should.join(", "), has.join(", "));
            return Err(format!("part {index} should have the scenarios {should}, and has {has}"));
        }
    }
    Ok(())
}

/// In what two lists of names differ.
fn difference(one: &[String], other: &[String]) -> String {
    let only = |from: &[String], not_in: &[String]| -> Vec<String> {
        let missing = from.iter().filter(|name| !not_in.contains(name));
        missing.map(|name| format!("{name:?}")).collect()
    };
    match [only(one, other), only(other, one)].concat().as_slice() {
        [] => "they are the same in another order".into(),
        [name] => format!("{name} is in one of them only"),
        names => format!("{} are in one of them only", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::model::{CaseReport, ScenarioReport};
    use super::*;
    use crate::report::Shard;

    fn run(kernel: &str, shard: Option<(usize, usize)>, scenarios: &[&str]) -> RunReport {
        let scenario = |name: &&str| {
            let case = |status, detail: &str| CaseReport {
                expectations: Vec::new(),
                name: "c".into(),
                status,
                detail: detail.into(),
                milliseconds: 1,
                findings: Vec::new(),
            };
            let mut report = ScenarioReport::new(*name);
            report.cases = vec![case(Status::Passed, ""), case(Status::Skipped, "lacks X")];
            report
        };
        let scenarios: Vec<_> = scenarios.iter().map(scenario).collect();
        RunReport {
            version: RunReport::VERSION,
            totals: RunReport::totals_of(&scenarios),
            host: "nested".into(),
            host_reason: String::new(),
            jitter: None,
            kernel: kernel.into(),
            milliseconds: 1000,
            shard: shard.map(|(index, of)| Shard { index, of }),
            split: Vec::new(),
            unused_suppressions: Vec::new(),
            scenarios,
        }
    }

    /// Part `index` of `of` of a run of the scenarios `all`.
    fn part(index: usize, of: usize, all: &[&str]) -> RunReport {
        let mine = Shard { index, of }.select(all.iter().copied());
        let split = all.iter().map(|name| (*name).to_owned()).collect();
        RunReport { split, ..run("lab", Some((index, of)), &mine) }
    }

    #[test]
    fn parts_become_the_whole_in_the_order_of_the_parts() {
        let all = ["a", "b", "c"];
        let merged = MergedReport::new(vec![part(2, 2, &all), part(1, 2, &all)]).unwrap();
        assert_eq!(merged.runs.len(), 1);
        let names: Vec<_> = merged.runs[0].scenarios.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["a", "c", "b"]);
        assert_eq!(merged.totals, Totals { passed: 3, failed: 0, skipped: 3 });
        assert_eq!(merged.runs[0].totals, merged.totals);
        assert_eq!((merged.runs[0].shard, merged.runs[0].split.len()), (None, 0));
    }

    #[test]
    fn parts_of_different_runs_are_no_whole() {
        let error = |reports| MergedReport::new(reports).unwrap_err().to_string();
        let more = error(vec![part(1, 2, &["a", "b", "c", "d"]), part(2, 2, &["a", "b", "c"])]);
        assert!(more.contains("part 1 is of a run of 4 scenarios, part 2 of one of 3"), "{more}");
        assert!(more.contains("\"d\" is in one of them only"), "{more}");
        let order = error(vec![part(1, 2, &["a", "b", "c"]), part(2, 2, &["c", "a", "b"])]);
        assert!(order.contains("in another order"), "{order}");
        let old = error(vec![part(1, 2, &["a", "b"]), run("lab", Some((2, 2)), &["b"])]);
        assert!(old.contains("part 2 does not say of which scenarios"), "{old}");
        let mut short = part(1, 2, &["a", "b", "c"]);
        short.scenarios.pop();
        let short = error(vec![short, part(2, 2, &["a", "b", "c"])]);
        assert!(short.contains("part 1 should have the scenarios a, c, and has a"), "{short}");
        let all = ["a", "b", "c"];
        let whole = |name| run("lab", None, &[name]);
        for (mut shaken, other) in [(part(1, 2, &all), part(2, 2, &all)), (whole("a"), whole("b"))]
        {
            shaken.jitter = Some(3);
            let shaken = error(vec![shaken, other]);
            assert!(shaken.contains("give all of them one --jitter=SEED"), "{shaken}");
        }
    }

    #[test]
    fn kernels_stay_apart() {
        let reports = vec![run("stock 7 (x)", None, &["a"]), run("lab 7 (x)", None, &["a"])];
        let merged = MergedReport::new(reports).unwrap();
        let skips = merged.skips();
        assert_eq!(skips[0], ("stock 7", BTreeMap::from([("lacks X", 1)])));
        assert_eq!(skips[1].0, "lab 7");
        assert_eq!(merged.totals.passed, 2);
    }

    #[test]
    fn nothing_is_lost_unnoticed() {
        let error = |reports| MergedReport::new(reports).unwrap_err().to_string();
        let all = ["a", "b", "c"];
        let lost = error(vec![part(1, 3, &all), part(3, 3, &all)]);
        assert!(lost.contains("part 2"), "{lost}");
        let twice = error(vec![run("lab", Some((1, 1)), &["a"]), run("lab", Some((1, 1)), &["b"])]);
        assert!(twice.contains("part 1 is there twice"), "{twice}");
        let same = error(vec![run("lab", None, &["a"]), run("lab", None, &["a"])]);
        assert!(same.contains("\"a\" is in two"), "{same}");
        let mixed = error(vec![run("lab", Some((1, 2)), &["a"]), run("lab", None, &["b"])]);
        assert!(mixed.contains("different ways"), "{mixed}");
    }

    #[test]
    fn a_run_that_left_no_report_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let error = read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("summary.json") && error.contains("ended early"), "{error}");
        fs::write(folder.path().join(SUMMARY), "{}").unwrap();
        assert!(matches!(read(folder.path()), Err(MergeError::Syntax { .. })));
        let whole = run("lab", None, &["a"]);
        fs::write(folder.path().join(SUMMARY), serde_json::to_vec(&whole).unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), whole);
    }
}
