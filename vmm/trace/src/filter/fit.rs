//! Whether an entry fits to a term.

use device_models::witness::Record;
use guest_protocol::witness::Kind;

use super::{Context, Key, Value, kind_of};
use crate::event::{Destination, Event, TlpRun, TransactionResult};
use crate::reader::Entry;
use crate::witnessed;

pub(super) fn fits(key: Key, value: &Value, entry: &Entry, context: &Context) -> bool {
    let run = match &entry.event {
        Event::Transaction(run) => Some(run),
        _ => None,
    };
    match (key, value) {
        (Key::Time, Value::Range(from, to)) => {
            let time = u64::try_from(context.time(entry).as_nanos()).unwrap_or(u64::MAX);
            (*from..=*to).contains(&time)
        }
        (Key::Entry, Value::Range(from, to)) => (*from..=*to).contains(&entry.number),
        (Key::Tlp, Value::Range(from, to)) => match (run, &entry.event) {
            (Some(run), _) => {
                let last = run.sequence.saturating_add(run.tlp_count().unwrap_or(1) - 1);
                run.sequence <= *to && last >= *from
            }
            (None, Event::Finding(finding)) => {
                finding.transaction.is_some_and(|number| (*from..=*to).contains(&number))
            }
            (None, _) => false,
        },
        (Key::Address, Value::Range(from, to)) => is_at(&entry.event, *from, *to),
        (Key::Kind, Value::Text(text)) => kind_of(&entry.event) == text,
        (Key::Purpose, Value::Text(text)) => run.is_some_and(|run| run.purpose.name() == text),
        (Key::Route, Value::Text(text)) => run.is_some_and(|run| match run.outcome {
            TransactionResult::Delivered { route, .. } => route.name() == text,
            TransactionResult::Failed(_) => false,
        }),
        (Key::Status, Value::Text(text)) => run.is_some_and(|run| match run.outcome {
            TransactionResult::Delivered { .. } => text == "SC",
            TransactionResult::Failed(status) => status.name() == text,
        }),
        (Key::Record, Value::Text(text)) => {
            entry.event.witness_record().is_some_and(|record| witnessed::word(&record) == text)
        }
        (Key::Buffer, Value::Range(from, to)) => entry.event.witness_record().is_some_and(|it| {
            it.buffer != 0 && !is_fence(&it) && (*from..=*to).contains(&it.buffer)
        }),
        (Key::Finding, Value::Text(text)) => {
            let class = match &entry.event {
                Event::Finding(finding) => Some(finding.class.as_str()),
                Event::Transaction(run) => run.verdict.map(|class| class.name()),
                _ => None,
            };
            class.is_some_and(|class| text == super::ANY || begins(class, text))
        }
        (Key::Test, Value::Text(text)) => context.test().is_some_and(|name| {
            text.strip_suffix('*').map_or(name == text, |beginning| name.starts_with(beginning))
        }),
        (Key::Requester, Value::Text(text)) => {
            run.is_some_and(|run| is_requester(run, text, context))
        }
        (Key::Target, Value::Text(text)) => run.is_some_and(|run| is_target(run, text, context)),
        (Key::Function, Value::Text(text)) => is_about(&entry.event, text, context),
        _ => false,
    }
}

/// Whether a class is `text`, or of the group `text`.
pub(super) fn begins(class: &str, text: &str) -> bool {
    class.strip_prefix(text).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

fn is_requester(run: &TlpRun, text: &str, context: &Context) -> bool {
    context.is_function(text, run.function.map(usize::from), Some(run.requester))
}

fn is_target(run: &TlpRun, text: &str, context: &Context) -> bool {
    let TransactionResult::Delivered { target, .. } = run.outcome else { return false };
    match target {
        Destination::Ram { .. } => text == "ram",
        Destination::Window => text == "interrupts",
        Destination::Memory { function, .. } | Destination::Registers { function, .. } => {
            context.is_function(text, Some(usize::from(function)), None)
        }
    }
}

fn is_about(event: &Event, text: &str, context: &Context) -> bool {
    match event {
        Event::Transaction(run) => {
            is_requester(run, text, context) || is_target(run, text, context)
        }
        Event::ConfigWrite(access) | Event::ConfigRead(access) => {
            context.is_function(text, None, Some(access.function))
        }
        Event::Step { function }
        | Event::CpuPush { function }
        | Event::Outside { function, .. } => context.is_function(text, Some(*function), None),
        Event::Unplug { port } | Event::Plug { port } => {
            context.is_function(text, None, Some(*port))
        }
        Event::Witness { kind, data } => {
            let record = witnessed::record(*kind, data);
            record.is_some_and(|it| context.is_function(text, None, it.bdf().map(|bdf| bdf.0)))
        }
        Event::FenceSeen { requester } => context.is_function(text, None, Some(*requester)),
        Event::DelayPosted { requester, target, .. } => {
            context.is_function(text, None, Some(*requester))
                || target.is_some_and(|target| context.is_function(text, None, Some(target)))
        }
        Event::Finding(finding) => {
            finding.function == text
                || context.functions.iter().any(|(name, requester)| {
                    *name == finding.function && context.is_function(text, None, Some(*requester))
                })
        }
        _ => false,
    }
}

fn is_at(event: &Event, from: u64, to: u64) -> bool {
    let overlaps = |address: u64, length: u64| {
        address <= to && address.saturating_add(length.saturating_sub(1)) >= from
    };
    match event {
        Event::Transaction(run) => {
            overlaps(run.address, run.length)
                || matches!(run.outcome, TransactionResult::Delivered { address, .. }
                    if overlaps(address, run.length))
        }
        Event::RegisterRead { address, data } | Event::RegisterWrite { address, data } => {
            overlaps(*address, data.len() as u64)
        }
        Event::Witness { kind, data } => witnessed::record(*kind, data).is_some_and(|record| {
            witnessed::has_addresses(&record) && overlaps(record.address, record.length)
        }),
        _ => false,
    }
}

/// Whether its buffer is a fence's identity.
fn is_fence(record: &Record) -> bool {
    matches!(record.kind, Some(Kind::FenceSignaled))
}
