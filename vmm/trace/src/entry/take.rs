//! Decoding an entry.

use device_models::checker::FindingClass;
use device_models::fabric::Kind;
use device_models::pci::Bdf;

use super::{EntryHeader, NONE_16, NONE_64, flag, kind};
use crate::event::{
    ConfigAccess, Destination, Event, FindingEvent, TestMark, TestResult, TlpRun, TransactionResult,
};
use crate::fields::{Fields, Invalid};
use crate::names;
use crate::tlp::{MemoryRequest, TlpHeader};

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
        kind::WITNESS => {
            let kind =
                names::witness_of(header.flags).ok_or(Invalid::Field("an input of the witness"))?;
            let data = fields.take(names::witness_bytes(kind))?.to_vec();
            Event::Witness { kind, data }
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
