//! Choosing entries of a trace: terms like `function=peer0`, all of which must hold.

mod fit;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use device_models::checker::FindingClass;
use device_models::pci::Bdf;

use self::fit::fits;
use super::event::{Event, Header, TestMark};
use super::names::{PURPOSES, ROUTES, STATUSES, kind_name};
use super::reader::Entry;
use super::witnessed;

/// Findings of any class.
const ANY: &str = "any";

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
    Record,
    Buffer,
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
    ("record", "a witness record: map, unmap, buffer-map, attach and so on"),
    ("buffer", "the inode number of a dma-buf, in what the witness reports, or a range"),
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
    iommu: Option<u16>,
    test: Option<String>,
}

impl Context {
    /// At the beginning of a trace.
    pub fn new(header: &Header, begun: Duration) -> Self {
        let functions = header.functions.iter();
        let functions = functions.map(|it| (it.name.clone(), it.requester)).collect();
        let iommu = header.functions.iter().position(|it| it.name == "virtio-iommu");
        let iommu = iommu.and_then(|number| u16::try_from(number).ok());
        Self { begun, functions, iommu, test: None }
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
        self.since_begun(entry.time)
    }

    /// The same of a time since 1970.
    pub(crate) fn since_begun(&self, time: Duration) -> Duration {
        time.saturating_sub(self.begun)
    }

    /// The name of a function.
    pub fn name(&self, function: usize) -> Option<&str> {
        self.functions.get(function).map(|(name, _)| name.as_str())
    }

    /// Whether this is the number of the IOMMU.
    pub(crate) fn is_iommu(&self, function: Option<u16>) -> bool {
        function.is_some() && function == self.iommu
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

    /// Whether the functions that it names are in a trace.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self, header: &Header) -> Result<(), BadFilter> {
        for Term { key, values, .. } in &self.0 {
            let (name, others): (_, &[&str]) = match key {
                Key::Function => ("function", &[]),
                Key::Requester => ("requester", &[]),
                Key::Target => ("target", &["ram", "interrupts"]),
                _ => continue,
            };
            for value in values {
                let Value::Text(text) = value else { continue };
                let known = header.functions.iter().any(|it| it.name == *text)
                    || others.contains(&text.as_str())
                    || text.parse::<Bdf>().is_ok();
                if !known {
                    let all = header.functions.iter().map(|it| it.name.as_str());
                    let all: Vec<_> = all.chain(others.iter().copied()).collect();
                    return Err(BadFilter {
                        term: format!("{name}={text}"),
                        reason: format!("the trace has no {text:?}; it has {}", all.join(", ")),
                    });
                }
            }
        }
        Ok(())
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
        Event::Witness { .. } => "witness",
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
    "witness",
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
            "record" => Key::Record,
            "buffer" => Key::Buffer,
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
        Key::Address | Key::Entry | Key::Tlp | Key::Buffer => range(number, "a number"),
        Key::Time => range(nanoseconds, "a number of seconds"),
        _ if text.is_empty() => Err("there is no value".to_owned()),
        Key::Kind => match KINDS.iter().find(|kind| kind.eq_ignore_ascii_case(text)) {
            Some(kind) => Ok(Value::Text((*kind).to_owned())),
            None => Err(format!("there is no kind {text:?}; there are {}", KINDS.join(", "))),
        },
        Key::Record => match witnessed::words().find(|word| *word == text) {
            Some(word) => Ok(Value::Text(word.to_owned())),
            None => {
                let words: Vec<_> = witnessed::words().collect();
                Err(format!("there is no witness record {text:?}; there are {}", words.join(", ")))
            }
        },
        Key::Purpose => one_of(text, "purpose", PURPOSES.iter().map(|it| it.name())),
        Key::Route => one_of(text, "route", ROUTES.iter().map(|it| it.name())),
        Key::Status => one_of(text, "status", STATUSES.iter().map(|(it, _)| it.name())),
        Key::Finding if !begins_a_class(text) => {
            Err(format!("there is no class or group {text:?}; `peerdma findings` lists them"))
        }
        _ => Ok(Value::Text(text.to_owned())),
    }
}

fn one_of(
    text: &str,
    what: &str,
    all: impl Iterator<Item = &'static str>,
) -> Result<Value, String> {
    let all: Vec<_> = all.collect();
    match all.iter().find(|word| word.eq_ignore_ascii_case(text)) {
        Some(word) => Ok(Value::Text((*word).to_owned())),
        None => Err(format!("there is no {what} {text:?}; there are {}", all.join(", "))),
    }
}

fn begins_a_class(text: &str) -> bool {
    text == ANY || FindingClass::ALL.iter().any(|class| fit::begins(class.name(), text))
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
