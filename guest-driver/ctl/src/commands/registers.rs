//! `register`, `doorbell`.

use crate::error::CtlError;
use crate::output::{Answer, hex};
use crate::registers::{OF_DEVICE, TAIL, block, find};
use crate::session::Session;
use serde_json::{Map, json};

pub(super) fn register(
    session: &mut Session,
    device: &str,
    name: Option<&str>,
    value: Option<u64>,
) -> Result<Answer, CtlError> {
    let number = session.device(device)?;
    let peer = session.peer(number)?;
    let found = match name {
        Some(name) => find(name, peer.info.channels)?,
        None => OF_DEVICE.iter().map(|(name, at)| ((*name).to_owned(), *at)).collect(),
    };
    if let Some(value) = value {
        let [(name, at)] = found.as_slice() else {
            return Err(CtlError::usage("a value is for one register: name one of them"));
        };
        let value = u32::try_from(value)
            .map_err(|_| CtlError::usage(format!("{value:#x} does not fit into 32 bits")))?;
        peer.write_register(*at, value)?;
        let now = peer.read_register(*at)?;
        let text = format!("{name}: {value:#x} written, it reads as {now:#x} now");
        return Ok(Answer::new(text, json!({ "register": name, "written": value, "value": now })));
    }
    let (mut lines, mut values) = (Vec::new(), Map::new());
    for (name, at) in found {
        let value = peer.read_register(at)?;
        lines.push(format!("{at:#07x}  {name:18} {value:#010x}"));
        values.insert(name, json!(hex(value.into())));
    }
    Ok(Answer::new(lines.join("\n"), json!({ "device": peer.name(), "registers": values })))
}

pub(super) fn doorbell(
    session: &mut Session,
    device: &str,
    channel: u32,
    tail: Option<u64>,
) -> Result<Answer, CtlError> {
    let number = session.device(device)?;
    let peer = session.peer(number)?;
    let at = block(channel, peer.info.channels)? + TAIL;
    let tail = match tail {
        Some(tail) => u32::try_from(tail)
            .map_err(|_| CtlError::usage(format!("{tail:#x} does not fit into 32 bits")))?,
        None => peer.read_register(at)?,
    };
    peer.write_register(at, tail)?;
    let text = format!(
        "{}: ch{channel}.tail is {tail} now; ch{channel}.head says what the device has taken",
        peer.name()
    );
    Ok(Answer::new(text, json!({ "device": peer.name(), "channel": channel, "tail": tail })))
}
