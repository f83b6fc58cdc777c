//! Numbers, sizes, and places in objects, as they are typed.

use std::str::FromStr;

/// Bytes of something new: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// Bytes of a part: at least one.
pub(crate) type Length = Size;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (digits, shift) = match text.chars().last() {
            Some('k' | 'K') => (&text[..text.len() - 1], 10),
            Some('m' | 'M') => (&text[..text.len() - 1], 20),
            Some('g' | 'G') => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        let number = number(digits)?;
        match number.checked_shl(shift).filter(|bytes| bytes >> shift == number && *bytes > 0) {
            Some(bytes) => Ok(Self(bytes)),
            None => Err(format!("{text:?} is not a number of bytes from 1 to 2^64 - 1")),
        }
    }
}

/// A number, decimal or with 0x in front.
pub(crate) fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None if text.starts_with('+') => None,
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| format!("{text:?} is not a number, as 4096 or 0x1000"))
}

/// A place that work reads or writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operand {
    /// In an object, at an offset.
    Object {
        /// Its name.
        name: String,
        /// Bytes from its beginning.
        offset: u64,
    },
    /// At a DMA address, whatever is there.
    Address(u64),
}

impl FromStr for Operand {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.starts_with("0x") {
            return number(text).map(Self::Address);
        }
        let (name, offset) = match text.split_once('+') {
            Some((name, offset)) => {
                (name, offset.parse::<Size>().map(|size| size.0).or_else(|_| number(offset))?)
            }
            None => (text, 0),
        };
        check_name(name)?;
        Ok(Self::Object { name: name.to_owned(), offset })
    }
}

/// Whether an object can have this name: one that is not a number, and has none of the characters of operands.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ' ');
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(format!("{name:?} is not a name: letters, digits, `-`, `_` and `.`"));
    }
    if name.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
        return Err(format!("{name:?} is not a name: it begins with a digit or a dash"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in
            [("1", 1), ("4K", 4096), ("0x10", 16), ("2m", 2 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for wrong in ["", "0", "K", "-1", "+1", "1T", "0x", "99999999999G", "0x+1", "4 K"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn operands_are_objects_or_addresses() {
        let object = |name: &str, offset| Ok(Operand::Object { name: name.into(), offset });
        assert_eq!("m0".parse(), object("m0", 0));
        assert_eq!("m0+4K".parse(), object("m0", 4096));
        assert_eq!("m0+0".parse(), object("m0", 0));
        assert_eq!("a-b.c+0x10".parse(), object("a-b.c", 16));
        assert_eq!("0x1000".parse(), Ok(Operand::Address(4096)));
        for wrong in ["", "+4", "m0+", "m0+x", "0x", "0xg", "5", "a/b", "m\u{1b}", "-x"] {
            assert!(wrong.parse::<Operand>().is_err(), "{wrong:?}");
        }
    }
}
