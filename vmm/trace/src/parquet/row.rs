//! What a row has: the fields of an entry that questions are about.

use std::borrow::Cow;

use device_models::pci::Bdf;

use crate::event::{Destination, Event, TlpRun, TransactionResult};
use crate::filter::{Context, kind_of};
use crate::owners::Register;
use crate::reader::Entry;
use crate::witnessed;

/// An entry, field by field.
#[derive(Debug, Default)]
pub(super) struct Row<'a> {
    pub(super) trace: &'a str,
    /// Microseconds since 1970.
    pub(super) begun: i64,
    pub(super) entry: u64,
    pub(super) time_ns: u64,
    pub(super) source: &'a str,
    pub(super) test: Option<&'a str>,
    pub(super) kind: &'static str,
    pub(super) function: Option<Cow<'a, str>>,
    pub(super) requester: Option<String>,
    pub(super) purpose: Option<&'static str>,
    pub(super) tlp: Option<u64>,
    pub(super) tlps: Option<u64>,
    pub(super) address: Option<u64>,
    pub(super) length: Option<u64>,
    pub(super) status: Option<&'static str>,
    pub(super) route: Option<&'static str>,
    pub(super) target: Option<Cow<'a, str>>,
    pub(super) target_bar: Option<u64>,
    pub(super) target_address: Option<u64>,
    pub(super) target_offset: Option<u64>,
    pub(super) digest: Option<u64>,
    pub(super) data: Option<&'a [u8]>,
    pub(super) doorbell: Option<u64>,
    pub(super) finding: Option<&'a str>,
    pub(super) note: Option<bool>,
    pub(super) text: Option<Cow<'a, str>>,
    pub(super) result: Option<&'static str>,
    pub(super) record: Option<&'static str>,
    pub(super) direction: Option<String>,
    pub(super) guest_time_ns: Option<u64>,
    pub(super) group: Option<u64>,
    pub(super) buffer: Option<u64>,
    pub(super) pid: Option<u64>,
    pub(super) task: Option<String>,
}

/// The name of a function, by its number.
fn named(context: &Context, number: usize) -> Cow<'_, str> {
    context.name(number).map_or_else(|| format!("function {number}").into(), Cow::from)
}

impl<'a> Row<'a> {
    /// Of an entry, but for what is not in it.
    pub(super) fn of(entry: &'a Entry, context: &'a Context) -> Self {
        let row = Self {
            entry: entry.number,
            time_ns: u64::try_from(context.time(entry).as_nanos()).unwrap_or(u64::MAX),
            test: context.test(),
            kind: kind_of(&entry.event),
            ..Self::default()
        };
        let of = |requester: u16| Self {
            function: Some(context.of(requester).into()),
            requester: Some(Bdf(requester).to_string()),
            ..Self::default()
        };
        let told = match &entry.event {
            Event::Transaction(run) => Self::transaction(run, context),
            Event::Finding(finding) => Self {
                function: (!finding.function.is_empty())
                    .then_some(Cow::Borrowed(finding.function.as_str())),
                tlp: finding.transaction,
                finding: Some(&finding.class),
                note: Some(finding.note),
                text: Some(finding.text.as_str().into()),
                ..Self::default()
            },
            Event::ConfigWrite(access) | Event::ConfigRead(access) => Self {
                address: Some(access.offset.into()),
                length: Some(access.length.into()),
                text: Some(format!("{:#x}", access.value).into()),
                ..of(access.function)
            },
            Event::RegisterWrite { address, data } | Event::RegisterRead { address, data } => {
                Self {
                    address: Some(*address),
                    length: Some(data.len() as u64),
                    data: Some(data),
                    ..Self::default()
                }
            }
            Event::CpuPush { function } | Event::Step { function } => {
                Self { function: Some(named(context, *function)), ..Self::default() }
            }
            Event::Outside { function, data } => Self {
                function: Some(named(context, *function)),
                data: Some(data),
                ..Self::default()
            },
            Event::Unplug { port } | Event::Plug { port } => of(*port),
            Event::FenceSeen { requester } => of(*requester),
            Event::DelayPosted { requester, target, delay } => Self {
                target: Some(target.map_or("root complex".into(), |it| context.of(it).into())),
                text: Some(delay.as_str().into()),
                ..of(*requester)
            },
            Event::Test(mark) => Self {
                text: Some(mark.name.as_str().into()),
                result: mark.result.map(crate::event::TestResult::name),
                ..Self::default()
            },
            event @ Event::Witness { .. } => Self::witness(event, context),
            Event::Other { body, .. } => Self { data: Some(body), ..Self::default() },
            event @ (Event::Lost { .. } | Event::End { .. } | Event::Cut { .. }) => {
                Self { text: Some(event.to_string().into()), ..Self::default() }
            }
        };
        Self { entry: row.entry, time_ns: row.time_ns, test: row.test, kind: row.kind, ..told }
    }

    /// With the register that it is about.
    pub(super) fn at(self, register: Register, context: &'a Context) -> Self {
        let Register { function, bar, offset } = register;
        let (bar, offset) = (Some(bar.into()), Some(offset));
        let function = Some(named(context, function.into()));
        Self { function, target_bar: bar, target_offset: offset, ..self }
    }

    fn transaction(run: &'a TlpRun, context: &'a Context) -> Self {
        let arrived = match run.outcome {
            TransactionResult::Failed(status) => {
                Self { status: Some(status.name()), ..Self::default() }
            }
            TransactionResult::Delivered { route, address, target } => {
                let (target, bar, offset) = match target {
                    Destination::Window => (Cow::from("interrupts"), None, None),
                    Destination::Ram { offset } => ("ram".into(), None, Some(offset)),
                    Destination::Memory { function, offset } => {
                        (named(context, function.into()), None, Some(offset))
                    }
                    Destination::Registers { function, bar, offset } => {
                        (named(context, function.into()), Some(bar.into()), Some(offset))
                    }
                };
                Self {
                    status: Some("SC"),
                    route: Some(route.name()),
                    target: Some(target),
                    target_bar: bar,
                    target_address: Some(address),
                    target_offset: offset,
                    ..Self::default()
                }
            }
        };
        let function = match run.function {
            Some(number) => named(context, number.into()),
            None => context.of(run.requester).into(),
        };
        Self {
            function: Some(function),
            requester: Some(Bdf(run.requester).to_string()),
            purpose: Some(run.purpose.name()),
            tlp: Some(run.sequence),
            tlps: run.tlp_count(),
            address: Some(run.address),
            length: Some(run.length),
            digest: run.digest.map(u64::from),
            data: run.data.as_deref(),
            finding: run.verdict.map(|class| class.name()),
            ..arrived
        }
    }

    fn witness(event: &'a Event, context: &'a Context) -> Self {
        let Some(record) = event.witness_record() else {
            return Self { text: Some(event.to_string().into()), ..Self::default() };
        };
        let addresses = witnessed::has_addresses(&record);
        let text = record.event.caller.to_string();
        Self {
            function: record.bdf().map(|bdf| context.of(bdf.0).into()),
            requester: record.bdf().map(|bdf| bdf.to_string()),
            address: addresses.then_some(record.address),
            length: addresses.then_some(record.length),
            text: (!text.is_empty()).then(|| text.into()),
            record: Some(witnessed::word(&record)),
            direction: addresses.then(|| record.direction.to_string()),
            guest_time_ns: Some(record.event.time),
            group: (record.group != 0).then_some(record.group),
            buffer: (record.buffer != 0).then_some(record.buffer),
            pid: Some(record.event.pid.into()),
            task: (!record.event.task.is_empty()).then(|| record.event.task.to_string()),
            ..Self::default()
        }
    }
}
