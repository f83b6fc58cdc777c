//! `alloc`, `close`, `move`.

use crate::arguments::Alloc;
use crate::error::CtlError;
use crate::kinds::{MemoryKind, Side};
use crate::output::{Answer, bytes};
use crate::session::{Held, HeldKind, Session};
use guest_agent::uapi;
use serde_json::json;

pub(super) fn alloc(session: &mut Session, alloc: &Alloc) -> Result<Answer, CtlError> {
    let Alloc { kind, size, ranges, direction, .. } = alloc;
    if *ranges > 1 && *kind != MemoryKind::Local {
        return Err(CtlError::usage("only local memory can be scattered over ranges"));
    }
    let device = session.device(&alloc.device)?;
    let name = session.name(&alloc.name, 'm')?;
    let peer = session.peer(device)?;
    let object = match kind.buffer() {
        Some(buffer) => peer.buffer(buffer, size.0, 0, 0)?,
        None => match kind {
            MemoryKind::Coherent => {
                peer.system(size.0, uapi::SYSTEM_COHERENT, uapi::BIDIRECTIONAL)?
            }
            MemoryKind::System => peer.system(size.0, 0, direction.code())?,
            _ => peer.alloc(size.0, *ranges)?,
        },
    };
    let owner = peer.name();
    let text = format!("{name}: {} of {} of {owner}", bytes(object.size), kind.word());
    let json = json!({
        "object": name,
        "device": owner,
        "kind": kind.word(),
        "handle": object.handle,
        "size": object.size,
    });
    session.objects.insert(name, Held { device, object, what: HeldKind::Memory(*kind) });
    Ok(Answer::new(text, json))
}

pub(super) fn close(session: &mut Session, name: &str) -> Result<Answer, CtlError> {
    let json = json!({ "closed": name });
    if session.buffers.remove(name).is_some() {
        return Ok(Answer::new(format!("{name}: this descriptor is closed"), json));
    }
    let held = session.held(name)?;
    session.peer(held.device)?.close(held.object)?;
    session.objects.remove(name);
    Ok(Answer::new(format!("{name}: given back"), json))
}

pub(super) fn relocate(session: &mut Session, name: &str, side: Side) -> Result<Answer, CtlError> {
    let held = session.held(name)?;
    let peer = session.peer(held.device)?;
    let (code, word) = match side {
        Side::Local => (uapi::PLACE_LOCAL, "local memory"),
        Side::System => (uapi::PLACE_SYSTEM, "RAM"),
    };
    peer.move_buffer(held.object, code, 0)?;
    let state = peer.buffer_state(held.object)?;
    let text =
        format!("{name}: in {word} now, after {} moves; {} mappings", state.moves, state.mappings);
    Ok(Answer::new(text, json!({ "object": name, "place": word, "moves": state.moves })))
}
