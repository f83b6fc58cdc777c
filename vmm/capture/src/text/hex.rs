//! Rows of hex dumps: those of `lspci -x`, `hexdump -C`, `od -t x1` and `xxd`.

/// Offset and bytes of a row.
pub(super) fn row(text: &str) -> Option<(usize, Vec<u8>)> {
    let (offset, rest) = text.split_once(char::is_whitespace)?;
    let colon = offset.strip_suffix(':');
    let digits = colon.unwrap_or(offset);
    let hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Without a colon it may be any number, so it needs the length that such programs print.
    let lengths = if colon.is_some() { 2..=8 } else { 6..=8 };
    if !lengths.contains(&digits.len()) || !hex(digits) {
        return None;
    }
    let offset = usize::from_str_radix(digits, 16).ok()?;
    let mut bytes = Vec::with_capacity(16);
    for word in rest.split_whitespace() {
        // xxd prints two bytes together; without a colon that would be a number, in the machine's order.
        let pair = word.len() == 4 && colon.is_some();
        if bytes.len() >= 16 || !hex(word) || !(word.len() == 2 || pair) {
            break;
        }
        for at in (0..word.len()).step_by(2) {
            bytes.push(u8::from_str_radix(&word[at..at + 2], 16).ok()?);
        }
    }
    (!bytes.is_empty()).then_some((offset, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_several_programs_are_read() {
        let start = |text: &str| row(text).map(|(offset, bytes)| (offset, bytes.len(), bytes[1]));
        let bytes = "86 80 30 20 06 04 10 00 04 00 04 06 00 00 81 00";
        assert_eq!(start(&format!("00: {bytes}")), Some((0, 16, 0x80)));
        assert_eq!(start(&format!("ff0: {bytes}")), Some((0xff0, 16, 0x80)));
        assert_eq!(start(&format!("00000010  {}  |..0 ......|", bytes)), Some((16, 16, 0x80)));
        assert_eq!(start(&format!("000010 {bytes}")), Some((16, 16, 0x80)));
        assert_eq!(
            start("00000010: 8680 3020 0604 1000 0400 0406 0000 8100  ..0 ...."),
            Some((16, 16, 0x80))
        );
        assert_eq!(start("40: 86 80 3"), Some((0x40, 2, 0x80)));
        for none in
            ["00:", "00: zz", "12 86 80", "0000000 8086 2030", "x: 86", "123456789: 86", "00: é6"]
        {
            assert_eq!(start(none), None, "{none}");
        }
    }
}
