//! The answer to `stat`: the monitor's counters.

use serde_json::Value;

/// Counters of the monitor at one moment: a JSON object of whole numbers and objects of them. The tests use these, and
/// say so when one is missing; what else there is they leave alone. Functions are named without the segment, `01:00.0`.
///
/// - `live_mappings`: mappings that the IOMMU holds now, over all its domains;
/// - `msi/FUNCTION`: interrupts of this function that were signalled to a CPU;
/// - `read/FUNCTION/ROUTE`, `written/FUNCTION/ROUTE`: bytes that this function read and wrote by this route;
/// - `tlps/FUNCTION`: requests that this function emitted, of any kind and whatever became of them;
/// - `findings/FUNCTION`: what the checker found about it, where that is not nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stat(Value);

impl Stat {
    /// Takes the JSON apart.
    ///
    /// # Errors
    /// What the parser did not like, with its position.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<serde_json::Map<String, Value>>(text)
            .map(|map| Self(Value::Object(map)))
    }

    /// The counter at a path such as `live_mappings` or `msi/01:00.0`: keys from the outside in, joined by `/`.
    /// `None` when it is not there or is no whole number.
    pub fn counter(&self, path: &str) -> Option<u64> {
        path.split('/').try_fold(&self.0, |value, key| value.get(key))?.as_u64()
    }

    /// The sum of all counters of the object at `path`: 0 when there is none.
    pub fn total(&self, path: &str) -> u64 {
        let object = path
            .split('/')
            .try_fold(&self.0, |value, key| value.get(key))
            .and_then(Value::as_object);
        object.map_or(0, |object| object.values().filter_map(Value::as_u64).sum())
    }
}

impl std::fmt::Display for Stat {
    /// The object, indented for people.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::Stat;

    #[test]
    fn counters_are_found_by_path() {
        let stat = Stat::parse(r#"{"live_mappings":3,"msi":{"01:00.0":7,"text":"x"}}"#).unwrap();
        assert_eq!(stat.counter("live_mappings"), Some(3));
        assert_eq!(stat.counter("msi/01:00.0"), Some(7));
        assert_eq!(stat.counter("msi/02:00.0"), None);
        assert_eq!(stat.counter("msi/text"), None);
        assert_eq!(stat.counter("msi"), None);
        assert_eq!(stat.total("msi"), 7);
        assert_eq!(stat.total("findings"), 0);
    }

    #[test]
    fn only_an_object_is_an_answer() {
        assert!(Stat::parse("3").is_err());
        assert!(Stat::parse("").is_err());
    }
}
