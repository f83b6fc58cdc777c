//! One mistake, in one sentence.

use std::fmt;
use std::sync::Arc;

use super::{Cause, FindingClass};
use crate::fabric::{Kind, Purpose, Transaction};
use crate::pci::Bdf;

/// How much a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing, and no mistake, or none for certain: no test fails for it.
    Note,
    /// A mistake.
    Finding,
}

impl Severity {
    /// The word that reports put before it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Finding => "finding",
        }
    }
}

/// What the system noticed: a class for programs, a sentence for people, and the transaction that
/// it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The class.
    pub class: FindingClass,
    /// A mistake, or a note.
    pub severity: Severity,
    /// What it comes from.
    pub cause: Cause,
    /// The transaction, narrowed to the part that is wrong; none for what no transaction caused.
    pub transaction: Option<Transaction>,
    /// The requester ID of the function concerned.
    pub requester: Bdf,
    /// The name of the function concerned, for example `peer0`.
    pub function: Arc<str>,
    /// What is wrong and which event explains it, without a full stop.
    pub explanation: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(transaction) = &self.transaction {
            let Transaction { sequence, requester, kind, address, length, purpose, .. } =
                transaction;
            write!(
                f,
                "#{sequence} {requester} {} {kind} addr={address:#x} len={length}",
                self.function
            )?;
            match (purpose, kind) {
                (Purpose::Data, _) | (Purpose::Interrupt, Kind::MemoryWrite) => {}
                (purpose, _) => write!(f, " ({})", purpose.name())?,
            }
        } else {
            write!(f, "{}", self.function)?;
        }
        write!(f, ": {}: {}", self.class, self.explanation)
    }
}
