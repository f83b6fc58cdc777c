//! Bus, device and function numbers (PCIe Base 6.0, section 2.2.6.2).

use std::fmt;
use std::str::FromStr;

/// The address of a function, which is also the requester ID of the transactions it issues:
/// bus in bits 15:8, device in bits 7:3, function in bits 2:0.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf(pub u16);

impl Bdf {
    /// The function `bus:device.function`. Only the low five bits of `device` and the low three
    /// of `function` exist; others are ignored.
    #[must_use]
    pub const fn new(bus: u8, device: u8, function: u8) -> Self {
        Self((bus as u16) << 8 | ((device & 0x1f) as u16) << 3 | (function & 7) as u16)
    }

    /// The bus number, 0 to 255.
    #[must_use]
    pub const fn bus(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The device number, 0 to 31.
    #[must_use]
    pub const fn device(self) -> u8 {
        self.devfn() >> 3
    }

    /// The function number, 0 to 7.
    #[must_use]
    pub const fn function(self) -> u8 {
        self.devfn() & 7
    }

    /// Device and function number together, as in bits 7:0 of the requester ID.
    #[must_use]
    pub const fn devfn(self) -> u8 {
        self.0.to_be_bytes()[1]
    }
}

impl fmt::Display for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}:{:02x}.{:x}", self.bus(), self.device(), self.function())
    }
}

impl fmt::Debug for Bdf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not the address of a function.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is not a PCI address; write bus:device.function in hexadecimal, for instance 01:00.0"
)]
pub struct ParseBdfError(String);

impl FromStr for Bdf {
    type Err = ParseBdfError;

    /// Reads `bb:dd.f`, or `0000:bb:dd.f` as Linux prints it (the system has one segment, 0).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseBdfError(text.chars().take(40).collect());
        let number = |digits: &str, most: usize, limit: u8| {
            let plain = (1..=most).contains(&digits.len())
                && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let value = if plain { u8::from_str_radix(digits, 16).ok() } else { None };
            value.filter(|value| *value <= limit).ok_or_else(error)
        };
        let address = text.strip_prefix("0000:").unwrap_or(text);
        let (bus, rest) = address.split_once(':').ok_or_else(error)?;
        let (device, function) = rest.split_once('.').ok_or_else(error)?;
        Ok(Self::new(number(bus, 2, 0xff)?, number(device, 2, 0x1f)?, number(function, 1, 7)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_requester_id_has_them() {
        let bdf = Bdf::new(0xab, 0x1f, 7);
        assert_eq!(bdf, Bdf(0xabff));
        assert_eq!((bdf.bus(), bdf.device(), bdf.function()), (0xab, 0x1f, 7));
        assert_eq!(Bdf::new(1, 2, 3).devfn(), 0x13);
    }

    #[test]
    fn every_address_survives_its_text() {
        for id in 0..=u16::MAX {
            assert_eq!(Bdf(id).to_string().parse(), Ok(Bdf(id)));
        }
        assert_eq!("0000:01:00.0".parse(), Ok(Bdf::new(1, 0, 0)));
    }

    #[test]
    fn nonsense_is_refused_with_the_way_out() {
        for text in ["", "01", "01:00", "01:00.8", "01:20.0", "100:00.0", "+1:00.0", "01:0 .0"] {
            let error = text.parse::<Bdf>().expect_err(text);
            assert!(error.to_string().contains("01:00.0"), "{error}");
        }
    }
}
