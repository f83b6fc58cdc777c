//! What a kernel module says about itself: strings `KEY=VALUE` in its section `.modinfo`, each ended by a zero byte.

/// Longest value that is taken for one, in bytes.
const MAX_VALUE: usize = 256;

/// The value of `key` in a module's file; `None` if it has no such string.
pub(super) fn value<'a>(module: &'a [u8], key: &str) -> Option<&'a str> {
    let pattern = [b"\0", key.as_bytes(), b"="].concat();
    let starts = module.windows(pattern.len()).enumerate();
    starts.filter(|(_, window)| *window == pattern).find_map(|(start, _)| {
        let rest = module.get(start + pattern.len()..)?;
        let end = rest.iter().take(MAX_VALUE).position(|byte| *byte == 0)?;
        let text = str::from_utf8(rest.get(..end)?).ok()?;
        (!text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() || c == ' ')).then_some(text)
    })
}

/// Whether the file is an ELF file at all.
pub(super) fn is_elf(module: &[u8]) -> bool {
    module.starts_with(b"\x7fELF")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_between_zero_bytes() {
        let module = b"\x7fELF\0\0vermagic=7.3.0 SMP \0filename=x\0name=my_mod\0name=other\0";
        assert!(is_elf(module) && !is_elf(b"\x7fEL") && !is_elf(b""));
        assert_eq!(value(module, "name"), Some("my_mod"));
        assert_eq!(value(module, "vermagic"), Some("7.3.0 SMP "));
        for (bytes, found) in [
            (&b"name=x\0"[..], None),
            (b"\0name=", None),
            (b"\0name=x", None),
            (b"\0name=\0", None),
            (b"\0name=\x80\0\0name=y\0", Some("y")),
        ] {
            assert_eq!(value(bytes, "name"), found, "{bytes:?}");
        }
        let long = [b"\0name=", &vec![b'a'; 1 << 16][..], b"\0"].concat();
        assert_eq!(value(&long, "name"), None);
    }
}
