//! The guest's kernel, built from source with the lab's configuration and kept.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use peerdma_images::kernel::{self, Flavour, KernelRequest};
//! use peerdma_images::progress;
//!
//! let request = KernelRequest::from_environment(Flavour::Lab);
//! let kernel = kernel::build(&request, &*progress::for_stderr())?;
//! println!("{} is at {}", kernel.release, kernel.vmlinux().display());
//! # Ok(())
//! # }
//! ```
//!
//! A kernel's name in the cache is a hash of its source, its configuration, the compiler and this recipe. Sources
//! are kept unpacked beside the kernels: flavours share one, and building modules reads its headers.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde::{Deserialize, Serialize};

mod apt;
mod build;
mod config;
mod error;
mod facts;
mod flavour;
mod modules;
mod recipe;
mod source;
mod stock;

pub use config::{Refusal, Rejected};
pub use error::KernelError;
pub use flavour::Flavour;
pub use modules::{Availability, availability, modules_in_order, parameters_of, plain};

use self::build::Build;
use self::source::{SOURCES, SourceTree};
use super::cache::{Cache, CacheError, Key, Lock, Staging};
use super::command::{Job, require_programs};
use super::progress::Progress;

/// Counts changes of this code that change what comes out.
const RECIPE: u32 = 1;
/// The cache's folder of kernels.
const KERNELS: &str = "kernels";
/// The kernel without its debug information, in its own folder.
const STRIPPED: &str = "vmlinux";
/// What describes a kernel, in its own folder.
const RECORD: &str = "kernel.json";
/// Where a kernel's source comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The distribution's source package.
    Distribution,
    /// An unpacked source tree of the user's, which stays untouched.
    Tree(PathBuf),
}

/// A kernel that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelRequest {
    /// Its configuration.
    pub flavour: Flavour,
    /// Its source.
    pub source: Source,
    /// Looks for the source in the archive again, although one was chosen before.
    pub refresh: bool,
    /// Compilers at once; as many as there are processors when `None`.
    pub jobs: Option<NonZeroUsize>,
}

impl KernelRequest {
    /// A kernel from the distribution's source, or from the tree that `PEERDMA_KERNEL_TREE` names
    /// (`PEERDMA_KERNEL_TREE_LTS` for the long-term kernel; the stock kernel is the distribution's in any case).
    pub fn from_environment(flavour: Flavour) -> Self {
        let variable = flavour.tree_variable();
        let tree = variable.and_then(std::env::var_os).filter(|path| !path.is_empty());
        let source = tree.map_or(Source::Distribution, |path| Source::Tree(path.into()));
        Self { flavour, source, refresh: false, jobs: None }
    }
}

/// A kernel in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltKernel {
    /// Its configuration.
    pub flavour: Flavour,
    /// What `uname -r` prints in it.
    pub release: String,
    /// Its source: package and version, or the user's folder.
    pub source: String,
    /// The hash of everything it was made from: for the keys of what is made from it in turn.
    pub key: String,
    /// Its folder in the cache.
    pub folder: PathBuf,
    /// True when it had been built before.
    pub cached: bool,
}

impl BuiltKernel {
    /// The kernel itself: an ELF file with a PVH entry and symbols, or the distribution's bzImage. What is booted of a
    /// kernel with debug information has none: it would travel into each guest's test host.
    pub fn image(&self) -> PathBuf {
        match self.flavour {
            Flavour::Stock => self.folder.join(stock::IMAGE),
            Flavour::Gdb => self.folder.join(STRIPPED),
            Flavour::Lab | Flavour::Debug | Flavour::Lts => self.vmlinux(),
        }
    }

    /// The ELF file of a kernel that was built here, with all that it has for debuggers.
    pub fn vmlinux(&self) -> PathBuf {
        self.build_tree().join("vmlinux")
    }

    /// What modules are built against (`make -C`), the shipped modules within.
    pub fn build_tree(&self) -> PathBuf {
        self.folder.join("build")
    }

    /// Its `.config`.
    pub fn config(&self) -> PathBuf {
        self.build_tree().join(".config")
    }
}

/// The options of a `.config` by name (with `CONFIG_`), and their values as Kconfig writes them; `n` where one is not
/// set. An option that the file does not mention does not exist for that kernel.
pub fn options(config: &Path) -> Result<BTreeMap<String, String>, KernelError> {
    Ok(config::parse(&fs::read_to_string(config).map_err(KernelError::io("Reading", config))?))
}

/// Whether the lab kernel's configuration asks for `option` (with `CONFIG_`), built in or as a module.
pub fn lab_has(option: &str) -> bool {
    config::wanted(Flavour::Lab).get(option).is_some_and(|value| value == "y" || value == "m")
}

/// What is written beside a kernel.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    flavour: Flavour,
    release: String,
    source: String,
}

/// Builds a kernel into the user's cache, unless it is there already.
pub fn build(request: &KernelRequest, progress: &dyn Progress) -> Result<BuiltKernel, KernelError> {
    build_in(&Cache::open()?, request, progress)
}

/// Builds a kernel into `cache`, unless it is there already.
pub fn build_in(
    cache: &Cache,
    request: &KernelRequest,
    progress: &dyn Progress,
) -> Result<BuiltKernel, KernelError> {
    if let Some(kernel) = find(cache, request, progress)?.filter(|_| !request.refresh) {
        return Ok(kernel);
    }
    require_plain(cache.root(), "Set XDG_CACHE_HOME to another folder.")?;
    let flavour = request.flavour;
    if let Source::Tree(path) = &request.source {
        require_plain(path, "Move the source, or reach it through a symbolic link.")?;
    }
    // Kernels that share a source do not wait for each other's builds.
    let source = {
        let lock = cache.lock(flavour.source_lock(), progress)?;
        source::provide(cache, &lock, request, progress)?
    };
    let lock = cache.lock(flavour.lock(), progress)?;
    let key = key(flavour, &source, progress)?;
    // Another run may have built it while this one waited.
    match (read(cache, flavour, &key), flavour) {
        (Some(kernel), _) => Ok(kernel),
        (None, Flavour::Stock) => stock::assemble(cache, &lock, &source, &key, progress),
        (None, _) => compile(cache, &lock, request, &source, &key, progress),
    }
}

/// The kernel, if it is in the cache.
pub fn find(
    cache: &Cache,
    request: &KernelRequest,
    progress: &dyn Progress,
) -> Result<Option<BuiltKernel>, KernelError> {
    let known = source::known(cache, request.flavour, &request.source)?;
    let Some(source) = known else { return Ok(None) };
    Ok(read(cache, request.flavour, &key(request.flavour, &source, progress)?))
}

/// All kernels in the cache.
pub fn list(cache: &Cache) -> Vec<BuiltKernel> {
    let Ok(entries) = fs::read_dir(cache.root().join(KERNELS)) else { return Vec::new() };
    let mut names: Vec<_> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| entry.file_name().into_string().ok())
        // What is being made, or being removed, is not a kernel.
        .filter(|name| !name.contains('.'))
        .collect();
    names.sort();
    let kernel = |name: &String| {
        let (flavour, key) = name.split_once('-')?;
        read(cache, Flavour::ALL.into_iter().find(|known| known.name() == flavour)?, key)
    };
    names.iter().filter_map(kernel).collect()
}

/// Removes all kernels and sources from the cache, and what was left of interrupted builds. Waits for a build in
/// another run.
pub fn clean(cache: &Cache, progress: &dyn Progress) -> Result<(), KernelError> {
    let sources = Flavour::ALL.iter().map(|flavour| flavour.source_lock());
    let mut names: Vec<_> =
        sources.chain(Flavour::ALL.iter().map(|flavour| flavour.lock())).collect();
    // In the same order everywhere, so two that clean never wait for each other.
    names.sort_unstable();
    names.dedup();
    let _locks: Vec<_> =
        names.iter().map(|name| cache.lock(name, progress)).collect::<Result<_, _>>()?;
    for kind in [KERNELS, SOURCES] {
        cache.remove("", kind)?;
    }
    Ok(())
}

fn entry_name(flavour: Flavour, key: &str) -> String {
    format!("{flavour}-{key}")
}

/// A kernel in the cache by its key.
fn read(cache: &Cache, flavour: Flavour, key: &str) -> Option<BuiltKernel> {
    let folder = cache.path(KERNELS, &entry_name(flavour, key));
    let Record { flavour, release, source } =
        serde_json::from_slice(&fs::read(folder.join(RECORD)).ok()?).ok()?;
    Some(BuiltKernel { flavour, release, source, key: key.to_owned(), folder, cached: true })
}

/// The hash of everything a kernel is made from.
fn key(
    flavour: Flavour,
    source: &SourceTree,
    progress: &dyn Progress,
) -> Result<String, CacheError> {
    // Modules must come from the compiler that made the kernel. A tool that is missing is reported where it is used.
    let version = |program: &str| {
        Job::new("Asking for the compiler's version", program).arg("--version").output(progress)
    };
    let key = Key::new("kernel", RECIPE)
        .field(flavour.name())
        .field(&source.identity)
        // Modules find the source by the path that the build notes.
        .field(source.path.as_os_str().as_encoded_bytes())
        .field(match flavour {
            Flavour::Stock => stock::RECIPE_TEXT.to_owned(),
            Flavour::Lab | Flavour::Debug | Flavour::Lts | Flavour::Gdb => {
                config::write(&config::wanted(flavour))
            }
        })
        .field(version("gcc").unwrap_or_default())
        .field(version("ld").unwrap_or_default());
    Ok(key.finish())
}

/// Kbuild splits paths at spaces and colons.
fn require_plain(path: &Path, advice: &'static str) -> Result<(), KernelError> {
    let text = path.to_string_lossy();
    if text.contains(|c: char| c.is_whitespace() || c == ':') {
        return Err(KernelError::BadPath { path: path.to_owned(), advice });
    }
    Ok(())
}

fn compile(
    cache: &Cache,
    lock: &Lock,
    request: &KernelRequest,
    source: &SourceTree,
    key: &str,
    progress: &dyn Progress,
) -> Result<BuiltKernel, KernelError> {
    let flavour = request.flavour;
    cache.require_space(&format!("Building the {flavour} kernel"), flavour.space())?;
    // Before minutes have gone by, and by name: Kbuild's own messages take some reading.
    require_programs(&["make", "gcc", "ld", "flex", "bison", "bc"])?;
    let staging = cache.stage(lock, KERNELS, &entry_name(flavour, key))?;
    // The log outlives a build that fails.
    let log = cache.write_file("logs", &format!("kernel-{flavour}.log"), b"")?;
    let jobs = request.jobs.or_else(|| available_parallelism().ok()).map_or(1, NonZeroUsize::get);
    let (output, final_output) = (staging.path().join("build"), staging.target().join("build"));
    fs::create_dir(&output).map_err(KernelError::io("Making", &output))?;
    let wanted = config::wanted(flavour);
    let build = Build { source, output, final_output, log, flavour, wanted, jobs };
    build.configure(progress)?;
    build.compile(cache, progress)?;
    if flavour == Flavour::Gdb {
        build.strip(&staging.path().join(STRIPPED), progress)?;
    }
    let release = build.release()?;
    build.prune()?;
    finish(staging, flavour, release, source, key)
}

/// Writes the record of a kernel that is whole, and gives it its place.
fn finish(
    staging: Staging,
    flavour: Flavour,
    release: String,
    source: &SourceTree,
    key: &str,
) -> Result<BuiltKernel, KernelError> {
    let source = source.name.clone();
    let record = Record { flavour, release: release.clone(), source: source.clone() };
    let path = staging.path().join(RECORD);
    let text = serde_json::to_vec_pretty(&record).unwrap_or_default();
    fs::write(&path, text).map_err(KernelError::io("Writing", &path))?;
    let folder = staging.commit()?;
    Ok(BuiltKernel { flavour, release, source, key: key.to_owned(), folder, cached: false })
}

#[cfg(test)]
mod tests;
