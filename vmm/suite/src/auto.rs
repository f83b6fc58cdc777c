//! `--kernel auto`: which kernel a guest runs by default.

use std::num::NonZeroUsize;
use std::path::Path;
use std::thread::available_parallelism;

use peerdma_images::cache::Cache;
use peerdma_images::kernel::{self, Flavour, KernelRequest, Source};
use peerdma_images::progress::Progress;

use super::prepare::PrepareError;
use super::scenario::{Scenario, ScenarioError};

/// Minutes that one processor takes to build the lab kernel.
const BUILD_MINUTES: usize = 12;

/// The lab kernel where it is in the cache, or can be built from a source tree of the user's; otherwise the
/// distribution's own, which is ready in a minute.
///
/// # Errors
/// When the cache cannot be read.
pub fn flavour(progress: &dyn Progress) -> Result<Flavour, PrepareError> {
    let lab = KernelRequest::from_environment(Flavour::Lab);
    let is_there = match lab.source {
        Source::Tree(_) => true,
        Source::Distribution => kernel::find(&Cache::open()?, &lab, progress)?.is_some(),
    };
    Ok(if is_there { Flavour::Lab } else { Flavour::Stock })
}

/// What to say, in a line, of the distribution's kernel in place of the lab's; `out` is the folder for reports, where that
/// follows the kernel.
///
/// # Errors
/// None for the scenarios that come with the program, which a test reads.
pub fn explain(out: Option<&Path>) -> Result<String, ScenarioError> {
    let lab_only = Scenario::all()?.iter().filter(|scenario| !scenario.needs.is_empty()).count();
    let out = out.map(|out| format!(", reports in {}", out.display())).unwrap_or_default();
    Ok(format!(
        "kernel: stock, the distribution's own{out}; `peerdma kernel build` (once, about {}) adds the lab's: quicker guests, \
         and {lab_only} scenarios more",
        build_time()
    ))
}

/// Takes out of `scenarios` those whose tests the distribution's kernel cannot run; says which, and what they need.
pub fn leave_out(scenarios: &mut Vec<Scenario>) -> Option<String> {
    let (kept, left): (Vec<_>, Vec<_>) =
        std::mem::take(scenarios).into_iter().partition(|scenario| scenario.needs.is_empty());
    *scenarios = kept;
    let each =
        left.iter().map(|scenario| format!("{} ({})", scenario.name, scenario.needs.join(", ")));
    let each: Vec<_> = each.collect();
    (!each.is_empty()).then(|| {
        format!("left out, for the stock kernel lacks what they need: {}", each.join(", "))
    })
}

/// How long building the lab kernel takes on this machine, about.
pub fn build_time() -> String {
    let processors = available_parallelism().map_or(1, NonZeroUsize::get);
    format!("{} min on this machine", BUILD_MINUTES.div_ceil(processors).max(2))
}

#[cfg(test)]
mod tests {
    use peerdma_images::cache::Cache;
    use peerdma_images::progress::Silent;

    use super::*;

    #[test]
    fn the_line_says_what_the_lab_kernel_adds_and_what_it_costs() {
        let text = explain(None).unwrap();
        assert!(!text.contains('\n') && !text.contains(" 0 scenarios"), "{text}");
        assert!(text.contains("peerdma kernel build") && text.contains(" min "), "{text}");
        let text = explain(Some(Path::new("a/b"))).unwrap();
        assert!(text.contains("reports in a/b;"), "{text}");
    }

    #[test]
    fn what_needs_the_lab_kernel_is_left_out_by_name() {
        let mut scenarios = Scenario::all().unwrap();
        let all = scenarios.len();
        let text = leave_out(&mut scenarios).unwrap();
        assert!(text.contains("kunit-dmabuf (CONFIG_DMABUF_KUNIT_TEST)"), "{text}");
        assert!(scenarios.iter().any(|scenario| scenario.name == "basic"));
        assert_eq!(text.matches(" (CONFIG_").count(), all - scenarios.len());
        assert_eq!(leave_out(&mut scenarios), None);
    }

    #[test]
    fn what_scenarios_need_is_what_the_lab_kernel_has() {
        for scenario in Scenario::all().unwrap() {
            for option in &scenario.needs {
                assert!(kernel::lab_has(option), "{}: {option}", scenario.name);
            }
        }
    }

    #[test]
    fn an_empty_cache_means_the_distribution_s_kernel() {
        let folder = tempfile::tempdir().unwrap();
        let lab = KernelRequest {
            source: Source::Distribution,
            ..KernelRequest::from_environment(Flavour::Lab)
        };
        let found = kernel::find(&Cache::at(folder.path()).unwrap(), &lab, &Silent).unwrap();
        assert_eq!(found, None);
    }
}
