//! Tests of the kernel's own that are known to fail, and how many must pass: `vmm/suite/known-failures.toml`, handed to the
//! guest as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

const TEXT: &str = include_str!("../known-failures.toml");

/// The list, as the file has it and as the guest gets it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    #[serde(default)]
    failure: Vec<Failure>,
    least: Least,
}

/// How many tests of each program pass at the least.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Least {
    /// As for a failure.
    kernels: Vec<String>,
    /// A part of the release of kernels whose configuration this is about.
    config: String,
    /// The number, by program or KUnit suite.
    passes: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Failure {
    /// The program or KUnit suite.
    program: String,
    /// The test in it, as its report names it.
    test: String,
    /// Kernels for which this holds, by what their release begins with: `7.3` is every 7.3. Empty: all.
    #[serde(default)]
    kernels: Vec<String>,
    /// Why, for people.
    reason: String,
}

/// The list as the guest reads it.
///
/// # Errors
/// None for the file that comes with the program, which a test reads.
pub fn json() -> Result<Vec<u8>, toml::de::Error> {
    let list: List = toml::from_str(TEXT)?;
    // Strings and lists of them: this cannot fail.
    Ok(serde_json::to_vec(&list).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_each_test_once_with_a_reason() {
        let list: List = serde_json::from_slice(&json().unwrap()).unwrap();
        let mut names: Vec<_> =
            list.failure.iter().map(|failure| (&failure.program, &failure.test)).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(list.failure.iter().all(|failure| failure.reason.len() > 20));
        assert!(!list.least.passes.is_empty() && !list.least.config.is_empty());
        assert!(list.least.passes.values().all(|count| *count > 0));
    }
}
