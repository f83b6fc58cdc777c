//! Where a function is: segment, bus, device, function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Segment (Linux: domain), bus, device and function number, written `0000:3a:00.0`.
///
/// A segment has more than 16 bits below Intel's VMD (`10000:e1:00.0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// PCI segment group; Linux calls it domain.
    pub segment: u32,
    /// Bus number.
    pub bus: u8,
    /// Device number, 0 to 31.
    pub device: u8,
    /// Function number, 0 to 7.
    pub function: u8,
}

/// Not an address of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an address of a function; one looks like 0000:3a:00.0 or 3a:00.0")]
pub struct AddressError;

impl Address {
    /// The function with routing ID `id` (bus in the upper byte, then device and function) in `segment`.
    pub fn from_routing_id(segment: u32, id: u16) -> Self {
        let [bus, low] = id.to_be_bytes();
        Self { segment, bus, device: low >> 3, function: low & 7 }
    }

    /// Bus, device and function in 16 bits: what a request carries as its requester ID (PCIe 6.0, 2.2.6.2).
    pub fn routing_id(&self) -> u16 {
        u16::from_be_bytes([self.bus, self.device << 3 | self.function])
    }

    /// An address at the beginning of `text`, with or without a segment, and the rest of `text`.
    pub(crate) fn prefix(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !(c.is_ascii_hexdigit() || c == ':' || c == '.'));
        let mut word = &text[..end.unwrap_or(text.len())];
        // Written before a colon, as in a headline: `3a:00.0: ...`; or at the end of a sentence.
        word = word.trim_end_matches([':', '.']);
        Some((word.parse().ok()?, &text[word.len()..]))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { segment, bus, device, function } = self;
        write!(f, "{segment:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        parse(text).ok_or(AddressError)
    }
}

fn parse(text: &str) -> Option<Address> {
    let hex = |digits: &str, lengths: std::ops::RangeInclusive<usize>| {
        let fits = lengths.contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
    };
    let (rest, function) = text.rsplit_once('.')?;
    let (rest, device) = rest.rsplit_once(':')?;
    let (segment, bus) = rest.rsplit_once(':').unwrap_or(("0000", rest));
    let device = u8::try_from(hex(device, 2..=2)?).ok().filter(|device| *device < 32)?;
    let function = u8::try_from(hex(function, 1..=1)?).ok().filter(|function| *function < 8)?;
    let bus = u8::try_from(hex(bus, 2..=2)?).ok()?;
    Some(Address { segment: hex(segment, 4..=8)?, bus, device, function })
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|error| serde::de::Error::custom(format!("{text:?}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_lspci_writes_them() {
        let of = |text: &str| text.parse::<Address>().map(|address| address.to_string());
        assert_eq!(of("3a:00.0").as_deref(), Ok("0000:3a:00.0"));
        assert_eq!(of("0001:3A:1f.7").as_deref(), Ok("0001:3a:1f.7"));
        assert_eq!(of("10000:e1:00.0").as_deref(), Ok("10000:e1:00.0"));
        for wrong in ["", "3a:00", "3a:20.0", "3a:00.8", "3a:0.0", "1:3a:00.0", "00:00:3a:00.0"] {
            assert_eq!(of(wrong), Err(AddressError), "{wrong}");
        }
        for wrong in ["3a:00.00", "+3a:00.0", "3a:+1.0", "123456789:3a:00.0", "3a:00.0 ", "é:00.0"]
        {
            assert_eq!(of(wrong), Err(AddressError), "{wrong}");
        }
    }

    #[test]
    fn a_routing_id_leads_back() {
        let address: Address = "0002:81:1e.5".parse().unwrap();
        assert_eq!(address.routing_id(), 0x81f5);
        assert_eq!(Address::from_routing_id(2, 0x81f5), address);
    }

    #[test]
    fn an_address_may_begin_a_line() {
        let of = |text: &'static str| {
            Address::prefix(text).map(|(address, rest)| (address.to_string(), rest))
        };
        assert_eq!(of("3a:00.0 PCI"), Some(("0000:3a:00.0".into(), " PCI")));
        assert_eq!(of("3a:00.0: x"), Some(("0000:3a:00.0".into(), ": x")));
        assert_eq!(of("3a:00.0"), Some(("0000:3a:00.0".into(), "")));
        assert_eq!(of("3a:00.0/bus"), Some(("0000:3a:00.0".into(), "/bus")));
        assert_eq!(of("dead"), None);
        assert_eq!(of("3a:00.01 "), None);
    }
}
