//! Writing a trace entry by entry, for programs that make one from another. Recording has its own thread for this:
//! [`Recording`](super::Recording).

use std::io::{self, Write};
use std::time::Duration;

use super::blocks::Blocks;
use super::event::{Event, Header};
use super::frames::Frames;

/// A frame ends behind the block that reaches this, in bytes.
pub(crate) const FRAME: usize = 1 << 20;

/// Writes a trace.
#[derive(Debug)]
pub struct Writer<W: Write> {
    frames: Frames<W>,
    blocks: Blocks,
}

impl<W: Write> Writer<W> {
    /// Begins a trace that was begun at `time` since 1970.
    ///
    /// # Errors
    /// What `out` says.
    pub fn new(out: W, header: &Header, time: Duration) -> io::Result<Self> {
        let mut writer = Self { frames: Frames::new(out)?, blocks: Blocks::new(header, time)? };
        // Behind the first frame any other can be read.
        writer.flush()?;
        Ok(writer)
    }

    /// Adds an entry of this time since 1970.
    ///
    /// # Errors
    /// What `out` says.
    pub fn append(&mut self, event: &Event, time: Duration) -> io::Result<()> {
        if let Event::Lost { entries } = event {
            self.blocks.skip(*entries);
        }
        self.blocks.push(event, time)?;
        if self.blocks.made().len() >= FRAME { self.flush() } else { Ok(()) }
    }

    /// Entries so far, without the header.
    pub fn events(&self) -> u64 {
        self.blocks.events()
    }

    /// Ends the frame: all that was added is in `out`.
    ///
    /// # Errors
    /// What `out` says.
    pub fn flush(&mut self) -> io::Result<()> {
        let made = self.blocks.made();
        if made.is_empty() {
            return Ok(());
        }
        self.frames.frame(made)?;
        made.clear();
        Ok(())
    }

    /// Writes what is left and the seek table; gives back `out`. The end mark is an entry: who writes it knows whether the
    /// trace is complete.
    ///
    /// # Errors
    /// What `out` says.
    pub fn finish(mut self) -> io::Result<W> {
        self.flush()?;
        Ok(self.frames.finish()?.0)
    }
}
