//! What `images/kernel/source.toml` and its like say: which source package of which suite.

use serde::Deserialize;

use super::{Flavour, KernelError};

const CURRENT: &str = include_str!("../../kernel/source.toml");
const LTS: &str = include_str!("../../kernel/lts.toml");

/// The recipe for getting the kernel's source.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recipe {
    /// The suite's name in the archive.
    pub(super) suite: String,
    /// The archive area.
    pub(super) component: String,
    /// The keyring that verifies the suite's signature.
    pub(super) keyring: String,
    /// What the names of source packages begin with; a kernel series follows.
    pub(super) prefix: String,
    /// The oldest series that serves.
    pub(super) minimum: String,
    /// The newest series that serves; any when it is not given.
    #[serde(default)]
    pub(super) maximum: Option<String>,
    /// The version to prefer while it is there.
    pub(super) pin: Pin,
    /// How to unpack it.
    pub(super) unpack: Unpack,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pin {
    pub(super) package: String,
    pub(super) version: String,
    pub(super) sha256: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unpack {
    pub(super) exclude: Vec<String>,
}

impl Recipe {
    /// The project's own, for a flavour.
    pub(super) fn load(flavour: Flavour) -> Result<Self, KernelError> {
        toml::from_str(Self::text(flavour)).map_err(|error| KernelError::Recipe(error.to_string()))
    }

    /// The recipe as it is written: another text may mean another source.
    pub(super) fn text(flavour: Flavour) -> &'static str {
        match flavour {
            Flavour::Lab | Flavour::Debug | Flavour::Stock | Flavour::Gdb => CURRENT,
            Flavour::Lts => LTS,
        }
    }

    /// The series of a source package, when it is in the range that serves.
    pub(super) fn series(&self, package: &str) -> Option<(u32, u32)> {
        let series = series(package.strip_prefix(&self.prefix)?)?;
        let below = self.maximum.as_deref().is_none_or(|most| series <= series_or_zero(most));
        (below && series >= series_or_zero(&self.minimum)).then_some(series)
    }
}

fn series_or_zero(text: &str) -> (u32, u32) {
    series(text).unwrap_or((0, 0))
}

/// Reads MAJOR.MINOR.
fn series(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_project_recipes_are_whole() {
        for flavour in Flavour::ALL {
            let recipe = Recipe::load(flavour).unwrap();
            assert!(recipe.series(&recipe.pin.package).is_some());
            assert_eq!(recipe.pin.sha256.len(), 64);
            assert!(!recipe.unpack.exclude.iter().any(|pattern| pattern.contains("x86")));
        }
    }

    #[test]
    fn a_long_term_series_never_becomes_another() {
        let recipe = Recipe::load(Flavour::Lts).unwrap();
        assert_eq!(recipe.series("linux-source-6.12"), Some((6, 12)));
        assert_eq!(recipe.series("linux-source-6.13"), None);
        assert_eq!(recipe.series("linux-source-6.1"), None);
        assert_eq!(recipe.series("linux-source-7.3"), None);
    }

    #[test]
    fn series_are_numbers() {
        let recipe = Recipe::load(Flavour::Lab).unwrap();
        assert_eq!(recipe.series("linux-source-7.10"), Some((7, 10)));
        assert_eq!(recipe.series("linux-source-7.3"), Some((7, 3)));
        assert_eq!(recipe.series("linux-source-7.2"), None);
        assert_eq!(recipe.series("linux-source-6.12"), None);
        assert_eq!(recipe.series("linux-source"), None);
        assert_eq!(recipe.series("linux-source-7.x"), None);
        assert!(series("7.10") > series("7.3"));
    }
}
