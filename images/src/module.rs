//! Building a kernel module out of tree, against whichever kernel the guest will run.
//!
//! The sources are copied to the cache first: nothing is written beside them. What is built is kept under a hash of
//! sources and kernel.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use super::cache::{Cache, CacheError, Key};
use super::command::{CommandError, Event, Job};
use super::progress::Progress;

/// The cache's folder of modules.
const KIND: &str = "modules";
/// How many builds are kept.
const KEPT: usize = 24;
/// Counts changes of this code that change what comes out.
const RECIPE: u32 = 1;
/// Folders in folders, at most.
const DEPTH_LIMIT: usize = 16;
/// Bytes that a build needs, generously.
const SPACE: u64 = 64 << 20;

/// Why a module could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ModuleError {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The compiler or Kbuild.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It compiles, but not cleanly.
    #[error("The module in {} compiles with warnings, which count as errors here:\n{}", folder.display(), lines.join("\n"))]
    Warnings {
        /// The folder of its sources.
        folder: PathBuf,
        /// What was said.
        lines: Vec<String>,
    },
    /// The folder is not a module's.
    #[error("{} holds no kernel module: it has neither Kbuild nor Makefile.", path.display())]
    NotASource {
        /// The folder.
        path: PathBuf,
    },
    /// Kbuild was content but made no module.
    #[error("Building {} made no module: its Kbuild names none with `obj-m`.", path.display())]
    NothingBuilt {
        /// The folder.
        path: PathBuf,
    },
    /// The kernel is not there in the form that modules are built against.
    #[error(
        "No module can be built against {}: it lacks {missing}. Run `make vmlinux modules` there, or build the driver \
         yourself and give it with --module.", tree.display()
    )]
    NotATree {
        /// The kernel's folder.
        tree: PathBuf,
        /// What is missing.
        missing: &'static str,
    },
    /// A file.
    #[error("{action} {} failed: {source}.", path.display())]
    Io {
        /// What was attempted, as in "Reading".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl ModuleError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// A module that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleRequest {
    /// The folder of its sources, with a `Kbuild` or `Makefile` that sets `obj-m`.
    pub source: PathBuf,
    /// The kernel's build folder: [`BuiltKernel::build_tree`](super::kernel::BuiltKernel::build_tree), or the user's.
    pub tree: PathBuf,
    /// Compiles with `W=1` and takes every warning for an error. For a module and a kernel that are both ours.
    pub strict: bool,
}

/// Modules in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltModule {
    /// Their `.ko` files, in the order in which Kbuild lists them.
    pub files: Vec<PathBuf>,
    /// The hash of everything they were made from.
    pub key: String,
    /// True when they had been built before.
    pub cached: bool,
}

/// Builds the modules of a folder, unless they are in the cache.
pub fn build(
    cache: &Cache,
    request: &ModuleRequest,
    progress: &dyn Progress,
) -> Result<BuiltModule, ModuleError> {
    let tree = check_tree(&request.tree)?;
    let source =
        request.source.canonicalize().map_err(ModuleError::io("Finding", &request.source))?;
    let files = sources(&source)?;
    let key = key(&tree, request.strict, &files, progress)?;
    let target = cache.path(KIND, &key);
    if let Some(files) = whole(&target) {
        cache.keep_newest(KIND, &key, KEPT)?;
        return Ok(BuiltModule { files, key, cached: true });
    }
    let lock = cache.lock(&format!("module-{key}"), progress)?;
    if let Some(files) = whole(&target) {
        return Ok(BuiltModule { files, key, cached: true });
    }
    cache.require_space("Building the module", SPACE)?;
    let staging = cache.stage(&lock, KIND, &key)?;
    for (name, content) in &files {
        let path = staging.path().join(name);
        let written = path
            .parent()
            .map_or(Ok(()), fs::create_dir_all)
            .and_then(|()| fs::write(&path, content));
        written.map_err(ModuleError::io("Writing", &path))?;
    }
    compile(cache, &source, &tree, staging.path(), request.strict, progress)?;
    staging.commit()?;
    cache.keep_newest(KIND, &key, KEPT)?;
    let files = whole(&target).ok_or(ModuleError::NothingBuilt { path: source })?;
    Ok(BuiltModule { files, key, cached: false })
}

/// The modules of a finished build.
fn whole(folder: &Path) -> Option<Vec<PathBuf>> {
    let order = fs::read_to_string(folder.join("modules.order")).ok()?;
    let files: Vec<_> = order
        .lines()
        .map(|line| folder.join(below(folder, Path::new(line))).with_extension("ko"))
        .collect();
    (!files.is_empty() && files.iter().all(|file| file.is_file())).then_some(files)
}

/// A line of `modules.order` as a path below `folder`. Before Linux 6.13 Kbuild writes whole paths, and the folder was
/// still called otherwise then.
fn below<'a>(folder: &Path, line: &'a Path) -> &'a Path {
    let mut staged = folder.as_os_str().to_owned();
    staged.push(".partial");
    line.strip_prefix(&staged).unwrap_or(line)
}

fn check_tree(tree: &Path) -> Result<PathBuf, ModuleError> {
    let tree = tree.canonicalize().map_err(ModuleError::io("Finding", tree))?;
    for missing in
        ["Makefile", ".config", "Module.symvers", "scripts/mod/modpost", "scripts/module.lds"]
    {
        if !tree.join(missing).is_file() {
            return Err(ModuleError::NotATree { tree, missing });
        }
    }
    Ok(tree)
}

/// The files that make a module, by their names below the folder. What a build left there does not count, nor does
/// what is in another language.
fn sources(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, ModuleError> {
    // Looked for first: a folder that was named by mistake may hold anything.
    if !["Kbuild", "Makefile"].iter().any(|name| folder.join(name).is_file()) {
        return Err(ModuleError::NotASource { path: folder.to_owned() });
    }
    let mut files = Vec::new();
    collect(folder, Path::new(""), 0, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(
    root: &Path,
    below: &Path,
    depth: usize,
    files: &mut Vec<(PathBuf, Vec<u8>)>,
) -> Result<(), ModuleError> {
    let folder = root.join(below);
    let entries = fs::read_dir(&folder).map_err(ModuleError::io("Reading", &folder))?;
    for entry in entries {
        let entry = entry.map_err(ModuleError::io("Reading", &folder))?;
        let (name, path) = (below.join(entry.file_name()), entry.path());
        let metadata = fs::metadata(&path).map_err(ModuleError::io("Reading", &path))?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if metadata.is_dir() {
            // A linked folder may lead back up, and with two of them there is no end.
            let linked = path.is_symlink();
            if !hidden && !linked && depth < DEPTH_LIMIT && entry.file_name() != "target" {
                collect(root, &name, depth + 1, files)?;
            }
        } else if is_source(&name) && !hidden {
            let content = fs::read(&path).map_err(ModuleError::io("Reading", &path))?;
            files.push((name, content));
        }
    }
    Ok(())
}

fn is_source(name: &Path) -> bool {
    let text = name.to_string_lossy();
    let file = name.file_name().unwrap_or_default();
    let made = text.ends_with(".mod.c");
    let language = name
        .extension()
        .is_some_and(|extension| ["c", "h", "S", "lds"].iter().any(|known| extension == *known));
    !made && (language || ["Kbuild", "Makefile", "Kconfig"].iter().any(|known| file == *known))
}

/// The hash of everything that the modules are made from.
fn key(
    tree: &Path,
    strict: bool,
    files: &[(PathBuf, Vec<u8>)],
    progress: &dyn Progress,
) -> Result<String, ModuleError> {
    let compiler =
        Job::new("Asking for the compiler's version", "gcc").arg("--version").output(progress)?;
    let mut key = Key::new("module", RECIPE).field(compiler).field([u8::from(strict)]);
    key = key.field(tree.as_os_str().as_encoded_bytes());
    // A user's tree changes in place: these three change with anything that a module could notice.
    for name in [".config", "Module.symvers", "include/config/kernel.release"] {
        let path = tree.join(name);
        key = match key.clone().file(&path) {
            Ok(key) => key,
            Err(error) if error.kind() == io::ErrorKind::NotFound => key.field("none"),
            Err(error) => return Err(ModuleError::io("Reading", &path)(error)),
        };
    }
    for (name, content) in files {
        key = key.field(name.as_os_str().as_encoded_bytes()).field(content);
    }
    Ok(key.finish())
}

fn compile(
    cache: &Cache,
    source: &Path,
    tree: &Path,
    folder: &Path,
    strict: bool,
    progress: &dyn Progress,
) -> Result<(), ModuleError> {
    let title = source.file_name().unwrap_or_default().to_string_lossy();
    progress.phase(&format!("compiling the module in {title}"), None);
    let log = cache.write_file("logs", &format!("module-{title}.log"), b"")?;
    let what = format!("Building the module in {}", source.display());
    let jobs = available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    let job = Job::make(&what, jobs).arg("-C").arg(tree).arg(format!("M={}", folder.display()));
    let job = job.args(["ARCH=x86_64", if strict { "W=1" } else { "W=" }, "modules"]).log(&log);
    let mut warnings = Vec::new();
    job.run_watched(progress, &mut |event| {
        if let Event::Line(line) = event
            && is_warning(line)
        {
            // As the user knows the file, not as it is called in the cache.
            warnings
                .push(line.replace(&folder.display().to_string(), &source.display().to_string()));
        }
    })?;
    if strict && !warnings.is_empty() {
        return Err(ModuleError::Warnings { folder: source.to_owned(), lines: warnings });
    }
    Ok(())
}

/// What gcc, objtool or modpost say of something doubtful.
fn is_warning(line: &str) -> bool {
    // Missing symbol information for debuggers says nothing of the module.
    let harmless = line.contains("Skipping BTF generation");
    !harmless && (line.contains("warning: ") || line.starts_with("WARNING: "))
}

#[cfg(test)]
mod tests;
