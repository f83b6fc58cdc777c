//! `export`, `import`, `map`, `unmap`, `invalidate`.

use super::show;
use crate::arguments::Name;
use crate::error::CtlError;
use crate::kinds::{Direction, Importer, MemoryKind};
use crate::output::{Answer, bytes};
use crate::session::{Buffer, Held, HeldKind, Session};
use serde_json::json;

pub(super) fn export(session: &mut Session, object: &str, name: &Name) -> Result<Answer, CtlError> {
    let held = session.held(object)?;
    let (device, size) = (held.device, held.object.size);
    let of = match &held.what {
        HeldKind::Memory(kind) => kind.word().to_owned(),
        HeldKind::Import { .. } => "an import".to_owned(),
    };
    let is_local = matches!(
        held.what,
        HeldKind::Memory(MemoryKind::Local | MemoryKind::P2pmem | MemoryKind::Migrating)
    );
    let peer = session.peer(device)?;
    let (fd, exporter) = (peer.export(held.object)?, peer.name());
    let name = session.name(name, 'b')?;
    let text = format!("{name}: a dma-buf of {} over {object}, {of} of {exporter}", bytes(size));
    let json = json!({ "buffer": name, "of": object, "device": exporter, "size": size });
    let owner = is_local.then_some(device);
    session.buffers.insert(name, Buffer { fd, size, owner, of });
    Ok(Answer::new(text, json))
}

pub(super) fn import(
    session: &mut Session,
    device: &str,
    buffer: &str,
    importer: Importer,
    name: &Name,
) -> Result<Answer, CtlError> {
    let device = session.device(device)?;
    let from = session.buffer(buffer)?;
    let owner = from.owner;
    let peer = session.peer(device)?;
    let (object, client) = (peer.import(&from.fd, importer.flags())?, peer.name());
    let distance = match owner {
        Some(owner) if owner != device => {
            let distance = session.peer(owner)?.distance(session.peer(device)?)?;
            format!("; distance {distance}")
        }
        _ => String::new(),
    };
    let name = session.name(name, 'i')?;
    let text =
        format!("{name}: {client} is attached to {buffer}, {}{distance}", bytes(object.size));
    let json = json!({
        "object": name,
        "device": client,
        "buffer": buffer,
        "handle": object.handle,
        "size": object.size,
    });
    let what = HeldKind::Import { buffer: buffer.to_owned(), owner };
    session.objects.insert(name, Held { device, object, what });
    Ok(Answer::new(text, json))
}

pub(super) fn map(
    session: &mut Session,
    object: &str,
    direction: Direction,
) -> Result<Answer, CtlError> {
    let held = session.held(object)?;
    session.peer(held.device)?.map(held.object, direction.code())?;
    show::one(session, object)
}

pub(super) fn unmap(session: &mut Session, object: &str) -> Result<Answer, CtlError> {
    let held = session.held(object)?;
    session.peer(held.device)?.unmap(held.object)?;
    let text = format!("{object}: the mapping is given back, the object stays");
    Ok(Answer::new(text, json!({ "object": object, "mapped": false })))
}

pub(super) fn invalidate(session: &mut Session, object: &str) -> Result<Answer, CtlError> {
    let held = session.held(object)?;
    let peer = session.peer(held.device)?;
    let before = peer.counters()?.exporter_unmaps;
    peer.invalidate(held.object)?;
    let unmapped = peer.counters()?.exporter_unmaps.saturating_sub(before);
    let text = format!("{object}: importers are notified, {unmapped} mappings are gone");
    Ok(Answer::new(text, json!({ "object": object, "unmapped": unmapped })))
}
