//! Suppressions: findings that are known and do not fail a test, each with the reason. docs/findings.md describes the
//! file.

use std::fmt;
use std::io::Read;
use std::path::Path;

use device_models::checker::FindingClass;
use device_models::pci::Bdf;
use serde::{Deserialize, Serialize};

use crate::stop::parse_class;

/// Most bytes of a file.
const MAX_FILE: u64 = 1 << 20;
/// Most suppressions of one run.
const MAX_SUPPRESSIONS: usize = 1000;
/// Any function, or any test.
const ANY: &str = "*";
/// The form of a line.
const FORM: &str = "CLASS [FUNCTION [TEST]] # REASON";

/// One suppression.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The class.
    #[serde(with = "crate::stop::class_name")]
    pub class: FindingClass,
    /// Only findings about functions whose name matches, or whose requester ID is this.
    pub function: String,
    /// Only findings in tests whose name matches, with the scenario's before it and a slash or without.
    pub test: String,
    /// Why.
    pub reason: String,
    /// Where it stands: the file and its line.
    pub place: String,
}

impl Suppression {
    /// Reads a line; none from one that is empty or a comment.
    ///
    /// # Errors
    /// What is wrong with it, without the place.
    pub fn parse(line: &str, place: &str) -> Result<Option<Self>, String> {
        let (words, reason) = match line.split_once('#') {
            Some((words, reason)) => (words, reason.trim()),
            None => (line, ""),
        };
        let mut words = words.split_whitespace();
        let Some(class) = words.next() else { return Ok(None) };
        let class = parse_class(class)?;
        let function = words.next().unwrap_or(ANY).to_owned();
        let test = words.next().unwrap_or(ANY).to_owned();
        if let Some(word) = words.next() {
            return Err(format!("{word:?} is one word too many: a line is {FORM}"));
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_*?".contains(c);
        if !function.chars().all(plain) && function.parse::<Bdf>().is_err() {
            return Err(format!(
                "{function:?} is not a function's name, BUS:DEVICE.FUNCTION or a pattern; for a test write {class} {ANY} {function}"
            ));
        }
        if reason.is_empty() {
            return Err(format!("the reason is missing: a line is {FORM}"));
        }
        let (reason, place) = (reason.to_owned(), place.to_owned());
        Ok(Some(Self { class, function, test, reason, place }))
    }

    /// Reads all of `text`, which stands in `file`.
    ///
    /// # Errors
    /// What is wrong, with file and line.
    pub fn parse_all(text: &str, file: &str) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let place = format!("{file}:{}", index + 1);
            let parsed = Self::parse(line, &place).map_err(|error| format!("{place}: {error}"))?;
            all.extend(parsed);
        }
        if all.len() > MAX_SUPPRESSIONS {
            return Err(format!("{file}: more than {MAX_SUPPRESSIONS} suppressions"));
        }
        Ok(all)
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it cannot be read; what is wrong in it, with the line.
    pub fn load(path: &Path) -> Result<Vec<Self>, String> {
        let file = path.display().to_string();
        let mut text = String::new();
        let read = std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
            .map_err(|error| format!("suppression file {file}: {error}"))?;
        if read as u64 > MAX_FILE {
            return Err(format!("suppression file {file}: it is larger than 1 MiB"));
        }
        Self::parse_all(&text, &file)
    }

    /// Whether one of these functions is meant, by its name or by its address.
    pub fn is_about_one_of(&self, functions: &[(String, Bdf)]) -> bool {
        let bdf = self.function.parse::<Bdf>().ok();
        functions.iter().any(|(name, number)| Some(*number) == bdf || matches(&self.function, name))
    }

    /// The class, the function and the test, as a line has them.
    pub fn what(&self) -> String {
        match (self.function.as_str(), self.test.as_str()) {
            (ANY, ANY) => self.class.name().to_owned(),
            (function, ANY) => format!("{} {function}", self.class),
            (function, test) => format!("{} {function} {test}", self.class),
        }
    }
}

impl fmt::Display for Suppression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {}): {}", self.what(), self.place, self.reason)
    }
}

/// The suppressions of one guest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Suppressions {
    scenario: String,
    all: Vec<Suppression>,
}

impl Suppressions {
    /// With functions by name where they were given by number; `functions` has both.
    pub(crate) fn new(scenario: &str, all: &[Suppression], functions: &[(String, Bdf)]) -> Self {
        let resolve = |suppression: &Suppression| {
            let bdf = suppression.function.parse::<Bdf>().ok();
            let named = functions.iter().find(|(_, number)| Some(*number) == bdf);
            let function =
                named.map_or_else(|| suppression.function.clone(), |(name, _)| name.clone());
            Suppression { function, ..suppression.clone() }
        };
        Self { scenario: scenario.to_owned(), all: all.iter().map(resolve).collect() }
    }

    /// The first one that covers findings of this class about this function in this test; without a test, outside of
    /// all of them.
    pub(crate) fn find(
        &self,
        class: FindingClass,
        function: &str,
        test: Option<&str>,
    ) -> Option<&Suppression> {
        self.all.iter().find(|suppression| {
            let Suppression { function: functions, test: tests, .. } = suppression;
            let in_test = || match test {
                None => tests == ANY,
                Some(test) => {
                    matches(tests, test) || matches(tests, &format!("{}/{test}", self.scenario))
                }
            };
            suppression.class == class && matches(functions, function) && in_test()
        })
    }
}

/// Whether `text` is what `pattern` describes: `*` is any number of characters, `?` is one.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut seen) = (0, 0);
    // Behind the last star, and how much of the text it has taken: one more whenever the rest does not fit.
    let mut star = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at + 1, seen));
                at += 1;
            }
            Some(c) if *c == '?' || *c == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => match star {
                Some((behind, taken)) => {
                    (at, seen) = (behind, taken + 1);
                    star = Some((behind, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at).all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Suppression {
        Suppression::parse(line, "f:1").unwrap().unwrap()
    }

    #[test]
    fn a_line_has_a_class_perhaps_a_function_and_a_test_and_a_reason() {
        let one = parse("iommu.stale # known, bug 7 # still");
        assert_eq!((one.function.as_str(), one.test.as_str()), ("*", "*"));
        assert_eq!((one.reason.as_str(), one.place.as_str()), ("known, bug 7 # still", "f:1"));
        assert_eq!(parse("iommu.stale peer? a.*#x").what(), "iommu.stale peer? a.*");
        assert_eq!(parse(" iommu.stale\t01:00.0 #x").function, "01:00.0");
        for empty in ["", "  ", "# only a comment", "  # iommu.stale"] {
            assert_eq!(Suppression::parse(empty, "f:1"), Ok(None));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line() {
        for (line, part) in [
            ("iommu.stale", "the reason is missing"),
            ("iommu.stale #  ", "the reason is missing"),
            ("iommu.stael # x", "did you mean iommu.stale?"),
            ("iommu # x", "no finding class \"iommu\""),
            ("iommu.* # x", "no finding class"),
            ("iommu.stale a b c # x", "\"c\" is one word too many"),
            ("iommu.stale faults.x # y", "for a test write iommu.stale * faults.x"),
        ] {
            let error =
                Suppression::parse_all(&format!("# head\n\n{line}\n"), "s.txt").unwrap_err();
            assert!(error.starts_with("s.txt:3: ") && error.contains(part), "{line}: {error}");
        }
        let many = "iommu.stale # x\n".repeat(MAX_SUPPRESSIONS + 1);
        assert!(Suppression::parse_all(&many, "s").unwrap_err().contains("more than 1000"));
        let error = Suppression::load(Path::new("/no/such")).unwrap_err();
        assert!(error.starts_with("suppression file /no/such: "), "{error}");
        assert!(Suppression::load(Path::new("/dev/zero")).is_err());
    }

    #[test]
    fn one_class_function_or_test_does_not_hide_another() {
        let functions = [("peer0".to_owned(), Bdf::new(1, 0, 0))];
        let found = |line: &str, class, function, test| {
            let all = Suppressions::new("basic", &[parse(line)], &functions);
            all.find(class, function, test).is_some()
        };
        use FindingClass::{Stale, Unmapped, WitnessStale};
        let test = Some("faults.one");
        for (line, wanted) in [
            ("iommu.stale # x", [true, true, true, true]),
            ("iommu.stale peer0 # x", [true, false, true, true]),
            ("iommu.stale 01:00.0 # x", [true, false, true, true]),
            ("iommu.stale peer? # x", [true, true, true, true]),
            ("iommu.stale peer # x", [false; 4]),
            ("iommu.stale peer01 # x", [false; 4]),
            ("iommu.stale 02:00.0 # x", [false; 4]),
            ("iommu.stale * faults.* # x", [true, true, true, false]),
            ("iommu.stale * faults.one # x", [true, true, false, false]),
            ("iommu.stale * basic/faults.one # x", [true, true, false, false]),
            ("iommu.stale * matrix/faults.one # x", [false; 4]),
            ("iommu.stale * faults # x", [false; 4]),
        ] {
            let seen = [
                found(line, Stale, "peer0", test),
                found(line, Stale, "peer1", test),
                found(line, Stale, "peer0", Some("faults.two")),
                found(line, Stale, "peer0", None),
            ];
            assert_eq!(seen, wanted, "{line}");
            assert!(
                !found(line, Unmapped, "peer0", test) && !found(line, WitnessStale, "peer0", test)
            );
        }
    }

    #[test]
    fn patterns_match_whole_names_in_bounded_time() {
        for (pattern, text, wanted) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*c", "abcbc", true),
            ("a*c", "abcb", false),
            ("?", "", false),
            ("**b?", "aabc", true),
        ] {
            assert_eq!(matches(pattern, text), wanted, "{pattern} {text}");
        }
        assert!(!matches(&"*a".repeat(500), &"a".repeat(400)));
    }
}
