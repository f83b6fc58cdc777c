//! Suggestions for a misspelt name.

/// The candidate that looks most like `name`, if any does.
pub fn nearest_name<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let name = name.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_none() {
        let names = ["matrix", "topology-switch"];
        assert_eq!(nearest_name("Matirx", names).as_deref(), Some("matrix"));
        assert_eq!(nearest_name("topology-swich", names).as_deref(), Some("topology-switch"));
        assert_eq!(nearest_name("qqq", names), None);
        assert_eq!(nearest_name("nope", ["topology-refused"]), None);
    }
}
