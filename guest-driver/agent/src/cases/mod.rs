//! The tests: what a test is, which there are, and which are wanted.
//!
//! Each test is a small function in the file of its group, named in the group's table together with what it needs of
//! kernel and VMM. What is missing makes it a SKIP that names the option; everything else that goes wrong is a failure.

mod bench;
mod bounce;
mod bugs;
mod need;
mod run;
mod watchdog;

mod busy;
mod copy;
mod cpu_access;
mod faults;
mod interrupts;
mod ioat;
mod lane;
mod leaks;
mod lifecycle;
mod lifetimes;
mod matrix;
mod misuse;
mod ordering;
mod partners;
pub mod provoke;
mod reprogramming;
mod seed;
mod stress;
mod surprise;
mod system;
mod topology;
mod traffic;

pub use bench::{Announced, Bench};
pub use need::Need;
pub use run::{Summary, run};

/// Why a test stops before its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Something is wrong.
    Fail(String),
    /// This guest cannot answer the question.
    Skip(String),
}

impl Stop {
    /// The same, with what it is about in front if something is wrong.
    fn of(self, what: &str) -> Self {
        match self {
            Self::Fail(why) => Self::Fail(format!("{what}: {why}")),
            skip @ Self::Skip(_) => skip,
        }
    }
}

/// Any error in a test is a failure of that test.
impl<E: std::error::Error> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fail(error.to_string())
    }
}

/// How a test ended.
pub type Verdict = Result<(), Stop>;

/// Fails the test unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($why:tt)+) => {
        if !$condition {
            return Err($crate::cases::Stop::Fail(format!($($why)+)));
        }
    };
}
pub(crate) use ensure;

/// What a test is about, which decides how it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything works; nothing is found.
    Positive,
    /// A rule is broken on purpose; it says what must be found, and traffic must go on afterwards.
    Negative,
    /// The kernel's own code has its say. Judged like a positive one, and wanted only by scenarios that carry what it
    /// takes.
    Partner,
}

impl Kind {
    /// Its name, which selects all tests of the kind.
    pub fn name(self) -> &'static str {
        match self {
            Self::Positive => "positive",
            Self::Negative => "negative",
            Self::Partner => "partner",
        }
    }
}

/// One test.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Its group.
    pub group: &'static str,
    /// Its name within the group.
    pub name: &'static str,
    /// Positive or negative.
    pub kind: Kind,
    /// What it cannot run without.
    pub needs: &'static [Need],
    /// The test itself.
    pub body: fn(&mut Bench<'_>) -> Verdict,
}

impl Case {
    const fn new(
        group: &'static str,
        name: &'static str,
        kind: Kind,
        needs: &'static [Need],
        body: fn(&mut Bench<'_>) -> Verdict,
    ) -> Self {
        Self { group, name, kind, needs, body }
    }

    /// `GROUP.NAME`, as in reports.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.group, self.name)
    }
}

/// All tests, in the order in which they run: first what only looks, last what takes devices away.
pub fn all() -> Vec<Case> {
    [
        system::CASES,
        topology::CASES,
        copy::CASES,
        interrupts::CASES,
        faults::CASES,
        lifecycle::CASES,
        partners::CASES,
        ioat::CASES,
        leaks::CASES,
        matrix::CASES,
        cpu_access::CASES,
        lifetimes::CASES,
        ordering::CASES,
        misuse::CASES,
        bugs::LEGAL,
        &bugs::bugs(),
        bounce::CASES,
        seed::CASES,
        stress::CASES,
        reprogramming::CASES,
        surprise::CASES,
    ]
    .concat()
}

/// A test that does not exist was asked for.
#[derive(Debug, thiserror::Error)]
#[error(
    "there is no test or group {name:?}; the groups are {groups}, `positive`, `negative` and `partner` take all of a kind, \
     and `guest-agent list` shows every test"
)]
pub struct Unknown {
    name: String,
    groups: String,
}

/// The tests that any of `wanted` names, in the order of the table: a group, `GROUP.NAME`, or a kind. No name at all
/// means all tests.
///
/// # Errors
/// When a name is that of no test, no group and no kind.
pub fn select(wanted: &[String]) -> Result<Vec<Case>, Unknown> {
    let all = all();
    let matches = |case: &Case, name: &str| {
        case.group == name || case.kind.name() == name || case.full_name() == name
    };
    for name in wanted {
        if !all.iter().any(|case| matches(case, name)) {
            let mut groups: Vec<_> = all.iter().map(|case| case.group).collect();
            groups.dedup();
            return Err(Unknown { name: name.clone(), groups: groups.join(", ") });
        }
    }
    let is_wanted =
        |case: &Case| wanted.is_empty() || wanted.iter().any(|name| matches(case, name));
    Ok(all.into_iter().filter(is_wanted).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_fit_into_a_ktap_line() {
        let names: Vec<_> = all().iter().map(Case::full_name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in names {
            assert!(
                name.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-'),
                "{name}"
            );
        }
    }

    #[test]
    fn a_group_stands_together() {
        let mut groups: Vec<_> = all().iter().map(|case| case.group).collect();
        groups.dedup();
        assert_eq!(groups.iter().collect::<BTreeSet<_>>().len(), groups.len(), "{groups:?}");
    }

    #[test]
    fn tests_are_chosen_by_group_and_by_name() {
        assert_eq!(select(&[]).unwrap().len(), all().len());
        let copies = select(&["copy".into()]).unwrap();
        assert!(!copies.is_empty() && copies.iter().all(|case| case.group == "copy"));
        let one = select(&[copies[0].full_name()]).unwrap();
        assert_eq!(one.len(), 1);
        let negative = select(&["negative".into(), "faults".into()]).unwrap();
        assert!(!negative.is_empty() && negative.iter().all(|case| case.kind == Kind::Negative));
        let error = select(&["copy.nonsense".into()]).unwrap_err().to_string();
        assert!(error.contains("copy.nonsense") && error.contains("faults"), "{error}");
    }

    #[test]
    fn every_negative_test_needs_the_lab_that_judges_it() {
        for case in all().iter().filter(|case| case.kind == Kind::Negative) {
            assert!(case.needs.contains(&Need::Vmm), "{}", case.full_name());
        }
    }
}
