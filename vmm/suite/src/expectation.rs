//! Which findings a test expects or allows: said by the lab's own tests, on the command line, in a scenario file, or from
//! inside the guest.

use std::fmt;
use std::str::FromStr;

use device_models::checker::FindingClass;
use device_models::pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::stop::parse_class;

/// How many findings of a class, by any function or by one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Expectation {
    /// The class.
    pub class: FindingClass,
    /// Only findings about this function, by its name in the topology or its number; none: about any.
    pub function: Option<String>,
    /// Fewer than this fail the test.
    pub least: u64,
    /// More than this fail the test.
    pub most: u64,
}

impl Expectation {
    /// Takes a guest's words for it.
    ///
    /// # Errors
    /// When there is no such class; the sentence names the one that was probably meant.
    pub fn of(words: &guest_protocol::Expectation<'_>) -> Result<Self, String> {
        let guest_protocol::Expectation { class, function, min, max } = *words;
        let class = parse_class(class)?;
        Ok(Self { class, function: function.map(str::to_owned), least: min, most: max })
    }

    /// The same without demanding a finding.
    #[must_use]
    pub fn allowed(self) -> Self {
        Self { least: 0, ..self }
    }

    /// The same with its function by name, if it is one of `functions`, given by name and number. Without any it stays.
    ///
    /// # Errors
    /// When there is no such function.
    pub fn resolve(self, functions: &[(String, Bdf)]) -> Result<Self, String> {
        let Some(function) = &self.function else { return Ok(self) };
        if functions.is_empty() {
            return Ok(self);
        }
        let known = |(name, number): &&(String, Bdf)| {
            name == function || function.parse().is_ok_and(|parsed: Bdf| parsed == *number)
        };
        match functions.iter().find(known) {
            Some((name, _)) => Ok(Self { function: Some(name.clone()), ..self }),
            None => {
                let names: Vec<_> = functions.iter().map(|(name, _)| name.as_str()).collect();
                Err(format!("there is no function {function:?}; there are {}", names.join(", ")))
            }
        }
    }

    /// Whether it is about findings of this class by the function with this name.
    pub fn covers(&self, class: FindingClass, name: &str) -> bool {
        self.class == class && self.function.as_deref().is_none_or(|function| function == name)
    }

    /// What it is about, without numbers: `CLASS[:FUNCTION]`.
    pub fn what(&self) -> String {
        Self { least: 1, most: u64::MAX, ..self.clone() }.to_string()
    }
}

impl fmt::Display for Expectation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, function) = (self.class.name(), self.function.as_deref());
        let words =
            guest_protocol::Expectation { class, function, min: self.least, max: self.most };
        words.fmt(f)
    }
}

impl FromStr for Expectation {
    type Err = String;

    /// `CLASS[:FUNCTION] [MIN [MAX]]`; without numbers, one or more.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = guest_protocol::Expectation::parse(text).map_err(|error| error.to_string())?;
        Self::of(&words)
    }
}

impl TryFrom<String> for Expectation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Expectation> for String {
    fn from(expectation: Expectation) -> Self {
        expectation.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expectation_covers_a_class_and_perhaps_one_function() {
        let of = |text: &str| text.parse::<Expectation>().unwrap();
        let functions =
            [("peer0".to_owned(), Bdf::new(1, 0, 0)), ("peer1".into(), Bdf::new(2, 0, 0))];
        let stale = FindingClass::Stale;
        assert!(of("iommu.stale").covers(stale, "peer0"));
        assert!(!of("iommu.stale").covers(FindingClass::Unmapped, "peer0"));
        for (function, covered) in
            [("peer0", true), ("01:00.0", true), ("peer1", false), ("02:00.0", false)]
        {
            let expectation = of(&format!("iommu.stale:{function}")).resolve(&functions).unwrap();
            assert_eq!(expectation.covers(stale, "peer0"), covered, "{function}");
        }
        let error = of("iommu.stale:peer2").resolve(&functions).unwrap_err();
        assert!(error.contains("peer0, peer1"), "{error}");
    }

    #[test]
    fn its_text_leads_back_to_it() {
        for text in
            ["iommu.stale", "iommu.stale:peer0", "pci.link-down:01:00.0 0", "iommu.stale 2 3"]
        {
            let expectation: Expectation = text.parse().unwrap();
            assert_eq!(expectation.to_string(), text);
            let json = serde_json::to_string(&expectation).unwrap();
            assert_eq!(serde_json::from_str::<Expectation>(&json).unwrap(), expectation);
        }
        assert_eq!("iommu.stale".parse::<Expectation>().unwrap().allowed().least, 0);
        let error = "iommu.stael".parse::<Expectation>().unwrap_err();
        assert!(error.contains("did you mean iommu.stale?"), "{error}");
        for wrong in ["", "iommu.stale:", "iommu.stale 3 2", "iommu.stale x"] {
            assert!(wrong.parse::<Expectation>().is_err(), "{wrong:?}");
        }
    }
}
