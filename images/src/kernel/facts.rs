//! A stock kernel's configuration, made fit for the compiler of this machine.
//!
//! Kconfig writes down two kinds of options: choices, and facts about the compiler, which decide which flags Kbuild
//! passes. A module for a stock kernel needs that kernel's choices to the letter, since they decide how structures
//! look, and this machine's facts, since an older compiler does not know all flags of the distribution's.

use std::fmt::Write as _;

use super::config::Options;

/// What the names of options about compiler, assembler and linker begin with.
const FACTS: &[&str] = &[
    "CONFIG_AS_",
    "CONFIG_CC_CAN_",
    "CONFIG_CC_HAS_",
    "CONFIG_CC_IMPLICIT_",
    "CONFIG_CC_IS_",
    "CONFIG_CC_NO_",
    "CONFIG_CC_OPT_",
    "CONFIG_CC_STRINGOP_",
    "CONFIG_CC_VERSION_TEXT",
    "CONFIG_CLANG_",
    "CONFIG_GCC_ASM_",
    "CONFIG_GCC_NO_",
    "CONFIG_GCC_VERSION",
    "CONFIG_LD_VERSION",
    "CONFIG_PAHOLE_VERSION",
];

/// Whether an option describes the compiler rather than the kernel.
fn is_fact(option: &str) -> bool {
    FACTS.iter().any(|fact| option.starts_with(fact))
}

/// Those options of a `.config` that are facts about the compiler.
pub(super) fn only(options: &Options) -> Options {
    let facts = options.iter().filter(|(name, value)| is_fact(name) && *value != "n");
    facts.map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// `include/config/auto.conf` with these facts in place of its own.
pub(super) fn adapt_auto_conf(text: &str, facts: &Options) -> String {
    let option = |line: &str| line.split_once('=').map(|(name, _)| name.to_owned());
    let mut adapted = without_facts(text, option);
    for (name, value) in facts {
        // Make takes a value as it stands there, so strings have no quotes. Writing to a string never fails.
        let _ = writeln!(adapted, "{name}={}", value.trim_matches('"'));
    }
    adapted
}

/// `include/generated/autoconf.h` with these facts in place of its own.
pub(super) fn adapt_header(text: &str, facts: &Options) -> String {
    let option = |line: &str| line.strip_prefix("#define ")?.split(' ').next().map(str::to_owned);
    let mut adapted = without_facts(text, option);
    for (name, value) in facts {
        let value = if value == "y" { "1" } else { value };
        let _ = writeln!(adapted, "#define {name} {value}");
    }
    adapted
}

fn without_facts(text: &str, option: impl Fn(&str) -> Option<String>) -> String {
    let kept = text.lines().filter(|line| option(line).is_none_or(|name| !is_fact(&name)));
    kept.fold(String::with_capacity(text.len()), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::super::config;
    use super::*;

    fn ours() -> Options {
        only(&config::parse(
            "CONFIG_GCC_VERSION=120200\nCONFIG_CC_HAS_ASM_GOTO=y\n# CONFIG_CC_HAS_KASAN is not set\n\
             CONFIG_CC_VERSION_TEXT=\"gcc 12\"\nCONFIG_SMP=n\nCONFIG_MODULES=y\n",
        ))
    }

    #[test]
    fn choices_stay_and_facts_are_this_machines() {
        let stock = "#\n# Automatically generated\n#\nCONFIG_SMP=y\nCONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=y\n\
                     CONFIG_GCC_VERSION=140200\nCONFIG_GCC_PLUGINS=y\nCONFIG_LDISC_AUTOLOAD=y\n";
        let adapted = adapt_auto_conf(stock, &ours());
        assert!(adapted.contains("CONFIG_SMP=y\n") && !adapted.contains("CONFIG_SMP=n"));
        assert!(adapted.contains("CONFIG_GCC_VERSION=120200\n") && !adapted.contains("140200"));
        assert!(adapted.contains("CONFIG_CC_VERSION_TEXT=gcc 12\n"));
        assert!(!adapted.contains("MIN_FUNCTION_ALIGNMENT") && !adapted.contains("CONFIG_MODULES"));
        // Choices whose names begin alike.
        assert!(adapted.contains("GCC_PLUGINS") && adapted.contains("LDISC_AUTOLOAD"));
    }

    #[test]
    fn the_header_says_the_same() {
        let stock = "/* x */\n#define CONFIG_SMP 1\n#define CONFIG_VIRTIO_IOMMU_MODULE 1\n\
                     #define CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT 1\n#define CONFIG_CC_VERSION_TEXT \"gcc-14 x\"\n";
        let adapted = adapt_header(stock, &ours());
        assert_eq!(
            adapted,
            "/* x */\n#define CONFIG_SMP 1\n#define CONFIG_VIRTIO_IOMMU_MODULE 1\n#define CONFIG_CC_HAS_ASM_GOTO 1\n\
             #define CONFIG_CC_VERSION_TEXT \"gcc 12\"\n#define CONFIG_GCC_VERSION 120200\n"
        );
    }
}
