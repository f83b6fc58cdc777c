//! Results of a guest's: files that it puts into a folder of this machine's.
//!
//! A result is written under a name of ours and gets its own when it is whole. The folder is opened once: nothing is
//! written anywhere else, whatever becomes of its path. What a guest may write has limits.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_protocol::exchange::check_name;
use rustix::fs::{AtFlags, Mode, OFlags, open, openat, renameat, unlinkat};

/// Bytes of all results of a run.
pub(super) const MAX_BYTES: u64 = 4 << 30;
/// Results of a run.
const MAX_RESULTS: u32 = 10_000;
/// Results that are being written at the same time; one more ends the oldest.
pub(super) const MAX_OPEN: usize = 8;

/// The folder, and what is being written.
#[derive(Debug)]
pub(super) struct Results {
    folder: OwnedFd,
    path: PathBuf,
    open: Vec<Incoming>,
    begun: u32,
    /// How many bytes may still come.
    room: u64,
}

/// A result that is being written.
#[derive(Debug)]
struct Incoming {
    number: u32,
    name: String,
    file: File,
    length: u64,
}

impl Incoming {
    /// What it is called until it is whole.
    fn name(number: u32) -> String {
        format!(".peerdma-{}-{number}.partial", std::process::id())
    }
}

impl Results {
    /// Into a folder that is there.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = open(path, flags, Mode::empty())?;
        Ok(Self { folder, path: path.to_owned(), open: Vec::new(), begun: 0, room: MAX_BYTES })
    }

    #[cfg(test)]
    pub(super) fn limit(&mut self, room: u64) {
        self.room = room;
    }

    /// Begins a result; gives its number.
    pub(super) fn begin(&mut self, executable: bool, name: &str) -> Result<u32, String> {
        check_name(name).map_err(|why| format!("the name of a result {why}"))?;
        if name.contains('/') {
            return Err("the name of a result has no folders".into());
        }
        if self.begun == MAX_RESULTS {
            return Err(format!("a guest may put {MAX_RESULTS} results, and this is one more"));
        }
        if self.open.len() == MAX_OPEN {
            self.forget(0);
        }
        self.begun += 1;
        let number = self.begun;
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NONBLOCK
            | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(if executable { 0o777 } else { 0o666 });
        let file = openat(&self.folder, Incoming::name(number), flags, mode)
            .map_err(|error| self.failed(error))?;
        let file = File::from(file);
        self.open.push(Incoming { number, name: name.to_owned(), file, length: 0 });
        Ok(number)
    }

    /// Takes a piece. The last one may come twice: its answer may have got lost.
    pub(super) fn write(&mut self, number: u32, offset: u64, data: &str) -> Result<(), String> {
        let data = STANDARD.decode(data).map_err(|error| format!("not Base64: {error}"))?;
        let room = self.room;
        let incoming = self.find(number)?;
        let end = offset.saturating_add(data.len() as u64);
        if end == incoming.length {
            return Ok(());
        }
        if offset != incoming.length {
            return Err("a piece does not begin where the one before it ended".into());
        }
        if data.len() as u64 > room {
            return Err(format!(
                "all results of a guest together may have {} GiB",
                MAX_BYTES >> 30
            ));
        }
        let written = incoming.file.write_all_at(&data, offset);
        if written.is_ok() {
            incoming.length = end;
        }
        written.map_err(|error| self.failed(error))?;
        self.room -= data.len() as u64;
        Ok(())
    }

    /// Gives a result its name, in place of what had it; gives the path.
    pub(super) fn end(&mut self, number: u32, size: u64) -> Result<String, String> {
        let incoming = self.find(number)?;
        if incoming.length != size {
            let length = incoming.length;
            return Err(format!("{size} bytes were announced, {length} have come"));
        }
        let name = incoming.name.clone();
        renameat(&self.folder, Incoming::name(number), &self.folder, &name)
            .map_err(|error| self.failed(error))?;
        self.open.retain(|incoming| incoming.number != number);
        Ok(self.path.join(name).display().to_string())
    }

    fn find(&mut self, number: u32) -> Result<&mut Incoming, String> {
        let found = self.open.iter_mut().find(|incoming| incoming.number == number);
        found.ok_or_else(|| format!("result {number} is not being written"))
    }

    fn forget(&mut self, index: usize) {
        let incoming = self.open.remove(index);
        if let Err(error) =
            unlinkat(&self.folder, Incoming::name(incoming.number), AtFlags::empty())
        {
            log::warn!("{}: a partial result stays: {error}", self.path.display());
        }
    }

    fn failed(&self, error: impl Into<io::Error>) -> String {
        format!("the host's folder {}: {}", self.path.display(), error.into())
    }
}

impl Drop for Results {
    /// What is not whole is nothing.
    fn drop(&mut self) {
        while !self.open.is_empty() {
            self.forget(0);
        }
    }
}
