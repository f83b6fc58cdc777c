//! Driving Kbuild: configure, compile, and keep what later steps need.

use std::fs;
use std::path::{Path, PathBuf};

use super::config::Options;
use super::source::SourceTree;
use super::{Flavour, KernelError, config};
use crate::cache::Cache;
use crate::command::{Event, Job};
use crate::progress::Progress;

/// The cache's folder of small notes.
const NOTES: &str = "notes";

/// A kernel being built.
#[derive(Debug)]
pub(super) struct Build<'a> {
    /// Its source.
    pub(super) source: &'a SourceTree,
    /// The folder to build in.
    pub(super) output: PathBuf,
    /// Where that folder will be afterwards.
    pub(super) final_output: PathBuf,
    /// Where all output of the programs goes.
    pub(super) log: PathBuf,
    /// What to build, for its name only.
    pub(super) flavour: Flavour,
    /// The options that it is to have.
    pub(super) wanted: Options,
    /// How many compilers at once.
    pub(super) jobs: usize,
}

impl Build<'_> {
    /// `make` in the source, for the build folder, reproducibly: neither time nor place nor builder goes in.
    fn make<'w>(&self, what: &'w str) -> Job<'w> {
        Job::make(what, self.jobs)
            .arg("-C")
            .arg(&self.source.path)
            .arg(format!("O={}", self.output.display()))
            .args([
                "ARCH=x86_64",
                "KBUILD_BUILD_USER=peerdma",
                "KBUILD_BUILD_HOST=peerdma",
                "KBUILD_BUILD_VERSION=1",
            ])
            .arg("KBUILD_BUILD_TIMESTAMP=1970-01-01 00:00:00 UTC")
            .log(&self.log)
    }

    /// Makes the configuration, and proves that it is what was asked for.
    pub(super) fn configure(&self, progress: &dyn Progress) -> Result<(), KernelError> {
        progress.phase("configuring the kernel", None);
        let path = self.output.join(".config");
        let read = || fs::read_to_string(&path).map_err(KernelError::io("Reading", &path));
        self.make("Configuring the kernel").arg("allnoconfig").run(progress)?;
        let merged = config::merge(&read()?, &self.wanted);
        fs::write(&path, merged).map_err(KernelError::io("Writing", &path))?;
        self.make("Configuring the kernel").arg("olddefconfig").run(progress)?;
        config::verify(&self.wanted, &read()?)?;
        Ok(())
    }

    /// Compiles the kernel, its modules, and what modules from elsewhere are built with.
    pub(super) fn compile(
        &self,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<(), KernelError> {
        let note = format!("steps-{}", self.flavour.name());
        let last = fs::read_to_string(cache.path(NOTES, &note))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let title = format!("compiling the {} kernel", self.flavour.name());
        progress.phase(&title, Some(last.unwrap_or(self.flavour.usual_steps())));
        let mut steps: u64 = 0;
        let mut job = self.make("Compiling the kernel").args(["vmlinux", "modules"]);
        if self.flavour == Flavour::Gdb {
            job = job.arg("scripts_gdb");
        }
        job.run_watched(progress, &mut |event| {
            steps += u64::from(matches!(event, Event::Line(line) if is_step(line)));
            progress.advance(steps);
        })?;
        cache.write_file(NOTES, &note, steps.to_string().as_bytes())?;
        Ok(())
    }

    /// Writes the kernel without its debug information.
    pub(super) fn strip(&self, to: &Path, progress: &dyn Progress) -> Result<(), KernelError> {
        progress.phase("stripping the kernel", None);
        let job = Job::new("Stripping the kernel", "objcopy").arg("--strip-debug");
        Ok(job.arg(self.output.join("vmlinux")).arg(to).run(progress)?)
    }

    /// Makes only what modules from elsewhere are built with.
    pub(super) fn prepare_modules(&self, progress: &dyn Progress) -> Result<(), KernelError> {
        progress.phase("making the programs that build modules", None);
        let job = self.make("Making the programs that build modules");
        Ok(job.arg("modules_prepare").run(progress)?)
    }

    /// The release that `uname -r` will print.
    pub(super) fn release(&self) -> Result<String, KernelError> {
        let path = self.output.join("include/config/kernel.release");
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(KernelError::io("Reading", &path))
    }

    /// Removes what no later step reads, and makes the folder fit for its final place.
    pub(super) fn prune(&self) -> Result<(), KernelError> {
        prune(&self.output)?;
        // The one file with the build folder's own path in it.
        let path = self.output.join("Makefile");
        let text = fs::read_to_string(&path).map_err(KernelError::io("Reading", &path))?;
        let moved = text
            .replace(&self.output.display().to_string(), &self.final_output.display().to_string());
        fs::write(&path, moved).map_err(KernelError::io("Writing", &path))
    }
}

/// Kbuild prints a line such as `  CC      kernel/fork.o` for each file that it makes.
fn is_step(line: &str) -> bool {
    line.strip_prefix("  ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_uppercase()))
}

/// Removes intermediate files below `folder`. What modules from elsewhere are built with stays: the configuration,
/// generated headers, the programs in `scripts` and `tools`, the linker script, the exported symbols.
fn prune(folder: &Path) -> Result<(), KernelError> {
    let entries = fs::read_dir(folder).map_err(KernelError::io("Reading", folder))?;
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            prune(&path)?;
            // Only empty ones go.
            let _ = fs::remove_dir(&path);
        } else if is_intermediate(&entry.file_name().to_string_lossy()) {
            fs::remove_file(&path).map_err(KernelError::io("Removing", &path))?;
        }
    }
    Ok(())
}

fn is_intermediate(name: &str) -> bool {
    const ENDINGS: [&str; 7] = [".o", ".a", ".cmd", ".mod", ".mod.c", ".order", ".lst"];
    // Kbuild itself reads the first of these when it builds a module elsewhere.
    let needed = name == "modules.order" || name == "auto.conf.cmd";
    let ending = ENDINGS.iter().any(|ending| name.ends_with(ending));
    (ending && !needed)
        || name.starts_with(".tmp_")
        || name.starts_with(".vmlinux.")
        || name == "vmlinux.unstripped"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Source, source};
    use crate::progress::Silent;
    use crate::skip;

    #[test]
    fn kconfig_itself_refuses_what_cannot_be() {
        let unpacked = Cache::open().ok().and_then(|cache| {
            source::known(&cache, Flavour::Lab, &Source::Distribution).ok().flatten()
        });
        let Some(source) = unpacked else {
            return skip("no source in the cache (`peerdma kernel build`)");
        };
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("build");
        fs::create_dir(&output).unwrap();
        // The first has no dependency missing, the second wants 32 bits, the third does not exist.
        let wanted = config::parse(
            "CONFIG_64BIT=y\nCONFIG_SMP=y\nCONFIG_X86_PAE=y\nCONFIG_NO_SUCH_OPTION=m\n",
        );
        let log = folder.path().join("log");
        let (flavour, final_output) = (Flavour::Lab, output.clone());
        let build = Build { source: &source, output, final_output, log, flavour, wanted, jobs: 1 };
        let error = build.configure(&Silent).unwrap_err();
        let KernelError::Config(rejected) = error else { panic!("{error}") };
        let names: Vec<_> = rejected.0.iter().map(|refusal| refusal.option.as_str()).collect();
        assert_eq!(names, ["CONFIG_NO_SUCH_OPTION", "CONFIG_X86_PAE"]);
    }

    #[test]
    fn steps_are_distinguished_from_other_output() {
        assert!(is_step("  CC      kernel/fork.o"));
        assert!(is_step("  HOSTCC  scripts/kconfig/conf.o"));
        assert!(!is_step("make[1]: Entering directory '/x'"));
        assert!(!is_step("  warning: something"));
        assert!(!is_step("kernel/fork.c:1: warning"));
    }

    #[test]
    fn what_module_builds_need_survives() {
        let folder = tempfile::tempdir().unwrap();
        let keep = [
            ".config",
            "Makefile",
            "Module.symvers",
            "System.map",
            "vmlinux",
            "modules.order",
            "scripts/module.lds",
            "scripts/mod/modpost",
            "scripts/basic/fixdep",
            "include/generated/autoconf.h",
            "include/config/auto.conf",
            "include/config/kernel.release",
            "tools/objtool/objtool",
            "drivers/vfio/vfio.ko",
        ];
        let drop = [
            "vmlinux.o",
            "vmlinux.a",
            ".tmp_vmlinux1",
            "kernel/fork.o",
            "kernel/.fork.o.cmd",
            "kernel/built-in.a",
            "drivers/vfio/vfio.mod",
            "drivers/vfio/vfio.mod.c",
            "drivers/vfio/modules.order.cmd",
            "vmlinux.unstripped",
        ];
        for name in keep.iter().chain(&drop) {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        prune(folder.path()).unwrap();
        for name in keep {
            assert!(folder.path().join(name).exists(), "{name}");
        }
        for name in drop {
            assert!(!folder.path().join(name).exists(), "{name}");
        }
        assert!(!folder.path().join("kernel").exists());
    }
}
