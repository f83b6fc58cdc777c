//! What is shared, as it is at this moment: every request opens its file anew.
//!
//! A share's own path is the user's, and may have links in it. What a guest names is looked for below that: no `..`, no
//! absolute link, no link that leads out (`openat2` with `RESOLVE_BENEATH`), and nothing but regular files is opened
//! for reading.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_protocol::exchange::{
    ANY_STAMP, Entry, EntryKind, HAS_CHANGED, IS_A_FOLDER, Listing, MAX_NAME, MAX_PIECE, Piece,
    check_name,
};
use guest_protocol::wire::MAX_ANSWER;
use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat2};
use rustix::io::Errno;

use super::Share;

/// The most entries of one folder that are listed.
pub(super) const MAX_ENTRIES: usize = 10_000;
/// Room for entries in one answer, in bytes of JSON.
const LISTING_ROOM: usize = MAX_ANSWER - 4096;
/// How often a name is looked up again that changes while it is.
const ATTEMPTS: usize = 16;

/// What is shared.
#[derive(Debug)]
pub(super) struct Shares(pub(super) Vec<Share>);

impl Shares {
    /// The entries of the folder `name`, without the first `skip`; of all shares if it is empty.
    pub(super) fn list(&self, skip: u64, name: &str) -> Result<Listing, String> {
        let mut entries = if name.is_empty() {
            self.0.iter().map(|share| entry(share.name.clone(), self.find(&share.name))).collect()
        } else {
            self.folder(name)?
        };
        entries.sort_by(|one: &Entry, other| one.name.cmp(&other.name));
        let mut room = LISTING_ROOM;
        let mut listing = Listing::default();
        for entry in entries.into_iter().skip(usize::try_from(skip).unwrap_or(usize::MAX)) {
            let length =
                serde_json::to_string(&entry).map_err(|error| error.to_string())?.len() + 1;
            if length > room {
                listing.more = true;
                break;
            }
            room -= length;
            listing.entries.push(entry);
        }
        Ok(listing)
    }

    /// A piece of the file `name`, if it is still the one with that stamp.
    pub(super) fn read(&self, offset: u64, wanted: &str, name: &str) -> Result<Piece, String> {
        let found = self.find(name)?;
        if !found.is(FileType::RegularFile) {
            return Err(match found.is(FileType::Directory) {
                true => format!("{name} {IS_A_FOLDER}"),
                false => format!("{name} is not a regular file"),
            });
        }
        let file = found.open(OFlags::RDONLY).map_err(|error| failed(name, error))?;
        // Of what is open now: between the two it may have been written to.
        let stat = fstat(&file).map_err(|error| failed(name, error))?;
        let stamp = stamp(&stat);
        if wanted != ANY_STAMP && wanted != stamp {
            return Err(format!("{name} {HAS_CHANGED}"));
        }
        let file = File::from(file);
        let mut data = vec![0; MAX_PIECE];
        let mut length = 0;
        while length < data.len() {
            let rest = data.get_mut(length..).unwrap_or_default();
            match file.read_at(rest, offset.saturating_add(length as u64)) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // An offset that no file has.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => return Err(failed(name, error)),
            }
        }
        Ok(Piece {
            stamp,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            executable: stat.st_mode & 0o100 != 0,
            data: STANDARD.encode(data.get(..length).unwrap_or_default()),
        })
    }

    fn folder(&self, name: &str) -> Result<Vec<Entry>, String> {
        let found = self.find(name)?;
        if !found.is(FileType::Directory) {
            return Err(format!("{name} is not a folder"));
        }
        let folder =
            found.open(OFlags::RDONLY | OFlags::DIRECTORY).map_err(|error| failed(name, error))?;
        let mut entries = Vec::new();
        for each in Dir::read_from(&folder).map_err(|error| failed(name, error))? {
            let each = each.map_err(|error| failed(name, error))?;
            let Ok(own) = each.file_name().to_str() else { continue };
            if [".", ".."].contains(&own) || check_name(own).is_err() {
                continue;
            }
            if entries.len() == MAX_ENTRIES {
                return Err(format!("{name} has more than {MAX_ENTRIES} entries: share less"));
            }
            let found = below(&folder, own).map_err(|error| failed(own, error));
            entries.push(entry(own.to_owned(), found));
        }
        Ok(entries)
    }

    /// What has this name now.
    fn find(&self, name: &str) -> Result<Found, String> {
        check_name(name).map_err(|why| format!("{:?} {why}", shown(name)))?;
        let (first, rest) = match name.split_once('/') {
            Some((first, rest)) => (first, Some(rest)),
            None => (name, None),
        };
        let share = self.0.iter().find(|share| share.name == first).ok_or_else(|| {
            format!("{first} is not shared; `guest-agent get` lists what is, and boot --share PATH shares more")
        })?;
        let root = open_root(&share.path).map_err(|error| {
            let gone = error.kind() == io::ErrorKind::NotFound;
            let what = if gone { "is not there any more".into() } else { error.to_string() };
            format!("the share {first} ({}) {what}", share.path.display())
        })?;
        match rest {
            None => root.identified(),
            Some(rest) => below(&root.0, rest),
        }
        .map_err(|error| failed(name, error))
    }
}

/// Something that has been found, and not been opened for reading.
#[derive(Debug)]
struct Found {
    place: OwnedFd,
    stat: Stat,
}

/// A share's own path, opened.
#[derive(Debug)]
struct Root(OwnedFd);

impl Root {
    fn identified(self) -> io::Result<Found> {
        let stat = fstat(&self.0)?;
        Ok(Found { place: self.0, stat })
    }
}

impl Found {
    fn is(&self, kind: FileType) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == kind
    }

    /// Opens the very thing that was found.
    fn open(&self, flags: OFlags) -> io::Result<OwnedFd> {
        let path = Path::new("/proc/self/fd").join(self.place.as_raw_fd().to_string());
        let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(open(&path, flags, Mode::empty())?)
    }
}

/// Opens a path of the user's, without opening what is there.
fn open_root(path: &Path) -> io::Result<Root> {
    Ok(Root(open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
}

/// What has this name below a folder.
fn below(folder: &OwnedFd, name: &str) -> io::Result<Found> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let mut last = Errno::AGAIN;
    for _ in 0..ATTEMPTS {
        match openat2(folder, name, flags, Mode::empty(), resolve) {
            Ok(place) => return Root(place).identified(),
            // Something was renamed meanwhile, and the kernel cannot say whether it leads out.
            Err(error @ (Errno::AGAIN | Errno::INTR)) => last = error,
            Err(error) => return Err(error.into()),
        }
    }
    Err(last.into())
}

/// Why there is nothing to be had, in words that name what the guest asked for.
fn failed(name: &str, error: impl Into<io::Error>) -> String {
    let error = error.into();
    let name = shown(name);
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::XDEV) => format!("{name} is a link that leads out of the share"),
        Some(Errno::LOOP) => {
            format!("{name} is a link that leads in a circle, or out of the share")
        }
        Some(Errno::NOENT) => format!("{name} is not there, or is a link that leads nowhere"),
        Some(Errno::NOTDIR) => format!("{name}: what should be a folder in it is a file"),
        Some(Errno::NOSYS) => {
            "the host's kernel lacks openat2 (Linux 5.6), so only files that are shared by \
                               themselves can be fetched"
                .into()
        }
        _ => format!("{name}: the host says: {error}"),
    }
}

/// The beginning of a name, for a message.
fn shown(name: &str) -> String {
    name.chars().take(MAX_NAME / 4).collect()
}

fn entry(name: String, found: Result<Found, String>) -> Entry {
    let (kind, size) = match found {
        Ok(found) if found.is(FileType::RegularFile) => {
            (EntryKind::File, u64::try_from(found.stat.st_size).unwrap_or(0))
        }
        Ok(found) if found.is(FileType::Directory) => (EntryKind::Folder, 0),
        Ok(_) | Err(_) => (EntryKind::Other, 0),
    };
    Entry { name, kind, size }
}

/// Changes whenever the content does, as far as the file system can tell.
fn stamp(stat: &Stat) -> String {
    format!(
        "{:x}.{:x}.{:x}.{:x}.{:x}.{:x}.{:x}",
        stat.st_dev,
        stat.st_ino,
        stat.st_size,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec
    )
}

/// Whether this machine can look names up below a folder.
#[cfg(test)]
pub(super) fn has_openat2() -> bool {
    let resolve = ResolveFlags::BENEATH;
    openat2(rustix::fs::CWD, ".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).is_ok()
}
