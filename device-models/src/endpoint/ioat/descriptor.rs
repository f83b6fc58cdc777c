//! What a descriptor asks for.

use super::regs::{descriptor as bit, error};

/// A descriptor's first 64 bytes, decoded and checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) operation: Operation,
    /// Bytes to move, 1 to 2^XFERCAP.
    pub(super) length: u64,
    /// The addresses that are read, those of a second descriptor still 0.
    pub(super) sources: Vec<u64>,
    pub(super) destination: u64,
    pub(super) next: u64,
    pub(super) interrupt: bool,
    pub(super) completion: bool,
    /// Places in the chain: 2 when a second descriptor holds more sources.
    pub(super) places: u16,
}

/// What is done with the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Operation {
    /// Nothing.
    #[default]
    Null,
    /// To the destination go the bytes of the source, or the XOR of the sources.
    Move,
    /// To the destination goes a pattern.
    Fill([u8; 8]),
    /// The XOR of all sources, the destination among them, must be 0.
    Check,
}

impl Work {
    /// Decodes `raw`; `longest` is the number of bytes of the longest transfer.
    ///
    /// # Errors
    /// The bits of CHANERR that the descriptor deserves.
    pub(super) fn parse(raw: &[u8; 64], longest: u64) -> Result<Self, u32> {
        let control = u32::from_le_bytes([raw[4], raw[5], raw[6], raw[7]]);
        let opcode = raw[7];
        let length = u64::from(u32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]));
        let mut work = Self {
            length,
            destination: word(raw, 2),
            next: word(raw, 3),
            interrupt: control & bit::INTERRUPT != 0,
            completion: control & bit::COMPLETION != 0,
            places: 1,
            ..Self::default()
        };
        match opcode {
            bit::COPY if control & bit::NULL != 0 => {}
            bit::COPY => {
                work.operation = Operation::Move;
                work.sources = vec![word(raw, 1)];
            }
            bit::FILL => work.operation = Operation::Fill(word(raw, 1).to_le_bytes()),
            bit::XOR | bit::XOR_CHECK => work.exclusive_or(raw, control)?,
            _ => return Err(error::CONTROL),
        }
        if length == 0 || length > longest {
            return Err(error::LENGTH);
        }
        Ok(work)
    }

    fn exclusive_or(&mut self, raw: &[u8; 64], control: u32) -> Result<(), u32> {
        let count = (control >> bit::SOURCES_SHIFT & 7) as usize + 2;
        if count > bit::SOURCES_MAX {
            return Err(error::CONTROL);
        }
        let here = [1, 4, 5, 6, 7];
        self.sources = here.iter().take(count).map(|&index| word(raw, index)).collect();
        self.sources.resize(count, 0);
        if count > bit::SOURCES_IN_FIRST {
            self.places = 2;
        }
        self.operation = Operation::Move;
        if raw[7] == bit::XOR_CHECK {
            self.operation = Operation::Check;
            self.sources.push(self.destination);
        }
        Ok(())
    }

    /// Takes the sources of the second descriptor over, and its link to the next.
    pub(super) fn extend(&mut self, raw: &[u8; 64]) {
        let check = usize::from(self.operation == Operation::Check);
        let more = self.sources.len().saturating_sub(bit::SOURCES_IN_FIRST + check);
        let rest = self.sources.iter_mut().skip(bit::SOURCES_IN_FIRST).take(more);
        for (index, source) in rest.enumerate() {
            *source = word(raw, index);
        }
        self.next = word(raw, 3);
    }

    /// Whether all that it touches lies inside the address space.
    ///
    /// # Errors
    /// The bits of CHANERR for what does not.
    pub(super) fn check_ranges(&self) -> Result<(), u32> {
        let outside = |address: u64| address.checked_add(self.length - 1).is_none();
        let mut bits = 0;
        if self.sources.iter().copied().any(outside) {
            bits |= error::SOURCE_ADDRESS;
        }
        if matches!(self.operation, Operation::Move | Operation::Fill(_))
            && outside(self.destination)
        {
            bits |= error::DESTINATION_ADDRESS;
        }
        if bits == 0 { Ok(()) } else { Err(bits) }
    }

    /// The first source and the destination in each other's place: bad hardware.
    pub(super) fn swap(&mut self) {
        if let (Operation::Move, [source, ..]) = (self.operation, &mut self.sources[..]) {
            std::mem::swap(source, &mut self.destination);
        }
    }
}

/// The 64-bit word `index`, 0 to 7.
fn word(raw: &[u8; 64], index: usize) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(&raw[index % 8 * 8..index % 8 * 8 + 8]);
    u64::from_le_bytes(bytes)
}
