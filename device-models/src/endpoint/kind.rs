//! Kinds of devices: what a topology or a command line can ask for by name.
//!
//! A kind is a constant in the device's own folder, and stands in [`KINDS`]. Code that builds a
//! system knows only what stands here.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use super::{Endpoint, KINDS};
use crate::pci::{AcsCapabilities, PcieKind};

/// A kind of device.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    /// Its name: letters, digits and `-`.
    pub name: &'static str,
    /// What it is, in a few words for people.
    pub about: &'static str,
    /// Makes a device in the state after power-on.
    pub make: fn(&Setup<'_>) -> Result<Box<dyn Endpoint>, SetupError>,
}

impl Kind {
    /// The kind of this name.
    ///
    /// # Errors
    /// [`SetupError::Kind`] when there is none.
    pub fn find(name: &str) -> Result<&'static Self, SetupError> {
        KINDS
            .iter()
            .find(|kind| kind.name == name)
            .ok_or_else(|| SetupError::Kind { name: shortened(name) })
    }
}

/// What a device is made from.
#[derive(Debug, Clone)]
pub struct Setup<'a> {
    /// How it is attached: over a link, or on a root bus as part of the root complex.
    pub attachment: PcieKind,
    /// Access Control Services, for a function of a device with several.
    pub acs: Option<AcsCapabilities>,
    /// The user's other options; each kind defines its own.
    pub options: &'a BTreeMap<String, String>,
}

/// A device that cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The name is that of no kind.
    #[error("there is no kind of device {name:?}; there are {}", kinds())]
    Kind {
        /// The name, cut to 40 characters.
        name: String,
    },
    /// The kind has no such option.
    #[error("it has no option {option:?}; there are {}", list(.known))]
    Option {
        /// The option's name.
        option: String,
        /// The names that there are.
        known: Vec<String>,
    },
    /// The value is none for this option.
    #[error("{option} is {value:?}; take {right}")]
    Value {
        /// The option's name.
        option: &'static str,
        /// The value, cut to 40 characters.
        value: String,
        /// What would be right.
        right: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Setup<'_> {
    /// Checks that only these options are given.
    ///
    /// # Errors
    /// [`SetupError::Option`] with the first that is another.
    pub fn known_options(&self, known: &[&str]) -> Result<(), SetupError> {
        match self.options.keys().find(|option| !known.contains(&option.as_str())) {
            Some(option) => {
                let known = known.iter().map(|name| (*name).to_owned()).collect();
                Err(SetupError::Option { option: shortened(option), known })
            }
            None => Ok(()),
        }
    }

    /// The number that is the value of `option`; `default` if it is not given.
    ///
    /// # Errors
    /// [`SetupError::Value`] when it is not a number, or none in `range`.
    pub fn number<T: FromStr + PartialOrd + fmt::Display>(
        &self,
        option: &'static str,
        range: &RangeInclusive<T>,
        default: T,
    ) -> Result<T, SetupError> {
        let Some(value) = self.options.get(option) else { return Ok(default) };
        value.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let right = format!("{} to {}", range.start(), range.end());
            SetupError::Value { option, value: shortened(value), right }
        })
    }

    /// What the word that is the value of `option` stands for; `default` if it is not given.
    ///
    /// # Errors
    /// [`SetupError::Value`] when it is none of `words`.
    pub fn choice<T: Copy>(
        &self,
        option: &'static str,
        words: &[(&str, T)],
        default: T,
    ) -> Result<T, SetupError> {
        let Some(value) = self.options.get(option) else { return Ok(default) };
        words.iter().find(|(word, _)| word == value).map(|(_, meaning)| *meaning).ok_or_else(|| {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            SetupError::Value { option, value: shortened(value), right: words.join(" or ") }
        })
    }
}

/// As much of a user's text as fits into a message.
fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

fn kinds() -> String {
    KINDS.iter().map(|kind| kind.name).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(kind: &str, options: &[(&str, &str)]) -> Result<Box<dyn Endpoint>, String> {
        let text = |text: &&str| (*text).to_owned();
        let options = options.iter().map(|(name, value)| (text(name), text(value))).collect();
        let setup = Setup { attachment: PcieKind::Endpoint, acs: None, options: &options };
        Kind::find(kind).and_then(|kind| (kind.make)(&setup)).map_err(|error| error.to_string())
    }

    #[test]
    fn every_kind_is_made_without_options_and_has_a_name_of_its_own() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(make(kind.name, &[]).is_ok(), "{}", kind.name);
            assert!(!kind.about.is_empty());
            assert!(KINDS[..index].iter().all(|other| other.name != kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn options_are_taken_or_refused_with_a_reason() {
        let atom = make("ioat", &[("model", "atom"), ("channels", "2")]).unwrap();
        assert_eq!((atom.description().device, atom.description().msix_vectors), (0x0c50, 2));
        for (kind, options, part) in [
            ("iota", [("channels", "1")], "there are ioat"),
            (
                "ioat",
                [("channel", "1")],
                "no option \"channel\"; there are model, channels, xfercap",
            ),
            ("ioat", [("channels", "5")], "take 1 to 4"),
            ("ioat", [("xfercap", "21")], "take 12 to 20"),
            ("ioat", [("channels", "many")], "take 1 to 4"),
            ("ioat", [("fault", "fire")], "take none or swap or"),
            ("ioat", [("model", "pentium")], "take skylake or atom"),
        ] {
            let error = make(kind, &options).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
