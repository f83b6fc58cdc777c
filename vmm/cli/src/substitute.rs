//! The distribution's kernel in place of the lab's, which has not been built: where its reports go,
//! how the user learns of it, and what cannot be tested on it.

use std::path::{Path, PathBuf};

use peerdma_images::kernel::Flavour;
use peerdma_suite::auto;
use peerdma_suite::prepare::KernelChoice;
use peerdma_suite::scenario::Scenario;

use super::Failure;

/// Where reports go by default: those of the other kernels do not overwrite the lab kernel's.
pub(super) fn default_folder(kernel: &KernelChoice) -> PathBuf {
    match kernel {
        KernelChoice::Flavour(Flavour::Lab) | KernelChoice::Path(_) => "target/vm-test".into(),
        KernelChoice::Flavour(flavour) => format!("target/vm-test-{flavour}").into(),
    }
}

/// What to say, line by line; `out` is the folder for reports, if it follows the kernel. Leaves out those of `all`
/// scenarios that it cannot run, where these run `tests` of their own. One that the user names is not left out.
///
/// # Errors
/// When the user names one of them: that is an error rather than a row of skipped tests.
pub(super) fn explain(
    scenarios: &mut Vec<Scenario>,
    out: Option<&Path>,
    all: bool,
    tests: bool,
) -> Result<Vec<String>, Failure> {
    let mut lines = vec![auto::explain(out).map_err(Failure::internal)?];
    if !tests {
        return Ok(lines);
    }
    let lacking = scenarios.iter().find(|scenario| !scenario.needs.is_empty());
    if let Some(scenario) = lacking.filter(|_| !all) {
        return Err(Failure::usage(format_args!(
            "the scenario {:?} needs {}, which the stock kernel lacks",
            scenario.name,
            scenario.needs.join(", ")
        ))
        .hint(format_args!(
            "`peerdma kernel build` makes the lab kernel, which has it (once, about {}); with --kernel stock its tests are \
             skipped",
            auto::build_time()
        )));
    }
    lines.extend(auto::leave_out(scenarios));
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lab_kernel_s_reports_have_the_plain_name() {
        let folder = |text: &str| default_folder(&KernelChoice::parse(text));
        assert_eq!(folder("lab"), Path::new("target/vm-test"));
        assert_eq!(folder("stock"), Path::new("target/vm-test-stock"));
        assert_eq!(folder("./vmlinux"), Path::new("target/vm-test"));
    }

    #[test]
    fn what_is_named_is_refused_and_what_is_meant_by_all_is_left_out() {
        let named = |name: &str| Scenario::select(&[name.to_owned()]).unwrap();
        assert_eq!(explain(&mut named("basic"), None, false, true).unwrap().len(), 1);
        let error = explain(&mut named("ioat"), None, false, true).unwrap_err();
        assert!(error.message.contains("CONFIG_INTEL_IOATDMA"), "{}", error.message);
        let mut all = Scenario::all().unwrap();
        let lines = explain(&mut all, None, true, true).unwrap();
        assert!(lines.len() == 2 && lines[1].contains("ioat (CONFIG_INTEL_IOATDMA"), "{lines:?}");
        assert!(all.iter().all(|scenario| scenario.name != "ioat"));
        // With a command of the user's it is only a kind of guest.
        let mut guest = named("ioat");
        assert_eq!(explain(&mut guest, None, false, false).unwrap().len(), 1);
        assert_eq!(guest, named("ioat"));
    }
}
