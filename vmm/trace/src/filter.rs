//! Choosing entries of a trace: terms like `function=peer0`, all of which must hold.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use device_models::pci::Bdf;

use super::event::{Destination, Event, Header, TestMark, TlpRun, TransactionResult};
use super::names::kind_name;
use super::reader::Entry;

/// Terms that must all hold.
#[derive(Debug, Clone, Default)]
pub struct Filter(Vec<Term>);

/// One term: a key, and values of which one must fit, or none with `!=`.
#[derive(Debug, Clone)]
struct Term {
    key: Key,
    negated: bool,
    values: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Function,
    Requester,
    Target,
    Address,
    Kind,
    Purpose,
    Route,
    Status,
    Finding,
    Test,
    Time,
    Entry,
    Tlp,
}

/// The keys, and what each is about.
pub const KEYS: &[(&str, &str)] = &[
    ("function", "a function by name or address, as requester, target, or whatever else"),
    ("requester", "the function that issued the request"),
    ("target", "the function whose BAR a request arrived in, or ram"),
    ("address", "an address in the request or at its target, or a range, as 0x1000-0x1fff"),
    ("kind", "MRd, MWr, turn, finding, note, test, register-write and so on"),
    ("purpose", "descriptor, data, completion-record, interrupt, virtqueue"),
    ("route", "memory, through-host-bridge, bus-address, interrupt"),
    ("status", "SC, UR, CA, timeout"),
    ("finding", "a class or the beginning of one, as iommu; any for all"),
    ("test", "the test that ran, or the beginning of its name with * behind it"),
    ("time", "seconds since the beginning, or a range, as 1.5-2"),
    ("entry", "the number of an entry, or a range"),
    ("tlp", "the number of a TLP, or a range"),
];

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Text(String),
    Range(u64, u64),
}

/// A term that makes no sense.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the filter {term:?} makes no sense: {reason}")]
pub struct BadFilter {
    /// The term.
    term: String,
    /// What is wrong with it.
    reason: String,
}

/// What is known where an entry is looked at.
#[derive(Debug, Default)]
pub struct Context {
    begun: Duration,
    functions: Vec<(String, u16)>,
    test: Option<String>,
}

impl Context {
    /// At the beginning of a trace.
    pub fn new(header: &Header, begun: Duration) -> Self {
        let functions = header.functions.iter();
        let functions = functions.map(|it| (it.name.clone(), it.requester)).collect();
        Self { begun, functions, test: None }
    }

    /// Takes notice of an entry, before it is looked at.
    pub fn follow(&mut self, entry: &Entry) {
        if let Event::Test(TestMark { name, result: None }) = &entry.event {
            self.test = Some(name.clone());
        }
    }

    /// Takes notice of an entry, behind it.
    pub fn leave(&mut self, entry: &Entry) {
        if let Event::Test(TestMark { result: Some(_), .. }) = &entry.event {
            self.test = None;
        }
    }

    /// The test that is running.
    pub fn test(&self) -> Option<&str> {
        self.test.as_deref()
    }

    /// Since the beginning.
    pub fn time(&self, entry: &Entry) -> Duration {
        entry.time.saturating_sub(self.begun)
    }

    /// The name of a function.
    pub fn name(&self, function: usize) -> Option<&str> {
        self.functions.get(function).map(|(name, _)| name.as_str())
    }

    /// The function that had this requester ID when the recording began, or the ID.
    pub(crate) fn of(&self, requester: u16) -> String {
        let named = self.functions.iter().find(|(_, it)| *it == requester);
        named.map_or_else(|| Bdf(requester).to_string(), |(name, _)| name.clone())
    }

    fn is_function(&self, text: &str, number: Option<usize>, requester: Option<u16>) -> bool {
        let bdf = text.parse::<Bdf>().ok().map(|bdf| bdf.0);
        let named = number.and_then(|number| self.functions.get(number));
        named.is_some_and(|(name, _)| name == text)
            || bdf.is_some()
                && (requester == bdf || named.is_some_and(|(_, recorded)| Some(*recorded) == bdf))
            || requester.is_some()
                && self.functions.iter().any(|(name, it)| name == text && Some(*it) == requester)
    }
}

impl Filter {
    /// From its terms.
    ///
    /// # Errors
    /// The first that makes no sense.
    pub fn new<S: AsRef<str>>(terms: &[S]) -> Result<Self, BadFilter> {
        terms.iter().map(|term| term.as_ref().parse()).collect::<Result<_, _>>().map(Self)
    }

    /// Whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry fits.
    pub fn fits(&self, entry: &Entry, context: &Context) -> bool {
        self.0.iter().all(|term| {
            term.negated != term.values.iter().any(|value| fits(term.key, value, entry, context))
        })
    }
}

fn fits(key: Key, value: &Value, entry: &Entry, context: &Context) -> bool {
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
        (Key::Finding, Value::Text(text)) => {
            let class = match &entry.event {
                Event::Finding(finding) => Some(finding.class.as_str()),
                Event::Transaction(run) => run.verdict.map(|class| class.name()),
                _ => None,
            };
            class.is_some_and(|class| text == "any" || begins(class, text))
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
fn begins(class: &str, text: &str) -> bool {
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
        _ => false,
    }
}

/// The word for what an entry is, as `kind=` takes it.
pub fn kind_of(event: &Event) -> &'static str {
    match event {
        Event::Transaction(run) => kind_name(run.kind),
        Event::ConfigWrite(_) => "config-write",
        Event::ConfigRead(_) => "config-read",
        Event::RegisterWrite { .. } => "register-write",
        Event::RegisterRead { .. } => "register-read",
        Event::CpuPush { .. } => "cpu-push",
        Event::Unplug { .. } => "unplug",
        Event::Plug { .. } => "plug",
        Event::DelayPosted { .. } => "delay-posted",
        Event::FenceSeen { .. } => "fence-seen",
        Event::Step { .. } => "turn",
        Event::Outside { .. } => "outside",
        Event::Finding(finding) => {
            if finding.note {
                "note"
            } else {
                "finding"
            }
        }
        Event::Test(_) => "test",
        Event::Other { .. } => "other",
        Event::Lost { .. } => "lost",
        Event::End { .. } => "end",
        Event::Cut { .. } => "cut",
    }
}

const KINDS: &[&str] = &[
    "MRd",
    "MWr",
    "config-write",
    "config-read",
    "register-write",
    "register-read",
    "cpu-push",
    "unplug",
    "plug",
    "delay-posted",
    "fence-seen",
    "turn",
    "outside",
    "finding",
    "note",
    "test",
    "other",
    "lost",
    "end",
    "cut",
];

impl FromStr for Term {
    type Err = BadFilter;

    fn from_str(term: &str) -> Result<Self, BadFilter> {
        let bad = |reason: String| BadFilter { term: term.to_owned(), reason };
        let (key, values) = term.split_once('=').ok_or_else(|| {
            bad(format!("a filter is KEY=VALUE or KEY!=VALUE, with one of {}", Keys))
        })?;
        let (key, negated) = key.strip_suffix('!').map_or((key, false), |key| (key, true));
        let key = match key {
            "function" => Key::Function,
            "requester" => Key::Requester,
            "target" => Key::Target,
            "address" => Key::Address,
            "kind" => Key::Kind,
            "purpose" => Key::Purpose,
            "route" => Key::Route,
            "status" => Key::Status,
            "finding" => Key::Finding,
            "test" => Key::Test,
            "time" => Key::Time,
            "entry" => Key::Entry,
            "tlp" => Key::Tlp,
            _ => return Err(bad(format!("there is no key {key:?}; there are {}", Keys))),
        };
        // Names of tests may have commas.
        let parts: Vec<_> = match key {
            Key::Test => vec![values],
            _ => values.split(',').collect(),
        };
        let values = parts.iter().map(|text| value(key, text)).collect::<Result<_, _>>();
        Ok(Self { key, negated, values: values.map_err(bad)? })
    }
}

fn value(key: Key, text: &str) -> Result<Value, String> {
    let range = |parse: fn(&str) -> Option<u64>, what: &str| {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let from = if from.is_empty() { Some(0) } else { parse(from) };
        let to = if to.is_empty() { Some(u64::MAX) } else { parse(to) };
        match (from, to) {
            (Some(from), Some(to)) if from <= to && !text.is_empty() && text != "-" => {
                Ok(Value::Range(from, to))
            }
            _ => Err(format!("{text:?} is not {what} or a range of them")),
        }
    };
    match key {
        Key::Address | Key::Entry | Key::Tlp => range(number, "a number"),
        Key::Time => range(nanoseconds, "a number of seconds"),
        _ if text.is_empty() => Err("there is no value".to_owned()),
        Key::Kind => match KINDS.iter().find(|kind| kind.eq_ignore_ascii_case(text)) {
            Some(kind) => Ok(Value::Text((*kind).to_owned())),
            None => Err(format!("there is no kind {text:?}; there are {}", KINDS.join(", "))),
        },
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

fn nanoseconds(text: &str) -> Option<u64> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse::<f64>().ok()?;
    let time = Duration::try_from_secs_f64(seconds).ok()?;
    u64::try_from(time.as_nanos()).ok()
}

struct Keys;

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (key, _)) in KEYS.iter().enumerate() {
            write!(f, "{}{key}", if number == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
