//! The seek table behind the frames.

use std::io::{Read, Seek, SeekFrom};

use zeekstd::SeekTable;

/// Bytes of the skippable frame's header, of an entry for a frame with its checksum, and of the table's end.
const HEADER: u64 = 8;
const ENTRY: u64 = 12;
const FOOTER: u64 = 9;
const MAGIC: [u8; 4] = 0x8f92_eab1_u32.to_le_bytes();

/// Checks that a file has a seek table and that its frames make up the whole file.
///
/// # Errors
/// What is wrong, in a sentence.
pub fn check_seek_table(file: &mut (impl Read + Seek)) -> Result<(), String> {
    let words = |error: std::io::Error| error.to_string();
    let size = file.seek(SeekFrom::End(0)).map_err(words)?;
    // What it says about its own size is not believed before it is known to have room.
    let at = size.checked_sub(FOOTER).ok_or("the file is too short")?;
    file.seek(SeekFrom::Start(at)).map_err(words)?;
    let mut footer = [0; 9];
    file.read_exact(&mut footer).map_err(words)?;
    let [a, b, c, d, _, magic @ ..] = footer;
    if magic != MAGIC {
        return Err("there is none at the end of the file".to_owned());
    }
    let frames = u64::from(u32::from_le_bytes([a, b, c, d]));
    if HEADER + frames * (ENTRY - 4) + FOOTER > size {
        return Err(format!("the file has no room for {frames} frames"));
    }
    let table = SeekTable::from_seekable(file).map_err(|error| error.to_string())?;
    let packed = table.size_comp();
    let room = size - HEADER - FOOTER;
    if packed > room || room - packed > u64::from(table.num_frames()) * ENTRY {
        return Err(format!("it describes {packed} bytes of frames, and the file has {size}"));
    }
    Ok(())
}
