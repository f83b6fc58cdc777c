//! Independent zstd frames with a seek table behind them, laid out so that Wireshark finds each.
//!
//! Up to version 4.0, Wireshark looks for the magic number of a frame that comes behind another not
//! where that frame begins, but at the beginning of its input buffer. So a frame has to begin at
//! each multiple of the size of that buffer, [`CHUNK`]: a frame is ended in front of it, and the
//! bytes that are left are a skippable frame.

use std::io::{self, Write};

use zeekstd::SeekTable;
use zstd::stream::raw::{CParameter, Encoder, InBuffer, Operation, OutBuffer};

/// Fast enough not to hold up a recording.
const LEVEL: i32 = 1;

/// A frame begins at each multiple of this, in bytes of the file: `ZSTD_DStreamInSize()`, which is
/// the largest block (RFC 8878, 3.1.1.2.4) with its header.
pub(crate) const CHUNK: usize = (128 << 10) + 3;

/// Header of a skippable frame (RFC 8878, 3.1.2).
const SKIPPABLE: [u8; 4] = 0x184d_2a50_u32.to_le_bytes();
const SKIPPABLE_HEADER: usize = 8;

/// What ends a frame at most: an empty block, the checksum, and what zstd still had.
const END: usize = 64;

/// Bytes at the end of a chunk that are not worth a frame, or another part of one.
const LITTLE: usize = 1 << 10;

/// Bytes of the seek table for each frame.
const TABLE_ENTRY: u64 = 12;

/// Bytes that are compressed at a time.
const PIECE: usize = 128 << 10;

/// Writes frames.
pub(crate) struct Frames<W> {
    encoder: Encoder<'static>,
    table: SeekTable,
    piece: Vec<u8>,
    /// The frame that is being made.
    packed: Vec<u8>,
    out: W,
    written: u64,
}

impl<W> std::fmt::Debug for Frames<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").field("written", &self.written).finish_non_exhaustive()
    }
}

impl<W: Write> Frames<W> {
    pub(crate) fn new(out: W) -> io::Result<Self> {
        let mut encoder = Encoder::new(LEVEL)?;
        encoder.set_parameter(CParameter::ChecksumFlag(true))?;
        Ok(Self {
            encoder,
            table: SeekTable::new(),
            piece: vec![0; PIECE],
            packed: Vec::with_capacity(CHUNK),
            out,
            written: 0,
        })
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that the file has at most when `blocks` more, in bytes, and the seek table have been written.
    pub(crate) fn size_with(&self, blocks: usize) -> u64 {
        let blocks = blocks as u64;
        let table = u64::from(self.table.num_frames()) * TABLE_ENTRY;
        // What cannot be compressed, and fillers.
        self.written + table + blocks + blocks / 64 + 2 * CHUNK as u64
    }

    /// Writes `blocks`, whole pcapng blocks, as a frame, or a few where a chunk ends, and has them
    /// taken by the file.
    pub(crate) fn frame(&mut self, mut blocks: &[u8]) -> io::Result<()> {
        while !blocks.is_empty() {
            let (done, rest) = blocks.split_at(self.part(blocks)?);
            self.end_frame(done.len())?;
            blocks = rest;
        }
        self.out.flush()
    }

    /// Writes the seek table.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        let mut table = std::mem::take(&mut self.table).into_serializer();
        loop {
            let count = table.write_into(&mut self.piece);
            if count == 0 {
                self.out.flush()?;
                return Ok((self.out, self.written));
            }
            let bytes = self.piece.get(..count).unwrap_or_default();
            self.out.write_all(bytes)?;
            self.written += bytes.len() as u64;
        }
    }

    /// Compresses as many of these blocks as the chunk has room for; how many bytes of them.
    fn part(&mut self, blocks: &[u8]) -> io::Result<usize> {
        if self.left() < LITTLE {
            self.pad()?;
        }
        let (mut done, mut hopes) = (0, true);
        while let Some(rest) = blocks.get(done..).filter(|rest| !rest.is_empty()) {
            let room = self.left().saturating_sub(self.packed.len() + END + SKIPPABLE_HEADER);
            // What cannot be compressed takes a little more room than it has bytes.
            let certain = room.saturating_sub(room / 128 + LITTLE / 2);
            let hoped = if hopes { self.hoped(room, done) } else { 0 };
            let fitting = whole_blocks(rest, certain.max(hoped));
            if fitting > 0 {
                self.compress(rest.get(..fitting).unwrap_or(rest))?;
                done += fitting;
                if self.packed.len() + END + SKIPPABLE_HEADER > self.left() {
                    // It was less like what came before than was hoped: once more, and with care.
                    self.encoder.reinit()?;
                    self.packed.clear();
                    (done, hopes) = (0, false);
                }
            } else if done > 0 {
                break;
            } else {
                // It may fit all the same; one that is longer than a chunk has to be written, too,
                // and there an older Wireshark reads no further.
                done = first_block(rest);
                self.compress(rest.get(..done).unwrap_or(rest))?;
                if self.packed.len() + END + SKIPPABLE_HEADER <= self.left() || self.left() == CHUNK
                {
                    break;
                }
                self.encoder.reinit()?;
                self.packed.clear();
                self.pad()?;
                done = 0;
            }
        }
        Ok(done)
    }

    /// Bytes that probably fit into this room, if they are like the `done` bytes of the frame so far: taken in large parts
    /// they take less time, and less room.
    fn hoped(&self, room: usize, done: usize) -> usize {
        let ratio = done / self.packed.len().max(1);
        if done == 0 || room < LITTLE { 0 } else { (room * ratio / 4 * 3).min(PIECE) }
    }

    /// Bytes to the end of the chunk.
    fn left(&self) -> usize {
        CHUNK - usize::try_from(self.written % CHUNK as u64).unwrap_or(0)
    }

    /// Adds to the frame, so that zstd holds nothing back.
    fn compress(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            self.encoder.run(&mut input, &mut output)?;
            self.packed.extend(output.as_slice());
        }
        loop {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            let held = self.encoder.flush(&mut output)?;
            self.packed.extend(output.as_slice());
            if held == 0 {
                return Ok(());
            }
        }
    }

    /// Ends the frame, which has this many bytes unpacked, and writes it.
    fn end_frame(&mut self, unpacked: usize) -> io::Result<()> {
        loop {
            let mut output = OutBuffer::around(&mut self.piece[..]);
            let held = self.encoder.finish(&mut output, true)?;
            self.packed.extend(output.as_slice());
            if held == 0 {
                break;
            }
        }
        self.encoder.reinit()?;
        self.put(unpacked)
    }

    /// Fills the chunk.
    fn pad(&mut self) -> io::Result<()> {
        let length = self.left().saturating_sub(SKIPPABLE_HEADER);
        self.packed.extend(SKIPPABLE);
        self.packed.extend(u32::try_from(length).unwrap_or(0).to_le_bytes());
        self.packed.resize(SKIPPABLE_HEADER + length, 0);
        self.put(0)
    }

    fn put(&mut self, unpacked: usize) -> io::Result<()> {
        self.out.write_all(&self.packed)?;
        self.written += self.packed.len() as u64;
        let size = |bytes| u32::try_from(bytes).map_err(io::Error::other);
        let (packed, unpacked) = (size(self.packed.len())?, size(unpacked)?);
        self.table.log_frame(packed, unpacked).map_err(io::Error::other)?;
        self.packed.clear();
        Ok(())
    }
}

/// Bytes of the first block.
fn first_block(blocks: &[u8]) -> usize {
    let length = blocks.get(4..).and_then(|length| length.first_chunk());
    let length = length.map_or(u32::MAX, |length| u32::from_be_bytes(*length));
    usize::try_from(length).unwrap_or(usize::MAX).clamp(1, blocks.len().max(1))
}

/// Bytes of the whole blocks that are in front, of at most `room`.
fn whole_blocks(blocks: &[u8], room: usize) -> usize {
    let mut done = 0;
    while let Some(rest) = blocks.get(done..).filter(|rest| !rest.is_empty()) {
        let next = done + first_block(rest);
        if next > room {
            break;
        }
        done = next;
    }
    done
}

#[cfg(test)]
mod tests;
