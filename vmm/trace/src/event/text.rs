//! Events as lines for people.

use std::fmt;

use super::super::names::hex;
use super::super::witnessed::Words;
use super::{ConfigAccess, Destination, Event, TestMark, TestResult, TlpRun, TransactionResult};
use device_models::pci::Bdf;

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigWrite(access) => write!(f, "configuration write {access}"),
            Self::ConfigRead(access) => write!(f, "configuration read {access}"),
            Self::RegisterWrite { address, data } => {
                write!(f, "register write of {} at {address:#x}", hex::text(data))
            }
            Self::RegisterRead { address, data } => {
                write!(f, "register read of {} at {address:#x}", hex::text(data))
            }
            Self::CpuPush { function } => {
                write!(f, "a CPU's access pushes what is under way to function {function}")
            }
            Self::Unplug { port } => write!(f, "the slot of {} is emptied", Bdf(*port)),
            Self::Plug { port } => write!(f, "the slot of {} is filled", Bdf(*port)),
            Self::DelayPosted { requester, target, delay } => {
                write!(f, "posted writes of {} to ", Bdf(*requester))?;
                match target {
                    Some(target) => write!(f, "{}", Bdf(*target))?,
                    None => f.write_str("the root complex")?,
                }
                write!(f, " stay under way: {delay}")
            }
            Self::FenceSeen { requester } => {
                write!(f, "a fence of {} has been seen", Bdf(*requester))
            }
            Self::Witness { kind, data } => Words(*kind, data).fmt(f),
            Self::Step { function } => write!(f, "turn of function {function}"),
            Self::Outside { function, data } => {
                write!(f, "value {} from outside for function {function}", hex::text(data))
            }
            Self::Transaction(run) => run.fmt(f),
            Self::Finding(finding) => {
                let word = if finding.note { "note" } else { "finding" };
                write!(f, "{word}: {}", finding.text)
            }
            Self::Test(mark) => mark.fmt(f),
            Self::Other { kind, body } => {
                write!(f, "an entry of kind {kind} with {} bytes", body.len())
            }
            Self::Lost { entries } => write!(f, "{entries} entries were dropped here"),
            Self::End { events } => write!(f, "end after {events} entries"),
            Self::Cut { events } => {
                write!(f, "cut after {events} entries, by a size limit or trace cut")
            }
        }
    }
}

impl fmt::Display for ConfigAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { function, offset, length, value } = self;
        write!(f, "of {length} bytes, {value:#x}, at {}+{offset:#x}", Bdf(*function))
    }
}

impl fmt::Display for TlpRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, requester, kind, purpose, address, length, outcome, .. } = self;
        let (requester, purpose) = (Bdf(*requester), purpose.name());
        write!(
            f,
            "#{sequence} {requester} {kind} {purpose} addr={address:#x} len={length} {outcome}"
        )?;
        if let Some(verdict) = self.verdict {
            write!(f, " [{verdict}]")?;
        }
        if let Some(digest) = self.digest {
            write!(f, " crc32c={digest:08x}")?;
        }
        match &self.data {
            Some(data) => write!(f, " data={}", hex::text(data)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for TransactionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Delivered { route, address, target } => {
                write!(f, "delivered by {} to {address:#x} ({target})", route.name())
            }
            Self::Failed(status) => write!(f, "failed: {}", status.name()),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Window => f.write_str("interrupt window"),
            Self::Ram { offset } => write!(f, "ram+{offset:#x}"),
            Self::Memory { function, offset } => {
                write!(f, "memory of function {function}+{offset:#x}")
            }
            Self::Registers { function, bar, offset } => {
                write!(f, "function {function} BAR{bar}+{offset:#x}")
            }
        }
    }
}

impl fmt::Display for TestMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.result {
            None => write!(f, "test {} begins", self.name),
            Some(result) => write!(f, "test {} {}", self.name, result.name()),
        }
    }
}

impl TestResult {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}
