//! `verify`, `dump`: memory as the CPU sees it.

use crate::error::CtlError;
use crate::kinds::MemoryKind;
use crate::operand::Operand;
use crate::output::{Answer, bytes};
use crate::session::{HeldKind, Session};
use guest_agent::device::View;
use guest_agent::sys::dma_buf::{Access, begin_cpu_access, end_cpu_access};
use guest_agent::uapi;
use serde_json::json;
use std::os::fd::{AsFd, OwnedFd};

/// The most bytes that are printed.
const MAX_DUMP: u64 = 64 << 10;

/// Memory mapped for the CPU, and what it belongs to.
struct Mapped {
    view: View,
    /// The dma-buf that is handed to the CPU as long as this lives.
    handed: Option<OwnedFd>,
}

impl Mapped {
    fn of(session: &Session, name: &str) -> Result<Self, CtlError> {
        if let Some(buffer) = session.buffers.get(name) {
            return Self::of_buffer(&buffer.fd, buffer.size);
        }
        let held = session.held(name)?;
        let peer = session.peer(held.device)?;
        match &held.what {
            HeldKind::Memory(kind) if kind.buffer().is_some() => {
                let buffer = peer.export(held.object)?;
                Self::of_buffer(&buffer, held.object.size)
            }
            HeldKind::Memory(kind) => {
                if *kind == MemoryKind::System {
                    peer.sync(held.object, uapi::SYNC_FOR_CPU)?;
                }
                Ok(Self { view: peer.view(held.object)?, handed: None })
            }
            HeldKind::Import { buffer, .. } => match session.buffers.get(buffer) {
                Some(found) => Self::of_buffer(&found.fd, held.object.size),
                None => Err(CtlError::usage(format!(
                    "the CPU reaches an import by its dma-buf, and {buffer} is closed"
                ))),
            },
        }
    }

    fn of_buffer(buffer: &OwnedFd, size: u64) -> Result<Self, CtlError> {
        let length = usize::try_from(size).map_err(CtlError::refused)?;
        let view = View::new(buffer.as_fd(), length, 0)
            .map_err(|error| CtlError::refused(format!("mmap of the dma-buf failed: {error}")))?;
        let buffer = buffer.try_clone().map_err(CtlError::refused)?;
        begin_cpu_access(&buffer, Access::Read).map_err(CtlError::refused)?;
        Ok(Self { view, handed: Some(buffer) })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        if let Some(buffer) = &self.handed {
            let _ = end_cpu_access(buffer, Access::Read);
        }
    }
}

/// Name and range of an operand: to the end without a length.
fn range(
    operand: &Operand,
    length: Option<u64>,
    size: impl FnOnce(&str) -> Result<u64, CtlError>,
) -> Result<(String, u64, u64), CtlError> {
    let Operand::Object { name, offset } = operand else {
        return Err(CtlError::usage("the CPU cannot look at a DMA address: name an object"));
    };
    let size = size(name)?;
    let room = size.saturating_sub(*offset);
    let length = length.unwrap_or(room);
    if length == 0 || length > room {
        return Err(CtlError::usage(format!(
            "{name} has {size} bytes: {length} from {offset} on leave it"
        )));
    }
    Ok((name.clone(), *offset, length))
}

fn size_of(session: &Session, name: &str) -> Result<u64, CtlError> {
    match session.buffers.get(name) {
        Some(buffer) => Ok(buffer.size),
        None => Ok(session.held(name)?.object.size),
    }
}

pub(super) fn verify(
    session: &mut Session,
    operand: &Operand,
    pattern: u64,
    length: Option<u64>,
) -> Result<Answer, CtlError> {
    let (name, offset, length) = range(operand, length, |name| size_of(session, name))?;
    let mapped = Mapped::of(session, &name)?;
    let range = usize::try_from(offset).map_err(CtlError::refused)?
        ..usize::try_from(offset + length).map_err(CtlError::refused)?;
    if let Some((at, expected, found)) = difference(&mapped.view, range, pattern) {
        return Err(CtlError::refused(format!(
            "{name}: the byte at offset {at:#x} is {found:#04x}, not {expected:#04x}"
        )));
    }
    let text = format!("{name}: the CPU sees {pattern:#x} in all of {}", bytes(length));
    Ok(Answer::new(text, json!({ "object": name, "verified": length })))
}

/// The first byte in `range` that is not the pattern's: its offset, what it should be and what it is.
fn difference(view: &View, range: std::ops::Range<usize>, pattern: u64) -> Option<(usize, u8, u8)> {
    let start = range.start;
    let mut at = start;
    while at < range.end {
        let shift = u32::try_from((at - start) % 8 * 8).unwrap_or(0);
        if at.is_multiple_of(8)
            && at + 8 <= range.end
            && view.word(at) == pattern.rotate_right(shift)
        {
            at += 8;
            continue;
        }
        let expected = pattern.to_le_bytes()[(at - start) % 8];
        let found = view.byte(at);
        if found != expected {
            return Some((at, expected, found));
        }
        at += 1;
    }
    None
}

pub(super) fn dump(
    session: &mut Session,
    operand: &Operand,
    length: u64,
) -> Result<Answer, CtlError> {
    let Operand::Object { name, offset } = operand else {
        return Err(CtlError::usage("the CPU cannot look at a DMA address: name an object"));
    };
    let room = size_of(session, name)?.saturating_sub(*offset);
    let (name, offset, length) =
        range(operand, Some(length.min(room).min(MAX_DUMP)), |name| size_of(session, name))?;
    let mapped = Mapped::of(session, &name)?;
    let first = usize::try_from(offset).map_err(CtlError::refused)?;
    let count = usize::try_from(length).map_err(CtlError::refused)?;
    let content: Vec<u8> = (first..first + count).map(|at| mapped.view.byte(at)).collect();
    let text = lines(offset, &content).join("\n");
    let hex: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Answer::new(text, json!({ "object": name, "offset": offset, "hex": hex })))
}

/// Sixteen bytes a line, with their offset and their characters.
fn lines(offset: u64, content: &[u8]) -> Vec<String> {
    let character = |byte: &u8| if (0x20..0x7f).contains(byte) { char::from(*byte) } else { '.' };
    (0..)
        .zip(content.chunks(16))
        .map(|(line, bytes): (u64, &[u8])| {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
            let text: String = bytes.iter().map(character).collect();
            format!("{:08x}  {hex:47}  {text}", offset + 16 * line)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(content: &[u8]) -> View {
        use std::io::Write;
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.set_len(4096).unwrap();
        View::new(&file, 4096, 0).unwrap()
    }

    #[test]
    fn a_pattern_is_found_wherever_it_begins() {
        let pattern = 0x1122_3344_5566_7788_u64;
        for start in 0..9 {
            let mut content = vec![0; start];
            content.extend(pattern.to_le_bytes().iter().cycle().take(100));
            assert_eq!(difference(&view(&content), start..start + 100, pattern), None, "{start}");
            content[start + 57] ^= 1;
            let expected = pattern.to_le_bytes()[57 % 8];
            assert_eq!(
                difference(&view(&content), start..start + 100, pattern),
                Some((start + 57, expected, expected ^ 1))
            );
            assert_eq!(difference(&view(&content), start..start + 57, pattern), None);
        }
    }

    #[test]
    fn ranges_stay_within_their_object() {
        let of = |text: &str, length| range(&text.parse().unwrap(), length, |_| Ok(100));
        assert_eq!(of("m", None).unwrap(), ("m".into(), 0, 100));
        assert_eq!(of("m+40", None).unwrap().2, 60);
        assert_eq!(of("m+40", Some(60)).unwrap().2, 60);
        for (text, length) in [
            ("m+100", None),
            ("m+40", Some(61)),
            ("m", Some(u64::MAX)),
            ("m+0xffffffffffffffff", None),
            ("0x10", None),
        ] {
            assert!(of(text, length).is_err(), "{text}");
        }
    }

    #[test]
    fn a_dump_has_offsets_and_characters() {
        let text = lines(0x100, b"peerdma\0\x1b[2J and more");
        assert_eq!(
            text[0],
            "00000100  70 65 65 72 64 6d 61 00 1b 5b 32 4a 20 61 6e 64  peerdma..[2J and"
        );
        assert_eq!(text[1], format!("00000110  {:47}   more", "20 6d 6f 72 65"));
    }
}
