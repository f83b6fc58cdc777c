//! What is wrong with a topology, and where its text says so.

use std::fmt;
use std::path::PathBuf;

use toml::de::DeTable;

/// A part of a description.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item {
    /// None in particular, or what the lab adds by itself.
    Whole,
    /// A host bridge, by its place in the list.
    HostBridge(usize),
    /// A root port.
    RootPort(usize),
    /// A switch.
    Switch(usize),
    /// A port of a switch: the switch, the port.
    SwitchPort(usize, usize),
    /// A peer device.
    Peer(usize),
    /// A device of another kind.
    Endpoint(usize),
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("the topology"),
            Self::HostBridge(index) => write!(f, "host-bridge number {}", index + 1),
            Self::RootPort(index) => write!(f, "root-port number {}", index + 1),
            Self::Switch(index) => write!(f, "switch number {}", index + 1),
            Self::SwitchPort(switch, port) => {
                write!(f, "port number {} of switch number {}", port + 1, switch + 1)
            }
            Self::Peer(index) => write!(f, "peer number {}", index + 1),
            Self::Endpoint(index) => write!(f, "endpoint number {}", index + 1),
        }
    }
}

/// Something that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{item}: {what}")]
pub struct Problem {
    /// Where.
    pub item: Item,
    /// Which of its keys.
    pub key: &'static str,
    /// Which of the values below that key, where it is a table.
    pub part: Option<Box<str>>,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl Problem {
    /// What is wrong with `key` of `item`.
    pub fn new(item: Item, key: &'static str, what: String) -> Self {
        Self { item, key, part: None, what }
    }

    /// It is about this part of the key's table.
    pub(super) fn part(mut self, part: Option<Box<str>>) -> Self {
        self.part = part;
        self
    }

    /// The line of `text` that it is about, from 1 on: that of the key, or else that of its table. None when the text
    /// has neither, as for a device that a command line has added.
    pub fn line(&self, text: &str) -> Option<usize> {
        let root = DeTable::parse(text).ok()?;
        let table = |list: &str, index: usize| {
            let entry = root.get_ref().get(list)?.get_ref().as_array()?.get(index)?;
            Some((entry.span(), entry.get_ref()))
        };
        let (span, entry) = match self.item {
            Item::Whole => {
                let key = root.get_ref().get_key_value(self.key);
                return Some(key.map_or(1, |(key, _)| line_of(text, key.span().start)));
            }
            Item::HostBridge(index) => table("host-bridge", index)?,
            Item::RootPort(index) => table("root-port", index)?,
            Item::Switch(index) => table("switch", index)?,
            Item::Peer(index) => table("peer", index)?,
            Item::Endpoint(index) => table("endpoint", index)?,
            Item::SwitchPort(switch, port) => {
                let (_, switch) = table("switch", switch)?;
                let entry = switch.as_table()?.get("port")?.get_ref().as_array()?.get(port)?;
                (entry.span(), entry.get_ref())
            }
        };
        let entry: Option<&DeTable<'_>> = entry.as_table();
        let Some((key, value)) = entry.and_then(|entry| entry.get_key_value(self.key)) else {
            return Some(line_of(text, span.start));
        };
        let part = value.get_ref().as_table().zip(self.part.as_deref());
        let part = part.and_then(|(table, part)| table.get_key_value(part));
        Some(line_of(text, part.map_or(key.span().start, |(part, _)| part.span().start)))
    }
}

/// What the parser says, with the names of Rust's types in the words of the format.
fn in_words(message: &str) -> String {
    const WORDS: [(&str, &str); 7] = [
        (" as i128", ""),
        ("invalid type: map, ", "a table here, "),
        (
            "expected a sequence",
            "expected a list: each of its tables begins with [[...]], in double brackets",
        ),
        ("expected u8", "expected a whole number from 0 to 255"),
        ("expected u64", "expected a whole number that is not negative"),
        ("expected struct Window", "expected { first = ..., last = ... }"),
        ("wanted exactly 1 element, found 0 elements", "expected a word in quotes, not a table"),
    ];
    WORDS.iter().fold(message.to_owned(), |text, (theirs, ours)| text.replace(theirs, ours))
}

/// The line in which the byte `at` lies, from 1 on.
fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// A topology that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// No preset of that name, and nothing that looks like a file.
    #[error(
        "there is no topology {name:?}{}; the presets are {presets}, each also as NAME+translated, or name a file",
        near.as_ref().map(|near| format!(", did you mean {near:?}?")).unwrap_or_default()
    )]
    Unknown {
        /// The name.
        name: String,
        /// The name that was probably meant.
        near: Option<String>,
        /// All that there are.
        presets: String,
    },
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The text is not TOML, or has a key that there is not.
    #[error("{file}: line {line}: {what}")]
    Syntax {
        /// Which file.
        file: String,
        /// Which line, from 1 on.
        line: usize,
        /// What the parser says.
        what: String,
    },
    /// The topology cannot be.
    #[error("{file}: {}{problem}", line.map(|line| format!("line {line}: ")).unwrap_or_default())]
    Impossible {
        /// Which file.
        file: String,
        /// Which line, from 1 on; none if the text does not show it: what is wrong was added to it.
        line: Option<usize>,
        /// What is wrong.
        problem: Problem,
    },
}

impl TopologyError {
    pub(super) fn syntax(file: &str, text: &str, error: &toml::de::Error) -> Self {
        let line = error.span().map_or(1, |span| line_of(text, span.start));
        Self::Syntax { file: file.into(), line, what: in_words(error.message()) }
    }

    pub(super) fn impossible(file: &str, text: &str, problem: Problem) -> Self {
        Self::Impossible { file: file.into(), line: problem.line(text), problem }
    }
}
