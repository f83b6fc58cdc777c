//! On this machine: files that come in through the port, into the folders of the run.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;

use peerdma_trace::{RING_FILES, ring_file};

use super::{Answer, Frame, MAX_DATA, Name, create_below, open_folder, read_line};
use crate::console;
use crate::files::Folder;
use crate::job::Job;

/// How much is read at a time.
const PIECE: usize = 64 << 10;

/// This machine's end of the port.
#[derive(Debug)]
pub(in crate::nested) struct Receiver {
    folders: BTreeMap<Folder, OwnedFd>,
    files: BTreeMap<(Folder, Name), Incoming>,
}

/// A file of the job.
#[derive(Debug)]
struct Incoming {
    state: State,
    /// No more bytes than this in all.
    limit: u64,
    /// It may be begun more than once: a file of a ring.
    again: bool,
    received: u64,
    /// What the system said first. All that comes after is thrown away.
    error: Option<io::Error>,
}

#[derive(Debug)]
enum State {
    Awaited,
    Open(Option<File>),
    Settled,
}

/// The test host sent what a healthy one does not send.
fn wrong(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

impl Receiver {
    /// For the files that the guests of `job` write.
    pub(in crate::nested) fn new(job: &Job) -> io::Result<Self> {
        let mut folders = BTreeMap::from([(Folder::Out, open_folder(&job.out)?)]);
        if let Some(record) = &job.record {
            folders.insert(Folder::Record, open_folder(record)?);
        }
        let mut files = BTreeMap::new();
        for run in &job.runs {
            let log = run.console_log.iter().map(|name| (Folder::Out, name, console::MAX_LOG));
            let record = run.record.iter().filter(|_| job.record.is_some());
            let (largest, again) = (job.recording.largest(), job.recording.ring.is_some());
            let parts = if again { RING_FILES } else { 1 };
            let record = record.flat_map(|name| (0..parts).map(move |slot| ring_file(name, slot)));
            let record = record.map(|name| (Folder::Record, name, largest, again));
            let log = log.map(|(folder, name, limit)| (folder, name.clone(), limit, false));
            for (folder, name, limit, again) in log.chain(record) {
                let (state, received, error) = (State::Awaited, 0, None);
                let file = Incoming { state, limit, again, received, error };
                files.insert((folder, Name::new(&name)?), file);
            }
        }
        Ok(Self { folders, files })
    }

    /// Receives until the stream ends. A file that is not whole then has what came of it.
    ///
    /// # Errors
    /// When something comes that a healthy test host does not send; nothing more is taken then.
    pub(in crate::nested) fn receive(
        &mut self,
        input: impl Read,
        answers: impl Write,
    ) -> io::Result<()> {
        match self.frames(input, answers) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(error),
            // Reading fails when the other end is gone before it has read all answers.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn frames(&mut self, input: impl Read, mut answers: impl Write) -> io::Result<()> {
        let mut input = BufReader::with_capacity(PIECE, input);
        while let Some(frame) = read_line::<Frame>(&mut input)? {
            let answer = match frame {
                Frame::Create { folder, name } => self.create(folder, name)?,
                Frame::Settle { folder, name } => self.settle(folder, name)?,
                Frame::Write { folder, name, offset, length } => {
                    let file = self.file(folder, name)?;
                    if file.take(offset, length, &mut input)? {
                        continue;
                    }
                    return Ok(());
                }
            };
            let mut line = serde_json::to_vec(&answer)?;
            line.push(b'\n');
            // If the test host is gone, the stream ends next.
            let _ = answers.write_all(&line);
        }
        Ok(())
    }

    /// As if the test host had begun the file, and it were this one.
    #[cfg(test)]
    pub(super) fn open_for_test(&mut self, folder: Folder, name: &str, file: File) {
        let name = Name::try_from(name.to_owned()).unwrap();
        self.files.get_mut(&(folder, name)).unwrap().state = State::Open(Some(file));
    }

    fn file(&mut self, folder: Folder, name: Name) -> io::Result<&mut Incoming> {
        self.files.get_mut(&(folder, name)).ok_or_else(|| wrong("the job has no file of this name"))
    }

    fn create(&mut self, folder: Folder, name: Name) -> io::Result<Answer> {
        let file = self
            .files
            .get_mut(&(folder, name.clone()))
            .ok_or_else(|| wrong("the job has no file of this name"))?;
        match file.state {
            State::Awaited => {}
            State::Open(_) if file.again => file.received = 0,
            _ => return Err(wrong("a file is begun twice")),
        }
        let folder =
            self.folders.get(&folder).ok_or_else(|| wrong("the job has no such folder"))?;
        let created = create_below(folder, &name);
        let answer = Answer::of(created.as_ref().err());
        file.state = match created {
            Ok(created) => State::Open(Some(created)),
            Err(_) => State::Settled,
        };
        Ok(answer)
    }

    fn settle(&mut self, folder: Folder, name: Name) -> io::Result<Answer> {
        let file = self.file(folder, name)?;
        if !matches!(file.state, State::Open(_)) {
            return Err(wrong("a file is ended that is not open"));
        }
        file.state = State::Settled;
        Ok(Answer::of(file.error.as_ref()))
    }
}

impl Incoming {
    /// Takes the bytes of one frame; false when the stream ends among them.
    fn take(&mut self, offset: u64, length: usize, input: &mut impl Read) -> io::Result<bool> {
        let State::Open(file) = &mut self.state else {
            return Err(wrong("something is written to a file that is not open"));
        };
        if !(1..=MAX_DATA).contains(&length) {
            return Err(wrong("a frame is empty or too long"));
        }
        if offset != self.received {
            return Err(wrong("a frame does not begin where the one before it ended"));
        }
        self.received = offset.saturating_add(length as u64);
        if self.received > self.limit {
            return Err(wrong("a file is longer than it may be"));
        }
        let mut buffer = [0; PIECE];
        let mut left = length;
        while left > 0 {
            let wanted = buffer.get_mut(..left.min(PIECE)).unwrap_or_default();
            let count = match input.read(wanted) {
                Ok(0) => return Ok(false),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            left -= count;
            let bytes = wanted.get(..count).unwrap_or_default();
            if let Some(Err(error)) = file.as_mut().map(|file| file.write_all(bytes)) {
                self.error = Some(error);
                *file = None;
            }
        }
        Ok(true)
    }
}
