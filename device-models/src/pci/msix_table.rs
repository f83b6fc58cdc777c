//! The MSI-X table and the pending bit array of a function (section 7.7.2).

use super::capability::msi::MsiMessage;
use super::spec::msix::{VECTORS_MAX, entry};

/// The state of the MSI-X capability, which lives in the configuration space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsixFunction {
    /// MSI-X Enable.
    pub enabled: bool,
    /// Function Mask.
    pub masked: bool,
}

/// What became of an interrupt that a function raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// Send this message.
    Send(MsiMessage),
    /// Masked: the pending bit is set, and the message follows when the mask goes.
    Pending,
    /// MSI-X is not enabled: nothing happens.
    Disabled,
    /// There is no such vector.
    NoVector,
}

/// A table with its pending bits, filling a BAR of their own: the table at offset 0, the pending
/// bits at [`pending_offset`](Self::pending_offset).
#[derive(Clone, Debug)]
pub struct MsixTable {
    /// Address low and high, data, vector control.
    entries: Vec<[u32; 4]>,
    pending: Vec<u64>,
}

impl MsixTable {
    /// A table of `vectors` entries (at most 2048), all masked.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        let vectors = usize::from(vectors.min(VECTORS_MAX));
        let mut table =
            Self { entries: vec![[0; 4]; vectors], pending: vec![0; vectors.div_ceil(64)] };
        table.reset();
        table
    }

    /// Where the pending bits begin in the BAR, for a table of `vectors` entries: a page of 2 KiB
    /// after the table, so that a small one leaves the rest of the page to them.
    #[must_use]
    pub fn pending_offset(vectors: u16) -> u32 {
        (u32::from(vectors.min(VECTORS_MAX)) * 16).next_multiple_of(2048)
    }

    /// The smallest BAR that holds table and pending bits, in bytes: at least 4 KiB.
    #[must_use]
    pub fn bar_size(vectors: u16) -> u64 {
        let pending = u64::from(vectors.min(VECTORS_MAX)).div_ceil(64) * 8;
        (u64::from(Self::pending_offset(vectors)) + pending).next_power_of_two().max(4096)
    }

    /// Number of vectors.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        u16::try_from(self.entries.len()).unwrap_or(VECTORS_MAX)
    }

    /// As after a reset of the function: every entry zero and masked, nothing pending.
    pub fn reset(&mut self) {
        self.entries.fill([0, 0, 0, entry::MASKED]);
        self.pending.fill(0);
    }

    /// A read from the BAR. The specification allows aligned accesses of 4 and 8 bytes (section
    /// 7.7.2); any other is served byte by byte. What is neither table nor pending bits reads 0.
    pub fn read(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (0..).map(|i| offset.checked_add(i)).zip(data) {
            *byte = at.map_or(0, |at| self.byte(at));
        }
    }

    fn byte(&self, offset: u64) -> u8 {
        let pending = u64::from(Self::pending_offset(self.vectors()));
        let at = |offset: u64, len: u64| usize::try_from(offset / len).unwrap_or(usize::MAX);
        let lane = |offset: u64, len: u64| usize::try_from(offset % len).unwrap_or(0);
        if let Some(bits) = offset.checked_sub(pending) {
            let word = self.pending.get(at(bits, 8)).copied().unwrap_or(0);
            return word.to_le_bytes()[lane(bits, 8)];
        }
        let Some(found) = self.entries.get(at(offset, entry::LENGTH)) else { return 0 };
        found[lane(offset, entry::LENGTH) / 4].to_le_bytes()[lane(offset, 4)]
    }

    /// A write to the BAR. After it, [`take_pending`](Self::take_pending) gives the messages that
    /// became deliverable. Accesses other than aligned ones of 4 and 8 bytes are undefined by the
    /// specification and dropped, as are writes of pending bits.
    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let aligned = matches!(data.len(), 4 | 8) && offset.is_multiple_of(4);
        if !aligned || (data.len() == 8 && !offset.is_multiple_of(8)) {
            return;
        }
        for (dword, bytes) in (offset / 4..).zip(data.chunks_exact(4)) {
            let Ok(index) = usize::try_from(dword / 4) else { return };
            let Some(entry) = self.entries.get_mut(index) else { return };
            let Ok(value) = <[u8; 4]>::try_from(bytes).map(u32::from_le_bytes) else { return };
            match dword % 4 {
                // Address bits 1:0 must be 0 for a dword write (section 7.7.2.5).
                0 => entry[0] = value & !3,
                1 => entry[1] = value,
                2 => entry[2] = value,
                // The other bits are reserved, and preserved as 0 (section 7.7.2.8).
                _ => entry[3] = value & entry::MASKED,
            }
        }
    }

    /// Raises an interrupt on `vector`.
    pub fn raise(&mut self, vector: u16, function: MsixFunction) -> Raised {
        let index = usize::from(vector);
        let Some(&entry) = self.entries.get(index) else { return Raised::NoVector };
        if !function.enabled {
            return Raised::Disabled;
        }
        if function.masked || entry[3] & entry::MASKED != 0 {
            self.pending[index / 64] |= 1 << (index % 64);
            return Raised::Pending;
        }
        Raised::Send(message(entry))
    }

    /// The next pending vector that is no longer masked, whose pending bit is cleared thereby;
    /// call until `None` after a write to the table or to the MSI-X capability.
    pub fn take_pending(&mut self, function: MsixFunction) -> Option<(u16, MsiMessage)> {
        if !function.enabled || function.masked {
            return None;
        }
        let (words, entries) = (&mut self.pending, &self.entries);
        for (index, entry) in entries.iter().enumerate() {
            let bit = 1 << (index % 64);
            let word = &mut words[index / 64];
            if *word & bit != 0 && entry[3] & entry::MASKED == 0 {
                *word &= !bit;
                return Some((u16::try_from(index).ok()?, message(*entry)));
            }
        }
        None
    }

    /// Makes `vector` pending again: its message could not be sent.
    pub fn put_back(&mut self, vector: u16) {
        let index = usize::from(vector);
        if let Some(word) = self.pending.get_mut(index / 64).filter(|_| index < self.entries.len())
        {
            *word |= 1 << (index % 64);
        }
    }

    /// Whether an unmasked entry is exactly this message: what a function that writes to the
    /// interrupt window may write.
    #[must_use]
    pub fn owns(&self, address: u64, data: u32, function: MsixFunction) -> bool {
        let wanted = MsiMessage { address, data };
        function.enabled
            && !function.masked
            && self
                .entries
                .iter()
                .any(|entry| entry[3] & entry::MASKED == 0 && message(*entry) == wanted)
    }
}

/// Address and data of an entry.
fn message([low, high, data, _]: [u32; 4]) -> MsiMessage {
    MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
}

#[cfg(test)]
#[path = "msix_table_tests.rs"]
mod tests;
