//! ACS controls by the names that Linux and `lspci` use.

use std::fmt;
use std::str::FromStr;

use device_models::pci::{AcsCapabilities, AcsControl};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Length of the egress control vector of ports that have one, in bits: port numbers 0 to 32, since a port's
/// number is that of its device and one more.
const EGRESS_BITS: u16 = 33;

/// The controls of the ACS capability (PCIe 6.0, 7.7.11.2) with Linux's names, in the order of their bits.
const NAMES: [(AcsControl, &str); 7] = [
    (AcsControl::SOURCE_VALIDATION, "SV"),
    (AcsControl::TRANSLATION_BLOCKING, "TB"),
    (AcsControl::P2P_REQUEST_REDIRECT, "RR"),
    (AcsControl::P2P_COMPLETION_REDIRECT, "CR"),
    (AcsControl::UPSTREAM_FORWARDING, "UF"),
    (AcsControl::P2P_EGRESS_CONTROL, "EC"),
    (AcsControl::DIRECT_TRANSLATED_P2P, "DT"),
];

/// Which Access Control Services a function has: `none` (no capability), `standard` (what an ordinary root port has:
/// `SV TB RR CR UF`), or a list of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Acs(pub Option<AcsControl>);

impl Acs {
    /// No ACS capability.
    pub const NONE: Self = Self(None);

    /// What an ordinary root port has.
    pub fn standard() -> Self {
        Self(Some(AcsCapabilities::default().controls))
    }

    /// For the device models.
    pub fn capabilities(self) -> Option<AcsCapabilities> {
        let egress = self.0?.contains(AcsControl::P2P_EGRESS_CONTROL);
        let egress_vector_bits = if egress { EGRESS_BITS } else { 0 };
        self.0.map(|controls| AcsCapabilities {
            controls,
            egress_vector_bits,
            ..AcsCapabilities::default()
        })
    }

    /// Whether there is no capability, for serde.
    pub(super) fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

/// The names of `controls`, for example `SV RR`; `-` for none.
pub fn names(controls: AcsControl) -> String {
    let names: Vec<_> = NAMES
        .iter()
        .filter(|(control, _)| controls.contains(*control))
        .map(|(_, name)| *name)
        .collect();
    if names.is_empty() { "-".into() } else { names.join(" ") }
}

/// The names of `controls`, one each.
pub(super) fn list(controls: AcsControl) -> Vec<&'static str> {
    let on = NAMES.iter().filter(|(control, _)| controls.contains(*control));
    on.map(|(_, name)| *name).collect()
}

/// Each control of `capabilities` with `+` if it is on and `-` if not, as `lspci` shows them.
pub fn state(capabilities: AcsControl, on: AcsControl) -> String {
    let mark = |control| if on.contains(control) { '+' } else { '-' };
    let marked: Vec<_> = NAMES
        .iter()
        .filter(|(control, _)| capabilities.contains(*control))
        .map(|(control, name)| format!("{name}{}", mark(*control)))
        .collect();
    marked.join(" ")
}

impl fmt::Display for Acs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("none"),
            Some(_) if *self == Self::standard() => f.write_str("standard"),
            Some(controls) if controls.is_empty() => Ok(()),
            Some(controls) => f.write_str(&names(controls)),
        }
    }
}

/// Text that is not a list of ACS controls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcsError {
    /// A word that names no control.
    #[error(
        "{0:?} is not an ACS control; use \"none\", \"standard\", or some of SV, TB, RR, CR, UF, EC, \
         DT, separated by blanks"
    )]
    Unknown(String),
    /// A control that is listed twice.
    #[error("{0} is listed twice")]
    Twice(String),
}

impl FromStr for Acs {
    type Err = AcsError;

    fn from_str(text: &str) -> Result<Self, AcsError> {
        match text.trim() {
            "none" => return Ok(Self::NONE),
            "standard" => return Ok(Self::standard()),
            _ => {}
        }
        let mut controls = AcsControl::empty();
        for word in text.split_whitespace() {
            let known = NAMES.iter().find(|(_, name)| *name == word);
            let control = known.ok_or_else(|| AcsError::Unknown(word.to_owned()))?.0;
            if controls.contains(control) {
                return Err(AcsError::Twice(word.to_owned()));
            }
            controls |= control;
        }
        Ok(Self(Some(controls)))
    }
}

impl Serialize for Acs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Acs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_survives_its_text() {
        for bits in 0..128 {
            let acs = Acs(Some(AcsControl::from_bits_truncate(bits)));
            assert_eq!(acs.to_string().parse(), Ok(acs), "{acs}");
        }
        assert_eq!("none".parse(), Ok(Acs::NONE));
        assert_eq!("SV TB RR CR UF".parse(), Ok(Acs::standard()));
        assert!("SV XX".parse::<Acs>().unwrap_err().to_string().contains("\"XX\""));
    }

    #[test]
    fn the_state_reads_as_lspci_has_it() {
        let on = AcsControl::SOURCE_VALIDATION | AcsControl::P2P_REQUEST_REDIRECT;
        let has = Acs::standard().0.unwrap();
        assert_eq!(state(has, on), "SV+ TB- RR+ CR- UF-");
        assert_eq!(names(on), "SV RR");
    }
}
