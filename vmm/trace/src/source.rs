//! The bytes of a trace: those in its zstd frames, or, of a trace that was unpacked, the file itself.

use std::io::{self, BufRead, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use zstd::stream::read::Decoder;

/// The largest window that is taken from a frame's word, as a power of two: 8 MiB.
const MAX_WINDOW: u32 = 23;

/// A file whose position is known.
#[derive(Debug)]
struct Counted<R> {
    input: R,
    at: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.input.consume(count);
        self.at += count as u64;
    }
}

enum State<R: BufRead> {
    Plain(Counted<R>),
    Between(Counted<R>),
    Frame(Decoder<'static, Counted<R>>),
    /// A thread of its own unpacks ahead.
    Ahead(Ahead),
    /// Something went wrong before.
    Broken,
}

/// What was unpacked at a time, or what went wrong there; empty at the end.
struct Piece {
    bytes: io::Result<Vec<u8>>,
    /// Where in the file its frame begins.
    frame: u64,
    /// Whether all frames up to here are whole.
    is_between: bool,
}

/// Pieces from the thread that unpacks.
struct Ahead {
    pieces: Receiver<Piece>,
    is_packed: bool,
    is_between: bool,
}

/// Reads what was packed.
pub(crate) struct Source<R: BufRead> {
    state: State<R>,
    /// Where in the file the frame begins that the buffer's bytes come from.
    frame: u64,
    /// Bytes that were read, unpacked.
    unpacked: u64,
    /// Unpacked bytes of one frame, and how many of them have been read.
    buffer: Vec<u8>,
    done: usize,
}

/// Bytes that are unpacked at a time.
const BUFFER: usize = 64 << 10;

/// Pieces that wait for being read.
const WAITING: usize = 8;

impl<R: BufRead> std::fmt::Debug for Source<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { frame, unpacked, .. } = self;
        f.debug_struct("Source")
            .field("frame", frame)
            .field("unpacked", unpacked)
            .finish_non_exhaustive()
    }
}

/// What a file begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beginning {
    Zstd,
    Pcapng,
    Json,
    Empty,
    Other,
}

impl<R: BufRead> Source<R> {
    /// Of a file; what it begins with decides how it is read.
    pub(crate) fn new(mut input: R) -> io::Result<(Self, Beginning)> {
        let beginning = match input.fill_buf()? {
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x28, 0xb5] | [0x28, 0xb5, 0x2f] => Beginning::Zstd,
            // A skippable frame.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Beginning::Zstd,
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Beginning::Pcapng,
            [b'{', ..] => Beginning::Json,
            [] => Beginning::Empty,
            _ => Beginning::Other,
        };
        let input = Counted { input, at: 0 };
        let state = match beginning {
            Beginning::Pcapng => State::Plain(input),
            _ => State::Between(input),
        };
        let buffer = Vec::with_capacity(BUFFER);
        Ok((Self { state, frame: 0, unpacked: 0, buffer, done: 0 }, beginning))
    }

    /// Whether it has zstd frames.
    pub(crate) fn is_packed(&self) -> bool {
        match &self.state {
            State::Plain(_) => false,
            State::Ahead(ahead) => ahead.is_packed,
            _ => true,
        }
    }

    /// Whether all frames so far are whole.
    pub(crate) fn is_between(&self) -> bool {
        match &self.state {
            State::Between(_) => true,
            State::Ahead(ahead) => ahead.is_between,
            _ => false,
        }
    }

    /// Where in the file the present frame begins.
    pub(crate) fn frame(&self) -> u64 {
        self.frame
    }

    /// How many bytes have been read, unpacked.
    pub(crate) fn unpacked(&self) -> u64 {
        self.unpacked
    }
}

impl<R: BufRead> Read for Source<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.done == self.buffer.len()
            && let State::Ahead(ahead) = &mut self.state
        {
            (self.buffer, self.done) = (Vec::new(), 0);
            // Without the thread it is over.
            if let Ok(Piece { bytes, frame, is_between }) = ahead.pieces.recv() {
                (self.frame, ahead.is_between) = (frame, is_between);
                self.buffer = bytes?;
            }
        } else if self.done == self.buffer.len() {
            let mut more = std::mem::take(&mut self.buffer);
            more.resize(BUFFER, 0);
            let count = self.unpack(&mut more);
            more.truncate(*count.as_ref().unwrap_or(&0));
            (self.buffer, self.done) = (more, 0);
            count?;
        }
        let ready = self.buffer.get(self.done..).unwrap_or_default();
        let count = ready.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), ready.get(..count)) {
            to.copy_from_slice(from);
        }
        self.done += count;
        self.unpacked += count as u64;
        Ok(count)
    }
}

impl<R: BufRead> Source<R> {
    /// Unpacks more, of one frame.
    fn unpack(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match std::mem::replace(&mut self.state, State::Broken) {
                // What a thread unpacks is taken elsewhere.
                State::Broken | State::Ahead(_) => return Ok(0),
                State::Plain(mut input) => {
                    self.frame = input.at;
                    let count = input.read(buffer)?;
                    self.state = State::Plain(input);
                    return Ok(count);
                }
                State::Between(mut input) => {
                    self.frame = input.at;
                    if input.fill_buf()?.is_empty() {
                        self.state = State::Between(input);
                        return Ok(0);
                    }
                    let mut decoder = Decoder::with_buffer(input)?.single_frame();
                    decoder.window_log_max(MAX_WINDOW)?;
                    self.state = State::Frame(decoder);
                }
                State::Frame(mut decoder) => {
                    let count = decoder.read(buffer)?;
                    if count > 0 || buffer.is_empty() {
                        self.state = State::Frame(decoder);
                        return Ok(count);
                    }
                    decoder.finish_frame()?;
                    self.state = State::Between(decoder.into_inner());
                }
            }
        }
    }
}

impl<R: BufRead + Send + 'static> Source<R> {
    /// The same, unpacked by a thread of its own while what came before is looked at.
    pub(crate) fn ahead(self) -> Self {
        let (is_packed, is_between) = (self.is_packed(), self.is_between());
        let (sender, pieces) = sync_channel(WAITING);
        let unpacker = thread::Builder::new().name("unpacker".into());
        let spawned = unpacker.spawn(move || self.send_all(&sender));
        let state = match spawned {
            Ok(_) => State::Ahead(Ahead { pieces, is_packed, is_between }),
            Err(_) => State::Broken,
        };
        Self { state, frame: 0, unpacked: 0, buffer: Vec::new(), done: 0 }
    }

    /// Unpacks all there is, as long as it is wanted.
    fn send_all(mut self, pieces: &SyncSender<Piece>) {
        loop {
            let mut bytes = vec![0; BUFFER];
            let result = self.unpack(&mut bytes).map(|count| {
                bytes.truncate(count);
                bytes
            });
            let ends = result.as_ref().map_or(true, Vec::is_empty);
            let (frame, is_between) = (self.frame, self.is_between());
            if pieces.send(Piece { bytes: result, frame, is_between }).is_err() || ends {
                return;
            }
        }
    }
}
