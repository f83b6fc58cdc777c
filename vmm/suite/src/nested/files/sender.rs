//! In the test host: files that go out through the port.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use peerdma_trace::{Output, Slots, ring_file};

use super::{Answer, Frame, MAX_DATA, Name, read_line};
use crate::files::{Files, Folder};

/// The test host's end of the port.
#[derive(Debug)]
pub(in crate::nested) struct Sender<P = File>(Arc<Mutex<Channel<P>>>);

#[derive(Debug)]
struct Channel<P> {
    frames: P,
    answers: BufReader<P>,
}

/// The files of a ring.
#[derive(Debug)]
struct OutgoingRing<P> {
    port: Sender<P>,
    folder: Folder,
    name: PathBuf,
}

impl<P: io::Read + Write + Send + std::fmt::Debug + 'static> Slots for OutgoingRing<P> {
    fn begin(&mut self, slot: usize) -> io::Result<Box<dyn Output>> {
        self.port.create(self.folder, &ring_file(&self.name, slot))
    }
}

impl<P: io::Read + Write> Sender<P> {
    /// Through a port: both are the same one.
    pub(in crate::nested) fn new(frames: P, answers: P) -> Self {
        Self(Arc::new(Mutex::new(Channel { frames, answers: BufReader::new(answers) })))
    }

    /// A file that has been begun.
    pub(super) fn outgoing(&self, folder: Folder, name: Name) -> Outgoing<P> {
        Outgoing { port: Self(Arc::clone(&self.0)), folder, name, offset: 0 }
    }

    fn channel(&self) -> MutexGuard<'_, Channel<P>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: io::Read + Write> Channel<P> {
    /// Sends a frame in one go: guests that run beside each other share the port.
    fn send(&mut self, frame: &Frame, data: &[u8]) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(frame)?;
        bytes.push(b'\n');
        bytes.extend_from_slice(data);
        self.frames.write_all(&bytes)
    }

    fn ask(&mut self, frame: &Frame) -> io::Result<()> {
        self.send(frame, &[])?;
        match read_line::<Answer>(&mut self.answers)? {
            Some(answer) => answer.result(),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl<P: io::Read + Write + Send + std::fmt::Debug + 'static> Files for Sender<P> {
    fn create(&self, folder: Folder, name: &Path) -> io::Result<Box<dyn Output>> {
        let name = Name::new(name)?;
        self.channel().ask(&Frame::Create { folder, name: name.clone() })?;
        Ok(Box::new(self.outgoing(folder, name)))
    }

    fn ring(&self, folder: Folder, name: &Path) -> Box<dyn Slots> {
        let port = Self(Arc::clone(&self.0));
        Box::new(OutgoingRing { port, folder, name: name.to_owned() })
    }

    fn settle(&self, folder: Folder, name: &Path) -> io::Result<()> {
        self.channel().ask(&Frame::Settle { folder, name: Name::new(name)? })
    }

    fn path(&self, _: Folder, name: &Path) -> PathBuf {
        name.to_owned()
    }
}

/// A file that is being sent.
#[derive(Debug)]
pub(super) struct Outgoing<P> {
    port: Sender<P>,
    folder: Folder,
    name: Name,
    offset: u64,
}

impl<P: io::Read + Write> Write for Outgoing<P> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let data = bytes.get(..MAX_DATA).unwrap_or(bytes);
        if data.is_empty() {
            return Ok(0);
        }
        let (folder, name, offset) = (self.folder, self.name.clone(), self.offset);
        let frame = Frame::Write { folder, name, offset, length: data.len() };
        self.port.channel().send(&frame, data)?;
        self.offset += data.len() as u64;
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
