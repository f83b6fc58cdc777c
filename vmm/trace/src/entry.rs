//! How an entry of a trace is encoded: docs/trace-format.md. Numbers are big-endian, as in a TLP.
//!
//! Nothing of what is decoded is believed before it is checked: no length is used but to take so many bytes of those that
//! are there.

use device_models::checker::FindingClass;
use device_models::fabric::Kind;
use device_models::pci::Bdf;

use super::event::{
    ConfigAccess, Destination, Event, FindingEvent, TestMark, TestResult, TlpRun, TransactionResult,
};
use super::fields::{Fields, Invalid};
use super::names;
use super::tlp::{MemoryRequest, TlpHeader};

/// The version of the header of each entry.
pub(crate) const VERSION: u8 = 1;

/// The numbers of the kinds of entries. None is ever reused.
pub(crate) mod kind {
    pub(crate) const HEADER: u8 = 0;
    pub(crate) const TRANSACTION: u8 = 1;
    pub(crate) const FINDING: u8 = 2;
    pub(crate) const CONFIG_WRITE: u8 = 3;
    pub(crate) const CONFIG_READ: u8 = 4;
    pub(crate) const REGISTER_WRITE: u8 = 5;
    pub(crate) const REGISTER_READ: u8 = 6;
    pub(crate) const CPU_PUSH: u8 = 7;
    pub(crate) const UNPLUG: u8 = 8;
    pub(crate) const PLUG: u8 = 9;
    pub(crate) const DELAY_POSTED: u8 = 10;
    pub(crate) const FENCE_SEEN: u8 = 11;
    pub(crate) const STEP: u8 = 12;
    pub(crate) const OUTSIDE: u8 = 13;
    pub(crate) const TEST: u8 = 14;
    /// The kind of entries with what the guest's kernel says about its mappings. Nothing writes them yet.
    pub(crate) const WITNESS: u8 = 15;
    pub(crate) const LOST: u8 = 0xfe;
    pub(crate) const END: u8 = 0xff;
}

/// Flags of a transaction.
mod flag {
    pub(super) const DIGEST: u32 = 1;
    pub(super) const DATA: u32 = 2;
    /// Bits 3:2: the two low bits of the address, where the byte enables do not tell them.
    pub(super) const LOW_ADDRESS: u32 = 2;
}

const NONE_16: u16 = u16::MAX;
const NONE_64: u64 = u64::MAX;

/// The header of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryHeader {
    pub(crate) kind: u8,
    /// Code of a finding's class, 0 for none: the finding's own, or that of the first about a transaction.
    pub(crate) class: u16,
    pub(crate) flags: u32,
    /// From 0, the header entry's; each the one before and one.
    pub(crate) number: u64,
}

impl EntryHeader {
    fn put(self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.kind]);
        out.extend(self.class.to_be_bytes());
        out.extend(self.flags.to_be_bytes());
        out.extend(self.number.to_be_bytes());
    }

    /// Takes it from the beginning of an entry.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, Invalid> {
        let version = fields.u8()?;
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        Ok(Self {
            kind: fields.u8()?,
            class: fields.u16()?,
            flags: fields.u32()?,
            number: fields.u64()?,
        })
    }
}

/// Adds the entry that opens a trace.
pub(crate) fn put_header(json: &[u8], out: &mut Vec<u8>) {
    EntryHeader { kind: kind::HEADER, class: 0, flags: 0, number: 0 }.put(out);
    out.extend(json);
}

/// Adds an entry; gives the bytes that it would have with its whole payload.
pub(crate) fn put(number: u64, event: &Event, out: &mut Vec<u8>) -> u64 {
    let begun = out.len();
    let header = |kind| EntryHeader { kind, class: 0, flags: 0, number };
    match event {
        Event::Transaction(run) => {
            put_run(number, run, out);
            let kept = run.data.as_ref().map_or(0, Vec::len) as u64;
            return ((out.len() - begun) as u64).saturating_add(run.length.saturating_sub(kept));
        }
        Event::Finding(finding) => put_finding(number, finding, out),
        Event::ConfigWrite(access) => put_config(header(kind::CONFIG_WRITE), access, true, out),
        Event::ConfigRead(access) => put_config(header(kind::CONFIG_READ), access, false, out),
        Event::RegisterWrite { address, data } => {
            put_register(header(kind::REGISTER_WRITE), *address, data, Kind::MemoryWrite, out);
        }
        Event::RegisterRead { address, data } => {
            put_register(header(kind::REGISTER_READ), *address, data, Kind::MemoryRead, out);
        }
        Event::CpuPush { function } => put_number(header(kind::CPU_PUSH), *function, out),
        Event::Step { function } => put_number(header(kind::STEP), *function, out),
        Event::Unplug { port } => put_number(header(kind::UNPLUG), usize::from(*port), out),
        Event::Plug { port } => put_number(header(kind::PLUG), usize::from(*port), out),
        Event::FenceSeen { requester } => {
            put_number(header(kind::FENCE_SEEN), usize::from(*requester), out);
        }
        Event::DelayPosted { requester, target, delay } => {
            let flags = u32::from(target.is_some());
            EntryHeader { flags, ..header(kind::DELAY_POSTED) }.put(out);
            out.extend(requester.to_be_bytes());
            out.extend(target.unwrap_or(NONE_16).to_be_bytes());
            out.extend(delay.as_bytes());
        }
        Event::Outside { function, data } => {
            put_number(header(kind::OUTSIDE), *function, out);
            out.extend(data);
        }
        Event::Test(TestMark { name, result }) => {
            let flags = match result {
                None => 0,
                Some(TestResult::Passed) => 1,
                Some(TestResult::Failed) => 2,
                Some(TestResult::Skipped) => 3,
            };
            EntryHeader { flags, ..header(kind::TEST) }.put(out);
            out.extend(name.as_bytes());
        }
        Event::Other { kind, body } => {
            header(*kind).put(out);
            out.extend(body);
        }
        Event::Lost { entries } => {
            header(kind::LOST).put(out);
            out.extend(entries.to_be_bytes());
        }
        Event::End { events } | Event::Cut { events } => {
            let flags = u32::from(matches!(event, Event::Cut { .. }));
            EntryHeader { flags, ..header(kind::END) }.put(out);
            out.extend(events.to_be_bytes());
        }
    }
    (out.len() - begun) as u64
}

fn put_number(header: EntryHeader, number: usize, out: &mut Vec<u8>) {
    header.put(out);
    out.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_config(header: EntryHeader, access: &ConfigAccess, write: bool, out: &mut Vec<u8>) {
    let ConfigAccess { function, offset, length, value } = *access;
    header.put(out);
    out.extend(function.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend([length, 0, 0, 0]);
    out.extend(value.to_be_bytes());
    out.extend(TlpHeader::configuration(Bdf(function), offset, length, write).as_bytes());
}

fn put_register(header: EntryHeader, address: u64, data: &[u8], kind: Kind, out: &mut Vec<u8>) {
    header.put(out);
    let (requester, length) = (Bdf(0), data.len() as u64);
    let tlp = TlpHeader::memory(&MemoryRequest { kind, requester, tag: 0, address, length });
    out.extend(address.to_be_bytes());
    out.extend([dwords(&tlp), 0, 0, 0]);
    out.extend(tlp.as_bytes());
    out.extend(data);
}

fn dwords(tlp: &TlpHeader) -> u8 {
    if tlp.as_bytes().len() == 16 { 4 } else { 3 }
}

fn put_run(number: u64, run: &TlpRun, out: &mut Vec<u8>) {
    let mut flags = 0;
    if run.digest.is_some() {
        flags |= flag::DIGEST;
    }
    if run.data.is_some() {
        flags |= flag::DATA;
    }
    if run.length == 0 {
        flags |= u32::try_from(run.address % 4).unwrap_or(0) << flag::LOW_ADDRESS;
    }
    let class = run.verdict.map_or(0, |class| u16::try_from(class.code()).unwrap_or(0));
    EntryHeader { kind: kind::TRANSACTION, class, flags, number }.put(out);
    let first = run.tlps().next().map_or(run.length, |(_, _, length)| u64::from(length));
    let tlp = TlpHeader::memory(&MemoryRequest {
        kind: run.kind,
        requester: Bdf(run.requester),
        tag: run.sequence.to_be_bytes()[7],
        address: run.address,
        length: first,
    });
    let (status, route, at, destination) = match run.outcome {
        TransactionResult::Failed(status) => (names::status_code(status), 0, 0, None),
        TransactionResult::Delivered { route, address, target } => {
            (0, names::route_code(route), address, Some(target))
        }
    };
    let (target, function, bar, offset) = match destination {
        None | Some(Destination::Window) => (0, NONE_16, 0, 0),
        Some(Destination::Ram { offset }) => (1, NONE_16, 0, offset),
        Some(Destination::Memory { function, offset }) => (2, function, 0, offset),
        Some(Destination::Registers { function, bar, offset }) => (3, function, bar, offset),
    };
    out.extend(run.sequence.to_be_bytes());
    out.extend(run.length.to_be_bytes());
    let count = run.tlp_count().map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
    out.extend(count.to_be_bytes());
    out.extend(u16::try_from(run.tlp_limit).unwrap_or(0).to_be_bytes());
    out.extend([status, route, names::purpose_code(run.purpose), target, bar, dwords(&tlp)]);
    out.extend(run.function.unwrap_or(NONE_16).to_be_bytes());
    out.extend(function.to_be_bytes());
    out.extend(at.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(run.digest.unwrap_or(0).to_be_bytes());
    out.extend(tlp.as_bytes());
    out.extend(run.data.iter().flatten());
}

fn put_finding(number: u64, finding: &FindingEvent, out: &mut Vec<u8>) {
    let class = finding.class.parse::<FindingClass>().ok();
    let class = class.map_or(0, |class| u16::try_from(class.code()).unwrap_or(0));
    let flags = u32::from(!finding.note);
    EntryHeader { kind: kind::FINDING, class, flags, number }.put(out);
    out.extend(finding.transaction.unwrap_or(NONE_64).to_be_bytes());
    for text in [&finding.class, &finding.function] {
        let text = text.as_bytes().get(..usize::from(u16::MAX)).unwrap_or(text.as_bytes());
        out.extend(u16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        out.extend(text);
    }
    out.extend(finding.text.as_bytes());
}

/// Decodes an entry but the first.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn take(bytes: &[u8]) -> Result<(EntryHeader, Event), Invalid> {
    let mut fields = Fields::new(bytes);
    let header = EntryHeader::take(&mut fields)?;
    let event = body(&header, &mut fields)?;
    if !fields.is_empty() {
        return Err(Invalid::TooLong);
    }
    Ok((header, event))
}

fn body(header: &EntryHeader, fields: &mut Fields<'_>) -> Result<Event, Invalid> {
    Ok(match header.kind {
        kind::HEADER => return Err(Invalid::Field("a second header")),
        kind::TRANSACTION => Event::Transaction(take_run(header, fields)?),
        kind::FINDING => Event::Finding(take_finding(header, fields)?),
        kind::CONFIG_WRITE => Event::ConfigWrite(take_config(fields, true)?),
        kind::CONFIG_READ => Event::ConfigRead(take_config(fields, false)?),
        kind::REGISTER_WRITE => {
            let (address, data) = take_register(fields, Kind::MemoryWrite)?;
            Event::RegisterWrite { address, data }
        }
        kind::REGISTER_READ => {
            let (address, data) = take_register(fields, Kind::MemoryRead)?;
            Event::RegisterRead { address, data }
        }
        kind::CPU_PUSH => Event::CpuPush { function: fields.number()? },
        kind::STEP => Event::Step { function: fields.number()? },
        kind::UNPLUG => Event::Unplug { port: fields.requester()? },
        kind::PLUG => Event::Plug { port: fields.requester()? },
        kind::FENCE_SEEN => Event::FenceSeen { requester: fields.requester()? },
        kind::DELAY_POSTED => {
            let (requester, target) = (fields.u16()?, fields.u16()?);
            let target = (header.flags & 1 != 0).then_some(target);
            Event::DelayPosted { requester, target, delay: fields.rest_text()? }
        }
        kind::OUTSIDE => {
            Event::Outside { function: fields.number()?, data: fields.rest().to_vec() }
        }
        kind::TEST => {
            let result = match header.flags {
                0 => None,
                1 => Some(TestResult::Passed),
                2 => Some(TestResult::Failed),
                3 => Some(TestResult::Skipped),
                _ => return Err(Invalid::Field("a test's result")),
            };
            Event::Test(TestMark { name: fields.rest_text()?, result })
        }
        kind::LOST => Event::Lost { entries: fields.u64()? },
        kind::END if header.flags & 1 != 0 => Event::Cut { events: fields.u64()? },
        kind::END => Event::End { events: fields.u64()? },
        kind => Event::Other { kind, body: fields.rest().to_vec() },
    })
}

fn take_config(fields: &mut Fields<'_>, write: bool) -> Result<ConfigAccess, Invalid> {
    let (function, offset) = (fields.u16()?, fields.u16()?);
    let length = fields.u8()?;
    fields.take(3)?;
    let value = fields.u32()?;
    let tlp = TlpHeader::configuration(Bdf(function), offset, length, write);
    if fields.rest() != tlp.as_bytes() {
        return Err(Invalid::Tlp);
    }
    Ok(ConfigAccess { function, offset, length, value })
}

fn take_register(fields: &mut Fields<'_>, kind: Kind) -> Result<(u64, Vec<u8>), Invalid> {
    let address = fields.u64()?;
    let dwords = fields.u8()?;
    fields.take(3)?;
    let tlp = fields.take(usize::from(dwords) * 4)?;
    let data = fields.rest();
    if data.is_empty() || data.len() > 8 {
        return Err(Invalid::Field("a CPU's access of other than 1 to 8 bytes"));
    }
    let (requester, length) = (Bdf(0), data.len() as u64);
    let wanted = TlpHeader::memory(&MemoryRequest { kind, requester, tag: 0, address, length });
    if tlp != wanted.as_bytes() {
        return Err(Invalid::Tlp);
    }
    Ok((address, data.to_vec()))
}

fn take_run(header: &EntryHeader, fields: &mut Fields<'_>) -> Result<TlpRun, Invalid> {
    let (sequence, length, count) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let tlp_limit = u32::from(fields.u16()?);
    let [status, route, purpose, target, bar, dwords] = fields.array()?;
    let (function, target_function) = (fields.u16()?, fields.u16()?);
    let (at, offset, digest) = (fields.u64()?, fields.u64()?, fields.u32()?);
    let tlp = fields.take(usize::from(dwords) * 4)?;
    let MemoryRequest { kind, requester, tag, mut address, length: first } =
        TlpHeader::parse(tlp).ok_or(Invalid::Tlp)?;
    if length == 0 {
        address |= u64::from(header.flags >> flag::LOW_ADDRESS & 3);
    }
    let target = match target {
        0 => Destination::Window,
        1 => Destination::Ram { offset },
        2 => Destination::Memory { function: target_function, offset },
        3 => Destination::Registers { function: target_function, bar, offset },
        _ => return Err(Invalid::Field("the kind of the target")),
    };
    let outcome = match route {
        0 => TransactionResult::Failed(
            names::status_of(status).ok_or(Invalid::Field("a completion status"))?,
        ),
        route => {
            let route = names::route_of(route).ok_or(Invalid::Field("a route"))?;
            TransactionResult::Delivered { route, address: at, target }
        }
    };
    let data = match header.flags & flag::DATA {
        0 => None,
        _ => Some(fields.rest().to_vec()),
    };
    let run = TlpRun {
        sequence,
        requester: requester.0,
        function: (function != NONE_16).then_some(function),
        kind,
        purpose: names::purpose_of(purpose).ok_or(Invalid::Field("a purpose"))?,
        address,
        length,
        tlp_limit,
        outcome,
        verdict: class_of(header.class),
        digest: (header.flags & flag::DIGEST != 0).then_some(digest),
        data,
    };
    let limit =
        tlp_limit == 0 || (tlp_limit.is_power_of_two() && (128..=4096).contains(&tlp_limit));
    let counted = run.tlp_count().map_or(0, |count| u32::try_from(count).unwrap_or(u32::MAX));
    let wanted = run.tlps().next().map_or(length.min(4096 - address % 4), |(_, _, it)| it.into());
    if !limit || counted != count || first != wanted || tag != sequence.to_be_bytes()[7] {
        return Err(Invalid::Run);
    }
    if run.data.as_ref().is_some_and(|data| data.len() as u64 > length) {
        return Err(Invalid::TooLong);
    }
    Ok(run)
}

fn take_finding(header: &EntryHeader, fields: &mut Fields<'_>) -> Result<FindingEvent, Invalid> {
    let transaction = Some(fields.u64()?).filter(|number| *number != NONE_64);
    let (class, function) = (fields.text()?, fields.text()?);
    let note = header.flags & 1 == 0;
    Ok(FindingEvent { class, note, transaction, function, text: fields.rest_text()? })
}

/// The class of this code; none if there is none, or it is that of a newer program.
fn class_of(code: u16) -> Option<FindingClass> {
    let mut all = FindingClass::ALL.iter().copied();
    if code == 0 { None } else { all.find(|class| class.code() == u32::from(code)) }
}

#[cfg(test)]
mod tests;
