//! Encoding an entry.

use device_models::checker::FindingClass;
use device_models::fabric::Kind;
use device_models::pci::Bdf;

use super::{EntryHeader, NONE_16, NONE_64, flag, kind};
use crate::event::{
    ConfigAccess, Destination, Event, FindingEvent, TestMark, TestResult, TlpRun, TransactionResult,
};
use crate::names;
use crate::tlp::{MemoryRequest, TlpHeader};

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
        Event::Witness { kind, data } => {
            EntryHeader { flags: names::witness_code(*kind), ..header(kind::WITNESS) }.put(out);
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
