//! The cache folder: names that are hashes, entries that appear whole or not at all, one builder at a time.
//!
//! An entry is made in a staging folder beside its final place and renamed when it is whole, so what carries a
//! final name is complete whenever the maker was interrupted. Staging folders of a maker that was killed are removed
//! by the next one: holding the lock, it knows that they are no longer in use.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::progress::Progress;

/// How often a process that waits for a lock tries again.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Why the cache could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Neither `XDG_CACHE_HOME` nor `HOME` says where caches belong.
    #[error(
        "There is no folder for the cache: set HOME, or XDG_CACHE_HOME to a folder with some gigabytes of room."
    )]
    NoHome,
    /// A file or folder in the cache refuses.
    #[error("The cache at {} cannot be used ({action}): {source}.", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file system is too full for what is to be made.
    #[error(
        "{what} needs about {} MiB and only {} MiB are free at {}. Make room, run `peerdma kernel build --clean`, \
         or set XDG_CACHE_HOME to a roomier place.",
        needed >> 20, available >> 20, path.display()
    )]
    NoSpace {
        /// What was to be made.
        what: String,
        /// Bytes needed, roughly.
        needed: u64,
        /// Bytes free.
        available: u64,
        /// Where.
        path: PathBuf,
    },
    /// The user gave up while another run held the lock.
    #[error("Interrupted while waiting for another run.")]
    Interrupted,
}

impl CacheError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// The folder in which everything built or downloaded is kept.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
    limit: Option<u64>,
}

impl Cache {
    /// The user's cache: `$XDG_CACHE_HOME/peerdma`, or `~/.cache/peerdma`. Made when it does not exist.
    pub fn open() -> Result<Self, CacheError> {
        // The XDG rules: a relative path there is to be ignored.
        let from = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let base = from("XDG_CACHE_HOME").or_else(|| from("HOME").map(|home| home.join(".cache")));
        Self::at(base.ok_or(CacheError::NoHome)?.join("peerdma"))
    }

    /// A cache at `root`, which is made when it does not exist.
    pub fn at(root: impl Into<PathBuf>) -> Result<Self, CacheError> {
        let root = root.into();
        fs::create_dir_all(&root).map_err(CacheError::io("making the folder", &root))?;
        let root = root.canonicalize().map_err(CacheError::io("finding the folder", &root))?;
        Ok(Self { root, limit: None })
    }

    /// The same cache, which takes the disk to have at most `bytes` free.
    pub fn limited_to(mut self, bytes: u64) -> Self {
        self.limit = Some(bytes);
        self
    }

    /// The cache's own folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the entry `name` of a kind is, or would be. The parent folder is not made.
    pub fn path(&self, kind: &str, name: &str) -> PathBuf {
        self.root.join(kind).join(name)
    }

    /// The folder of all entries of a kind, made when it does not exist.
    pub fn folder(&self, kind: &str) -> Result<PathBuf, CacheError> {
        let path = self.root.join(kind);
        fs::create_dir_all(&path).map_err(CacheError::io("making a folder", &path))?;
        Ok(path)
    }

    /// Bytes that an ordinary user can still write to the cache's file system.
    pub fn available(&self) -> Result<u64, CacheError> {
        let stat = rustix::fs::statvfs(&self.root)
            .map_err(|errno| CacheError::io("asking for free space", &self.root)(errno.into()))?;
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        Ok(self.limit.map_or(free, |limit| free.min(limit)))
    }

    /// Fails when fewer than `needed` bytes are free for `what` (the subject of a sentence).
    pub fn require_space(&self, what: &str, needed: u64) -> Result<(), CacheError> {
        let available = self.available()?;
        if available >= needed {
            return Ok(());
        }
        Err(CacheError::NoSpace {
            what: what.to_owned(),
            needed,
            available,
            path: self.root.clone(),
        })
    }

    /// Takes the lock `name`, waiting for its holder and saying so.
    pub fn lock(&self, name: &str, progress: &dyn Progress) -> Result<Lock, CacheError> {
        let path = self.folder("locks")?.join(format!("{name}.lock"));
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.map_err(CacheError::io("opening a lock", &path))?;
        let mut said = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => {}
                Err(TryLockError::Error(error)) => {
                    return Err(CacheError::io("taking a lock", &path)(error));
                }
            }
            if !said {
                said = true;
                progress.note(&format!(
                    "Another run ({}) is at work on {name}: waiting for it.",
                    holder(&mut file)
                ));
            }
            if progress.cancelled() {
                return Err(CacheError::Interrupted);
            }
            sleep(LOCK_POLL);
        }
        // Only for the sentence above: failing to write it harms nothing.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "process {}", std::process::id());
        Ok(Lock { _file: file })
    }

    /// An empty staging folder for the entry `name`. The caller holds the lock that belongs to it, so a folder left
    /// behind there is no longer in use and is removed.
    pub fn stage(&self, _lock: &Lock, kind: &str, name: &str) -> Result<Staging, CacheError> {
        let path = self.folder(kind)?.join(format!("{name}.partial"));
        remove_tree(&path)?;
        fs::create_dir(&path).map_err(CacheError::io("making a staging folder", &path))?;
        Ok(Staging { target: self.path(kind, name), path: Some(path) })
    }

    /// Writes a file of the cache so that readers see the old content or the new one, never a part.
    pub fn write_file(
        &self,
        kind: &str,
        name: &str,
        content: &[u8],
    ) -> Result<PathBuf, CacheError> {
        let folder = self.folder(kind)?;
        let path = folder.join(name);
        let failed = |error| CacheError::io("writing a file", &path)(error);
        // Temporary files are private by default; this one stays, and a test host may run as
        // another user.
        let mut builder = tempfile::Builder::new();
        let file = builder.permissions(fs::Permissions::from_mode(0o644)).tempfile_in(&folder);
        let mut file = file.map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.persist(&path).map_err(|error| failed(error.error))?;
        Ok(path)
    }

    /// Notes that the entry `name` is in use, and removes the files and folders of its kind that have not been used
    /// for longest until `count` are left.
    pub fn keep_newest(&self, kind: &str, name: &str, count: usize) -> Result<(), CacheError> {
        let folder = self.folder(kind)?;
        let used = self.path(kind, name);
        // The time of last use is the time of last change: access times are often not kept.
        let touched = File::open(&used).and_then(|file| file.set_modified(SystemTime::now()));
        touched.map_err(CacheError::io("marking as used", &used))?;
        let entries = fs::read_dir(&folder).map_err(CacheError::io("listing", &folder))?;
        let age = |entry: &fs::DirEntry| entry.metadata().and_then(|metadata| metadata.modified());
        let mut entries: Vec<_> = entries
            .filter_map(Result::ok)
            .filter_map(|entry| Some((age(&entry).ok()?, entry.path())))
            .collect();
        // What is being made belongs to another run.
        let staged = |path: &Path| path.extension() == Some("partial".as_ref());
        entries.retain(|(_, path)| *path != used && !staged(path));
        entries.sort();
        let surplus = (entries.len() + 1).saturating_sub(count);
        entries.iter().take(surplus).try_for_each(|(_, path)| discard(path))
    }

    /// Removes an entry, which need not exist.
    pub fn remove(&self, kind: &str, name: &str) -> Result<(), CacheError> {
        discard(&self.path(kind, name))
    }
}

/// The process that has a lock, in words.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.take(64).read_to_string(&mut text));
    if read.is_ok() && !text.is_empty() { text } else { "unknown".to_owned() }
}

/// Removes an entry, which need not exist. An interruption leaves nothing that looks like an entry.
fn discard(path: &Path) -> Result<(), CacheError> {
    remove_tree(&set_aside(path)?)
}

/// Takes an entry's name away from it, at once; gives the name under which its remains are.
fn set_aside(path: &Path) -> Result<PathBuf, CacheError> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".removed");
    let aside = PathBuf::from(aside);
    remove_tree(&aside)?;
    match fs::rename(path, &aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CacheError::io("removing", path)(error))
        }
        _ => Ok(aside),
    }
}

/// Removes a file or folder that need not exist.
fn remove_tree(path: &Path) -> Result<(), CacheError> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CacheError::io("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// A folder in which an entry is being made. Dropped before [`Staging::commit`], it vanishes with all it holds.
#[derive(Debug)]
pub struct Staging {
    path: Option<PathBuf>,
    target: PathBuf,
}

impl Staging {
    /// The folder to write to.
    pub fn path(&self) -> &Path {
        self.path.as_deref().unwrap_or(&self.target)
    }

    /// The place that the entry will have.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Gives the entry its final name, in place of an older one.
    pub fn commit(mut self) -> Result<PathBuf, CacheError> {
        discard(&self.target)?;
        if let Some(path) = &self.path {
            fs::rename(path, &self.target)
                .map_err(CacheError::io("giving an entry its name", &self.target))?;
        }
        self.path = None;
        Ok(std::mem::take(&mut self.target))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Some(path) = self.path.take() {
            // What cannot be removed now is removed when this entry is next staged.
            let _ = remove_tree(&path);
        }
    }
}

/// The name of an entry: a hash of everything it is made from.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// A key for entries of a kind. `recipe` counts the changes of the code that makes them.
    pub fn new(kind: &str, recipe: u32) -> Self {
        Self(Sha256::new()).field(kind).field(recipe.to_le_bytes())
    }

    /// One more input. Its length goes in too: inputs never run into each other.
    pub fn field(mut self, input: impl AsRef<[u8]>) -> Self {
        let input = input.as_ref();
        self.0.update((input.len() as u64).to_le_bytes());
        self.0.update(input);
        self
    }

    /// The content of a file as one more input.
    pub fn file(self, path: &Path) -> io::Result<Self> {
        Ok(self.field(sha256_file(path)?))
    }

    /// The key as 24 hexadecimal digits (96 bits): short enough for a path, long enough never to meet another.
    pub fn finish(self) -> String {
        hex(&self.0.finalize()[..12])
    }
}

/// Bytes in hexadecimal, small letters.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string never fails.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The SHA-256 of a file, in hexadecimal.
pub fn sha256_file(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            count => hash.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    fn cache() -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::at(folder.path().join("deep/cache")).unwrap();
        (folder, cache)
    }

    #[test]
    fn an_entry_appears_whole() {
        let (_folder, cache) = cache();
        let lock = cache.lock("thing", &Silent).unwrap();
        let staging = cache.stage(&lock, "things", "one").unwrap();
        fs::write(staging.path().join("a"), "1").unwrap();
        assert!(!cache.path("things", "one").exists());
        let path = staging.commit().unwrap();
        assert_eq!(path, cache.path("things", "one"));
        assert_eq!(fs::read(path.join("a")).unwrap(), b"1");
        assert_eq!(fs::read_dir(cache.root().join("things")).unwrap().count(), 1);
    }

    #[test]
    fn an_entry_that_is_given_up_leaves_nothing() {
        let (_folder, cache) = cache();
        let lock = cache.lock("thing", &Silent).unwrap();
        let staging = cache.stage(&lock, "things", "one").unwrap();
        fs::write(staging.path().join("a"), "1").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(cache.root().join("things")).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_run_left_is_not_taken_over() {
        let (_folder, cache) = cache();
        let left = cache.folder("things").unwrap().join("one.partial");
        fs::create_dir(&left).unwrap();
        fs::write(left.join("half"), "ha").unwrap();
        let lock = cache.lock("thing", &Silent).unwrap();
        let staging = cache.stage(&lock, "things", "one").unwrap();
        assert_eq!(fs::read_dir(staging.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_entry_loses_its_name_before_its_content() {
        let (_folder, cache) = cache();
        let folder = cache.folder("things").unwrap();
        fs::create_dir(folder.join("one")).unwrap();
        fs::write(folder.join("one/a"), "1").unwrap();
        let aside = set_aside(&folder.join("one")).unwrap();
        assert!(!folder.join("one").exists() && aside.join("a").exists());
        // The run ended here. The next one that removes an entry of this name removes the remains too.
        fs::write(folder.join("one"), "2").unwrap();
        cache.remove("things", "one").unwrap();
        cache.remove("things", "one").unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }

    #[test]
    fn what_another_run_is_making_is_not_surplus() {
        let (_folder, cache) = cache();
        let folder = cache.folder("things").unwrap();
        for name in ["old", "new", "other.partial"] {
            fs::create_dir(folder.join(name)).unwrap();
        }
        cache.keep_newest("things", "new", 1).unwrap();
        assert!(folder.join("other.partial").exists() && !folder.join("old").exists());
    }

    #[derive(Debug, Default)]
    struct Impatient(std::sync::Mutex<Vec<String>>);

    impl Progress for Impatient {
        fn phase(&self, _title: &str, _total: Option<u64>) {}
        fn advance(&self, _done: u64) {}
        fn note(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
        fn cancelled(&self) -> bool {
            true
        }
    }

    #[test]
    fn a_second_run_waits_and_says_for_whom() {
        let (_folder, cache) = cache();
        let held = cache.lock("thing", &Silent).unwrap();
        let impatient = Impatient::default();
        assert!(matches!(cache.lock("thing", &impatient), Err(CacheError::Interrupted)));
        let said = impatient.0.lock().unwrap().clone();
        let expected = format!(
            "Another run (process {}) is at work on thing: waiting for it.",
            std::process::id()
        );
        assert_eq!(said, [expected]);
        drop(held);
        cache.lock("thing", &impatient).unwrap();
    }

    #[test]
    fn too_little_room_is_reported_with_figures_and_a_way_out() {
        let (_folder, cache) = cache();
        let cache = cache.limited_to(5 << 20);
        cache.require_space("The thing", 5 << 20).unwrap();
        let error = cache.require_space("The thing", 6 << 20).unwrap_err().to_string();
        assert!(
            error.starts_with("The thing needs about 6 MiB and only 5 MiB are free at "),
            "{error}"
        );
        assert!(error.contains("XDG_CACHE_HOME"), "{error}");
    }

    #[test]
    fn inputs_of_a_key_do_not_run_into_each_other() {
        let key = |a: &str, b: &str| Key::new("test", 1).field(a).field(b).finish();
        assert_eq!(key("ab", "c"), key("ab", "c"));
        assert_ne!(key("ab", "c"), key("a", "bc"));
        assert_ne!(Key::new("test", 1).finish(), Key::new("test", 2).finish());
        assert_eq!(key("", "").len(), 24);
    }

    #[test]
    fn a_file_is_replaced_at_once() {
        let (_folder, cache) = cache();
        cache.write_file("things", "note", b"old").unwrap();
        let path = cache.write_file("things", "note", b"new").unwrap();
        assert_eq!(fs::read(path).unwrap(), b"new");
        assert_eq!(fs::read_dir(cache.root().join("things")).unwrap().count(), 1);
    }
}
