//! `list`: devices, BARs, and which may reach which.

use crate::error::CtlError;
use crate::output::{Answer, bytes, hex};
use crate::session::Session;
use guest_agent::device::{self, Peer};
use guest_agent::sys::pci::Function;
use guest_agent::uapi;
use serde_json::{Value, json};

pub(super) fn list(session: &mut Session, all: bool) -> Result<Answer, CtlError> {
    let numbers = session.open_all()?;
    let mut text = Vec::new();
    let mut devices = Vec::new();
    for number in &numbers {
        let (lines, json) = describe(session.peer(*number)?)?;
        text.push(lines);
        devices.push(json);
    }
    let mut clients: Vec<(String, u32, u32)> =
        session.peers().map(|peer| (peer.name(), peer.info.segment, peer.info.bdf)).collect();
    if all {
        clients.extend(others(&clients));
    }
    let (table, paths) = distances(session, &numbers, &clients)?;
    text.push(table);
    Ok(Answer::new(text.join("\n"), json!({ "devices": devices, "paths": paths })))
}

fn iommu(code: u32) -> &'static str {
    match code {
        uapi::IOMMU_NONE => "none: DMA addresses are CPU physical addresses",
        uapi::IOMMU_IDENTITY => "passthrough: DMA addresses are CPU physical addresses",
        uapi::IOMMU_STRICT => "strict: each unmap invalidates at once",
        uapi::IOMMU_LAZY => "lazy: unmapped addresses are invalidated later",
        _ => "of a kind that the driver does not know",
    }
}

fn describe(peer: &Peer) -> Result<(String, Value), CtlError> {
    let info = peer.refreshed_info()?;
    let function = peer.function();
    let group = function.iommu_group();
    let above = function.upstream().map(|port| port.name);
    let mut lines = vec![
        format!(
            "{}  /dev/peerdma{}  {}{}",
            peer.name(),
            peer.instance,
            function.name,
            above.as_ref().map(|port| format!(", below {port}")).unwrap_or_default()
        ),
        format!(
            "  IOMMU {}{}",
            iommu(info.iommu),
            group.as_ref().map(|group| format!("; group {group}")).unwrap_or_default()
        ),
        format!(
            "  {} channels, {} interrupt vectors, at most {} a descriptor",
            info.channels,
            info.vectors,
            bytes(info.descriptor_bytes)
        ),
    ];
    let mut bars = Vec::new();
    let resources = function.resources().map_err(CtlError::refused)?;
    for bar in resources.iter().filter(|resource| resource.index < 6) {
        let size = bar.last.saturating_sub(bar.first).saturating_add(1);
        let is_memory = bar.first == info.memory_phys && info.memory_phys != 0;
        let what = if is_memory {
            let on_bus = match info.memory_bus == info.memory_phys {
                true => "the same on the bus".to_owned(),
                false => format!("{:#x} on the bus", info.memory_bus),
            };
            format!("local memory, {} free, {on_bus}", bytes(info.memory_free))
        } else if bar.first == info.registers_phys && info.registers_phys != 0 {
            "registers".to_owned()
        } else {
            "MSI-X table".to_owned()
        };
        lines.push(format!("  BAR {}  {:#x}  {}  {what}", bar.index, bar.first, bytes(size)));
        let bus = if is_memory { hex(info.memory_bus) } else { hex(bar.first) };
        bars.push(json!({ "bar": bar.index, "address": hex(bar.first), "bus": bus, "size": size }));
    }
    let json = json!({
        "name": peer.name(),
        "device": peer.instance,
        "function": function.name,
        "below": above,
        "iommu": iommu(info.iommu).split(':').next(),
        "group": group,
        "channels": info.channels,
        "memory": info.memory_size,
        "free": info.memory_free,
        "bars": bars,
    });
    Ok((lines.join("\n") + "\n", json))
}

/// Functions that are no bridge and not listed yet: their driver or address, segment and requester ID.
fn others(known: &[(String, u32, u32)]) -> Vec<(String, u32, u32)> {
    const BRIDGE: u32 = 0x06;
    let all = Function::all().unwrap_or_default();
    all.iter()
        .filter(|function| function.hexadecimal("class").is_some_and(|class| class >> 16 != BRIDGE))
        .filter_map(|function| {
            let (segment, bdf) = function.segment_and_requester_id()?;
            let is_known = known.iter().any(|(_, s, b)| (*s, *b) == (segment, bdf));
            (!is_known).then(|| (function.address().to_owned(), segment, bdf))
        })
        .collect()
}

/// A row for each client, a column for each device whose memory it might reach.
fn distances(
    session: &Session,
    owners: &[u32],
    clients: &[(String, u32, u32)],
) -> Result<(String, Vec<Value>), CtlError> {
    let mut paths = Vec::new();
    let names: Vec<_> = owners.iter().map(|number| device::name(*number)).collect();
    let mut rows = vec![("".to_owned(), names.clone())];
    for (client, segment, bdf) in clients {
        let mut row = Vec::new();
        for (owner, name) in owners.iter().zip(&names) {
            if client == name {
                row.push("itself".to_owned());
                continue;
            }
            let distance = session.peer(*owner)?.distance_of(*segment, *bdf)?;
            row.push(match distance {
                0.. => format!("yes, {distance}"),
                _ => "no path".to_owned(),
            });
            paths.push(json!({ "client": client, "owner": name, "distance": distance }));
        }
        rows.push((client.clone(), row));
    }
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let width = rows.iter().flat_map(|(_, row)| row).map(String::len).max().unwrap_or(0);
    let mut lines =
        vec!["DMA by (row) into the memory of (column), with the kernel's distance:".to_owned()];
    for (name, row) in &rows {
        let cells: Vec<_> = row.iter().map(|cell| format!("{cell:width$}")).collect();
        lines.push(format!("  {name:first$}  {}", cells.join("  ")).trim_end().to_owned());
    }
    Ok((lines.join("\n"), paths))
}
