//! Ranges of addresses.

use std::fmt;

/// An inclusive range of addresses. Unlike a half-open one it can end at `u64::MAX`; it is never
/// empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// The first address.
    pub first: u64,
    /// The last address, at least `first`.
    pub last: u64,
}

impl AddressRange {
    /// All addresses.
    pub const ALL: Self = Self { first: 0, last: u64::MAX };

    /// The range of `length` bytes from `first`; none for 0 bytes or past the end of the address
    /// space.
    #[must_use]
    pub fn new(first: u64, length: u64) -> Option<Self> {
        Some(Self { first, last: first.checked_add(length.checked_sub(1)?)? })
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        self.first <= address && address <= self.last
    }

    /// Whether the two ranges share an address.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }

    /// Whether the two ranges share an address, or one begins where the other ends.
    #[must_use]
    pub const fn touches(&self, other: &Self) -> bool {
        self.first <= other.last.saturating_add(1) && other.first <= self.last.saturating_add(1)
    }

    /// How far `address` is from the range; 0 inside of it.
    #[must_use]
    pub const fn distance(&self, address: u64) -> u64 {
        self.first.saturating_sub(address) + address.saturating_sub(self.last)
    }

    /// The smallest range that holds both.
    #[must_use]
    pub fn hull(&self, other: &Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }

    /// How many of `length` bytes from `address`, which lies in the range, lie in the range too.
    #[must_use]
    pub fn clip(&self, address: u64, length: u64) -> u64 {
        length.min((self.last - address).saturating_add(1))
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_may_end_with_the_address_space_and_not_wrap() {
        let end = AddressRange::new(u64::MAX - 0xfff, 0x1000).unwrap();
        assert_eq!((end.last, end.clip(u64::MAX, 64)), (u64::MAX, 1));
        assert_eq!(AddressRange::new(u64::MAX, 2), None);
        assert_eq!(AddressRange::new(0, 0), None);
        assert!(
            end.touches(&AddressRange::ALL) && end.hull(&AddressRange::ALL) == AddressRange::ALL
        );
    }

    #[test]
    fn neighbours_touch_and_do_not_overlap() {
        let range = |first, last| AddressRange { first, last };
        let page = range(0x1000, 0x1fff);
        assert!(page.touches(&range(0x2000, 0x2fff)) && !page.overlaps(&range(0x2000, 0x2fff)));
        assert!(page.touches(&range(0, 0xfff)) && !page.touches(&range(0, 0xffe)));
        assert!(page.overlaps(&range(0x1fff, 0x1fff)) && !page.touches(&range(0x2001, 0x2001)));
    }
}
