//! What the guests of some scenarios carry besides what every guest has: modules of the kernel's own, and its test
//! programs. The initramfs of all others stays small.

use std::path::{Path, PathBuf};

use peerdma_images::cache::Cache;
use peerdma_images::progress::Progress;
use peerdma_images::{kernel, kselftest};

use super::hello::Module;
use super::known_failures;
use super::prepare::{PrepareError, Prepared};
use super::scenario::Scenario;

/// Where the guest finds the kernel's test programs.
const PROGRAMS: &str = "/lib/kselftests";
/// Where it finds the list of tests that are known to fail.
const KNOWN_FAILURES: &str = "/lib/kselftests/known-failures.json";

/// What a scenario's guest has besides.
#[derive(Debug, Default)]
pub struct Carried {
    /// The initramfs, when it is not the one of all guests.
    pub initramfs: Option<PathBuf>,
    /// What it loads after our driver.
    pub modules: Vec<Module>,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Packs what `scenario` asks for; builds test programs that are not in the cache.
///
/// A module that the kernel does not have is left out, and so are test programs whose source is not known: the tests
/// in the guest say what they miss.
///
/// # Errors
/// When something is there but cannot be used, or a program cannot be built.
pub fn pack(
    prepared: &Prepared,
    scenario: &Scenario,
    progress: &dyn Progress,
) -> Result<Carried, PrepareError> {
    let mut carried = Carried::default();
    if scenario.modules.is_empty() && scenario.kselftests.is_empty() {
        return Ok(carried);
    }
    let Some(tree) = &prepared.tree else {
        carried.notes.push(format!(
            "{}: {} has no build tree, so the guest gets none of the kernel's modules and test programs",
            scenario.name, prepared.kernel_name
        ));
        return Ok(carried);
    };
    let cache = Cache::open()?;
    let mut initramfs = prepared.base.clone();
    let names: Vec<_> = scenario.modules.iter().map(String::as_str).collect();
    let files = kernel::modules_in_order(tree, &names)?;
    for (path, module) in missing(&files, &prepared.modules, &scenario.parameters) {
        initramfs.module(path)?;
        carried.modules.push(module);
    }
    if !scenario.kselftests.is_empty() {
        scenario.kselftests.iter().try_for_each(|name| kselftest::check_name(name))?;
        match kselftest::source_of(tree) {
            Some(source) => {
                let folder = kselftest::build(&cache, &source, progress)?;
                for name in &scenario.kselftests {
                    let program = folder.join(name);
                    // Without it the test in the guest is skipped.
                    if program.exists() {
                        initramfs.host_file(&format!("{PROGRAMS}/{name}"), &program)?;
                    }
                }
            }
            None => carried.notes.push(format!(
                "{}: the source of {} is not here, so its test programs cannot be built",
                scenario.name, prepared.kernel_name
            )),
        }
    }
    initramfs.file(KNOWN_FAILURES, 0o644, known_failures::json()?)?;
    carried.initramfs = Some(initramfs.store(&cache)?);
    Ok(carried)
}

/// The `files` of modules that are not among those `loaded` anyway, nor replaced by one of them.
fn missing<'a>(
    files: &'a [PathBuf],
    loaded: &'a [Module],
    command_line: &'a [String],
) -> impl Iterator<Item = (&'a PathBuf, Module)> {
    files
        .iter()
        .map(|file| (file, self::loaded(file, command_line)))
        .filter(|(_, module)| loaded.iter().all(|other| other.path != module.path))
}

/// A module with its parameters from the kernel's command line.
fn loaded(path: &Path, command_line: &[String]) -> Module {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let words = command_line.iter().map(String::as_str);
    Module {
        path: format!("/lib/modules/{file}"),
        parameters: kernel::parameters_of(file.trim_end_matches(".ko"), words),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_gets_its_parameters_from_the_command_line() {
        let line = ["quiet", "iommu.strict=1", "vfio-pci.a=1", "vfio_pci.b=2", "vfio.c=3"]
            .map(str::to_owned);
        let module = loaded(Path::new("/k/drivers/vfio/pci/vfio-pci.ko"), &line);
        assert_eq!(module.path, "/lib/modules/vfio-pci.ko");
        assert_eq!(module.parameters, "a=1 b=2");
    }

    #[test]
    fn what_the_user_brings_is_not_loaded_again() {
        let module = |path: &str| Module { path: path.into(), parameters: "own".into() };
        let own = [module("/lib/modules/b.ko")];
        let files = ["/k/a.ko", "/k/b.ko"].map(PathBuf::from);
        let left: Vec<_> = missing(&files, &own, &[]).map(|(file, _)| file.as_path()).collect();
        assert_eq!(left, [Path::new("/k/a.ko")]);
    }

    #[test]
    fn scenarios_ask_only_for_programs_that_there_are() {
        for scenario in Scenario::all().unwrap() {
            for name in &scenario.kselftests {
                kselftest::check_name(name).unwrap();
            }
        }
    }
}
