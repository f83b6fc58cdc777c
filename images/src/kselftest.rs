//! The kernel's own test programs, built from the source of the kernel that the guest runs.
//!
//! `images/kselftests.toml` says which. They are linked statically, so that the guest needs no libraries, and kept
//! under a hash of their sources. Nothing is written into the kernel's source.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::available_parallelism;

use serde::Deserialize;

use super::cache::{Cache, CacheError, Key};
use super::command::{CommandError, Job, require_programs};
use super::progress::Progress;

/// The cache's folder of test programs.
const KIND: &str = "kselftests";
/// How many builds are kept.
const KEPT: usize = 4;
/// Counts changes of this code that change what comes out.
const RECIPE: u32 = 1;
/// Bytes that a build needs, generously.
const SPACE: u64 = 256 << 20;
/// Folders in folders, at most.
const DEPTH_LIMIT: usize = 16;
/// Where the selftests lie in a kernel's source.
const SELFTESTS: &str = "tools/testing/selftests";
/// The folder of finished programs in an entry.
const PROGRAMS: &str = "programs";

const TEXT: &str = include_str!("../kselftests.toml");

/// Why there are no test programs.
#[derive(Debug, thiserror::Error)]
pub enum KselftestError {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// A compiler or make.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The list that comes with this program.
    #[error("images/kselftests.toml: {0}")]
    Recipe(#[from] toml::de::Error),
    /// A program that the list does not have.
    #[error("{name:?} is not a test program of images/kselftests.toml")]
    Unknown {
        /// Its name.
        name: String,
    },
    /// A file.
    #[error("{action} {} failed: {source}", path.display())]
    Io {
        /// What was attempted, as in "reading".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

impl KselftestError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// What `images/kselftests.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Recipe {
    inputs: Vec<String>,
    tests: Vec<Folder>,
    single: Vec<Single>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Folder {
    folder: String,
    /// The first kernel for which they are built.
    since: Option<String>,
    programs: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Single {
    source: String,
    since: Option<String>,
    program: String,
}

impl Recipe {
    fn load() -> Result<Self, KselftestError> {
        Ok(toml::from_str(TEXT)?)
    }

    /// Leaves out what a kernel of this version does not have yet.
    fn restrict(&mut self, version: Version) {
        let has = |since: &Option<String>| since.as_deref().and_then(parse) <= Some(version);
        self.tests.retain(|test| has(&test.since));
        self.single.retain(|single| has(&single.since));
    }

    fn programs(&self) -> impl Iterator<Item = &str> {
        let folders = self.tests.iter().flat_map(|test| &test.programs);
        folders.chain(self.single.iter().map(|single| &single.program)).map(String::as_str)
    }
}

/// Fails for a name that is none of the programs.
///
/// # Errors
/// [`KselftestError::Unknown`].
pub fn check_name(name: &str) -> Result<(), KselftestError> {
    match Recipe::load()?.programs().any(|program| program == name) {
        true => Ok(()),
        false => Err(KselftestError::Unknown { name: name.to_owned() }),
    }
}

/// The source of the kernel that was built in `tree`, if it is there and has selftests: the tree itself, or what
/// Kbuild noted when it built elsewhere.
pub fn source_of(tree: &Path) -> Option<PathBuf> {
    let candidates = [tree.join("source"), tree.to_owned()];
    let found = candidates.into_iter().find(|path| path.join(SELFTESTS).join("lib.mk").is_file());
    found.and_then(|path| path.canonicalize().ok())
}

/// Builds the programs from a kernel's source, unless they are in the cache; gives the folder that holds them. Programs
/// that this kernel does not have yet are not in it.
///
/// # Errors
/// When a compiler is missing or fails, with the log's place; when the cache or the source cannot be used.
pub fn build(
    cache: &Cache,
    source: &Path,
    progress: &dyn Progress,
) -> Result<PathBuf, KselftestError> {
    let mut recipe = Recipe::load()?;
    recipe.restrict(version(source)?);
    require_programs(&["make", "gcc"])?;
    let key = key(source, &recipe, progress)?;
    let done = || {
        let folder = cache.path(KIND, &key).join(PROGRAMS);
        folder.is_dir().then_some(folder)
    };
    if let Some(folder) = done() {
        cache.keep_newest(KIND, &key, KEPT)?;
        return Ok(folder);
    }
    let lock = cache.lock(KIND, progress)?;
    if let Some(folder) = done() {
        return Ok(folder);
    }
    cache.require_space("Building the kernel's own tests", SPACE)?;
    let staging = cache.stage(&lock, KIND, &key)?;
    let log = cache.write_file("logs", "kselftests.log", b"")?;
    let steps = 1 + recipe.tests.len() + recipe.single.len();
    progress.phase("compiling the kernel's own tests", u64::try_from(steps).ok());
    Build { source, staging: staging.path(), log: &log }.run(&recipe, progress)?;
    let folder = staging.commit()?.join(PROGRAMS);
    cache.keep_newest(KIND, &key, KEPT)?;
    Ok(folder)
}

/// A kernel's version and patch level.
type Version = (u32, u32);

/// Reads `7.3`.
fn parse(text: &str) -> Option<Version> {
    let (version, level) = text.split_once('.')?;
    Some((version.parse().ok()?, level.parse().ok()?))
}

/// What the Makefile of a kernel's source says.
fn version(source: &Path) -> Result<Version, KselftestError> {
    let path = source.join("Makefile");
    let text = fs::read_to_string(&path).map_err(KselftestError::io("reading", &path))?;
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start().strip_prefix('=')?.trim().parse().ok()
    };
    // A Makefile without them is of no kernel that has these tests.
    Ok((number("VERSION").unwrap_or(0), number("PATCHLEVEL").unwrap_or(0)))
}

/// A build under way.
struct Build<'a> {
    source: &'a Path,
    staging: &'a Path,
    log: &'a Path,
}

impl Build<'_> {
    fn run(&self, recipe: &Recipe, progress: &dyn Progress) -> Result<(), KselftestError> {
        let (work, programs) = (self.staging.join("work"), self.staging.join(PROGRAMS));
        for folder in [&work, &programs] {
            fs::create_dir(folder).map_err(KselftestError::io("making", folder))?;
        }
        self.headers(&work, progress)?;
        progress.advance(1);
        let mut step = 1;
        for test in &recipe.tests {
            let output = self.selftest(&work, test, progress)?;
            for name in &test.programs {
                copy(&output.join(name), &programs.join(name))?;
            }
            step += 1;
            progress.advance(step);
        }
        for single in &recipe.single {
            self.single(&work, single, &programs.join(&single.program), progress)?;
            step += 1;
            progress.advance(step);
        }
        // Headers, objects, tests that were not asked for.
        fs::remove_dir_all(&work).map_err(KselftestError::io("removing", &work))
    }

    /// The kernel's headers for user space: those of the system know less.
    fn headers(&self, work: &Path, progress: &dyn Progress) -> Result<(), KselftestError> {
        let job = Job::make("Making the kernel's headers for user space", jobs()).arg("-C");
        let job = job.arg(self.source).arg(format!("O={}", work.join("headers").display()));
        let folder = work.join("headers");
        fs::create_dir(&folder).map_err(KselftestError::io("making", &folder))?;
        Ok(job.args(["ARCH=x86_64", "headers"]).log(self.log).run(progress)?)
    }

    fn selftest(
        &self,
        work: &Path,
        test: &Folder,
        progress: &dyn Progress,
    ) -> Result<PathBuf, KselftestError> {
        let output = work.join(&test.folder);
        fs::create_dir_all(&output).map_err(KselftestError::io("making", &output))?;
        let what = format!("Building the kernel's own tests in {}", test.folder);
        let targets = test.programs.iter().map(|name| output.join(name));
        let job = Job::make(&what, jobs())
            .arg("-C")
            .arg(self.source.join(SELFTESTS).join(&test.folder))
            .arg(format!("OUTPUT={}", output.display()))
            .arg(format!("KHDR_INCLUDES={}", include(work)))
            // The source as the compiler sees it is not the user's, and its warnings are not either.
            .args(["ARCH=x86_64", "USERCFLAGS=-w", "USERLDFLAGS=-static"])
            .args(targets);
        job.log(self.log).run(progress)?;
        Ok(output)
    }

    fn single(
        &self,
        work: &Path,
        single: &Single,
        target: &Path,
        progress: &dyn Progress,
    ) -> Result<(), KselftestError> {
        let what = format!("Building {}", single.program);
        let job = Job::new(&what, "gcc")
            .args(["-static", "-O2", "-w", "-D_GNU_SOURCE"])
            .args(include(work).split(' '))
            .arg(self.source.join(&single.source))
            .arg("-o")
            .arg(target);
        Ok(job.log(self.log).run(progress)?)
    }
}

fn include(work: &Path) -> String {
    format!("-isystem {}", work.join("headers/usr/include").display())
}

fn jobs() -> usize {
    available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

fn copy(from: &Path, to: &Path) -> Result<(), KselftestError> {
    fs::copy(from, to).map(drop).map_err(KselftestError::io("copying", from))
}

/// The hash of everything that the programs are made from.
fn key(source: &Path, recipe: &Recipe, progress: &dyn Progress) -> Result<String, KselftestError> {
    let compiler =
        Job::new("Asking for the compiler's version", "gcc").arg("--version").output(progress)?;
    let mut files = Vec::new();
    for input in &recipe.inputs {
        let path = source.join(input);
        // What an older kernel does not have yet has no part in its tests.
        if path.exists() {
            collect(&path, 0, &mut files)?;
        }
    }
    files.sort();
    let mut key = Key::new("kselftests", RECIPE).field(compiler).field(TEXT);
    for path in &files {
        let name = path.strip_prefix(source).unwrap_or(path);
        key = key.field(name.as_os_str().as_encoded_bytes());
        key = key.file(path).map_err(KselftestError::io("reading", path))?;
    }
    Ok(key.finish())
}

/// All files at or below `path`. Links are not followed: in a kernel's source they lead to other inputs.
fn collect(path: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), KselftestError> {
    let kind = fs::symlink_metadata(path).map_err(KselftestError::io("reading", path))?.file_type();
    if kind.is_file() {
        files.push(path.to_owned());
    }
    if !kind.is_dir() || depth == DEPTH_LIMIT {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(KselftestError::io("reading", path))? {
        let entry = entry.map_err(KselftestError::io("reading", path))?;
        collect(&entry.path(), depth + 1, files)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn the_list_is_whole() {
        let recipe = Recipe::load().unwrap();
        let names: Vec<_> = recipe.programs().collect();
        assert!(names.contains(&"iommufd") && names.contains(&"dma_map_benchmark"), "{names:?}");
        check_name("udmabuf").unwrap();
        let error = check_name("udmabuff").unwrap_err().to_string();
        assert!(error.contains("udmabuff") && error.contains("kselftests.toml"), "{error}");
        // What is built must count in the name of what is built.
        let counted = |path: &str| recipe.inputs.iter().any(|input| path.starts_with(input));
        for test in &recipe.tests {
            assert!(counted(&format!("{SELFTESTS}/{}", test.folder)), "{}", test.folder);
        }
        assert!(recipe.single.iter().all(|single| counted(&single.source)));
    }

    #[test]
    fn a_kernel_gets_the_programs_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let names = |makefile: &str| {
            fs::write(folder.path().join("Makefile"), makefile).unwrap();
            let mut recipe = Recipe::load().unwrap();
            recipe.restrict(version(folder.path()).unwrap());
            recipe.programs().map(str::to_owned).collect::<Vec<_>>()
        };
        let new = names("VERSION = 7\nPATCHLEVEL = 3\nSUBLEVEL = 4\n");
        assert_eq!(new.len(), Recipe::load().unwrap().programs().count());
        assert_eq!(names("VERSION = 7\nPATCHLEVEL = 10\n"), new);
        let old = names("VERSION = 6\nPATCHLEVEL = 12\n");
        assert!(old.contains(&"udmabuf".to_owned()) && !old.contains(&"iommufd".to_owned()));
        let recipe = Recipe::load().unwrap();
        let all = recipe.tests.iter().map(|test| &test.since);
        let mut all = all.chain(recipe.single.iter().map(|single| &single.since)).flatten();
        assert!(all.all(|since| parse(since).is_some()));
    }

    #[test]
    fn a_changed_source_is_another_build() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(SELFTESTS).join("iommu/iommufd.c");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, "int main;").unwrap();
        let recipe = Recipe::load().unwrap();
        let key = || key(folder.path(), &recipe, &Silent).unwrap();
        let first = key();
        assert_eq!(first, key());
        fs::write(&file, "int mian;").unwrap();
        assert_ne!(first, key());
    }

    #[test]
    fn the_source_is_beside_or_where_kbuild_says() {
        let (source, tree) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(source_of(tree.path()), None);
        fs::create_dir_all(source.path().join(SELFTESTS)).unwrap();
        fs::write(source.path().join(SELFTESTS).join("lib.mk"), "").unwrap();
        std::os::unix::fs::symlink(source.path(), tree.path().join("source")).unwrap();
        let found = source.path().canonicalize().unwrap();
        assert_eq!(source_of(tree.path()), Some(found.clone()));
        assert_eq!(source_of(source.path()), Some(found));
    }
}
