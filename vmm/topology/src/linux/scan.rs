//! The kernel's `sscanf()`, as far as its readers of PCI parameters use it.

/// What is left to read.
pub(super) struct Scan<'t> {
    rest: &'t [u8],
}

impl<'t> Scan<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { rest: text.as_bytes() }
    }

    /// `%x` and, with 16 bits, `%hx`: digits after an optional `0x`; what is too large loses its
    /// upper bits.
    pub(super) fn hex(&mut self, bits: u32) -> Option<u64> {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        self.rest.first().and_then(digit)?;
        let digits = match self.rest {
            [b'0', b'x' | b'X', rest @ ..] => rest,
            all => all,
        };
        let count = digits.iter().take_while(|byte| digit(byte).is_some()).count();
        let value = digits[..count]
            .iter()
            .filter_map(digit)
            .fold(0_u64, |value, digit| value.wrapping_mul(16).wrapping_add(u64::from(digit)));
        self.rest = &digits[count..];
        Some(value & (u64::MAX >> (64 - bits)))
    }

    /// A character of the format.
    pub(super) fn literal(&mut self, wanted: u8) -> Option<()> {
        let (first, rest) = self.rest.split_first()?;
        (*first == wanted).then(|| self.rest = rest)
    }

    /// What nothing has read yet.
    pub(super) fn rest(self) -> &'t [u8] {
        self.rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_what_the_kernel_makes_of_them() {
        for (text, bits, value, left) in [
            ("1f:", 32, Some(0x1f), ":"),
            ("0x1F.", 32, Some(0x1f), "."),
            ("0X10", 32, Some(0x10), ""),
            ("0", 32, Some(0), ""),
            ("0x", 32, Some(0), ""),
            ("123456789a", 32, Some(0x3456_789a), ""),
            ("18086", 16, Some(0x8086), ""),
            ("x1", 32, None, "x1"),
            ("-1", 32, None, "-1"),
            ("", 32, None, ""),
        ] {
            let mut scan = Scan::new(text);
            assert_eq!(scan.hex(bits), value, "{text:?}");
            assert_eq!(scan.rest(), left.as_bytes(), "{text:?}");
        }
    }
}
