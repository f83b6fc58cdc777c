//! KUnit suites of a module that is loaded, run through debugfs.

use super::super::{Bench, Stop, Verdict, ensure};
use super::known::Known;
use super::tap::{Tap, summary_lines};
use crate::sys;
use std::path::Path;

const SUITES: &str = "/sys/kernel/debug/kunit";
const MODULE: &str = "/sys/module/dmabuf_kunit";
/// How deep the tests of a suite stand in its results.
const INDENT: usize = 4;

/// Runs a suite and judges its results.
pub(super) fn run(bench: &mut Bench<'_>, suite: &str) -> Verdict {
    for (path, option) in [(SUITES, "CONFIG_KUNIT_DEBUGFS"), (MODULE, "CONFIG_DMABUF_KUNIT_TEST")] {
        if !Path::new(path).exists() {
            return Err(Stop::Skip(format!("there is no {path} (this kernel lacks {option})")));
        }
    }
    let folder = Path::new(SUITES).join(suite);
    ensure!(folder.exists(), "the module is loaded and KUnit does not know its suite {suite}");
    sys::write(folder.join("run"), "1")?;
    let text = sys::read(folder.join("results"))?;
    println!("{suite}:");
    for line in summary_lines(&text) {
        println!("  {line}");
    }
    let judged = Tap::parse(&text, INDENT).judge(suite, &Known::load()?);
    bench.note(judged.figures.to_string());
    judged.remarks.into_iter().for_each(|remark| bench.note(remark));
    judged.verdict
}
