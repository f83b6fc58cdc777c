//! The kernel's configuration: beside the kernel as distributions have it (and as peerdma puts it into the initramfs),
//! or where the kernel itself has it (`CONFIG_IKCONFIG_PROC`).

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::OnceLock;

/// The value of an option such as `CONFIG_PCI_P2PDMA`: `y`, `m`, a number, a string. `None` when it is not set, and
/// also when this kernel's configuration is unknown: the caller must then probe.
pub fn option(name: &str) -> Option<&'static str> {
    options().get(name).map(String::as_str)
}

/// Whether this kernel's configuration is known.
pub fn is_known() -> bool {
    !options().is_empty()
}

fn options() -> &'static BTreeMap<String, String> {
    static OPTIONS: OnceLock<BTreeMap<String, String>> = OnceLock::new();
    OPTIONS.get_or_init(|| parse(&text().unwrap_or_default()))
}

fn text() -> Option<String> {
    let release = super::read("/proc/sys/kernel/osrelease").unwrap_or_default();
    std::fs::read_to_string(format!("/boot/config-{}", release.trim())).ok().or_else(packed)
}

/// Unpacked by busybox: once, only when asked for, and no decompressor to carry along.
fn packed() -> Option<String> {
    if !std::path::Path::new("/proc/config.gz").exists() {
        return None;
    }
    let output = Command::new("zcat")
        .arg("/proc/config.gz")
        .env("PATH", "/bin:/usr/bin:/sbin")
        .output()
        .ok()?;
    String::from_utf8(output.stdout).ok()
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn options_are_read() {
        let options = parse("# comment\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"text\"\n");
        assert_eq!(options.get("CONFIG_A").map(String::as_str), Some("y"));
        assert_eq!(options.get("CONFIG_B"), None);
        assert_eq!(options.get("CONFIG_C").map(String::as_str), Some("text"));
    }
}
