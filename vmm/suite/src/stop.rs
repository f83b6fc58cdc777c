//! Which findings end a guest's run, or pause it: `--stop-on` and `--pause-on finding|fault|CLASS`.

use std::fmt;
use std::str::FromStr;

use device_models::checker::{Finding, FindingClass, Severity};
use peerdma_support::names::nearest_name;
use serde::{Deserialize, Serialize};

/// The word for any class.
const ANY: &str = "finding";
/// The word for what the IOMMU refuses to translate.
const FAULT: &str = "fault";
/// The classes of these.
const FAULTS: [FindingClass; 4] =
    [FindingClass::NoDomain, FindingClass::Unmapped, FindingClass::Stale, FindingClass::Permission];

/// What ends a guest's run, or pauses it. Findings that the running test expects, and suppressed ones, never do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum StopOn {
    /// Any finding; notes do not count.
    Finding,
    /// A request that the IOMMU refuses to translate.
    Fault,
    /// What has this class, notes included.
    Class(FindingClass),
}

impl StopOn {
    /// Whether it is about this one.
    pub fn covers(self, finding: &Finding) -> bool {
        match self {
            Self::Finding => finding.severity == Severity::Finding,
            Self::Fault => finding.severity == Severity::Finding && FAULTS.contains(&finding.class),
            Self::Class(class) => finding.class == class,
        }
    }
}

impl FromStr for StopOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            ANY => Ok(Self::Finding),
            FAULT => Ok(Self::Fault),
            class => parse_class(class).map(Self::Class),
        }
    }
}

/// Reads the name of a class.
///
/// # Errors
/// When there is none of that name; the sentence names the one that was probably meant.
pub fn parse_class(name: &str) -> Result<FindingClass, String> {
    name.parse().map_err(|error| {
        match nearest_name(name, FindingClass::ALL.iter().map(|class| class.name())) {
            Some(near) => format!("{error}; did you mean {near}?"),
            None => format!("{error}"),
        }
    })
}

/// A class by its name, for serde.
pub(crate) mod class_name {
    use device_models::checker::FindingClass;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        class: &FindingClass,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        out.serialize_str(class.name())
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(input: D) -> Result<FindingClass, D::Error> {
        super::parse_class(&String::deserialize(input)?).map_err(de::Error::custom)
    }
}

impl fmt::Display for StopOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Finding => ANY,
            Self::Fault => FAULT,
            Self::Class(class) => class.name(),
        })
    }
}

impl TryFrom<String> for StopOn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<StopOn> for String {
    fn from(stop: StopOn) -> Self {
        stop.to_string()
    }
}

#[cfg(test)]
mod tests {
    use device_models::checker::Cause;
    use device_models::pci::Bdf;

    use super::*;

    #[test]
    fn a_class_stops_at_notes_too_and_the_word_does_not() {
        let finding = |class, severity| Finding {
            class,
            severity,
            cause: Cause::Function,
            transaction: None,
            requester: Bdf::new(1, 0, 0),
            function: "peer0".into(),
            explanation: String::new(),
        };
        let stale = finding(FindingClass::Stale, Severity::Finding);
        let note = finding(FindingClass::MappingEdge, Severity::Note);
        let covers = |text: &str| {
            let stop: StopOn = text.parse().unwrap();
            assert_eq!(stop.to_string(), text);
            [stop.covers(&stale), stop.covers(&note)]
        };
        assert_eq!(covers("finding"), [true, false]);
        assert_eq!(covers("fault"), [true, false]);
        let late = finding(FindingClass::WitnessStale, Severity::Finding);
        assert!(!StopOn::Fault.covers(&late), "the IOMMU has let it through");
        assert_eq!(covers("iommu.stale"), [true, false]);
        assert_eq!(covers("iommu.mapping-edge"), [false, true]);
        let error = "iommu.stael".parse::<StopOn>().unwrap_err();
        assert!(error.contains("did you mean iommu.stale?"), "{error}");
    }
}
