//! `transfer`: a transfer from beginning to end, by the commands that anyone would type.

use super::bench::RAM;
use crate::arguments::Line;
use crate::error::CtlError;
use crate::output::{Answer, Output};
use crate::session::Session;
use clap::Parser;
use guest_agent::device;
use serde_json::json;

/// What the bytes are, different from what memory holds by itself.
const PATTERN: &str = "0x70656572646d6121";

pub(super) fn run(
    session: &mut Session,
    client: &str,
    target: &str,
    size: u64,
    output: Output,
) -> Result<(), CtlError> {
    let client = device::name(session.device(client)?);
    let names = Names::free(session);
    let (lines, far) = if target == RAM {
        let alloc = format!("alloc {client} {size} --kind system --name {}", names.memory);
        (vec![alloc, format!("show {}", names.memory)], names.memory.clone())
    } else {
        let owner = device::name(session.device(target)?);
        let Names { memory, buffer, import, .. } = &names;
        let lines = vec![
            format!("alloc {owner} {size} --name {memory}"),
            format!("export {memory} --name {buffer}"),
            format!("import {client} {buffer} --name {import}"),
            format!("map {import}"),
        ];
        (lines, import.clone())
    };
    let Names { memory, source, .. } = &names;
    let rest = [
        format!("alloc {client} {size} --name {source}"),
        format!("fill {source} --pattern {PATTERN}"),
        format!("copy {source} {far} --length {size}"),
        format!("verify {memory} --pattern {PATTERN} --length {size}"),
    ];
    for line in lines.iter().chain(&rest) {
        output.answer(&Answer::new(format!("> {line}"), json!({ "step": line })));
        let words = line.split(' ');
        let parsed = Line::try_parse_from(words).map_err(CtlError::usage)?;
        super::run(session, &parsed.command, output)?;
    }
    Ok(())
}

/// What the objects are called.
#[derive(Debug)]
struct Names {
    memory: String,
    buffer: String,
    import: String,
    source: String,
}

impl Names {
    /// The first ones that are all free.
    fn free(session: &Session) -> Self {
        let is_free = |name: &String| {
            !session.objects.contains_key(name) && !session.buffers.contains_key(name)
        };
        let mut round = String::new();
        for number in 2_u32.. {
            let name = |word: &str| format!("{word}{round}");
            let names = Self {
                memory: name("memory"),
                buffer: name("buffer"),
                import: name("import"),
                source: name("source"),
            };
            if [&names.memory, &names.buffer, &names.import, &names.source].into_iter().all(is_free)
            {
                return names;
            }
            round = number.to_string();
        }
        // Not in four billion transfers.
        Self { memory: "m".into(), buffer: "b".into(), import: "i".into(), source: "s".into() }
    }
}
