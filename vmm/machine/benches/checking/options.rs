//! The command line of the bench.

/// What it can measure, each with a name of its own.
pub const GROUPS: [&str; 7] =
    ["copies", "ioat", "transactions", "witness", "mappings", "record", "memory"];

/// What it was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only ask whether it runs.
    pub quick: bool,
    /// A goal that is missed is a failure.
    pub strict: bool,
    /// Groups; all of them if there is none.
    pub chosen: Vec<String>,
}

impl Options {
    /// Reads the arguments behind the program's name. Nothing is passed over: a misspelt `--strict`
    /// would look as if all goals were met.
    pub fn read(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        for argument in arguments {
            match argument.as_str() {
                // From `cargo bench`.
                "--bench" => {}
                // As from `cargo test --benches`.
                "--test" => options.quick = true,
                "--strict" => options.strict = true,
                group if GROUPS.contains(&group) => options.chosen.push(argument),
                _ => {
                    let groups = GROUPS.join(", ");
                    return Err(format!("{argument:?} is neither --strict nor one of {groups}"));
                }
            }
        }
        Ok(options)
    }

    /// Whether the group of this name is to be measured.
    pub fn wants(&self, group: &str) -> bool {
        self.chosen.is_empty() || self.chosen.iter().any(|choice| choice == group)
    }

    /// Whether what comes of it is the whole of what there is to say.
    pub fn is_whole(&self) -> bool {
        !self.quick && self.chosen.is_empty()
    }
}
