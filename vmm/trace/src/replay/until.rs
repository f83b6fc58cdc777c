//! Where a replay in steps stops.

use std::fmt;
use std::str::FromStr;

use device_models::checker::FindingClass;

use super::session::Stepped;
use crate::event::Event;

/// What a replay goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// The next finding; a note is none.
    Finding,
    /// The next finding or note of this class, or of a class of this group.
    Class(String),
    /// The transaction with this TLP.
    Tlp(u64),
    /// The entry with this number.
    Entry(u64),
}

impl Until {
    /// Whether a step has come there.
    pub fn is_reached(&self, stepped: &Stepped) -> bool {
        let finding = |event: &Event| match event {
            Event::Finding(finding) => match self {
                Self::Finding => !finding.note,
                Self::Class(class) => {
                    let rest = finding.class.strip_prefix(class.as_str());
                    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                }
                _ => false,
            },
            Event::Transaction(run) => match self {
                Self::Tlp(number) => {
                    number.wrapping_sub(run.sequence) < run.tlp_count().unwrap_or(1)
                }
                _ => false,
            },
            _ => false,
        };
        match self {
            Self::Entry(number) => stepped.last() >= *number,
            _ => stepped.events.iter().any(|entry| finding(&entry.event)),
        }
    }
}

impl FromStr for Until {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str, what| {
            digits.parse().map_err(|_| format!("{text:?} is not the number of {what}"))
        };
        let is_class = |class: &FindingClass| {
            let rest = class.name().strip_prefix(text);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        if let Some(digits) = text.strip_prefix('#') {
            number(digits, "a TLP").map(Self::Tlp)
        } else if text.starts_with(|it: char| it.is_ascii_digit()) {
            number(text, "an entry").map(Self::Entry)
        } else if text == "finding" {
            Ok(Self::Finding)
        } else if FindingClass::ALL.iter().any(is_class) && !text.is_empty() {
            Ok(Self::Class(text.to_owned()))
        } else {
            Err(format!(
                "{text:?} is not `finding`, a class or group of findings, such as iommu.stale, a TLP, such as #1042, or \
                 the number of an entry"
            ))
        }
    }
}

impl fmt::Display for Until {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finding => f.write_str("finding"),
            Self::Class(class) => write!(f, "finding of {class}"),
            Self::Tlp(number) => write!(f, "TLP #{number}"),
            Self::Entry(number) => write!(f, "entry {number}"),
        }
    }
}
