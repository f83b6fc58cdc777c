//! Getting the source package through apt, from the mirror that this machine uses anyway.
//!
//! apt runs with folders of ours for lists and downloads, so neither root nor a change of the system is needed, and
//! it verifies the suite's signature and the package's checksum. Proxies and credentials of the system's apt apply.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::KernelError;
use super::recipe::Recipe;
use crate::command::{CommandError, Event, Job};
use crate::progress::Progress;

/// A source package that the suite carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Candidate {
    /// Its name, such as `linux-source-7.3`.
    pub(super) package: String,
    /// Its version in the archive.
    pub(super) version: String,
    /// The SHA-256 of its file, in hexadecimal, from the signed index.
    pub(super) sha256: String,
    /// The size of its file in bytes.
    pub(super) size: u64,
}

/// apt with folders of its own.
#[derive(Debug)]
pub(super) struct Apt {
    options: Vec<String>,
    folder: PathBuf,
}

impl Apt {
    /// Prepares apt in `folder`, which must exist, and gets the suite's index.
    pub(super) fn update(
        folder: &Path,
        recipe: &Recipe,
        progress: &dyn Progress,
    ) -> Result<Self, KernelError> {
        let mirror = mirror(recipe, progress)?;
        let keyring = keyring(recipe)?;
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).map_err(KernelError::io("Writing", &path)).map(|()| path)
        };
        let Recipe { suite, component, .. } = recipe;
        // The source is the same for all architectures; one index of it is enough.
        let line = format!(
            "deb [arch=amd64 signed-by={}] {mirror} {suite} {component}\n",
            keyring.display()
        );
        let list = write("sources.list", &line)?;
        let status = write("status", "")?;
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).map_err(KernelError::io("Making", &path))?;
        }
        let options = [
            ("Dir::Etc::SourceList", list.display().to_string()),
            ("Dir::Etc::SourceParts", "-".to_owned()),
            ("Dir::State::Lists", folder.join("lists").display().to_string()),
            ("Dir::State::Status", status.display().to_string()),
            ("Dir::Cache", folder.join("cache").display().to_string()),
            // As root apt would hand its work to a user that may not read this folder.
            ("APT::Sandbox::User", "root".to_owned()),
            ("Acquire::Languages", "none".to_owned()),
            ("Acquire::PDiffs", "false".to_owned()),
            ("Acquire::Retries", "3".to_owned()),
        ];
        let options = options
            .iter()
            .flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")])
            .collect();
        let apt = Self { options, folder: folder.to_owned() };
        progress.phase(&format!("getting the index of {suite}"), None);
        // Errors rather than warnings when the index cannot be had: an old one must not pass for new.
        let job = Job::new("Getting the index of the kernel's source", "apt-get");
        job.args(&apt.options)
            .args(["-q", "--error-on=any", "update"])
            .run(progress)
            .map_err(at_mirror)?;
        Ok(apt)
    }

    /// All kernel sources that the suite carries.
    pub(super) fn candidates(
        &self,
        recipe: &Recipe,
        progress: &dyn Progress,
    ) -> Result<Vec<Candidate>, KernelError> {
        // The names are known by their shape only.
        self.packages(&format!("^{}[0-9.]*$", recipe.prefix), progress)
    }

    /// All packages whose names match a regular expression, as apt-cache takes it.
    pub(super) fn packages(
        &self,
        pattern: &str,
        progress: &dyn Progress,
    ) -> Result<Vec<Candidate>, KernelError> {
        let job = Job::new("Looking for the kernel's packages", "apt-cache");
        let text =
            job.args(&self.options).args(["show", "--all-versions", pattern]).output(progress)?;
        Ok(parse_candidates(&text))
    }

    /// Downloads a package, whose content apt verifies, and gives back its file.
    pub(super) fn download(
        &self,
        candidate: &Candidate,
        progress: &dyn Progress,
    ) -> Result<PathBuf, KernelError> {
        let Candidate { package, version, size, .. } = candidate;
        let folder = self.folder.join("download").join(package);
        fs::create_dir_all(&folder).map_err(KernelError::io("Making", &folder))?;
        progress
            .phase(&format!("downloading {package} {version} ({} MiB)", size >> 20), Some(*size));
        let mut watch = |event: Event<'_>| {
            if matches!(event, Event::Tick) {
                progress.advance(
                    size_of(&folder)
                        .saturating_add(size_of(&self.folder.join("cache/archives/partial"))),
                );
            }
        };
        let job = Job::new("Downloading the kernel's source", "apt-get").current_dir(&folder);
        let job =
            job.args(&self.options).args(["-q", "download"]).arg(format!("{package}={version}"));
        job.run_watched(progress, &mut watch).map_err(at_mirror)?;
        let entries = fs::read_dir(&folder).map_err(KernelError::io("Reading", &folder))?;
        let mut files = entries.filter_map(Result::ok).map(|entry| entry.path());
        let deb = files.find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        deb.ok_or_else(|| {
            KernelError::io("Finding the download in", &folder)(std::io::ErrorKind::NotFound.into())
        })
    }
}

/// A failure that has to do with the mirror, as most of apt's have.
fn at_mirror(error: CommandError) -> KernelError {
    match error {
        CommandError::Failed { .. } => KernelError::Mirror(error),
        other => other.into(),
    }
}

/// Bytes in the files directly in a folder.
fn size_of(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let metadata = entries.filter_map(Result::ok).filter_map(|entry| entry.metadata().ok());
    metadata.filter(fs::Metadata::is_file).map(|metadata| metadata.len()).sum()
}

/// The Debian mirror that this machine uses, or the one that the user names.
fn mirror(recipe: &Recipe, progress: &dyn Progress) -> Result<String, KernelError> {
    if let Some(mirror) =
        std::env::var("PEERDMA_DEBIAN_MIRROR").ok().filter(|mirror| !mirror.trim().is_empty())
    {
        return Ok(mirror.trim().to_owned());
    }
    let none =
        || KernelError::NoMirror { suite: recipe.suite.clone(), minimum: recipe.minimum.clone() };
    let job = Job::new("Asking apt for its mirrors", "apt-get");
    let format = "$(REPO_URI)|$(ORIGIN)|$(LABEL)|$(RELEASE)";
    let job = job.args(["indextargets", "--format", format, "Created-By: Packages"]);
    // Without apt there is no mirror either, and what helps is the same.
    let text = job.output(progress).map_err(|_| none())?;
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    choose_mirror(&text, release.lines().any(|line| line.trim() == "ID=debian")).ok_or_else(none)
}

/// The first Debian archive in apt's list that is not the security archive. Where apt has not got its lists yet it
/// does not know an archive's origin: `on_debian` says that it can be no other.
fn choose_mirror(targets: &str, on_debian: bool) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut fields = line.split('|');
        let (uri, origin, label) = (fields.next()?, fields.next()?, fields.next()?);
        let security =
            label == "Debian-Security" || fields.any(|release| release.contains("-security"));
        let security = security || uri.trim_end_matches('/').ends_with("security");
        let debian = origin == "Debian" || (origin.is_empty() && on_debian);
        (debian && !security && uri.contains(':') && !uri.starts_with("cdrom:"))
            .then(|| uri.to_owned())
    })
}

/// The keyring, under either of the names that Debian has given it.
fn keyring(recipe: &Recipe) -> Result<PathBuf, KernelError> {
    let path = PathBuf::from(&recipe.keyring);
    let candidates = [path.clone(), path.with_extension("pgp")];
    candidates.into_iter().find(|path| path.is_file()).ok_or(KernelError::NoKeyring { path })
}

/// Reads the paragraphs that `apt-cache show` prints.
fn parse_candidates(text: &str) -> Vec<Candidate> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let field = |name: &str| {
                let mut values = paragraph.lines().filter_map(|line| line.strip_prefix(name));
                values.find_map(|value| value.strip_prefix(": ")).map(str::trim)
            };
            let sha256 = field("SHA256")?.to_owned();
            if sha256.len() != 64 {
                return None;
            }
            let (package, version) = (field("Package")?.to_owned(), field("Version")?.to_owned());
            Some(Candidate { package, version, sha256, size: field("Size")?.parse().ok()? })
        })
        .collect()
}

/// The pinned version when it is there as pinned, else the newest that is new enough.
pub(super) fn choose<'a>(
    candidates: &'a [Candidate],
    recipe: &Recipe,
    progress: &dyn Progress,
) -> Result<&'a Candidate, KernelError> {
    let pin = &recipe.pin;
    let pinned = |candidate: &&Candidate| {
        candidate.package == pin.package
            && candidate.version == pin.version
            && candidate.sha256 == pin.sha256
    };
    if let Some(candidate) = candidates.iter().find(pinned) {
        return Ok(candidate);
    }
    let mut best: Option<((u32, u32), &Candidate)> = None;
    for candidate in candidates {
        let Some(series) = recipe.series(&candidate.package) else { continue };
        let better = match best {
            None => true,
            Some((other, _)) if other != series => series > other,
            Some((_, other)) => newer(&candidate.version, &other.version, progress)?,
        };
        if better {
            best = Some((series, candidate));
        }
    }
    best.map(|(_, candidate)| candidate).ok_or_else(|| {
        let found: Vec<_> =
            candidates.iter().map(|found| format!("{} {}", found.package, found.version)).collect();
        let found = if found.is_empty() { "none".to_owned() } else { found.join(", ") };
        KernelError::NoCandidate {
            suite: recipe.suite.clone(),
            minimum: recipe.minimum.clone(),
            found,
        }
    })
}

/// Debian's order of versions, asked of dpkg itself.
fn newer(version: &str, than: &str, progress: &dyn Progress) -> Result<bool, KernelError> {
    let job =
        Job::new("Comparing versions", "dpkg").args(["--compare-versions", version, "gt", than]);
    match job.run(progress) {
        Ok(()) => Ok(true),
        Err(CommandError::Failed { status, .. }) if status.code() == Some(1) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Flavour;
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn the_mirror_is_the_machines_own_but_not_the_security_archive() {
        let targets = "http://one/debian-security/|Debian|Debian-Security|bookworm-security\n\
                       http://two/debian/|Debian|Debian|bookworm-updates\nhttp://three/debian/|Debian|Debian|bookworm\n";
        assert_eq!(choose_mirror(targets, false).as_deref(), Some("http://two/debian/"));
    }

    #[test]
    fn another_distribution_has_no_debian_mirror() {
        let targets =
            "http://one/ubuntu/|Ubuntu|Ubuntu|noble\nhttps://two/apt/|Docker|Docker|bookworm\n";
        assert_eq!(choose_mirror(targets, false), None);
        assert_eq!(choose_mirror("", true), None);
        assert_eq!(choose_mirror("warning: nonsense\n", true), None);
    }

    #[test]
    fn without_lists_debian_is_known_by_the_system() {
        let targets = "cdrom://disc/|||bookworm\nhttp://one/debian-security/|||bookworm-security\nhttp://two/debian/|||bookworm\n";
        assert_eq!(choose_mirror(targets, true).as_deref(), Some("http://two/debian/"));
        assert_eq!(choose_mirror(targets, false), None);
    }

    fn candidate(package: &str, version: &str) -> Candidate {
        Candidate {
            package: package.to_owned(),
            version: version.to_owned(),
            sha256: "0".repeat(64),
            size: 1,
        }
    }

    #[test]
    fn the_pin_wins_only_when_it_is_the_very_package() {
        let recipe = Recipe::load(Flavour::Lab).unwrap();
        let newer = candidate("linux-source-7.10", "7.10.1-1");
        let mut pinned = candidate(&recipe.pin.package, &recipe.pin.version);
        let others = [newer.clone(), pinned.clone()];
        assert_eq!(choose(&others, &recipe, &Silent).unwrap(), &newer);
        pinned.sha256.clone_from(&recipe.pin.sha256);
        let all = [newer, pinned.clone()];
        assert_eq!(choose(&all, &recipe, &Silent).unwrap(), &pinned);
    }

    #[test]
    fn the_newest_of_a_series_is_found_by_debians_own_order() {
        let recipe = Recipe::load(Flavour::Lab).unwrap();
        let versions = ["7.3.9-1~bpo13+1", "7.3.11-1~bpo13+1", "7.3.11~rc1-1"];
        let all: Vec<_> =
            versions.iter().map(|version| candidate("linux-source-7.3", version)).collect();
        assert_eq!(choose(&all, &recipe, &Silent).unwrap().version, "7.3.11-1~bpo13+1");
    }

    #[test]
    fn a_suite_with_old_kernels_only_is_reported_with_what_it_has() {
        let recipe = Recipe::load(Flavour::Lab).unwrap();
        let error = choose(&[candidate("linux-source-7.2", "7.2.12-1")], &recipe, &Silent)
            .unwrap_err()
            .to_string();
        assert!(error.contains("at least 7.3 (it has: linux-source-7.2 7.2.12-1)"), "{error}");
        assert!(error.contains("PEERDMA_KERNEL_TREE"), "{error}");
    }

    #[test]
    fn the_index_is_read_by_field() {
        let sha = "7".repeat(64);
        let text = format!(
            "W: a warning\nPackage: linux-source-7.3\nSource: linux\nVersion: 7.3.4-1\nDescription: x\n Version: 9\n\
             Size: 42\nSHA256: {sha}\n\nPackage: broken\nVersion: 1\nSize: 3\nSHA256: short\n\n"
        );
        let found = parse_candidates(&text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].version.as_str(), found[0].size), ("7.3.4-1", 42));
    }
}
