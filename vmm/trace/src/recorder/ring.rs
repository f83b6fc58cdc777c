//! A ring of files: the newest entries are kept, and the disk has a bound.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Output;
use crate::blocks::Blocks;
use crate::event::{Event, Header};
use crate::frames::Frames;

/// RingFiles of a ring.
pub const RING_FILES: usize = 4;

/// The end of a trace's file name, in front of which the number of a file goes.
const EXTENSION: &str = ".pcapng.zst";

/// The name of file `slot` of the ring whose first has the name `first`: `run.pcapng.zst`, `run.2.pcapng.zst` and so on.
pub fn ring_file(first: &Path, slot: usize) -> PathBuf {
    if slot == 0 {
        return first.to_owned();
    }
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(EXTENSION);
    let end = if stem.is_some() { EXTENSION } else { "" };
    let name = format!("{}.{}{end}", stem.unwrap_or(&name), slot + 1);
    first.with_file_name(OsString::from(name))
}

/// Where the files of a ring are.
pub trait Slots: Send + Debug {
    /// Begins the file with this number, from 0 to [`RING_FILES`] - 1, anew.
    ///
    /// # Errors
    /// When it takes nothing.
    fn begin(&mut self, slot: usize) -> io::Result<Box<dyn Output>>;
}

/// The files beside a first one.
impl Slots for PathBuf {
    fn begin(&mut self, slot: usize) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(File::create(ring_file(self, slot))?))
    }
}

/// Which files a ring has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RingFiles {
    /// How many.
    pub count: usize,
    /// The number of the newest.
    pub newest: usize,
    /// Older entries have been overwritten.
    pub overwritten: bool,
}

/// A ring at work.
#[derive(Debug)]
pub(super) struct Ring {
    slots: Box<dyn Slots>,
    header: Header,
    /// When the recording began, since 1970.
    begun: Duration,
    /// Bytes that a file has at most.
    limit: u64,
    files: RingFiles,
    sizes: [u64; RING_FILES],
}

impl Ring {
    /// Of which the first file is open.
    pub(super) fn new(slots: Box<dyn Slots>, header: &Header, begun: Duration, limit: u64) -> Self {
        let header = Header { part: true, ..header.clone() };
        let files = RingFiles { count: 1, newest: 0, overwritten: false };
        Self { slots, header, begun, limit, files, sizes: [0; RING_FILES] }
    }

    pub(super) fn files(&self) -> RingFiles {
        self.files
    }

    /// Bytes of all files, if the newest has `written`.
    pub(super) fn bytes(&self, written: u64) -> u64 {
        let others = self.sizes.iter().enumerate().filter(|(slot, _)| *slot != self.files.newest);
        others.map(|(_, size)| size).sum::<u64>() + written
    }

    /// Whether the file has no room, if it would have this size.
    pub(super) fn is_full(&self, size: u64) -> bool {
        size > self.limit
    }

    /// Ends the file in front of entry `first`, and begins the next one with it.
    pub(super) fn turn(
        &mut self,
        mut frames: Frames<Box<dyn Output>>,
        first: u64,
        now: Duration,
    ) -> io::Result<Frames<Box<dyn Output>>> {
        let mut blocks = Blocks::part(&self.header, first, self.begun)?;
        let header = std::mem::take(blocks.made());
        blocks.push(&Event::Cut { events: first.saturating_sub(1) }, now)?;
        frames.frame(blocks.made())?;
        let (_, size) = frames.finish()?;
        if let Some(last) = self.sizes.get_mut(self.files.newest) {
            *last = size;
        }
        let next = (self.files.newest + 1) % RING_FILES;
        self.files = RingFiles {
            count: self.files.count.max(next + 1),
            newest: next,
            overwritten: self.files.overwritten || next == 0,
        };
        let mut frames = Frames::new(self.slots.begin(next)?)?;
        frames.frame(&header)?;
        Ok(frames)
    }
}
