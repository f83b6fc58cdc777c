//! `show`: where objects are.

use crate::address::{Memory, locate};
use crate::error::CtlError;
use crate::kinds::MemoryKind;
use crate::output::{Answer, bytes, hex};
use crate::session::{Held, HeldKind, Session};
use guest_agent::device;
use serde_json::{Value, json};

/// The most pieces that are printed.
const MAX_SHOWN: usize = 8;

pub(super) fn all(session: &mut Session) -> Result<Answer, CtlError> {
    let names: Vec<_> = session.objects.keys().chain(session.buffers.keys()).cloned().collect();
    if names.is_empty() {
        return Ok(Answer::new(
            "no objects yet: `alloc DEVICE SIZE` makes one",
            json!({ "objects": [] }),
        ));
    }
    let answers: Vec<_> =
        names.iter().map(|name| one(session, name)).collect::<Result<_, CtlError>>()?;
    let text = answers.iter().map(|answer| answer.text.as_str()).collect::<Vec<_>>().join("\n");
    let objects: Vec<_> = answers.into_iter().map(|answer| answer.json).collect();
    Ok(Answer::new(text, json!({ "objects": objects })))
}

pub(super) fn one(session: &mut Session, name: &str) -> Result<Answer, CtlError> {
    if let Some(buffer) = session.buffers.get(name) {
        let owner = buffer.owner.map(|owner| format!(" of {}", device::name(owner)));
        let owner = owner.unwrap_or_default();
        let text = format!("{name}: a dma-buf of {}, {}{owner}", bytes(buffer.size), buffer.of);
        let json = json!({ "buffer": name, "size": buffer.size, "of": buffer.of });
        return Ok(Answer::new(text, json));
    }
    session.held(name)?;
    // So that all memories are known by which an address can be recognised.
    session.open_all()?;
    let held = session.held(name)?;
    let (text, json) = describe(session, name, held)?;
    Ok(Answer::new(text, json))
}

fn describe(session: &Session, name: &str, held: &Held) -> Result<(String, Value), CtlError> {
    let peer = session.peer(held.device)?;
    let (segments, total) = match &held.what {
        // The driver has no list for kinds that are only exported.
        HeldKind::Memory(kind) if kind.buffer().is_some() => (Vec::new(), 0),
        _ => peer.segments(held.object)?,
    };
    let head = match &held.what {
        HeldKind::Memory(kind) => {
            format!("{name}: {} of {} of {}", bytes(held.object.size), kind.word(), peer.name())
        }
        HeldKind::Import { buffer, .. } => {
            format!("{name}: {} attached to {buffer}, {}", peer.name(), bytes(held.object.size))
        }
    };
    let mut lines = vec![head];
    let mut pieces = Vec::new();
    let shown = segments.iter().take(MAX_SHOWN);
    match &held.what {
        HeldKind::Memory(MemoryKind::Local) => {
            let info = peer.info;
            for segment in shown {
                let (offset, bus) =
                    (segment.address, info.memory_bus.wrapping_add(segment.address));
                let phys = info.memory_phys.wrapping_add(segment.address);
                lines.push(format!(
                    "  at offset {offset:#x} of the local memory, {} bytes: bus address {bus:#x}, CPU physical address {phys:#x}",
                    segment.length
                ));
                pieces.push(json!({
                    "offset": hex(offset),
                    "length": segment.length,
                    "bus": hex(bus),
                    "physical": hex(phys),
                }));
            }
            lines.push(
                "  the device's own engine needs no mapping; others import it as a dma-buf".into(),
            );
        }
        HeldKind::Memory(kind) if kind.buffer().is_some() => {
            let state = peer.buffer_state(held.object)?;
            let place = if state.place == 0 { "local memory" } else { "RAM" };
            lines.push(format!(
                "  in {place}; {} importers have it mapped, {} have it pinned",
                state.mappings, state.pins
            ));
        }
        what => {
            let owner = match what {
                HeldKind::Import { owner: Some(owner), .. } => Some(device::name(*owner)),
                HeldKind::Import { owner: None, .. } => None,
                // Empty stands for RAM.
                HeldKind::Memory(_) => Some(String::new()),
            };
            let way = match what {
                HeldKind::Import { owner: Some(owner), .. } => {
                    session.expected_way(held.device, *owner)
                }
                _ => None,
            };
            let memories: Vec<_> = session.peers().map(Memory::of).collect();
            for segment in shown {
                let is_translated = peer.is_translated();
                let found = locate(
                    segment.address,
                    segment.length,
                    is_translated,
                    owner.as_deref(),
                    way,
                    &memories,
                );
                lines.push(format!("  DMA address {}", found.text()));
                pieces.push(found.json());
            }
            if total == 0 {
                lines.push(format!(
                    "  not mapped now: `map {name}`, or the first work that uses it"
                ));
            }
        }
    }
    if let Some(more) = (total as usize).checked_sub(MAX_SHOWN).filter(|more| *more > 0) {
        lines.push(format!("  and {more} pieces more"));
    }
    let json = json!({
        "object": name,
        "device": peer.name(),
        "size": held.object.size,
        "handle": held.object.handle,
        "pieces": total,
        "segments": pieces,
    });
    Ok((lines.join("\n"), json))
}
