//! Tests of the kernel's own that are known to fail here, and how many must pass; the initramfs brings the list along.

use serde::Deserialize;
use std::collections::BTreeMap;

/// Where the list lies.
const LIST: &str = "/lib/kselftests/known-failures.json";

#[derive(Debug, Deserialize)]
struct List {
    failure: Vec<Failure>,
    least: Least,
}

#[derive(Debug, Deserialize)]
struct Least {
    kernels: Vec<String>,
    config: String,
    passes: BTreeMap<String, usize>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    program: String,
    test: String,
    kernels: Vec<String>,
    reason: String,
}

/// The list.
#[derive(Debug, Default)]
pub(super) struct Known {
    failures: Vec<Failure>,
    /// Programs, and how many of their tests must pass.
    least: BTreeMap<String, usize>,
}

/// The list is there and cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{LIST}: {0}")]
pub(super) struct BadList(String);

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
        Self { failures: all.map(failure).collect(), least: BTreeMap::new() }
    }

    /// The same, and at least n tests of `program` must pass.
    #[cfg(test)]
    pub(super) fn with_least(mut self, program: &str, least: usize) -> Self {
        self.least.insert(program.to_owned(), least);
        self
    }

    /// The list that came along, as far as it is about this kernel. Without a list nothing is known to fail.
    ///
    /// # Errors
    /// When there is one that makes no sense.
    pub(super) fn load() -> Result<Self, BadList> {
        let Ok(text) = std::fs::read_to_string(LIST) else { return Ok(Self::default()) };
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Self::parse(&text, &release)
    }

    fn parse(text: &str, release: &str) -> Result<Self, BadList> {
        let list: List = serde_json::from_str(text).map_err(|error| BadList(error.to_string()))?;
        let concerns = |kernels: &[String]| {
            kernels.is_empty() || kernels.iter().any(|kernel| is_of(release, kernel))
        };
        let List { failure: mut failures, least: Least { kernels, config, passes } } = list;
        failures.retain(|failure| concerns(&failure.kernels));
        let is_ours = concerns(&kernels) && release.contains(&config);
        Ok(Self { failures, least: if is_ours { passes } else { BTreeMap::new() } })
    }

    /// How many tests of this program must pass.
    pub(super) fn least(&self, program: &str) -> usize {
        self.least.get(program).copied().unwrap_or(0)
    }

    /// The tests of this program that are known to fail.
    pub(super) fn tests<'a>(&'a self, program: &str) -> impl Iterator<Item = &'a str> {
        let of_program = move |failure: &&Failure| failure.program == program;
        self.failures.iter().filter(of_program).map(|failure| failure.test.as_str())
    }

    /// Why this test fails, if that is known.
    pub(super) fn reason(&self, program: &str, test: &str) -> Option<&str> {
        let same = |failure: &&Failure| failure.program == program && failure.test == test;
        self.failures.iter().find(same).map(|failure| failure.reason.as_str())
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
            {"program":"p","test":"c","kernels":[],"reason":"always"}],
            "least":{"kernels":["7.3"],"config":"-peerdma","passes":{"p":5}}}"#;
        let known = Known::parse(text, "7.3.4-peerdma").unwrap();
        assert_eq!(known.reason("p", "a"), Some("r"));
        assert_eq!(known.reason("p", "b"), None);
        assert_eq!(known.reason("p", "c"), Some("always"));
        assert_eq!(known.reason("q", "a"), None);
        assert_eq!((known.least("p"), known.least("q")), (5, 0));
        assert_eq!(known.tests("p").collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(Known::parse(text, "7.3.4-amd64").unwrap().least("p"), 0);
        assert_eq!(Known::parse(text, "6.12.1-peerdma-lts").unwrap().least("p"), 0);
        assert!(!is_of("7.30.1", "7.3") && is_of("7.3", "7.3"));
        assert!(Known::parse("{", "7.3").is_err());
    }
}
