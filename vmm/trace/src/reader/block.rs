//! Taking whole blocks from the bytes of a trace.

use std::io::{self, Read};

use super::error::{TraceError, TracePlace};

/// As much of a parser's words as is of use.
const MAX_REASON: usize = 200;

/// What a file has next.
pub(super) enum Next {
    /// A block, in the buffer.
    Block,
    /// Its end, or what cannot be a whole block.
    Nothing(String),
}

/// Reads a block into `block`, of at most `limit` bytes.
pub(super) fn read_block(
    source: &mut impl Read,
    block: &mut Vec<u8>,
    limit: u32,
    place: TracePlace,
) -> Result<Next, TraceError> {
    let damaged = |reason: String| Err(TraceError::Damaged { place, reason });
    block.clear();
    block.resize(8, 0);
    let got = read_all(source, block);
    match got {
        Ok(8) => {}
        Ok(0) => return Ok(Next::Nothing("there is no end mark".to_owned())),
        Ok(_) => return Ok(Next::Nothing("a block is cut".to_owned())),
        Err(error) => return failed(error, place),
    }
    let length = block.last_chunk().map_or(0, |length| u32::from_be_bytes(*length));
    if !length.is_multiple_of(4) || length < 12 {
        return damaged(format!("a block of {length} bytes is not possible"));
    }
    if length > limit {
        return damaged(format!("a block of {length} bytes is longer than {limit}"));
    }
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    block.resize(length, 0);
    let rest = block.get_mut(8..).unwrap_or_default();
    match read_all(source, rest) {
        Ok(count) if count == rest.len() => Ok(Next::Block),
        Ok(_) => Ok(Next::Nothing("a block is cut".to_owned())),
        Err(error) => failed(error, place),
    }
}

/// Fills `buffer` as far as the source goes.
fn read_all(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// What an error of reading or unpacking means.
pub(super) fn failed(error: io::Error, place: TracePlace) -> Result<Next, TraceError> {
    match error.kind() {
        // That is what zstd says at the end of a file within a frame.
        io::ErrorKind::UnexpectedEof => Ok(Next::Nothing("a zstd frame is cut".to_owned())),
        _ if error.raw_os_error().is_some() => Err(TraceError::Read(error)),
        _ => {
            let reason = format!("the zstd frame is damaged: {}", reason(&error));
            Err(TraceError::Damaged { place, reason })
        }
    }
}

/// What a parser says, in a few words.
pub(super) fn reason(error: &impl std::fmt::Display) -> String {
    error.to_string().chars().take(MAX_REASON).collect()
}
