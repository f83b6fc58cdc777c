//! Why a machine could not be read at all.

use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::Address;

/// Why a file does not describe a machine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Longer than the limit.
    #[error("longer than {} MiB", limit / (1 << 20))]
    TooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// More functions than the limit.
    #[error("line {line}: more than {limit} functions")]
    TooManyFunctions {
        /// Where the limit was passed.
        line: usize,
        /// The limit.
        limit: usize,
    },
    /// No function in it.
    #[error(
        "no PCI function found: neither a record, nor text of lspci, nor a hex dump ({lines} lines read)"
    )]
    NoFunction {
        /// Lines read.
        lines: usize,
    },
    /// Two different functions at one address.
    #[error(
        "line {line}: {address} has another {what} than in line {before}: are these two machines? One file is for one"
    )]
    TwoMachines {
        /// The function.
        address: Address,
        /// What differs.
        what: &'static str,
        /// Where it was seen first.
        before: usize,
        /// Where it differs.
        line: usize,
    },
    /// JSON, but not a record.
    #[error("line {line}, column {column}: {what}")]
    Json {
        /// Line, from 1 on.
        line: usize,
        /// Column, from 1 on.
        column: usize,
        /// What is wrong.
        what: String,
    },
    /// A record of a kind that this program does not know.
    #[error("schema {0:?} is not known here; this program reads \"peerdma-machine/1\"")]
    Schema(String),
    /// A record that contradicts itself.
    #[error("{0}")]
    Record(String),
    /// A file of the system could not be read.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// A name that leads to no function, or to several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FindError {
    /// No function has it.
    Nothing {
        /// What was asked for.
        name: String,
        /// Names that exist, for a hint.
        known: Vec<String>,
    },
    /// Several have it.
    Ambiguous {
        /// What was asked for.
        name: String,
        /// They.
        candidates: Vec<Address>,
    },
}

impl std::error::Error for FindError {}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing { name, known } => {
                write!(f, "no function is called {name:?}")?;
                if known.is_empty() {
                    Ok(())
                } else {
                    write!(f, "; there are {}", known.join(", "))
                }
            }
            Self::Ambiguous { name, candidates } => {
                let list: Vec<_> = candidates.iter().map(Address::to_string).collect();
                write!(f, "{name:?} may be any of {}", list.join(", "))
            }
        }
    }
}
