//! KUnit suites of a module that is loaded, run through debugfs.

use super::super::{Bench, Stop, Verdict};
use crate::partner::known::Known;
use crate::partner::tap::{Tap, summary_lines};
use crate::sys;
use std::path::Path;

const SUITES: &str = "/sys/kernel/debug/kunit";
/// How deep the tests of a suite stand in its results.
const INDENT: usize = 4;

/// Runs a suite and judges its results.
pub(super) fn run(bench: &mut Bench<'_>, suite: &str) -> Verdict {
    let folder = Path::new(SUITES).join(suite);
    if !folder.exists() {
        return Err(Stop::Skip(format!(
            "there is no {} (this kernel lacks CONFIG_KUNIT_DEBUGFS or CONFIG_DMABUF_KUNIT_TEST)",
            folder.display()
        )));
    }
    sys::write(folder.join("run"), "1")?;
    let text = sys::read(folder.join("results"))?;
    println!("{suite}:");
    for line in summary_lines(&text) {
        println!("  {line}");
    }
    let judged = Tap::parse(&text, INDENT).judge(suite, &Known::load()?);
    bench.remark(judged.figures.to_string());
    judged.remarks.into_iter().for_each(|remark| bench.remark(remark));
    judged.verdict
}
