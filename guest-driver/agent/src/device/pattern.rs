//! Test data that can be computed at any place.

/// A sequence of bytes in which every eight-byte word is different, and different for every seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pattern(u64);

impl Pattern {
    /// The sequence number `seed`.
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }

    /// The word number `index`: bytes `8 * index` to `8 * index + 7`, little endian.
    pub const fn word(self, index: u64) -> u64 {
        // One multiplication: this runs for every word on a machine that is emulated twice.
        index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.0
    }

    /// The byte at `position`.
    pub const fn byte(self, position: u64) -> u8 {
        self.word(position / 8).to_le_bytes()[(position % 8) as usize]
    }

    /// The eight bytes from `position` on, little endian.
    pub const fn word_at(self, position: u64) -> u64 {
        let shift = position % 8 * 8;
        let low = self.word(position / 8);
        if shift == 0 { low } else { low >> shift | self.word(position / 8 + 1) << (64 - shift) }
    }
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn words_and_bytes_agree_everywhere() {
        let pattern = Pattern::new(7);
        for position in 0..100 {
            let word = pattern.word_at(position).to_le_bytes();
            for (index, byte) in (position..).zip(word) {
                assert_eq!(pattern.byte(index), byte, "position {position}");
            }
        }
    }

    #[test]
    fn seeds_and_places_differ() {
        assert_ne!(Pattern::new(1).word(0), Pattern::new(2).word(0));
        assert_ne!(Pattern::new(1).word(0), Pattern::new(1).word(1));
    }
}
