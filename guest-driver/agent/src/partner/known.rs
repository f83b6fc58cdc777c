//! Tests of the kernel's own that are known to fail here; the initramfs brings the list along.

use serde::Deserialize;

/// Where the list lies.
const LIST: &str = "/lib/kselftests/known-failures.json";

#[derive(Debug, Deserialize)]
struct List {
    failure: Vec<Failure>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    program: String,
    test: String,
    kernels: Vec<String>,
    reason: String,
}

/// The list.
#[derive(Debug)]
pub struct Known(Vec<Failure>);

/// The list is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{LIST}: {0}")]
pub struct BadList(String);

impl Known {
    /// A list of (program, test, reason), for tests.
    #[cfg(test)]
    pub(super) fn new<'a>(all: impl Iterator<Item = (&'a str, &'a str, &'a str)>) -> Self {
        let failure = |(program, test, reason): (&str, &str, &str)| Failure {
            program: program.to_owned(),
            test: test.to_owned(),
            kernels: Vec::new(),
            reason: reason.to_owned(),
        };
        Self(all.map(failure).collect())
    }

    /// The list that came along, as far as it is about this kernel. Without a list nothing is known to fail.
    ///
    /// # Errors
    /// When there is one that makes no sense.
    pub fn load() -> Result<Self, BadList> {
        let Ok(text) = std::fs::read_to_string(LIST) else { return Ok(Self(Vec::new())) };
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::parse(&text, &release)
    }

    fn parse(text: &str, release: &str) -> Result<Self, BadList> {
        let list: List = serde_json::from_str(text).map_err(|error| BadList(error.to_string()))?;
        let concerns = |failure: &Failure| {
            failure.kernels.is_empty()
                || failure.kernels.iter().any(|kernel| is_of(release, kernel))
        };
        Ok(Self(list.failure.into_iter().filter(concerns).collect()))
    }

    /// Why this test fails, if that is known.
    pub fn reason(&self, program: &str, test: &str) -> Option<&str> {
        let same = |failure: &&Failure| failure.program == program && failure.test == test;
        self.0.iter().find(same).map(|failure| failure.reason.as_str())
    }
}

/// Whether a release such as `7.3.4-peerdma` is one of `7.3`: not by the digits of `7.30`.
fn is_of(release: &str, kernel: &str) -> bool {
    release.strip_prefix(kernel).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_about_this_kernel_counts() {
        let text = r#"{"failure":[
            {"program":"p","test":"a","kernels":["7.3"],"reason":"r"},
            {"program":"p","test":"b","kernels":["6.12","7.2"],"reason":"r"},
            {"program":"p","test":"c","kernels":[],"reason":"always"}]}"#;
        let known = Known::parse(text, "7.3.4-peerdma").unwrap();
        assert_eq!(known.reason("p", "a"), Some("r"));
        assert_eq!(known.reason("p", "b"), None);
        assert_eq!(known.reason("p", "c"), Some("always"));
        assert_eq!(known.reason("q", "a"), None);
        assert!(!is_of("7.30.1", "7.3") && is_of("7.3", "7.3"));
        assert!(Known::parse("{", "7.3").is_err());
    }
}
