//! Kernels whose rules are known.
//!
//! What p2pdma decides was compared in the sources of Linux 6.1.192, 6.12.117 and 7.3.4. The
//! decision itself, the distance, the rule about processors and which function stands for a host
//! bridge are the same in all three. These differ:
//!
//! | | 6.1 | 6.12 | 7.3 |
//! |---|---|---|---|
//! | host bridges listed | ten of Intel's | the same | fifteen more: Intel's accelerators, Google, NVIDIA |
//! | `pci=config_acs=` | no | yes, as in 7.3 since 6.12.23 | yes |
//! | `pci=disable_acs_redir=` | takes the redirection away | the function loses what Linux switched on besides, too | as in 6.12 |

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A kernel by whose rules the decision is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Version {
    /// Linux 6.1.
    #[serde(rename = "6.1")]
    V6_1,
    /// Linux 6.12.
    #[serde(rename = "6.12")]
    V6_12,
    /// Linux 7.3.
    #[default]
    #[serde(rename = "7.3")]
    V7_3,
}

/// Text that leads to no rules.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// It is not a release.
    #[error("{0:?} is not a kernel release; write 6.1, 6.12 or 7.3")]
    Form(String),
    /// Its rules were not read.
    #[error(
        "the rules of Linux {0} are not known here: they were read in the sources of 6.1, 6.12 and \
         7.3, and kernels before 6.1 differ"
    )]
    TooOld(String),
}

impl Version {
    /// All of them, the oldest first.
    pub const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::V7_3];

    const fn release(self) -> (u32, u32) {
        match self {
            Self::V6_1 => (6, 1),
            Self::V6_12 => (6, 12),
            Self::V7_3 => (7, 3),
        }
    }

    /// The rules for a release like `6.8.0-45-generic`: those of the newest known kernel that is not
    /// newer, and whether they were read in the sources of that very series.
    ///
    /// # Errors
    /// When it is not a release, or one before all known ones.
    pub fn nearest(release: &str) -> Result<(Self, bool), VersionError> {
        let short: String = release.chars().take(40).collect();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            return Err(VersionError::Form(short));
        };
        let wanted = (major, minor);
        let known = Self::ALL.into_iter().rfind(|version| version.release() <= wanted);
        let known = known.ok_or(VersionError::TooOld(short))?;
        Ok((known, known.release() == wanted))
    }

    /// Whether the kernel knows `pci=config_acs=`.
    pub(crate) fn has_config_acs(self) -> bool {
        self >= Self::V6_12
    }

    /// Whether `pci=disable_acs_redir=` leaves alone what Linux switches on besides redirection.
    pub(crate) fn disabling_keeps_the_rest(self) -> bool {
        self < Self::V6_12
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.release();
        write!(f, "{major}.{minor}")
    }
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        Self::nearest(text).map(|(version, _)| version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_lead_to_the_rules_of_the_kernel_before() {
        for (release, version, exact) in [
            ("6.1", Version::V6_1, true),
            ("6.1.0-28-amd64", Version::V6_1, true),
            ("6.8.0-45-generic", Version::V6_1, false),
            ("6.12.9", Version::V6_12, true),
            ("7.0.0-22-generic", Version::V6_12, false),
            ("7.3.4", Version::V7_3, true),
            ("8.0", Version::V7_3, false),
        ] {
            assert_eq!(Version::nearest(release), Ok((version, exact)), "{release}");
        }
        assert!(matches!(Version::nearest("5.15.0"), Err(VersionError::TooOld(_))));
        for text in ["", "6", "linux", "6.x", "99999999999.1"] {
            assert!(matches!(Version::nearest(text), Err(VersionError::Form(_))), "{text}");
        }
    }
}
