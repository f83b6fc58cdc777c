//! The distribution's own kernel, unmodified, and a folder in which modules for it can be built.
//!
//! Kernel and modules come from its packages. The distribution builds them elsewhere, with a newer compiler and C
//! library than this machine may have, so the programs that build a module (fixdep, modpost, objtool) are made from
//! the source of the same version; what decides how the kernel's structures look (configuration, generated headers,
//! release) comes from its package of headers, to the letter.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::apt::{Apt, Candidate};
use super::build::Build;
use super::config::{self, Options};
use super::recipe::Recipe;
use super::source::{SOURCES, SourceTree, check};
use super::{BuiltKernel, Flavour, KERNELS, KernelError, entry_name, facts, finish};
use crate::cache::{Cache, Lock};
use crate::command::{Job, require_programs};
use crate::progress::Progress;

/// The recipe as it is written.
pub(super) const RECIPE_TEXT: &str = include_str!("../../kernel/stock.toml");
/// The kernel, in its folder.
pub(super) const IMAGE: &str = "vmlinuz";
/// The parts of the kernel, a package each.
const PARTS: [&str; 4] = ["binary", "modules", "base", "headers"];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StockRecipe {
    variant: String,
    tools: Vec<String>,
}

impl StockRecipe {
    fn load() -> Result<Self, KernelError> {
        toml::from_str(RECIPE_TEXT).map_err(|error| KernelError::Recipe(error.to_string()))
    }
}

/// Makes the stock kernel's entry in the cache.
pub(super) fn assemble(
    cache: &Cache,
    lock: &Lock,
    source: &SourceTree,
    key: &str,
    progress: &dyn Progress,
) -> Result<BuiltKernel, KernelError> {
    let stock = StockRecipe::load()?;
    cache.require_space("Unpacking the stock kernel", Flavour::Stock.space())?;
    require_programs(&["make", "gcc", "ld", "flex", "bison", "dpkg-deb", "xz", "find"])?;
    let staging = cache.stage(lock, KERNELS, &entry_name(Flavour::Stock, key))?;
    let work = cache.stage(lock, SOURCES, "apt-stock")?;
    let unpacked = work.path().join("unpacked");
    let release = unpack(&stock, source, work.path(), &unpacked, progress)?;

    let log = cache.write_file("logs", "kernel-stock.log", b"")?;
    let (output, final_output) = (staging.path().join("build"), staging.target().join("build"));
    fs::create_dir(&output).map_err(KernelError::io("Making", &output))?;
    let build = Build {
        source,
        output: output.clone(),
        final_output,
        log,
        flavour: Flavour::Stock,
        wanted: config::parse(&stock.tools.join("\n")),
        jobs: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
    };
    build.configure(progress)?;
    build.prepare_modules(progress)?;
    let facts = facts::only(&config::parse(&read(&output.join(".config"))?));
    take_headers(&unpacked, &release, &output, &facts, progress)?;
    let kernel = unpacked.join("usr/lib/modules").join(&release);
    take_modules(&kernel, &output, progress)?;
    build.prune()?;
    copy(&kernel.join("vmlinuz"), &staging.path().join(IMAGE))?;
    finish(staging, Flavour::Stock, release, source, key)
}

/// Downloads the packages and unpacks them into `target`; gives back the kernel's release.
fn unpack(
    stock: &StockRecipe,
    source: &SourceTree,
    work: &Path,
    target: &Path,
    progress: &dyn Progress,
) -> Result<String, KernelError> {
    let recipe = Recipe::load(Flavour::Stock)?;
    let apt = Apt::update(work, &recipe, progress)?;
    let pattern = format!("^linux-({})-[0-9].*-{}$", PARTS.join("|"), stock.variant);
    let found = apt.packages(&pattern, progress)?;
    let version = source.version.clone().unwrap_or_default();
    let (release, packages) =
        choose(&found, &version, &stock.variant).ok_or_else(|| KernelError::NoStock {
            suite: recipe.suite.clone(),
            variant: stock.variant.clone(),
            version,
        })?;
    for package in packages {
        let deb = apt.download(package, progress)?;
        check(&deb, package)?;
        let job = Job::new("Unpacking the stock kernel", "dpkg-deb").arg("--extract");
        job.arg(&deb).arg(target).run(progress)?;
    }
    Ok(release)
}

/// The release of the kernel of this version, and its packages; `None` unless all are there.
fn choose<'a>(
    found: &'a [Candidate],
    version: &str,
    variant: &str,
) -> Option<(String, Vec<&'a Candidate>)> {
    let part = |part: &str| {
        let prefix = format!("linux-{part}-");
        found.iter().find_map(|candidate| {
            let release = candidate.package.strip_prefix(&prefix)?;
            (candidate.version == version && release.ends_with(variant))
                .then_some((release, candidate))
        })
    };
    let parts: Vec<_> = PARTS.iter().map(|name| part(name)).collect::<Option<_>>()?;
    let (release, _) = *parts.first()?;
    let same = parts.iter().all(|(other, _)| *other == release);
    same.then(|| (release.to_owned(), parts.iter().map(|(_, candidate)| *candidate).collect()))
}

/// Puts the stock kernel's configuration, generated headers, linker script and exported symbols into the build folder.
fn take_headers(
    unpacked: &Path,
    release: &str,
    output: &Path,
    facts: &Options,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    let headers = unpacked.join("usr/src").join(format!("linux-headers-{release}"));
    for folder in ["include", "arch"] {
        let job = Job::new("Copying the stock kernel's headers", "cp")
            .args(["-r", "--no-target-directory"]);
        job.arg(headers.join(folder)).arg(output.join(folder)).run(progress)?;
    }
    for name in [".config", "Module.symvers"] {
        copy(&headers.join(name), &output.join(name))?;
    }
    copy(&headers.join("arch/x86/module.lds"), &output.join("scripts/module.lds"))?;
    let adapt = |name: &str, with: fn(&str, &Options) -> String| {
        let path = output.join(name);
        let text = with(&read(&path)?, facts);
        fs::write(&path, text).map_err(KernelError::io("Writing", &path))
    };
    adapt("include/config/auto.conf", facts::adapt_auto_conf)?;
    adapt("include/generated/autoconf.h", facts::adapt_header)
}

/// Puts the kernel's modules into the build folder, uncompressed, as a build of them would have left them there.
fn take_modules(kernel: &Path, output: &Path, progress: &dyn Progress) -> Result<(), KernelError> {
    progress.phase("unpacking the stock kernel's modules", None);
    let tree = kernel.join("kernel");
    let job = Job::new("Unpacking the stock kernel's modules", "find").arg(&tree);
    job.args(["-name", "*.ko.xz", "-exec", "xz", "--decompress", "{}", "+"]).run(progress)?;
    let job = Job::new("Copying the stock kernel's modules", "cp");
    job.args(["-r", "--no-target-directory"]).arg(&tree).arg(output).run(progress)?;
    let path = output.join("modules.order");
    let order = module_list(&read(&kernel.join("modules.order"))?);
    fs::write(&path, order).map_err(KernelError::io("Writing", &path))
}

/// An installed kernel lists `kernel/drivers/x.ko` (perhaps with another ending for its compression), a build folder
/// `drivers/x.o`.
fn module_list(installed: &str) -> String {
    let line = |line: &str| {
        let path = line.strip_prefix("kernel/").unwrap_or(line);
        path.split_once(".ko").map(|(path, _)| format!("{path}.o\n"))
    };
    installed.lines().filter_map(line).collect()
}

fn read(path: &Path) -> Result<String, KernelError> {
    fs::read_to_string(path).map_err(KernelError::io("Reading", path))
}

fn copy(from: &Path, to: &PathBuf) -> Result<(), KernelError> {
    fs::copy(from, to).map(drop).map_err(KernelError::io("Copying", from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(part: &str, release: &str, version: &str) -> Candidate {
        Candidate {
            package: format!("linux-{part}-{release}"),
            version: version.to_owned(),
            sha256: "0".repeat(64),
            size: 1,
        }
    }

    #[test]
    fn all_parts_come_from_the_version_of_the_source() {
        let mut found: Vec<_> = PARTS
            .iter()
            .flat_map(|part| {
                [
                    package(part, "7.3.9+deb13-cloud-amd64", "7.3.9-1"),
                    package(part, "7.3.4+deb13-cloud-amd64", "7.3.4-1"),
                ]
            })
            .collect();
        let (release, packages) = choose(&found, "7.3.4-1", "cloud-amd64").unwrap();
        assert_eq!(release, "7.3.4+deb13-cloud-amd64");
        assert!(packages.iter().all(|package| package.version == "7.3.4-1"));
        assert_eq!(packages.len(), PARTS.len());
        assert!(choose(&found, "7.3.5-1", "cloud-amd64").is_none());
        found.retain(|package| !package.package.starts_with("linux-headers-7.3.4"));
        assert!(choose(&found, "7.3.4-1", "cloud-amd64").is_none());
    }

    #[test]
    fn the_list_of_modules_is_that_of_a_build() {
        let installed = "kernel/drivers/iommu/virtio-iommu.ko\nkernel/fs/x.ko.xz\nnonsense\n";
        assert_eq!(module_list(installed), "drivers/iommu/virtio-iommu.o\nfs/x.o\n");
    }

    #[test]
    fn the_project_recipe_is_whole() {
        let stock = StockRecipe::load().unwrap();
        assert_eq!(config::parse(&stock.tools.join("\n")).len(), stock.tools.len());
        assert!(stock.variant.ends_with("amd64"));
    }
}
