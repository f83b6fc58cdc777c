//! Independent zstd frames with a seek table behind them.

use std::io::{self, Write};

use zeekstd::{EncodeOptions, FrameSizePolicy, RawEncoder};

/// Fast enough not to hold up a recording.
const LEVEL: i32 = 1;

/// Bytes that are compressed at a time.
const PIECE: usize = 128 << 10;

/// Writes frames.
pub(crate) struct Frames<W> {
    encoder: RawEncoder<'static>,
    piece: Vec<u8>,
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
        let encoder = EncodeOptions::new()
            .checksum_flag(true)
            .compression_level(LEVEL)
            // A frame ends where it is ended, that is, between two blocks.
            .frame_size_policy(FrameSizePolicy::Uncompressed(1 << 30))
            .into_raw_encoder()
            .map_err(io::Error::other)?;
        Ok(Self { encoder, piece: vec![0; PIECE], out, written: 0 })
    }

    /// Bytes so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes `bytes` as a frame of its own, and has it taken by the file.
    pub(crate) fn frame(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let progress =
                self.encoder.compress(left, &mut self.piece).map_err(io::Error::other)?;
            left = left.get(progress.in_progress()..).unwrap_or_default();
            self.put(progress.out_progress())?;
        }
        loop {
            let progress = self.encoder.end_frame(&mut self.piece).map_err(io::Error::other)?;
            self.put(progress.out_progress())?;
            if progress.data_left() == 0 {
                return self.out.flush();
            }
        }
    }

    /// Writes the seek table.
    pub(crate) fn finish(mut self) -> io::Result<(W, u64)> {
        let mut table = self.encoder.seek_table().clone().into_serializer();
        loop {
            let count = table.write_into(&mut self.piece);
            if count == 0 {
                self.out.flush()?;
                return Ok((self.out, self.written));
            }
            self.put(count)?;
        }
    }

    fn put(&mut self, count: usize) -> io::Result<()> {
        let bytes = self.piece.get(..count).unwrap_or_default();
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}
