//! The kernel's source on this machine: unpacked once from the distribution's package, or the user's own tree.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::apt::{Apt, Candidate, choose};
use super::recipe::Recipe;
use super::{Flavour, KernelError, KernelRequest, Source};
use crate::cache::{Cache, Key, Lock, hex, sha256_file};
use crate::command::{Event, Job, require_programs};
use crate::progress::Progress;

/// The cache's folder of unpacked sources.
pub(super) const SOURCES: &str = "sources";
/// The files there that say which source was chosen.
fn resolved_name(flavour: Flavour) -> &'static str {
    match flavour {
        Flavour::Lab | Flavour::Debug | Flavour::Stock | Flavour::Gdb => "chosen.json",
        Flavour::Lts => "chosen-lts.json",
    }
}

/// Bytes that download, unpacking and the unpacked source take at the worst moment.
const UNPACK_SPACE: u64 = 1_800 << 20;
/// Files in the source as we unpack it, about: the bar's guess.
const UNPACK_FILES: u64 = 75_000;

/// A source tree that is ready to be built outside of itself.
#[derive(Debug, Clone)]
pub(super) struct SourceTree {
    /// Its folder.
    pub(super) path: PathBuf,
    /// What identifies its content.
    pub(super) identity: String,
    /// What to call it, for people.
    pub(super) name: String,
    /// Its version in the archive, when it comes from there.
    pub(super) version: Option<String>,
}

/// Which source the distribution's suite gave, for which recipe.
#[derive(Debug, Serialize, Deserialize)]
struct Resolved {
    recipe: String,
    candidate: Candidate,
}

impl Resolved {
    fn tree(&self, cache: &Cache) -> SourceTree {
        let Candidate { package, version, sha256, .. } = &self.candidate;
        // The folder's name is part of paths that Kbuild handles: only the plain part of the version goes in.
        let plain: String =
            version.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '.').collect();
        let short: String = sha256.chars().take(12).collect();
        SourceTree {
            path: cache.path(SOURCES, &format!("linux-{plain}-{short}")),
            identity: format!("{version} {sha256} {}", self.recipe),
            name: format!("{package} {version}"),
            version: Some(version.clone()),
        }
    }
}

/// The source, if no work is needed to have it.
pub(super) fn known(
    cache: &Cache,
    flavour: Flavour,
    source: &Source,
) -> Result<Option<SourceTree>, KernelError> {
    match source {
        Source::Tree(path) => own_tree(path).map(Some),
        Source::Distribution => {
            let path = cache.path(SOURCES, resolved_name(flavour));
            // A missing or unreadable note is not an error: the choice is made again.
            let resolved: Option<Resolved> =
                fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            let current = resolved.filter(|resolved| resolved.recipe == recipe_identity(flavour));
            Ok(current.map(|resolved| resolved.tree(cache)).filter(|tree| tree.path.is_dir()))
        }
    }
}

fn recipe_identity(flavour: Flavour) -> String {
    Key::new("kernel source recipe", 1).field(Recipe::text(flavour)).finish()
}

/// The source, downloaded and unpacked if need be.
pub(super) fn provide(
    cache: &Cache,
    lock: &Lock,
    request: &KernelRequest,
    progress: &dyn Progress,
) -> Result<SourceTree, KernelError> {
    let KernelRequest { flavour, ref source, refresh, .. } = *request;
    if let Some(tree) = known(cache, flavour, source)?.filter(|_| !refresh) {
        return Ok(tree);
    }
    let recipe = Recipe::load(flavour)?;
    let work = cache.stage(lock, SOURCES, &format!("apt-{}", flavour.source_lock()))?;
    let apt = Apt::update(work.path(), &recipe, progress)?;
    let candidates = apt.candidates(&recipe, progress)?;
    let candidate = choose(&candidates, &recipe, progress)?.clone();
    let pinned = candidate.sha256 == recipe.pin.sha256;
    let why = if pinned { "the pinned version" } else { "the newest; the pinned version is gone" };
    progress.note(&format!("Kernel source: {} {} ({why}).", candidate.package, candidate.version));
    let resolved = Resolved { recipe: recipe_identity(flavour), candidate };
    let tree = resolved.tree(cache);
    if !tree.path.is_dir() {
        require_programs(&["dpkg-deb", "tar", "xz"])?;
        cache.require_space("Downloading and unpacking the kernel's source", UNPACK_SPACE)?;
        let deb = apt.download(&resolved.candidate, progress)?;
        check(&deb, &resolved.candidate)?;
        unpack(cache, lock, &recipe, &deb, &tree, progress)?;
    }
    let text = serde_json::to_vec_pretty(&resolved).unwrap_or_default();
    cache.write_file(SOURCES, resolved_name(flavour), &text)?;
    Ok(tree)
}

/// apt has verified this already; a look of our own costs half a second and needs no trust in its settings.
pub(super) fn check(deb: &Path, candidate: &Candidate) -> Result<(), KernelError> {
    let actual = sha256_file(deb).map_err(KernelError::io("Reading", deb))?;
    if actual == candidate.sha256 {
        return Ok(());
    }
    Err(KernelError::Checksum {
        package: candidate.package.clone(),
        wanted: candidate.sha256.clone(),
        actual,
    })
}

fn unpack(
    cache: &Cache,
    lock: &Lock,
    recipe: &Recipe,
    deb: &Path,
    tree: &SourceTree,
    progress: &dyn Progress,
) -> Result<(), KernelError> {
    let work = deb.with_extension("unpacked");
    progress.phase("unpacking the source", Some(UNPACK_FILES));
    let job = Job::new("Unpacking the kernel's package", "dpkg-deb").arg("--extract");
    job.arg(deb).arg(&work).run(progress)?;
    fs::remove_file(deb).map_err(KernelError::io("Removing", deb))?;
    let archive = find_archive(&work.join("usr/src"))?;

    let name = tree.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let staging = cache.stage(lock, SOURCES, &name)?;
    let excludes = recipe.unpack.exclude.iter().map(|pattern| format!("--exclude=*/{pattern}"));
    let job = Job::new("Unpacking the kernel's source", "tar").args([
        "--extract",
        "--verbose",
        "--strip-components=1",
    ]);
    // The archive's owners and times would mean nothing here.
    let job = job.args(["--no-same-owner", "--touch", "--use-compress-program=xz -T0"]);
    let job = job.args(["--anchored", "--wildcards", "--no-wildcards-match-slash"]).args(excludes);
    let job = job.arg("--directory").arg(staging.path()).arg("--file").arg(&archive);
    let mut files = 0;
    job.run_watched(progress, &mut |event| {
        files += u64::from(matches!(event, Event::Line(_)));
        progress.advance(files);
    })?;
    require_tree(staging.path())?;
    staging.commit()?;
    Ok(())
}

fn find_archive(folder: &Path) -> Result<PathBuf, KernelError> {
    let entries = fs::read_dir(folder).map_err(KernelError::io("Reading", folder))?;
    let mut paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let archive = paths.find(|path| path.to_string_lossy().ends_with(".tar.xz"));
    archive.ok_or_else(|| {
        KernelError::io("Finding the source's archive in", folder)(
            std::io::ErrorKind::NotFound.into(),
        )
    })
}

/// Fails for a folder that is not a kernel source.
fn require_tree(path: &Path) -> Result<(), KernelError> {
    for missing in ["Makefile", "Kconfig", "arch/x86/Kconfig", "scripts/Makefile.build"] {
        if !path.join(missing).is_file() {
            return Err(KernelError::NotATree { path: path.to_owned(), missing });
        }
    }
    Ok(())
}

/// The user's own tree.
fn own_tree(path: &Path) -> Result<SourceTree, KernelError> {
    let path = path.canonicalize().map_err(KernelError::io("Finding", path))?;
    require_tree(&path)?;
    // What Kbuild itself looks for before it builds elsewhere.
    if [".config", "include/config", "arch/x86/include/generated"]
        .iter()
        .any(|name| path.join(name).exists())
    {
        return Err(KernelError::DirtyTree { path });
    }
    let identity = fingerprint(&path)?;
    let name = path.display().to_string();
    Ok(SourceTree { path, identity, name, version: None })
}

/// What changes when a file of the tree changes: names, sizes, times. Reading 1.5 GB at each call would take longer
/// than a user wants to wait for "nothing has changed".
fn fingerprint(root: &Path) -> Result<String, KernelError> {
    let mut hash = Sha256::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).map_err(KernelError::io("Reading", &folder))?;
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.file_name().is_some_and(|name| name == ".git") {
                continue;
            }
            let metadata =
                fs::symlink_metadata(&path).map_err(KernelError::io("Reading", &path))?;
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(root).unwrap_or(&path).as_os_str().as_encoded_bytes();
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name);
            hash.update(metadata.len().to_le_bytes());
            hash.update(metadata.mtime().to_le_bytes());
            hash.update(metadata.mtime_nsec().to_le_bytes());
        }
    }
    Ok(format!("tree {} {}", root.display(), hex(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["Makefile", "Kconfig", "arch/x86/Kconfig", "scripts/Makefile.build"] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        folder
    }

    #[test]
    fn a_change_in_the_users_tree_is_another_source() {
        let folder = tree();
        let first = own_tree(folder.path()).unwrap();
        assert_eq!(first.identity, own_tree(folder.path()).unwrap().identity);
        fs::create_dir(folder.path().join(".git")).unwrap();
        fs::write(folder.path().join(".git/index"), "x").unwrap();
        assert_eq!(first.identity, own_tree(folder.path()).unwrap().identity);
        fs::write(folder.path().join("Kconfig"), "another").unwrap();
        assert_ne!(first.identity, own_tree(folder.path()).unwrap().identity);
    }

    #[test]
    fn a_tree_built_in_place_is_refused_with_both_ways_out() {
        let folder = tree();
        fs::write(folder.path().join(".config"), "").unwrap();
        let error = own_tree(folder.path()).unwrap_err();
        assert!(matches!(error, KernelError::DirtyTree { .. }));
        let text = error.to_string();
        assert!(text.contains("make mrproper") && text.contains("--kernel"), "{text}");
    }

    #[test]
    fn a_folder_that_is_not_a_kernel_is_reported_by_what_it_lacks() {
        let folder = tree();
        fs::remove_file(folder.path().join("arch/x86/Kconfig")).unwrap();
        let error = own_tree(folder.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("is not a Linux source tree: it has no arch/x86/Kconfig."),
            "{error}"
        );
        assert!(own_tree(Path::new("/nonexistent/tree")).is_err());
    }

    #[test]
    fn a_download_that_is_not_what_the_index_says_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let deb = folder.path().join("x.deb");
        fs::write(&deb, "not it").unwrap();
        let candidate = Candidate {
            package: "linux-source-7.3".to_owned(),
            version: "7.3.4-1".to_owned(),
            sha256: "0".repeat(64),
            size: 6,
        };
        assert!(matches!(check(&deb, &candidate), Err(KernelError::Checksum { .. })));
    }

    #[test]
    fn the_folder_of_a_source_has_a_plain_name() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path()).unwrap();
        let candidate = Candidate {
            package: "linux-source-7.3".to_owned(),
            version: "7.3.4-1~bpo13+1".to_owned(),
            sha256: "ab".repeat(32),
            size: 6,
        };
        let tree = Resolved { recipe: recipe_identity(Flavour::Lab), candidate }.tree(&cache);
        assert!(tree.path.ends_with("sources/linux-7.3.4-abababababab"), "{}", tree.path.display());
    }
}
