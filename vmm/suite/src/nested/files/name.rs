//! Names of files, and files of that name below a folder.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fstat, mkdirat, openat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// No name has more bytes.
const MAX_NAME: usize = 1024;
/// No part between slashes has more (NAME_MAX).
const MAX_PART: usize = 255;

/// A name below a folder: parts separated by single slashes, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub(in crate::nested) struct Name(String);

impl Name {
    pub(in crate::nested) fn new(path: &Path) -> io::Result<Self> {
        let text = path.to_str().ok_or_else(|| bad("its name is not UTF-8"))?;
        Self::try_from(text.to_owned()).map_err(bad)
    }

    fn parts(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }
}

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let plain = |part: &str| {
            !matches!(part, "" | "." | "..") && part.len() <= MAX_PART && !part.contains('\0')
        };
        if text.len() <= MAX_NAME && text.split('/').all(plain) {
            Ok(Self(text))
        } else {
            Err("a file's name is not a relative path of plain parts")
        }
    }
}

fn bad(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Opens a folder of the user's, below which files are made.
pub(in crate::nested) fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// What is in the file `name` in `folder`.
pub(in crate::nested) fn read_below(folder: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, name, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Begins the file `name` below `folder`, empty, with the folders that it needs. No symbolic link is followed, and
/// nothing but a regular file is written to.
pub(in crate::nested) fn create_below(folder: &OwnedFd, name: &Name) -> io::Result<File> {
    let mut parts = name.parts();
    let last = parts.next_back().unwrap_or_default();
    let mut folder = folder.as_fd().try_clone_to_owned()?;
    for part in parts {
        match mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        folder = openat(&folder, part, flags, Mode::empty())?;
    }
    // A pipe without a reader is an error rather than a wait.
    let flags = OFlags::WRONLY
        | OFlags::CREATE
        | OFlags::TRUNC
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::CLOEXEC;
    let file = openat(&folder, last, flags, Mode::from_raw_mode(0o666))?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL.into());
    }
    Ok(File::from(file))
}
