//! The kernel's configuration: fragments of ours on top of `allnoconfig`, and the check that they
//! took effect.

use std::collections::BTreeMap;
use std::fmt;

use super::Flavour;

const LAB: &str = include_str!("../../kernel/lab.config");
const DEBUG: &str = include_str!("../../kernel/debug.config");
const GDB: &str = include_str!("../../kernel/gdb.config");
const LTS: &str = include_str!("../../kernel/lts.config");

/// Options by name (with `CONFIG_`), and their values as a `.config` writes them; `n` for "is not set".
pub(super) type Options = BTreeMap<String, String>;

/// The options that a flavour asks for.
pub(super) fn wanted(flavour: Flavour) -> Options {
    let mut options = parse(LAB);
    match flavour {
        Flavour::Lab | Flavour::Stock => {}
        Flavour::Debug => options.extend(parse(DEBUG)),
        Flavour::Lts => options.extend(parse(LTS)),
        Flavour::Gdb => options.extend(parse(GDB)),
    }
    options
}

/// Reads a `.config` or a fragment of one. Other lines than options are comments, as Kconfig has it.
pub(super) fn parse(text: &str) -> Options {
    text.lines().filter_map(option).collect()
}

fn option(line: &str) -> Option<(String, String)> {
    let line = line.trim();
    if let Some(comment) = line.strip_prefix('#') {
        let name = comment.trim_start().strip_suffix(" is not set")?;
        return name.starts_with("CONFIG_").then(|| (name.to_owned(), "n".to_owned()));
    }
    let (name, value) = line.split_once('=')?;
    name.starts_with("CONFIG_").then(|| (name.to_owned(), value.to_owned()))
}

/// `base` (a whole `.config`) with `wanted` in place of what it says about the same options.
pub(super) fn merge(base: &str, wanted: &Options) -> String {
    let mut text = String::with_capacity(base.len());
    let kept = base
        .lines()
        .filter(|line| option(line).is_none_or(|(name, _)| !wanted.contains_key(&name)));
    for line in kept {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&write(wanted));
    text
}

/// Options as Kconfig writes them.
pub(super) fn write(options: &Options) -> String {
    let line = |(name, value): (&String, &String)| match value.as_str() {
        "n" => format!("# {name} is not set\n"),
        value => format!("{name}={value}\n"),
    };
    options.iter().map(line).collect()
}

/// An option that did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its name.
    pub option: String,
    /// What was asked for.
    pub wanted: String,
    /// What Kconfig made of it; `n` too when it does not exist.
    pub actual: String,
}

/// Options that did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected(pub Vec<Refusal>);

impl std::error::Error for Rejected {}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "This kernel source does not take the lab's configuration:")?;
        for Refusal { option, wanted, actual } in &self.0 {
            write!(f, "\n  {option}={wanted} became {actual}")?;
        }
        write!(
            f,
            "\nEach of them depends on something that is off or no longer exists; `make menuconfig` in the source, then \
             `/`, shows on what. The lines are in images/kernel/."
        )
    }
}

/// Compares what came out of Kconfig with what was asked for.
pub(super) fn verify(wanted: &Options, result: &str) -> Result<(), Rejected> {
    let result = parse(result);
    let refused: Vec<Refusal> = wanted
        .iter()
        .filter_map(|(option, wanted)| {
            let actual = result.get(option).map_or("n", String::as_str);
            (actual != wanted).then(|| Refusal {
                option: option.clone(),
                wanted: wanted.clone(),
                actual: actual.to_owned(),
            })
        })
        .collect();
    if refused.is_empty() { Ok(()) } else { Err(Rejected(refused)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = "#\n# Linux/x86 7.3.4 Kernel Configuration\n#\nCONFIG_64BIT=y\n# CONFIG_SMP is not set\n\
                        CONFIG_LOCALVERSION=\"\"\n# CONFIG_KVM is not set\n";

    #[test]
    fn a_fragment_replaces_what_the_base_says() {
        let wanted = parse(
            "# why\nCONFIG_SMP=y\nCONFIG_LOCALVERSION=\"-x\"\nCONFIG_64BIT=n\nCONFIG_NEW=m\n",
        );
        let merged = merge(BASE, &wanted);
        assert_eq!(merged.matches("CONFIG_SMP").count(), 1);
        let options = parse(&merged);
        let get = |name: &str| options.get(name).map(String::as_str);
        assert_eq!(get("CONFIG_SMP"), Some("y"));
        assert_eq!(get("CONFIG_64BIT"), Some("n"));
        assert_eq!(get("CONFIG_LOCALVERSION"), Some("\"-x\""));
        assert_eq!(get("CONFIG_NEW"), Some("m"));
        assert_eq!(get("CONFIG_KVM"), Some("n"));
    }

    #[test]
    fn an_option_that_does_not_take_is_named() {
        let wanted = parse(
            "CONFIG_64BIT=y\nCONFIG_KVM=y\nCONFIG_GONE=m\nCONFIG_ABSENT=n\nCONFIG_LOCALVERSION=\"-x\"\n",
        );
        let error = verify(&wanted, BASE).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("\n  CONFIG_KVM=y became n\n"), "{text}");
        assert!(text.contains("\n  CONFIG_GONE=m became n\n"), "{text}");
        assert!(text.contains("\n  CONFIG_LOCALVERSION=\"-x\" became \"\"\n"), "{text}");
        assert_eq!(error.0.len(), 3, "{text}");
    }

    #[test]
    fn a_module_where_built_in_was_asked_for_did_not_take() {
        let error = verify(&parse("CONFIG_X=y"), "CONFIG_X=m\n").unwrap_err();
        assert_eq!(error.0[0].actual, "m");
        verify(&parse("CONFIG_X=m"), "CONFIG_X=m\n").unwrap();
    }

    #[test]
    fn the_debug_flavour_overrides_the_lab() {
        let (lab, debug) = (wanted(Flavour::Lab), wanted(Flavour::Debug));
        assert_eq!(lab["CONFIG_PROVE_LOCKING"], "n");
        assert_eq!(debug["CONFIG_PROVE_LOCKING"], "y");
        assert_eq!(lab["CONFIG_KVM_AMD"], "y");
        assert_eq!(debug["CONFIG_KVM_AMD"], "n");
        assert_eq!(debug["CONFIG_PCI_P2PDMA"], "y");
        assert_eq!(lab["CONFIG_X86_IOPL_IOPERM"], "y");
        assert!(lab.values().chain(debug.values()).all(|value| !value.is_empty()));
    }

    #[test]
    fn what_is_written_reads_the_same() {
        let options = wanted(Flavour::Debug);
        assert_eq!(parse(&write(&options)), options);
    }
}
